"""HTTP connections: hypercorn on streams that were accepted elsewhere, loaded when first needed.

The libraries cost a tenth of a second and ten megabytes, so a daemon that nobody speaks HTTP to
never imports them, and the import runs beside the loop. It decides where TCP may listen; who may
call is decided in `guard`, what is answered in `app`.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tektonmesh.api.operations import Operations
from tektonmesh.api.unix import CONNECTIONS_MAX, accept
from tektonmesh.api.validate import is_loopback
from tektonmesh.config import Config
from tektonmesh.errors import LocalError
from tektonmesh.net.addresses import join_address, split_address

if TYPE_CHECKING:
    from tektonmesh.api.http.engine import Engine
    from tektonmesh.api.http.oauth import ResourceServer

_LOG = logging.getLogger(__name__)
BACKLOG = 128


@asynccontextmanager
async def bound_tcp(config: Config) -> AsyncIterator[tuple[socket.socket, str]]:
    """The listening socket for `config.http` and its real `host:port`.

    Raises LocalError when that is not loopback or is taken.
    """
    assert config.http is not None
    host, port = split_address(config.http)
    if not is_loopback(host) and config.http_tls is None:
        raise LocalError(
            f"HTTP would be open to the network at {config.http}.",
            hint="Set http_cert and http_key for TLS, or serve loopback, such as 127.0.0.1:7780.",
        )
    host = "127.0.0.1" if host.lower().startswith("localhost") else host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setblocking(False)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise LocalError(
                f"HTTP cannot be served at {config.http}: {error.strerror}.",
                code="conflict",
                hint="Choose another address with --http, or `--http off`.",
            ) from None
        listener.listen(BACKLOG)
        try:
            yield listener, join_address(host, listener.getsockname()[1])
        finally:
            trio.lowlevel.notify_closing(listener.fileno())


class HttpServer:
    """Serves HTTP on whatever connection it is handed."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._engine: Engine | None = None
        config = operations.daemon.config
        self._tls = None if config.http is None else _tls_of(config)
        self._oauth = None if config.oauth is None else _oauth_of(config.oauth)
        self._loading = trio.Lock()

    async def serve_unix(self, sock: socket.socket, first: bytes, trusted: bool) -> None:
        """One connection of the owner's (or, not `trusted`, of a user whom the owner allowed);
        `first` was read from it already."""
        await (await self._loaded()).serve(sock, first, {"trusted": trusted})

    async def serve_tcp(self, listener: socket.socket, address: str) -> None:
        """Accept and serve on loopback, for ever; every request passes the guard."""
        from tektonmesh.api.http.guard import TcpGuard, make_token

        config = self._operations.daemon.config
        token = make_token(config.home)
        near = is_loopback(split_address(address)[0])
        guard = TcpGuard(
            token,
            address,
            tekton=config.tekton_root is not None and near,
            hosts=(*config.http_hosts, *(() if near else (split_address(address)[0],))),
            tls=config.http_tls is not None,
            known=self._scopes_of,
        )
        state = {"guard": guard, "tls": self._tls}
        places = trio.CapacityLimiter(CONNECTIONS_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                sock = await accept(listener)
                if not places.available_tokens:
                    sock.close()
                    continue
                places.acquire_on_behalf_of_nowait(sock)
                nursery.start_soon(self._serve_tcp_one, sock, state, places)

    def _scopes_of(self, text: str) -> tuple[str, ...] | None:
        """What a token of ours or of the OAuth issuer may do; None for one that is neither.
        Raises PolicyError for a JWT that is refused."""
        found = self._operations.daemon.tokens.find(text)
        if found is not None:
            return found.scopes
        return self._oauth.check(text) if self._oauth is not None and text.count(".") == 2 else None

    async def _serve_tcp_one(
        self, sock: socket.socket, state: dict[str, Any], places: trio.CapacityLimiter
    ) -> None:
        try:
            await (await self._loaded()).serve(sock, b"", state)
        except Exception:
            _LOG.exception("fault in serving an HTTP connection")
        finally:
            places.release_on_behalf_of(sock)
            if sock.fileno() >= 0:
                trio.lowlevel.notify_closing(sock.fileno())
                sock.close()

    async def _loaded(self) -> Engine:
        if self._engine is None:
            async with self._loading:
                if self._engine is None:
                    self._engine = await trio.to_thread.run_sync(_load, self._operations)
        return self._engine


def _tls_of(config: Config) -> ssl.SSLContext | None:
    """The side of TLS that we serve. Raises LocalError if the files are of no use."""
    if config.http_tls is None:
        return None
    cert, key = config.http_tls
    try:
        if key.stat().st_mode & 0o077:
            raise LocalError(f"{key} may be read by others.", hint=f"chmod 600 {key}")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise LocalError(f"The certificate of HTTP cannot be used: {error}.") from None
    return context


def _oauth_of(named: tuple[str, str, Path]) -> ResourceServer:
    from tektonmesh.api.http.oauth import ResourceServer

    return ResourceServer(*named)


def _load(operations: Operations) -> Engine:
    from tektonmesh.api.http.engine import Engine

    return Engine(operations)
