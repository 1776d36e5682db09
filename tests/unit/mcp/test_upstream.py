"""One connection with an MCP server, in whichever era it speaks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import pytest
import trio
import trio.testing
from mcp.shared.exceptions import MCPError

from tektonmesh.mcp import upstream as up
from tektonmesh.mcp.frames import CALLER
from tektonmesh.mcp.upstream import Flight, Upstream, open_upstream
from tests.unit.mcp.scripted import NEW, OLD, Scripted, handshake, modern

ALL = {"tools": {}, "resources": {}, "prompts": {}}


def unsupported(*versions: Any) -> MCPError:
    data = {"supported": list(versions)}
    return MCPError(types.UNSUPPORTED_PROTOCOL_VERSION, "No.", data)


@asynccontextmanager
async def opened(server: Scripted) -> AsyncIterator[Upstream]:
    async with server.streams() as streams, open_upstream(streams) as upstream:
        yield upstream


def new(**answers: Any) -> Scripted:
    return Scripted(**{"server/discover": modern(capabilities=ALL)}, **answers)


def old(**answers: Any) -> Scripted:
    return Scripted(initialize=handshake(capabilities=ALL), **answers)


async def sole(act: Any) -> BaseException:
    """The error in the groups that come out of a connection."""
    try:
        await act
    except BaseException as error:
        found: BaseException = error
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        return found
    raise AssertionError("nothing was raised")


async def failure(server: Scripted) -> BaseException:
    async def act() -> None:
        async with opened(server):
            pass

    return await sole(act())


# --- agreeing ------------------------------------------------------------------------------------


async def test_the_newest_dialect_is_tried_first_and_takes_no_handshake() -> None:
    server = Scripted(**{"server/discover": modern(capabilities={"tools": {}}, instructions="Do.")})
    async with opened(server) as upstream:
        assert (upstream.version, upstream.modern) == (NEW, True)
        assert upstream.server["name"] == "scripted" and upstream.instructions == "Do."
        assert upstream.capabilities == {"tools": {}}
    assert server.methods() == ["server/discover"]


@pytest.mark.parametrize(
    "discover",
    [None, unsupported(OLD), modern(supportedVersions=[OLD]), modern(supportedVersions="x")],
)
async def test_every_refusal_means_the_older_handshake(discover: Any) -> None:
    server = old()
    if discover is not None:
        server.says("server/discover", discover)
    async with opened(server) as upstream:
        assert (upstream.version, upstream.modern) == (OLD, False)
        await trio.testing.wait_all_tasks_blocked()
    assert server.methods() == ["server/discover", "initialize", "notifications/initialized"]


async def test_a_server_that_was_still_starting_is_asked_once_more() -> None:
    tries = 0

    async def discover(_params: dict[str, Any]) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise unsupported(NEW)
        return modern()

    async with opened(Scripted(**{"server/discover": discover})) as upstream:
        assert upstream.modern
    assert tries == 2


async def test_a_server_of_a_later_dialect_alone_cannot_be_agreed_with() -> None:
    error = await failure(Scripted(**{"server/discover": unsupported("2031-01-01")}))
    assert isinstance(error, MCPError) and error.code == types.UNSUPPORTED_PROTOCOL_VERSION


async def test_a_handshake_in_an_unknown_version_is_refused() -> None:
    error = await failure(Scripted(initialize=handshake(protocolVersion="1999-01-01")))
    assert "1999-01-01" in str(error)


async def test_what_a_server_says_of_itself_in_another_form_is_passed_over() -> None:
    odd = handshake(capabilities=[], serverInfo="x", instructions=7)
    async with opened(Scripted(initialize=odd)) as upstream:
        assert (upstream.capabilities, upstream.server, upstream.instructions) == ({}, {}, "")


# --- lists ---------------------------------------------------------------------------------------


async def test_lists_are_read_page_by_page_for_what_the_server_has() -> None:
    async def page(params: dict[str, Any]) -> dict[str, Any]:
        if params.get("cursor") == "2":
            return {"tools": [{"name": "two"}], "nextCursor": 7}
        return {"tools": [{"name": "one"}], "nextCursor": "2"}

    server = new(
        **{
            "tools/list": page,
            "resources/list": {"resources": [{"uri": "x:y"}]},
            "prompts/list": {"prompts": "no list"},
        }
    )
    async with opened(server) as upstream:
        found = await upstream.lists()
    assert [tool["name"] for tool in found["tools"]] == ["one", "two"]
    assert found["resources"] == [{"uri": "x:y"}]
    assert (found["templates"], found["prompts"]) == ([], [])


async def test_only_templates_may_be_missing() -> None:
    async with opened(new(**{"tools/list": {"tools": []}})) as upstream:
        with pytest.raises(MCPError):
            await upstream.lists()


async def test_a_server_without_end_is_read_for_so_many_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(up, "PAGES_MAX", 3)
    endless = {"prompts": [{"name": "ask"}], "nextCursor": "more"}
    server = Scripted(
        **{"server/discover": modern(capabilities={"prompts": {}}), "prompts/list": endless}
    )
    async with opened(server) as upstream:
        assert len((await upstream.lists())["prompts"]) == 3


async def test_tools_that_want_headers_that_cannot_be_sent_are_left_out() -> None:
    def wants(name: str) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"x": {"type": "string", "x-mcp-header": name}}}
        return {"name": f"tool {name}", "inputSchema": schema}

    tools = [wants("Good"), wants("no such: header"), {"name": "plain"}, "no object"]
    server = new(
        **{
            "tools/list": {"tools": tools},
            "resources/list": {},
            "prompts/list": {},
            "tools/call": {"content": []},
        }
    )
    async with opened(server) as upstream:
        found = (await upstream.lists())["tools"]
        assert [one["name"] if isinstance(one, dict) else one for one in found] == [
            "tool Good",
            "plain",
            "no object",
        ]
        for arguments in ({"x": "value"}, "none"):
            params = {"name": "tool Good", "arguments": arguments}
            await upstream.call("tools/call", params, Flight(unheard, None))
    headers = [str(one) for one in server.metadata]
    assert "value" in headers[-2] and "value" not in headers[-1]


# --- calls ---------------------------------------------------------------------------------------


def unheard(_method: str, _params: dict[str, Any]) -> None:
    raise AssertionError("nothing was to be heard")


async def test_a_new_server_is_told_what_the_caller_said_of_itself() -> None:
    server = new(**{"tools/call": {"content": []}})
    meta = {CALLER: {"ci": "numa"}, "progressToken": "theirs", "k": 1}
    async with opened(server) as upstream:
        await upstream.call(
            "tools/call", {"name": "x", "_meta": meta}, Flight(lambda *_: None, None)
        )
    told = server.asked[-1][1]["_meta"]
    assert told[CALLER] == {"ci": "numa"} and told["k"] == 1
    assert told[types.PROTOCOL_VERSION_META_KEY] == NEW
    assert told.get("progressToken") != "theirs"


async def test_the_name_of_a_prompt_is_said_in_a_header_too() -> None:
    server = new(**{"prompts/get": {"messages": []}})
    async with opened(server) as upstream:
        await upstream.call("prompts/get", {"name": "ask"}, Flight(unheard, None))
    assert "ask" in str(server.metadata[-1])


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"k": 1, "progressToken": 7, types.LOG_LEVEL_META_KEY: "info"}, {"k": 1}),
        ({types.LOG_LEVEL_META_KEY: "info"}, None),
    ],
)
async def test_an_old_server_is_told_nothing_of_the_newest_dialect(meta: Any, told: Any) -> None:
    server = old(**{"resources/read": {"contents": []}})
    params = {"uri": "x:y", "requestState": "s", "inputResponses": {}, "_meta": meta}
    async with opened(server) as upstream:
        await upstream.call("resources/read", params, Flight(lambda *_: None, None))
    said = dict(server.asked[-1][1])
    rest = {key: value for key, value in said.pop("_meta", {}).items() if key != "progressToken"}
    assert said == {"uri": "x:y"}
    assert rest == (told or {})


async def test_progress_belongs_to_its_call() -> None:
    server = new()

    async def works(params: dict[str, Any]) -> dict[str, Any]:
        token = params["_meta"]["progressToken"]
        await server.tell("notifications/progress", progressToken=token, progress=1)
        about = {"progressToken": token, "progress": 2, "total": 3, "message": "on"}
        await server.tell("notifications/progress", **about)
        return {"content": []}

    server.says("tools/call", works)
    heard: list[Any] = []
    async with opened(server) as upstream:
        flight = Flight(lambda method, params: heard.append((method, params)), None)
        await upstream.call("tools/call", {"name": "x", "_meta": {"progressToken": 1}}, flight)
    assert heard == [
        ("notifications/progress", {"progress": 1}),
        ("notifications/progress", {"progress": 2, "total": 3, "message": "on"}),
    ]


async def test_a_call_that_is_cancelled_here_is_cancelled_there() -> None:
    server = new()

    async def waits(_params: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    server.says("tools/call", waits)
    async with opened(server) as upstream:
        with trio.move_on_after(0.05):
            await upstream.call("tools/call", {"name": "x"}, Flight(unheard, None))
        await trio.testing.wait_all_tasks_blocked()
        assert "notifications/cancelled" in server.methods()
        assert upstream._flights == {}


async def test_a_server_that_goes_ends_what_is_under_way() -> None:
    server = new()

    async def ends(_params: dict[str, Any]) -> dict[str, Any]:
        server.end()
        await trio.sleep_forever()
        raise AssertionError

    server.says("tools/call", ends)
    async with opened(server) as upstream:
        with pytest.raises(MCPError) as raised:
            await upstream.call("tools/call", {"name": "x"}, Flight(unheard, None))
        assert raised.value.code == types.CONNECTION_CLOSED
        await upstream.closed.wait()


# --- what the server says ------------------------------------------------------------------------


async def flying(upstream: Upstream, server: Scripted, act: Any, *flights: Flight) -> Any:
    """What comes of `act` while these calls are under way."""

    async def waits(_params: dict[str, Any]) -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    server.says("tools/call", waits)
    async with trio.open_nursery() as nursery:
        for flight in flights:
            nursery.start_soon(upstream.call, "tools/call", {"name": "x"}, flight)
        await trio.testing.wait_all_tasks_blocked()
        result = await act()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return result


async def test_a_question_goes_to_the_one_call_that_can_be_asked() -> None:
    async def asked(method: str, params: dict[str, Any]) -> dict[str, Any]:
        return {"method": method} | params

    server = old()
    async with opened(server) as upstream:

        async def ask() -> dict[str, Any]:
            return await server.ask("roots/list", x=1)

        one = Flight(unheard, asked)
        answer = await flying(upstream, server, ask, one, Flight(unheard, None))
        assert answer["result"] == {"method": "roots/list", "x": 1}
        nobody = await flying(upstream, server, ask, Flight(unheard, None))
        assert "Nobody" in nobody["error"]["message"]
        several = await flying(upstream, server, ask, one, Flight(unheard, asked))
        assert "Several" in several["error"]["message"]
        assert (await server.ask("ping"))["result"] == {}


async def test_log_lines_are_passed_on_while_it_is_clear_whose_they_are() -> None:
    heard: list[Any] = []
    server = old()
    flight = Flight(lambda method, params: heard.append((method, params)), None)
    async with opened(server) as upstream:

        async def log() -> None:
            await server.tell("notifications/message", level="info", data="x")

        await flying(upstream, server, log, flight)
        assert heard == [("notifications/message", {"level": "info", "data": "x"})]
        await flying(upstream, server, log, flight, flight)
        await log()
        assert len(heard) == 1


async def test_changes_are_told_of_by_kind_and_resource() -> None:
    kinds: list[str] = []
    uris: list[str] = []
    server = old()
    async with opened(server) as upstream:
        await server.tell("notifications/tools/list_changed")  # nobody wants to know yet
        await server.tell("notifications/resources/updated", uri="a:b")
        await trio.testing.wait_all_tasks_blocked()
        upstream.on_changed, upstream.on_resource = kinds.append, uris.append
        for kind in ("tools", "resources", "prompts"):
            await server.tell(f"notifications/{kind}/list_changed")
        await server.tell("notifications/resources/updated", uri="x:y")
        await server.tell("notifications/resources/updated", uri=7)
        await server.tell("notifications/other")
        await trio.testing.wait_all_tasks_blocked()
    assert sorted(kinds) == ["prompts", "resources", "tools"]
    assert uris == ["x:y"]


async def test_what_a_new_server_tells_of_is_listened_to() -> None:
    server = Scripted(
        **{
            "server/discover": modern(
                capabilities={"tools": {"listChanged": True}, "prompts": {}, "resources": 7}
            ),
            "subscriptions/listen": {},
        }
    )
    async with opened(server) as upstream:
        await upstream.listen([])
        await upstream.listen(["x:y"])
    wanted = [p["notifications"] for m, p in server.asked if m == "subscriptions/listen"]
    assert wanted == [
        {"toolsListChanged": True},
        {"toolsListChanged": True, "resourceSubscriptions": ["x:y"]},
    ]


@pytest.mark.parametrize("server", [old(), new()])
async def test_a_server_that_tells_of_nothing_is_not_listened_to(server: Scripted) -> None:
    async with opened(server) as upstream:
        await upstream.listen([])
    assert "subscriptions/listen" not in server.methods()
