"""Calls of tools in the newest dialect over HTTP, without what the SDK builds around a request.

A `tools/call` of 2026-07-28 says all that it needs in itself, so most calls need no server, session
or stream of the SDK, which cost more than the way through the mesh. It decides which requests are
so plain that they can be answered here: whole, small, and right in all that the SDK checks, by its
own functions. Everything else, and whatever is wrong in any way, is handed to the SDK unread, so
that no refusal is worded here. What leans on provisional parts of the SDK is named in the imports.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import mcp_types as types
import trio
from mcp.server.runner import ServerRunner, modern_error_data
from mcp.server.streamable_http import check_accept_headers
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundModernRoute,
    classify_inbound_request,
    find_duplicated_routing_header,
    validate_mcp_param_headers,
)
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp_types.methods import validate_client_request
from mcp_types.version import LATEST_MODERN_VERSION
from pydantic import ValidationError
from starlette.requests import Request

from tektonmesh.api.tasks import helpers

if TYPE_CHECKING:
    from tektonmesh.mcp.gateway import Gateway

METHOD = "tools/call"
BODY_SIZE_MAX = 1 << 20
SIZE_DIGITS_MAX = 7
PING_S = 15.0
"""A call that takes longer is answered by a stream, in which a comment says this often that the
connection lives: proxies end those that are silent."""
_JSON = (b"content-type", b"application/json")
_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"connection", b"keep-alive"),
    (b"x-accel-buffering", b"no"),
]
_PING = b": ping\r\n\r\n"
_WANTED = {
    b"mcp-protocol-version": LATEST_MODERN_VERSION.encode(),
    b"mcp-method": METHOD.encode(),
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Direct:
    """The HTTP door of one face: answers plain calls, and leaves the rest to `otherwise`."""

    def __init__(
        self, gateway: Gateway, security: TransportSecuritySettings, otherwise: App
    ) -> None:
        self._gateway = gateway
        self._security = TransportSecurityMiddleware(security)
        self._otherwise = otherwise
        # It is asked for nothing but the form of results, which needs no connection.
        unconnected: Any = None
        self._runner: Any = ServerRunner(gateway.server, unconnected, None)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        size = _size_if_plain(scope)
        if size is None:
            await self._otherwise(scope, receive, send)
            return
        read = await _read(receive, size)
        body = b"".join(message.get("body", b"") for message in read)
        request = Request(scope)
        said = await self._plain(request, body)
        if said is None:
            await self._otherwise(scope, _again(read, receive), send)
            return
        exchange = Exchange(request, said, send)
        async with helpers() as nursery:
            nursery.start_soon(exchange.attend, receive, nursery.cancel_scope)
            await exchange.end(await self._outcome(exchange))

    async def _plain(self, request: Request, body: bytes) -> dict[str, Any] | None:
        """The request, if the SDK would pass all of it on to the call; None if anything at all is
        different."""
        if await self._security.validate_request(request, is_post=True) is not None:
            return None
        if check_accept_headers(request) != (True, True):
            return None
        try:
            said = json.loads(body)
            types.JSONRPCRequest.model_validate(said)
        except (ValueError, RecursionError):
            return None
        if said["method"] != METHOD or find_duplicated_routing_header(request.headers.items()):
            return None
        route = classify_inbound_request(said, headers=dict(request.headers))
        if not isinstance(route, InboundModernRoute):
            return None
        params = said["params"]
        try:
            validate_client_request(METHOD, route.protocol_version, params)
        except ValidationError:
            return None
        schema = self._gateway.input_schema(params["name"])
        arguments = params.get("arguments") or {}
        if schema is None or validate_mcp_param_headers(schema, arguments, request.headers):
            return None
        found: dict[str, Any] = said
        return found

    async def _outcome(self, exchange: Exchange) -> dict[str, Any]:
        """The message that ends the call."""
        plain: dict[str, Any] = {"jsonrpc": "2.0", "id": exchange.request_id}
        asked = types.CallToolRequestParams.model_validate(exchange.params, by_name=False)
        try:
            result = await self._gateway.call_tool(exchange, asked)
            shown = self._runner._serialize(METHOD, exchange.protocol_version, result)
        except Exception as error:
            data = modern_error_data(error).model_dump(by_alias=True, exclude_none=True)
            return plain | {"error": data}
        return plain | {"result": shown}


class Exchange:
    """One call and its answer, with the words that `gateway` uses of the SDK's own context. The
    answer is one JSON object, or a stream if there is something to say before its end."""

    def __init__(self, request: Request, said: dict[str, Any], send: Send) -> None:
        self.request = request
        self.request_id = said["id"]
        self.method: str = said["method"]
        self.params: dict[str, Any] = said["params"]
        self.protocol_version = LATEST_MODERN_VERSION
        self._token = progress_token_from_params(self.params)
        self._send = send
        self._sending = trio.Lock()
        self._streams = False
        self._over = False

    @property
    def session(self) -> Exchange:
        """Who is told what is said before the end."""
        return self

    async def report_progress(
        self, progress: float, total: float | None = None, message: str | None = None
    ) -> None:
        if self._token is None:
            return
        about: dict[str, Any] = {"progressToken": self._token, "progress": progress}
        about |= {} if total is None else {"total": total}
        about |= {} if message is None else {"message": message}
        await self._notify("notifications/progress", about)

    async def send_notification(self, said: Any, related_request_id: Any = None) -> None:
        about = said.params.model_dump(by_alias=True, mode="json", exclude_none=True)
        await self._notify(said.method, about)

    async def _notify(self, method: str, params: dict[str, Any]) -> None:
        await self._say(_event({"jsonrpc": "2.0", "method": method, "params": params}))

    async def _say(self, data: bytes) -> None:
        """A part of the stream, which begins with the first one."""
        async with self._sending:
            if self._over:
                return
            if not self._streams:
                self._streams = True
                await self._start(200, _STREAM)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def attend(self, receive: Receive, call: trio.CancelScope) -> None:
        """Keep the connection alive while the call lasts, and end the call with it."""
        while True:
            with trio.move_on_after(PING_S):
                while (await receive())["type"] != "http.disconnect":
                    continue
                call.cancel()
                return
            await self._say(_PING)

    async def end(self, message: dict[str, Any]) -> None:
        """The last message."""
        if not self._streams:
            self._over = True
            body = _packed(message).encode()
            status = ERROR_CODE_HTTP_STATUS.get(message.get("error", {}).get("code", 0), 200)
            await self._start(status, [_JSON, (b"content-length", b"%d" % len(body))])
            await self._send({"type": "http.response.body", "body": body})
            return
        async with self._sending:
            self._over = True
            await self._send({"type": "http.response.body", "body": _event(message)})


def _size_if_plain(scope: MutableMapping[str, Any]) -> int | None:
    """The size of the body, if the head of a request is that of a call in the newest dialect and
    tells one that may be kept until it is known who answers."""
    found: dict[bytes, bytes] = dict(scope["headers"])
    size = found.get(b"content-length", b"")
    if scope["method"] != "POST" or not size.isdigit() or len(size) > SIZE_DIGITS_MAX:
        return None
    plain = all(found.get(name) == value for name, value in _WANTED.items())
    return int(size) if plain and int(size) <= BODY_SIZE_MAX else None


async def _read(receive: Receive, size: int) -> deque[Message]:
    """The messages with the body's bytes, or what came of it before the connection ended."""
    read: deque[Message] = deque()
    while size > 0:
        message = await receive()
        read.append(message)
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
        size -= len(message.get("body", b""))
    return read


def _again(read: deque[Message], receive: Receive) -> Receive:
    """Gives what was read once more, and then what is still to come."""

    async def replay() -> Message:
        return read.popleft() if read else await receive()

    return replay


def _event(message: dict[str, Any]) -> bytes:
    return f"event: message\r\ndata: {_packed(message)}\r\n\r\n".encode()


def _packed(message: dict[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
