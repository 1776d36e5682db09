"""The door that answers plain calls itself, and what it leaves to the SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import pytest
import trio
import trio.testing
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError

from tektonmesh.errors import DeliveryError
from tektonmesh.mcp import direct, frames
from tektonmesh.mcp.direct import Direct
from tektonmesh.mcp.hub import SECURITY
from tests.desks import catalogue, tool
from tests.unit.mcp.test_gateway import ALL, Bench
from tests.unit.mcp.test_scopes import entry

VERSION = "2026-07-28"
MADE = catalogue(
    tools=[
        tool("echo"),
        tool(
            "headed",
            inputSchema={
                "type": "object",
                "properties": {"where": {"type": "string", "x-mcp-header": "Where"}},
            },
        ),
    ]
)
HEADERS = {
    "host": "localhost",
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": VERSION,
    "mcp-method": "tools/call",
    "mcp-name": "echo",
}
META = {
    types.PROTOCOL_VERSION_META_KEY: VERSION,
    types.CLIENT_CAPABILITIES_META_KEY: {},
}
Said = list[dict[str, Any]]


def call(name: str = "echo", **more: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": {"text": "x"}, "_meta": META} | more
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


class Door:
    """A face behind `Direct`, with the SDK's own door behind that."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.bench = Bench(nursery, one=True, offers=ALL)
        self.bench.known.all = [entry("files", made=MADE)]
        self.manager = StreamableHTTPSessionManager(
            self.bench.gateway.server, security_settings=SECURITY
        )
        self.left = 0
        self.direct = Direct(self.bench.gateway, SECURITY, self._leave)
        self.gone = trio.Event()
        self.sent: Said = []

    async def _leave(self, scope: Any, receive: Any, send: Any) -> None:
        self.left += 1
        await self.manager.handle_request(scope, receive, send)

    async def post(
        self, message: Any, *, parts: int = 1, door: Any = None, size: str = "", **headers: str
    ) -> Said:
        """What is sent back for a request whose body comes in parts."""
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        lines = HEADERS | {key.replace("_", "-"): value for key, value in headers.items()}
        lines["content-length"] = size or str(len(body))
        pairs = [(k.encode(), v.encode()) for k, v in lines.items() if v != "absent"]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"",
                 "headers": pairs, "state": {}}  # fmt: skip
        return await self.ask(scope, body, parts, door)

    async def ask(
        self, scope: Any, body: bytes, parts: int = 1, door: Any = None, *, whole: bool = True
    ) -> Said:
        """`whole`: the end of the body is said by a message of its own, as hypercorn does."""
        step = max(1, -(-len(body) // parts))
        waiting = [body[at : at + step] for at in range(0, len(body), step)]
        waiting += [b""] * whole

        async def receive() -> dict[str, Any]:
            if waiting:
                part = waiting.pop(0)
                return {"type": "http.request", "body": part, "more_body": bool(waiting)}
            await self.gone.wait()
            return {"type": "http.disconnect"}

        sent: Said = []
        self.sent = sent

        async def send(message: Any) -> None:
            sent.append(message)

        await (door or self.direct)(scope, receive, send)
        return sent


@asynccontextmanager
async def a_door() -> AsyncIterator[Door]:
    async with trio.open_nursery() as nursery:
        door = Door(nursery)
        async with door.manager.run():
            yield door
        nursery.cancel_scope.cancel()


def read(sent: Said) -> tuple[int, Any]:
    """The status and the one object of an answer."""
    start, *bodies = sent
    return start["status"], json.loads(b"".join(one.get("body", b"") for one in bodies))


def events(sent: Said) -> list[Any]:
    """The messages of a stream; None for a comment."""
    assert dict(sent[0]["headers"])[b"content-type"] == b"text/event-stream"
    whole = b"".join(one["body"] for one in sent[1:]).decode()
    parts = [part for part in whole.split("\r\n\r\n") if part]
    return [
        None if part.startswith(":") else json.loads(part.partition("data: ")[2]) for part in parts
    ]


# --- what is answered here -----------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_plain_call_is_answered_without_the_sdk_and_as_by_it(parts: int) -> None:
    async with a_door() as door:
        for result in (
            {"content": [{"type": "text", "text": "\u20ac"}]},
            {"content": [], "isError": True, "structuredContent": {"n": 1}, "_meta": {"a": 1}},
            {"resultType": "input_required", "inputRequests": {}, "requestState": "s"},
            {"resultType": "of an extension", "more": [None]},
        ):
            door.bench.result(**result)
            mine = await door.post(call(), parts=parts)
            assert door.left == 0
            theirs = await door.post(call(), parts=parts, door=door.manager.handle_request)
            assert read(mine) == read(theirs)
            assert read(mine)[0] == 200 and read(mine)[1]["id"] == 7
        address, method, params = door.bench.mesh.calls[0]
        assert (address, method) == ("files@west", "tools/call")
        assert (params["name"], params["arguments"]) == ("echo", {"text": "x"})
        assert params["_meta"] == META


async def test_the_end_of_a_body_may_come_with_its_last_part() -> None:
    async with a_door() as door:
        body = json.dumps(call()).encode()
        lines = HEADERS | {"content-length": str(len(body))}
        scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"",
                 "headers": [(k.encode(), v.encode()) for k, v in lines.items()],
                 "state": {}}  # fmt: skip
        assert read(await door.ask(scope, body, whole=False))[0] == 200


async def test_who_calls_is_asked_of_the_headers() -> None:
    async with a_door() as door:
        own = {"tektonmesh_ci": "numa", "tektonmesh_ci_token": "right"}
        assert "result" in read(await door.post(call(), **own))[1]
        assert door.bench.mesh.options[-1]["sender"] == "numa"
        status, wrong = read(await door.post(call(), tektonmesh_ci="numa"))
        assert (status, wrong["error"]["code"]) == (400, types.INVALID_REQUEST)
        assert door.left == 0


@pytest.mark.parametrize(
    "reply",
    [
        [frames.error_line(types.INVALID_PARAMS, "No.", {"why": None})],
        [frames.error_line(-32603, "Worse.")],
        DeliveryError("No path leads there.", code="unreachable"),
        ValueError("a fault of ours"),
    ],
)
async def test_a_call_that_fails_is_answered_as_by_the_sdk(reply: Any) -> None:
    async with a_door() as door:

        def fail(_method: str, _params: Any) -> Any:
            if isinstance(reply, Exception):
                raise reply
            return reply

        door.bench.mesh.reply = fail
        mine = await door.post(call())
        assert door.left == 0
        theirs = await door.post(call(), door=door.manager.handle_request)
        assert read(mine) == read(theirs)
        assert "error" in read(mine)[1]


async def test_what_is_said_before_the_end_makes_a_stream_of_the_answer() -> None:
    async with a_door() as door:
        log = {"level": "info", "data": "words"}
        steps = [{"progress": 1}, {"progress": 2, "total": 4, "message": "half"}]
        lines = [frames.notification_line("notifications/progress", one) for one in steps]
        lines.append(frames.notification_line("notifications/message", log))
        lines.append(frames.result_line({"content": []}))
        door.bench.mesh.reply = lambda _method, _params: lines
        meta = META | {"progressToken": "t", "io.modelcontextprotocol/logLevel": "info"}
        mine = events(await door.post(call(_meta=meta)))
        assert door.left == 0
        assert mine == events(await door.post(call(_meta=meta), door=door.manager.handle_request))
        assert [one.get("method") for one in mine] == [
            "notifications/progress",
            "notifications/progress",
            "notifications/message",
            None,
        ]
        # Who gave no token is told of no progress.
        door.bench.mesh.reply = lambda _method, _params: [lines[0], lines[-1]]
        assert "result" in read(await door.post(call()))[1]


async def test_a_long_call_keeps_its_connection_alive(autojump_clock: Any) -> None:
    async with a_door() as door:

        async def late(_method: str, _params: Any) -> Any:
            await trio.sleep(2.5 * direct.PING_S)
            return [frames.result_line({"content": []})]

        door.bench.mesh.reply = late
        found = events(await door.post(call()))
        assert found[:2] == [None, None] and found[2]["id"] == 7 and len(found) == 3


async def test_a_host_that_goes_cancels_its_call(autojump_clock: Any) -> None:
    async with a_door() as door:

        async def never(_method: str, _params: Any) -> Any:
            door.gone.set()
            await trio.sleep_forever()

        door.bench.mesh.reply = never
        assert await door.post(call()) == []
        assert door.bench.mesh.cancelled == 1


async def test_nothing_is_said_behind_the_end(autojump_clock: Any) -> None:
    async with a_door() as door:
        exchanges: list[Any] = []
        real = door.bench.gateway.call_tool

        async def kept(ctx: Any, params: Any) -> Any:
            exchanges.append(ctx)
            return await real(ctx, params)

        door.bench.gateway.call_tool = kept  # type: ignore[method-assign]
        sent = await door.post(call(_meta=META | {"progressToken": 1}))
        before = list(sent)
        await exchanges[0].report_progress(1.0)
        assert sent == before


# --- what is left to the SDK ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "headers"),
    [
        (call(), {"mcp_protocol_version": "2099-01-01"}),
        (call(), {"mcp_method": "tools/list"}),
        (call() | {"method": "tools/list"}, {}),
        (call("absent"), {"mcp_name": "absent"}),
        (call("absent"), {}),
        (call(arguments="none"), {}),
        (call(_meta={}), {}),
        (call(_meta=META | {types.PROTOCOL_VERSION_META_KEY: "2025-11-25"}), {}),
        (call("headed", arguments={"where": "a"}), {"mcp_name": "headed"}),
        (call() | {"id": None}, {}),
        ([call()], {}),
        (b"{", {}),
        (b"[" * 100_000, {}),
        (call(), {"content_type": "text/plain"}),
        (call(), {"host": "elsewhere"}),
        (call(), {"origin": "http://elsewhere"}),
        (call(), {"accept": "application/json"}),
        (call(), {"accept": "text/event-stream"}),
        (call(), {"size": "many"}),
        (call(), {"size": "99999999"}),
        (call(), {"size": str(direct.BODY_SIZE_MAX + 1)}),
        (call(), {"size": "absent"}),
    ],
)
async def test_what_is_not_plain_is_answered_by_the_sdk(message: Any, headers: Any) -> None:
    async with a_door() as door:
        mine = await door.post(message, parts=2, **headers)
        assert door.left == 1
        assert mine == await door.post(
            message, parts=2, door=door.manager.handle_request, **headers
        )


async def test_a_host_of_the_old_era_is_answered_by_the_sdk() -> None:
    async with a_door() as door:
        sent = await door.post(call(), mcp_protocol_version="2025-11-25")
        assert door.left == 1 and sent[0]["status"] == 400


async def test_a_header_that_a_schema_asks_for_is_looked_at() -> None:
    async with a_door() as door:
        said = call("headed", arguments={"where": "here"})
        right = await door.post(said, mcp_name="headed", mcp_param_where="here")
        assert (read(right)[0], door.left) == (200, 0)
        wrong = await door.post(said, mcp_name="headed", mcp_param_where="there")
        assert (read(wrong)[1]["error"]["code"], door.left) == (types.HEADER_MISMATCH, 1)


async def test_a_routing_header_that_is_there_twice_is_left_to_the_sdk() -> None:
    async with a_door() as door:
        body = json.dumps(call()).encode()
        pairs = [(k.encode(), v.encode()) for k, v in HEADERS.items()]
        pairs += [(b"content-length", str(len(body)).encode()), (b"mcp-name", b"echo")]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"",
                 "headers": pairs, "state": {}}  # fmt: skip
        status, answer = read(await door.ask(scope, body))
        assert (status, answer["error"]["code"], door.left) == (400, types.HEADER_MISMATCH, 1)


async def test_a_body_that_breaks_off_is_left_as_it_came() -> None:
    async with a_door() as door:
        left: list[Any] = []

        async def otherwise(_scope: Any, receive: Any, _send: Any) -> None:
            for _ in range(3):
                left.append(await receive())

        came = [
            {"type": "http.request", "body": b'{"json', "more_body": True},
            {"type": "http.disconnect"},
            {"type": "more"},
        ]
        waiting = list(came)

        async def receive() -> Any:
            return waiting.pop(0)

        async def send(_message: Any) -> None:
            raise AssertionError("nobody is there")

        pairs = [(k.encode(), v.encode()) for k, v in HEADERS.items()] + [(b"content-length", b"9")]
        scope = {"type": "http", "method": "POST", "path": "/mcp", "query_string": b"",
                 "headers": pairs, "state": {}}  # fmt: skip
        await Direct(door.bench.gateway, SECURITY, otherwise)(scope, receive, send)
        assert left == came


def test_an_error_of_the_server_is_one_of_the_protocol() -> None:
    """What this module takes of the SDK is still what it was: a result with everything on it."""
    assert direct.modern_error_data(MCPError(1, "words", {"a": 1})).model_dump() == {
        "code": 1,
        "message": "words",
        "data": {"a": 1},
    }
