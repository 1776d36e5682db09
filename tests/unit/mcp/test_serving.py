"""Calls that arrive: who is let through, what its caller hears meanwhile, and how each ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.errors import DeliveryError
from tektonmesh.mcp import calling, frames
from tektonmesh.mcp import serving as sv
from tektonmesh.mcp.parked import QUESTION, ParkingPlace
from tektonmesh.mcp.serving import Serving, Talk
from tests.desks import Desks, catalogue, offer, tool

Act = Callable[[str, dict[str, Any], Any], Awaitable[dict[str, Any]]]
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
MADE = catalogue(
    tools=[tool("echo", inputSchema=SCHEMA), tool("look", annotations={"readOnlyHint": True})],
    resources=[{"uri": "note://one", "name": "one"}],
)
ELICITS = {"_meta": {sv.CAPABILITIES: {"elicitation": {}}}}


class Server:
    """An MCP server as `servers` keeps one: `act` is what it does with a call."""

    def __init__(self, act: Act, parking: ParkingPlace | None, *, modern: bool) -> None:
        self.name = "Tool"
        self.catalogue: Any = MADE
        self.parking = parking
        self.modern = modern
        self.subscribed: list[str] = []
        self.call = act
        self.offline = False

    async def ready(self, *, own: bool) -> Server:
        if self.offline:
            raise DeliveryError("It is not there." + " Own." * own, code="ci_offline")
        return self

    def subscribe(self, uri: str) -> Callable[[], None]:
        self.subscribed.append(uri)
        return lambda: self.subscribed.remove(uri)


class Bench:
    """a calls the CI `tool` of b, whose server does what it is told to."""

    def __init__(self, nursery: trio.Nursery, act: Act, *, modern: bool, **settings: Any) -> None:
        self.desks = Desks("a", "b", **settings)
        self.a, self.b = self.desks["a"], self.desks["b"]
        parking = None if modern else ParkingPlace(nursery)
        self.server = Server(act, parking, modern=modern)
        self.servers: Any = SimpleNamespace(
            get=lambda name: self.server if name.lower() == "tool" else None
        )
        self.serving = Serving(self.b, self.servers, nursery)
        self.b.takes_calls(self.serving)
        self.told: list[Any] = []

    async def call(self, method: str = "tools/call", **params: Any) -> dict[str, Any]:
        given = {"name": "echo"} | params if method == "tools/call" else params

        async def heard(what: str, about: dict[str, Any]) -> None:
            self.told.append((what, about))

        return await calling.call(self.a, "tool@b", method, given, heard=heard)

    async def failure(self, method: str = "tools/call", **params: Any) -> calling.CallFailed:
        with pytest.raises(calling.CallFailed) as raised:
            await self.call(method, **params)
        return raised.value

    def govern(self, act: str, **params: Any) -> None:
        who = {"stack_id": self.a.node.env.me}
        self.b.member.do(lambda ticket: ev.Govern(ticket, act, who | params))
        self.desks.settle()


async def echo(_method: str, params: dict[str, Any], _flight: Any) -> dict[str, Any]:
    return {"content": [], "params": params}


@asynccontextmanager
async def a_bench(act: Act = echo, *, modern: bool = True, **settings: Any) -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        bench = Bench(nursery, act, modern=modern, **settings)
        await offer(bench.b, "tool", MADE)
        bench.desks.settle(1.0)
        yield bench
        nursery.cancel_scope.cancel()


# --- ends ----------------------------------------------------------------------------------------


async def test_a_call_reaches_its_server_with_the_word_about_its_caller() -> None:
    async with a_bench() as bench:
        result = await bench.call(arguments={"text": "x"}, _meta={frames.CALLER: "a lie", "k": 1})
        about = result["params"]["_meta"][frames.CALLER]
        assert (about["ci"], about["stack"], about["depth"]) == ("", "a", 0)
        assert result["params"]["_meta"]["k"] == 1


async def test_a_fault_of_ours_is_told_without_its_inside_to_another_stack() -> None:
    async def fails(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
        raise KeyError("canary")

    async with a_bench(fails) as bench:
        error = await bench.failure()
        assert (error.code, error.message) == (-32603, "The call failed at its stack.")
        # Whoever calls on the same stack may know.
        bench.b, bench.a = bench.a, bench.b
        error = await bench.failure()
        assert error.message == "KeyError: 'canary'"


async def test_a_server_that_ends_during_a_call_fails_it_with_a_code() -> None:
    async def ends(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
        raise MCPError(CONNECTION_CLOSED, "closed")

    async with a_bench(ends) as bench:
        assert (await bench.failure()).data["code"] == "ci_failed"


async def test_an_error_of_the_server_comes_as_it_is() -> None:
    async def says_no(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
        raise MCPError(-32042, "No.", {"x": 1})

    async with a_bench(says_no) as bench:
        error = await bench.failure()
        assert (error.code, error.message, error.data) == (-32042, "No.", {"x": 1})


async def test_a_server_that_is_not_there_is_offline_for_its_caller() -> None:
    async with a_bench() as bench:
        bench.server.offline = True
        error = await bench.failure()
        assert error.data["code"] == "ci_offline" and "Own" not in error.message


async def test_a_result_that_is_too_large_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sv, "RESULT_SIZE_MAX", 100)

    async def long(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": "x" * 200}]}

    async with a_bench(long) as bench:
        assert "4 MiB" in (await bench.failure()).message


async def test_a_body_that_is_no_call_is_refused() -> None:
    async with a_bench() as bench:
        ticket = bench.a.member.do(
            lambda t: ev.SendMessage(t, "tool@b", b"{}", CALL_TYPE, "", 9.0, False, {})
        )
        bench.desks.settle()
        await trio.testing.wait_all_tasks_blocked()
        bench.desks.settle()
        assert bench.a.member.error(ticket)["code"] == "protocol"


async def test_a_ci_whose_server_went_is_not_found() -> None:
    async with a_bench() as bench:
        bench.servers.get = lambda _name: None
        assert (await bench.failure(arguments={})).data["code"] == "not_found"


# --- what is let through -------------------------------------------------------------------------


async def test_arguments_that_do_not_fit_are_a_result_and_never_reach_the_server() -> None:
    async with a_bench() as bench:
        result = await bench.call(arguments={"text": 7})
        assert result["isError"] and "text" in result["content"][0]["text"]


async def test_a_tool_that_is_not_published_is_unknown_also_to_whoever_may_call_everything() -> (
    None
):
    async with a_bench() as bench:
        assert (await bench.failure(name="absent")).message == "Unknown tool: absent"
        bench.server.catalogue = None
        assert (await bench.failure()).message == "Unknown tool: echo"


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "echo"}),
        ("tools/call", {"name": "absent"}),
        ("prompts/get", {"name": "ask"}),
        ("resources/read", {"uri": "note://one"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "ask"}}),
        (
            "subscriptions/listen",
            {"notifications": {"resourceSubscriptions": ["note://one", "note://two"]}},
        ),
    ],
)
async def test_what_may_be_used_in_no_way_answers_as_what_is_missing(
    method: str, params: dict[str, Any]
) -> None:
    ids = tuple(Desks("a", "b")[name].node.env.me for name in "ab")
    async with a_bench(mesh_keys=(), allowed_ids=ids) as bench:
        bench.govern("grant", verb="tool.call:look")
        error = await bench.failure(method, **params)
        assert error.code == -32602
        assert error.message.split(":")[0] in (
            "Unknown tool",
            "Unknown prompt",
            "Resource not found",
        )
        assert await bench.call(name="look") is not None


async def test_what_is_granted_in_another_way_is_refused_or_busy() -> None:
    ids = tuple(Desks("a", "b")[name].node.env.me for name in "ab")
    async with a_bench(mesh_keys=(), allowed_ids=ids) as bench:
        bench.govern("grant", verb="tool.call:echo", caller_ci="numa")
        assert (await bench.failure()).data["code"] == "refused"
        bench.govern("grant", verb="tool.call:look", per_minute=1)
        assert await bench.call(name="look") is not None
        assert (await bench.failure(name="look")).data["code"] == "busy"


async def test_the_catalogue_is_told_as_far_as_it_may_be_used() -> None:
    ids = tuple(Desks("a", "b")[name].node.env.me for name in "ab")
    async with a_bench(mesh_keys=(), allowed_ids=ids) as bench:
        bench.govern("grant", verb="tool.call:look")
        result = await bench.call(frames.CATALOGUE)
        uses = bench.a.node.sharing.uses(bench.b.node.env.me)
        assert uses is not None and uses.lists["tool"].hex() == result["digest"]
        bench.server.catalogue = None
        assert (await bench.failure(frames.CATALOGUE)).data["code"] == "ci_offline"


async def test_sixteen_calls_of_one_stack_are_under_way_at_once() -> None:
    async def waits(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
        await trio.sleep_forever()
        raise AssertionError

    async with a_bench(waits) as bench, trio.open_nursery() as nursery:
        for _ in range(sv.CALLS_PER_STACK_MAX):
            nursery.start_soon(bench.call)
        await trio.testing.wait_all_tasks_blocked()
        assert (await bench.failure()).data["code"] == "busy"
        nursery.cancel_scope.cancel()
    assert bench.serving._open == {}


# --- calls that ask back -------------------------------------------------------------------------


async def asks(_method: str, _params: dict[str, Any], flight: Any) -> dict[str, Any]:
    answer = await flight.asked("elicitation/create", {"message": "Sure?"})
    return {"content": [], "answer": answer}


async def test_an_old_server_s_question_ends_the_call_and_the_answer_goes_on_with_it() -> None:
    async with a_bench(asks, modern=False) as bench:
        first = await bench.call(**ELICITS)
        assert first["resultType"] == "input_required"
        more = {"requestState": first["requestState"], "inputResponses": {QUESTION: {"yes": 1}}}
        assert (await bench.call(**ELICITS, **more))["answer"] == {"yes": 1}


async def test_a_caller_that_cannot_answer_is_not_asked() -> None:
    async def can_ask(_method: str, _params: Any, flight: Any) -> dict[str, Any]:
        return {"asked": flight.asked is not None}

    async with a_bench(can_ask, modern=False) as bench:
        assert await bench.call() == {"asked": False}
        assert await bench.call(**ELICITS) == {"asked": True}


async def test_what_its_caller_did_not_offer_to_answer_is_refused_to_the_server() -> None:
    async def wants_roots(_method: str, _params: Any, flight: Any) -> dict[str, Any]:
        result: dict[str, Any] = await flight.asked("roots/list", {})
        return result

    async with a_bench(wants_roots, modern=False) as bench:
        assert "roots/list" in (await bench.failure(**ELICITS)).message


# --- what is heard meanwhile ---------------------------------------------------------------------


async def test_log_lines_come_from_the_level_that_was_asked_for() -> None:
    async def logs(_method: str, _params: Any, flight: Any) -> dict[str, Any]:
        for level in ("debug", "warning", "nonsense"):
            flight.notify("notifications/message", {"level": level, "data": level})
        return {}

    async with a_bench(logs) as bench:
        await bench.call()
        assert bench.told == []
        await bench.call(_meta={sv.LOG_LEVEL: "info"})
        assert [about["data"] for _method, about in bench.told] == ["warning"]


async def test_cancelling_a_call_cancels_it_at_the_server() -> None:
    ended: list[str] = []

    async def waits(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("cancelled")
        raise AssertionError

    async with a_bench(waits) as bench:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.call)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


async def test_changes_of_a_resource_are_told_to_those_who_listen_to_it() -> None:
    async with a_bench() as bench:
        wanted = {"notifications": {"resourceSubscriptions": ["note://one"]}}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: bench.call("subscriptions/listen", **wanted))
            await trio.testing.wait_all_tasks_blocked()
            assert bench.server.subscribed == ["note://one"]
            for ci, uri in (("TOOL", "note://one"), ("tool", "note://two"), ("x", "note://one")):
                bench.servers.on_resource(ci, uri)
            await trio.testing.wait_all_tasks_blocked()
            told = [("notifications/resources/updated", {"uri": "note://one"})]
            assert bench.told == told
            nursery.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert bench.server.subscribed == []


class Daemon:
    """Takes down what is said of a call."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def inject(self, event: Any) -> None:
        self.said.append(event.data if isinstance(event, ev.ReplyChunk) else event.body)


async def attended(talk: Talk) -> None:
    while True:
        await trio.sleep(0.1 if talk.holds else 1.0)
        talk.stay_alive()


async def test_progress_goes_through_ten_times_a_second_and_the_newest_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    daemon: Any = Daemon()
    talk = Talk(daemon, 1)
    notify = talk.notifier({})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attended, talk)
        for number in range(200):
            notify("notifications/progress", {"progress": number})
            await trio.sleep(0.01)
        await trio.sleep(1.5)
        nursery.cancel_scope.cancel()
    told = [line for line in daemon.said if line != frames.ALIVE]
    assert 25 <= len(told) <= 35
    assert b"199" in told[-1]


async def test_what_was_held_back_is_said_before_the_end_and_nothing_after_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    daemon: Any = Daemon()
    talk = Talk(daemon, 1)
    for number in range(12):
        talk.notifier({})("notifications/progress", {"progress": number})
    talk.end(b"end")
    talk.say(b"late")
    assert b"11" in daemon.said[-2]
    assert daemon.said[-1] == b"end"


async def test_a_silent_call_is_vouched_for_every_ten_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    daemon: Any = Daemon()
    with trio.move_on_after(35.5):
        await attended(Talk(daemon, 1))
    assert daemon.said == [frames.ALIVE] * 3


async def test_whoever_serves_vouches_for_all_calls_under_way_and_then_rests(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def slow(_method: str, params: dict[str, Any], flight: Any) -> dict[str, Any]:
        for number in range(15):
            flight.notify("notifications/progress", {"progress": number})
        await trio.sleep(25.0)
        return {}

    async with a_bench(slow) as bench:
        for _ in range(2):
            bench.b.injected.clear()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(bench.call, name="echo"))
                nursery.start_soon(partial(bench.call, name="look"))
            said = [it.data for it in bench.b.injected if isinstance(it, ev.ReplyChunk)]
            assert said.count(frames.ALIVE) == 4
            assert len([line for line in said if b'"progress":14' in line]) == 2
            assert not bench.serving._talks
            await trio.sleep(2.0)
            assert not bench.serving._attending


async def test_calls_of_the_same_stack_are_not_counted() -> None:
    async with a_bench() as bench:
        bench.a = bench.b
        result = await bench.call(arguments={"text": "x"})
        assert result["params"]["_meta"][frames.CALLER]["stack"] == "b"
        read = await bench.call("resources/read", uri="note://one")
        assert read["params"]["uri"] == "note://one"
        assert bench.serving._open == {}


async def test_calls_end_one_by_one_and_a_cancel_after_the_end_changes_nothing() -> None:
    go = {name: trio.Event() for name in ("echo", "look")}

    async def waits(_method: str, params: dict[str, Any], _flight: Any) -> dict[str, Any]:
        await go[params["name"]].wait()
        return {}

    async with a_bench(waits) as bench, trio.open_nursery() as nursery:
        for name in go:
            nursery.start_soon(partial(bench.call, name=name))
        await trio.testing.wait_all_tasks_blocked()
        assert list(bench.serving._open.values()) == [2]
        for name in go:
            go[name].set()
            await trio.testing.wait_all_tasks_blocked()
        assert bench.serving._open == {}
        bench.serving.cancel(fx.CancelDelivery(1, "late"))


async def test_a_parked_call_that_is_an_error_of_the_connection_has_the_code_of_the_mesh() -> None:
    async def ends(_method: str, _params: Any, flight: Any) -> dict[str, Any]:
        raise MCPError(CONNECTION_CLOSED if flight.asked else -1, "closed")

    async with a_bench(ends, modern=False) as bench:
        assert (await bench.failure(**ELICITS)).data["code"] == "ci_failed"
        assert (await bench.failure()).code == -1
