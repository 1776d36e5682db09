"""Where other stacks reach this one: binding, accepting, and letting strangers wait in line.

It decides which sockets there are and that nothing which happens on accept ends the daemon. Who
may knock how often is decided in `gate`, who is admitted by the handshake and `core/trust`.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
from collections.abc import Callable

import trio

from tektonmesh.errors import LocalError
from tektonmesh.net.addresses import (
    DEFAULT_PORT,
    is_near,
    join_address,
    parse_ip,
    split_address,
)
from tektonmesh.net.gate import Gate
from tektonmesh.net.link import Link, LinkContext, LinkRefused, accept_link
from tektonmesh.net.links import Links
from tektonmesh.net.log import clean

_LOG = logging.getLogger(__name__)

PORTS_TRIED = 100
BACKLOG = 256
ACCEPT_PAUSE_S = 0.1
"""After EMFILE and its like: the connection stays in the backlog, so trying at once would spin."""

SAY_AGAIN_S = 60.0

_NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_FAILURES = frozenset({"unreachable", "self", "wrong_identity", "protocol"})
_WILDCARDS = ("0.0.0.0", "::")


def bind_default() -> list[trio.socket.SocketType]:
    """0.0.0.0 and [::] on port 7700 or the next port that is free on both; at last on any."""
    for port in (*range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED), 0):
        bound: list[socket.socket] = []
        try:
            for host in _WILDCARDS:
                chosen = bound[0].getsockname()[1] if bound else port
                one = _bind_one(host, chosen)
                if one is not None:
                    bound.append(one)
        except OSError as error:
            for one in bound:
                one.close()
            if error.errno != errno.EADDRINUSE:
                raise _cannot_bind("0.0.0.0", port, error) from None
            continue
        if bound:
            return _listening(bound)
    raise LocalError("No port is free to listen on.", hint="Choose one with --listen HOST:PORT.")


async def bind_to(addresses: tuple[str, ...]) -> list[trio.socket.SocketType]:
    """Sockets on exactly these addresses. Raises LocalError that names the one which fails."""
    bound: list[socket.socket] = []
    try:
        for address in addresses:
            host, port = split_address(address)
            for numeric in await _numeric(host):
                try:
                    one = _bind_one(numeric, port)
                except OSError as error:
                    raise _cannot_bind(host, port, error) from None
                if one is None:
                    raise LocalError(f"This machine has no IPv6, so {address} cannot be used.")
                bound.append(one)
    except BaseException:
        for one in bound:
            one.close()
        raise
    return _listening(bound)


async def _numeric(host: str) -> list[str]:
    if parse_ip(host) is not None:
        return [host]
    try:
        found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LocalError(f"Cannot listen on '{host}': {error.strerror}.") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _bind_one(host: str, port: int) -> socket.socket | None:
    """A bound socket; None where IPv6 is asked for and the machine has none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        if family == socket.AF_INET6:
            return None
        raise
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        # Binding with REUSEADDR succeeds beside another bound socket; listening does not.
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if family == socket.AF_INET6 and error.errno == errno.EADDRNOTAVAIL and host == "::":
            return None
        raise
    return sock


def _cannot_bind(host: str, port: int, error: OSError) -> LocalError:
    return LocalError(
        f"Cannot listen on {join_address(host, port)}: {error.strerror}.",
        code="conflict" if error.errno == errno.EADDRINUSE else None,
        hint="Choose another with --listen HOST:PORT; port 0 takes any free one.",
    )


def _listening(bound: list[socket.socket]) -> list[trio.socket.SocketType]:
    for sock in bound:
        sock.setblocking(False)
    return [trio.socket.from_stdlib_socket(sock) for sock in bound]


def bound_addresses(sockets: list[trio.socket.SocketType]) -> list[tuple[str, int]]:
    """(host, port) of each socket, as bound: wildcards are still wildcards."""
    return [(str(sock.getsockname()[0]), int(sock.getsockname()[1])) for sock in sockets]


def from_this_machine(sock: trio.socket.SocketType, host: str) -> bool:
    """Loopback, or both ends have one address, as when stacks of one machine meet by its LAN
    address (the kernel then takes the target as the source)."""
    address = parse_ip(host)
    if address is not None and address.is_loopback:
        return True
    try:
        return str(sock.getsockname()[0]) == host
    except OSError:
        return False


class Listener:
    """Accepts on all sockets and takes each connection through its handshake."""

    def __init__(
        self,
        links: Links,
        context: Callable[[], LinkContext],
        spawn: Callable[..., None],
        *,
        near_only: bool = False,
    ) -> None:
        self._links = links
        self._context = context
        self._spawn = spawn
        self._near_only = near_only
        self._gate = Gate()
        self._said_at = -math.inf

    async def serve(self, sock: trio.socket.SocketType) -> None:
        """Accept for ever on one socket, and close it in the end."""
        with sock:
            while True:
                try:
                    accepted, where = await sock.accept()
                except OSError as error:
                    await self._cannot_accept(error)
                    continue
                self._knock(accepted, str(where[0]), int(where[1]))

    async def _cannot_accept(self, error: OSError) -> None:
        """Wait a little if it is our lack (descriptors, memory); the others are the caller's."""
        if error.errno not in _NO_RESOURCES:
            return
        now = trio.current_time()
        if now - self._said_at > SAY_AGAIN_S:
            self._said_at = now
            _LOG.warning("cannot accept connections: %s", error.strerror)
        await trio.sleep(ACCEPT_PAUSE_S)

    def _knock(self, sock: trio.socket.SocketType, host: str, port: int) -> None:
        local = from_this_machine(sock, host)
        if self._near_only and not is_near(host):
            refusal = "the test secret counts on near addresses only"
        else:
            refusal = self._gate.enter(host, trio.current_time(), local=local)
        if refusal:
            _LOG.debug("turned away %s: %s", join_address(host, port), refusal)
            sock.close()
            return
        self._spawn(self._welcome, sock, host, port, local)

    async def _welcome(
        self, sock: trio.socket.SocketType, host: str, port: int, local: bool
    ) -> None:
        address = join_address(host, port)
        try:
            link = await self._handshake(sock, address)
        finally:
            self._gate.leave(host, local=local)
        if link is not None:
            await self._links.serve(link, address)

    async def _handshake(self, sock: trio.socket.SocketType, address: str) -> Link | None:
        try:
            return await accept_link(sock, self._context())
        except LinkRefused as refusal:
            if refusal.code in _FAILURES:
                _LOG.debug("handshake with %s failed: %s", address, clean(refusal.detail))
            else:
                self._links.refused(refusal)
        except Exception:
            # Bytes from a stranger must not end the daemon, whatever they set off.
            _LOG.exception("fault in the handshake with %s", address)
        return None
