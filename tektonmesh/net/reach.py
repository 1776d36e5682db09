"""Calling local HTTP endpoints without becoming anybody's tool against other machines.

It decides which URLs may be called: Unix sockets, loopback, and hosts the owner allowed; no
redirects, no user information, no proxies. A name is resolved, every address is checked, and the
connection goes to the address that was checked, so that a second answer of the resolver cannot
lead elsewhere (docs/design/security.md).
"""

from __future__ import annotations

import importlib
import ipaddress
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

import trio

from tektonmesh.core.frozen import frozen
from tektonmesh.errors import DeliveryError, PolicyError
from tektonmesh.net.addresses import IpAddress, never_dialled, parse_ip, unwrap

if TYPE_CHECKING:
    import httpx

CONNECT_S = 3.0
UNIX_CLIENTS_MAX = 64
CONNECTIONS_MAX = 256
_UNIX_SCHEME = "http+unix"


@frozen
class Target:
    """A checked URL: `url` names a numeric host; `host` is what the Host header says; `socket` is
    the path of a Unix socket, or empty."""

    url: str
    host: str
    server_name: str
    socket: str


class Reach:
    """The HTTP clients of a daemon: one for TCP, one per Unix socket that was used lately."""

    def __init__(
        self, allowed_hosts: tuple[str, ...] = (), *, own_socket: Path | None = None
    ) -> None:
        self._own_socket = own_socket
        self._allowed = tuple(host.lower() for host in allowed_hosts)
        self._tcp: httpx.AsyncClient | None = None
        self._unix: dict[str, httpx.AsyncClient] = {}
        self._httpx: Any = None

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] = b"",
    ) -> AsyncIterator[httpx.Response]:
        """One exchange; the answer's body is still to be read. Raises PolicyError for a URL that
        may not be called and DeliveryError (`ci_offline`) if nobody answers there."""
        target = await self.check(url)
        client = await self._client(target.socket)
        library = self._httpx
        request = client.build_request(
            method,
            target.url,
            headers={**headers, "Host": target.host, "Accept-Encoding": "identity"},
            content=body,
            extensions={"sni_hostname": target.server_name} if target.server_name else {},
        )
        try:
            answer = await client.send(request, stream=True, follow_redirects=False)
        except (library.ConnectError, library.ConnectTimeout, library.PoolTimeout):
            raise DeliveryError("The CI's endpoint does not answer.", code="ci_offline") from None
        except library.TransportError:
            raise DeliveryError(
                "The CI's endpoint broke off the exchange.",
                code="ci_failed",
                outcome="indeterminate",
            ) from None
        try:
            yield answer
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await answer.aclose()

    async def check(self, url: str) -> Target:
        """Where `url` leads, if that may be called. Raises PolicyError if not."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise PolicyError("The endpoint is not a valid URL.") from None
        if parts.scheme == _UNIX_SCHEME:
            target = _unix_target(parts)
            if self._own_socket is not None and same_file(target.socket, self._own_socket):
                raise PolicyError("An endpoint cannot be this daemon's own socket.")
            return target
        if parts.scheme not in ("http", "https"):
            raise PolicyError(f"Endpoints are http, https or {_UNIX_SCHEME}, not {parts.scheme!r}.")
        host = parts.hostname or ""
        if parts.username is not None or parts.password is not None or not host:
            raise PolicyError("An endpoint needs a host, and no user or password before it.")
        chosen = await self._resolve(host, port or (443 if parts.scheme == "https" else 80))
        numeric = f"[{chosen}]" if ":" in str(chosen) else str(chosen)
        suffix = f":{port}" if port else ""
        path = parts.path or "/"
        query = f"?{parts.query}" if parts.query else ""
        shown = f"[{host}]" if ":" in host else host
        return Target(
            f"{parts.scheme}://{numeric}{suffix}{path}{query}",
            f"{shown}{suffix}",
            host if parts.scheme == "https" and parse_ip(host) is None else "",
            "",
        )

    async def _resolve(self, host: str, port: int) -> IpAddress:
        address = parse_ip(host)
        if address is not None:
            candidates = [address]
        elif not any(character.isalpha() for character in host) or host.lower().startswith("0x"):
            # `2130706433` and `0x7f.1` are addresses to the resolver and to nobody else.
            raise PolicyError("The endpoint's host is neither a name nor an ordinary address.")
        else:
            candidates = await _lookup(host, port)
        for candidate in candidates:
            if self._may_call(host, candidate):
                return candidate
        raise PolicyError(
            "The endpoint is not on this machine and its host is not allowed in the settings."
        )

    def _may_call(self, host: str, address: IpAddress) -> bool:
        inner = unwrap(address)
        if never_dialled(str(address)):
            return False
        if inner.is_loopback:
            # `unwrap` finds 127.0.0.1 behind NAT64 and 6to4 too; only the plain forms stay here.
            return address.is_loopback or inner == getattr(address, "ipv4_mapped", None)
        if inner.is_link_local:
            return False
        return host.lower() in self._allowed or str(address) in self._allowed

    async def _client(self, unix: str) -> httpx.AsyncClient:
        if self._httpx is None:
            # 0.2 s of imports: only for daemons with HTTP endpoints, and beside the loop.
            self._httpx = await trio.to_thread.run_sync(importlib.import_module, "httpx")
            for name in ("httpx", "httpcore"):
                # They log URLs; what local endpoints are called is nobody's business.
                logging.getLogger(name).setLevel(logging.CRITICAL)
        if not unix:
            self._tcp = self._tcp or self._new_client(None)
            return self._tcp
        client = self._unix.pop(unix, None) or self._new_client(unix)
        self._unix[unix] = client
        if len(self._unix) > UNIX_CLIENTS_MAX:
            oldest = next(iter(self._unix))
            await self._unix.pop(oldest).aclose()
        return client

    def _new_client(self, unix: str | None) -> httpx.AsyncClient:
        library = self._httpx
        limits = library.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=32)
        transport = library.AsyncHTTPTransport(uds=unix, limits=limits)
        # The caller's deadline bounds the whole exchange; only connecting has its own.
        timeout = library.Timeout(None, connect=CONNECT_S, pool=CONNECT_S)
        client: httpx.AsyncClient = library.AsyncClient(
            transport=transport, timeout=timeout, follow_redirects=False, trust_env=False
        )
        return client

    async def aclose(self) -> None:
        """Close every connection."""
        clients = [*self._unix.values(), *([self._tcp] if self._tcp else [])]
        self._unix, self._tcp = {}, None
        for client in clients:
            await client.aclose()


def same_file(path: str, own: Path) -> bool:
    """Whether `path` leads to `own`, by whatever links and spellings."""
    try:
        if os.path.realpath(path) == os.path.realpath(own):
            return True
        return os.path.samefile(path, own)
    except (OSError, ValueError):
        return False


def _unix_target(parts: SplitResult) -> Target:
    """`http+unix://%2Frun%2Fnuma.sock/api/message`: the host is the quoted path of the socket."""
    path = unquote(parts.netloc)
    if not path.startswith("/") or "\0" in path:
        raise PolicyError(f"Write the socket's whole path: {_UNIX_SCHEME}://%2Frun%2Fx.sock/path.")
    query = f"?{parts.query}" if parts.query else ""
    return Target(f"http://localhost{parts.path or '/'}{query}", "localhost", "", path)


async def _lookup(host: str, port: int) -> list[IpAddress]:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise DeliveryError("The endpoint's host has no address.", code="ci_offline") from None
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
