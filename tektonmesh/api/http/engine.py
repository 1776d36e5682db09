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
from hypercorn.events import RawData
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
        app: Any = _in_one_piece(_one_at_a_time(make_app(operations)))
        self._app = wrap_app(app, BODY_SIZE_MAX, "asgi")
        self._context = WorkerContext(None)

    async def serve(self, sock: socket.socket, first: bytes, state: dict[str, Any]) -> None:
        """One connection until either side ends it; closes the socket."""
        tls = state.get("tls")
        stream: Any = _Begun(sock, first)
        state = {**state, "stream": stream}
        if tls is not None:
            plain = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            stream = trio.SSLStream(plain, tls, server_side=True)
        await _Server(self._app, self._config, self._context, state, stream)


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


def _in_one_piece(app: Any) -> Any:
    """`app` whose responses leave with their head and the first of their body in one write: by
    itself hypercorn writes twice, and whoever waits is woken twice."""

    async def ask(scope: Any, receive: Any, send: Any) -> None:
        stream: _Begun | None = scope.get("state", {}).pop("stream", None)
        if stream is None:
            await app(scope, receive, send)
            return

        async def held(message: Any) -> None:
            # A stream's head may be all that there is for a while, so only what tells its length
            # is held back.
            if message["type"] == "http.response.start" and _tells_length(message):
                stream.hold()
            await send(message)

        await app(scope, receive, held)

    return ask


class _Server(TCPServer):
    """Spares the turns of the loop that writing nothing would take: each costs as much as a
    write, and hypercorn ends every response so."""

    async def protocol_send(self, event: Any) -> None:
        idle = isinstance(event, RawData) and isinstance(self.stream, _Begun)
        if not idle or not self.stream.keeps(event.data):
            await super().protocol_send(event)


def _tells_length(message: Any) -> bool:
    return any(name.lower() == b"content-length" for name, _value in message.get("headers", ()))


class _Begun:
    """A stream whose first bytes have been read; the methods are those that TCPServer calls."""

    def __init__(self, sock: socket.socket, first: bytes) -> None:
        self.socket = trio.socket.from_stdlib_socket(sock)
        self._stream = trio.SocketStream(self.socket)
        self._first = first
        self._held: bytes | None = None

    async def receive_some(self, size: int) -> bytes:
        data, self._first = self._first, b""
        if data:
            return data
        return bytes(await self._stream.receive_some(size))

    def hold(self) -> None:
        """The next bytes are to leave with those after them."""
        self._held = b""

    def keeps(self, data: bytes) -> bool:
        """Whether there is nothing to write now: these bytes are held back, or there are none."""
        if self._held == b"":
            self._held = data
            return True
        return not data and self._held is None

    async def send_all(self, data: bytes) -> None:
        if self._held is not None:
            data, self._held = self._held + data, None
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
