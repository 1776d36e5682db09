"""Hypercorn around one accepted stream: the part of HTTP that is not ours to write.

It decides the limits of a connection. Hypercorn's own accept loop is not used, because the Unix
socket serves two dialects and the first bytes of each connection have been read.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import wrap_app

from tektonmesh.api.http.app import make_app
from tektonmesh.api.http.table import BODY_SIZE_MAX
from tektonmesh.api.operations import Operations

KEEP_ALIVE_S = 75.0
HANDSHAKE_S = 10.0


class Engine:
    """The application and what hypercorn needs to serve it."""

    def __init__(self, operations: Operations) -> None:
        self._config = Config()
        self._config.keep_alive_timeout = KEEP_ALIVE_S
        self._config.ssl_handshake_timeout = HANDSHAKE_S
        self._config.include_server_header = False
        self._config.accesslog = None
        self._config.errorlog = logging.getLogger(__name__)
        app: Any = _one_at_a_time(make_app(operations))
        self._app = wrap_app(app, BODY_SIZE_MAX, "asgi")
        self._context = WorkerContext(None)

    async def serve(self, sock: socket.socket, first: bytes, state: dict[str, Any]) -> None:
        """One connection until either side ends it; closes the socket."""
        tls = state.get("tls")
        stream: Any = _Begun(sock, first)
        if tls is not None:
            plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            stream = trio.SSLStream(plain, tls, server_side=True)
        await TCPServer(self._app, self._config, self._context, state, stream)


def _one_at_a_time(app: Any) -> Any:
    """`app` behind a refusal of requests that give their length in two ways. A proxy in front may
    go by the other one and take the rest for a request of its own (RFC 9112, 6.1); so the
    connection ends as well."""

    async def ask(scope: Any, receive: Any, send: Any) -> None:
        names = [name for name, _value in scope.get("headers", ())]
        twice = names.count(b"transfer-encoding") > 1
        if (
            not twice
            and not {b"content-length", b"transfer-encoding"} <= dict.fromkeys(names).keys()
        ):
            await app(scope, receive, send)
            return
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    return ask


class _Begun:
    """A stream whose first bytes have been read; the methods are those that TCPServer calls."""

    def __init__(self, sock: socket.socket, first: bytes) -> None:
        self.socket = trio.socket.from_stdlib_socket(sock)
        self._stream = trio.SocketStream(self.socket)
        self._first = first

    async def receive_some(self, size: int) -> bytes:
        data, self._first = self._first, b""
        if data:
            return data
        return bytes(await self._stream.receive_some(size))

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
