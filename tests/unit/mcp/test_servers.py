"""The MCP servers of one stack: when each is started, tried again, read anew, and given up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from mcp.shared.exceptions import MCPError

from tektonmesh.core import events as ev
from tektonmesh.errors import DeliveryError, LocalError
from tektonmesh.mcp import servers as sv
from tektonmesh.mcp import transports
from tektonmesh.mcp.servers import Server, Servers, backoff_s, detail_of
from tests.desks import Desk, Desks, catalogue, offer, tool
from tests.unit.mcp.scripted import Scripted, handshake, modern

TELLS = {"tools": {"listChanged": True}}
MCP = {"mcp": {"http": {"url": "http://[::1]:9/"}}, "how": {"kind": "none"}, "persist": True}


def new(*names: str, capabilities: Any = TELLS, **answers: Any) -> Scripted:
    listed = {"tools": [tool(name) for name in names]}
    discover = modern(capabilities=capabilities)
    return Scripted(**{"server/discover": discover, "tools/list": listed}, **answers)


class Bench:
    """One server of the CI `tool`; `way` gives its streams."""

    def __init__(self, way: Callable[[Server], Any]) -> None:
        self.desks = Desks("a")
        self.desk: Desk = self.desks["a"]
        self.desk.member.register("tool", share="public", **MCP)
        ci = self.desk.node.cis.get("tool")
        assert ci is not None
        self.ci = ci
        daemon: Any = self.desk
        self.server = Server(daemon, ci, way)
        self.published: list[Any] = []
        self.told: list[Any] = []
        self.desk.notices.heed(("mcp_failed",), self.told.append)
        self.server.on_catalogue = lambda: self.published.append(self.server.catalogue)

    @property
    def failures(self) -> float:
        return self.desk.notices.counters.get("notices_mcp_failed", 0.0)

    def names(self) -> list[str]:
        made = self.server.catalogue
        return [] if made is None else [item["name"] for item in made.tools]


@asynccontextmanager
async def running(way: Callable[[Server], Any]) -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        bench = Bench(way)
        nursery.start_soon(bench.server.run)
        await settled()
        yield bench
        nursery.cancel_scope.cancel()


async def settled(seconds: float = 0.0) -> None:
    if seconds:
        await trio.sleep(seconds)
    for _ in range(20):
        await trio.testing.wait_all_tasks_blocked()
        await trio.lowlevel.checkpoint()


@pytest.fixture
def quick_clock() -> trio.testing.MockClock:
    """Catalogues are packed in a worker thread, during which no time may be jumped over."""
    return trio.testing.MockClock(rate=50.0)


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(500.0):
        while not condition():
            await trio.sleep(0.05)


# --- starting ------------------------------------------------------------------------------------


async def test_a_server_without_a_catalogue_is_started_for_it(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = new("echo")
    async with running(server.streams) as bench:
        await until(lambda: bench.published)
        assert bench.names() == ["echo"]
        assert (await bench.server.ready(own=True)).modern
        assert bench.ci.catalogue is not None
        assert [one.verb for one in bench.ci.offered] == ["tool.call:echo"]


async def test_a_server_whose_catalogue_is_known_is_started_when_it_is_called(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = new("echo")
    async with trio.open_nursery() as nursery:
        bench = Bench(server.streams)
        bench.server.catalogue = catalogue(tools=[tool("echo")])
        nursery.start_soon(bench.server.run)
        await settled(1.0)
        assert server.opened == 0
        await bench.server.ready(own=False)
        assert server.opened == 1
        nursery.cancel_scope.cancel()


async def test_whoever_calls_one_that_does_not_start_is_told_in_time(
    quick_clock: trio.testing.MockClock,
) -> None:
    @asynccontextmanager
    async def never(_server: Server) -> AsyncIterator[Any]:
        await trio.sleep_forever()
        yield None

    async with running(never) as bench:
        with pytest.raises(DeliveryError) as raised:
            await bench.server.ready(own=True)
        assert raised.value.code.name == "timeout"


# --- failing -------------------------------------------------------------------------------------


async def test_what_went_wrong_is_for_its_own_stack_alone(
    quick_clock: trio.testing.MockClock,
) -> None:
    @asynccontextmanager
    async def broken(server: Server) -> AsyncIterator[Any]:
        server.heard("canary on stderr")
        raise LocalError("There is no such command.")
        yield None

    async with running(broken) as bench:
        for own in (True, False):
            with pytest.raises(DeliveryError) as raised:
                await bench.server.ready(own=own)
            assert raised.value.code.name == "ci_offline"
            assert ("canary" in raised.value.detail) is own
            assert ("no such command" in raised.value.detail) is own
        assert "It wrote: canary" in bench.told[0]["detail"]
        assert "'tool' failed: There is no such command" in bench.desk.notices.last_problem


async def test_after_three_failures_its_items_leave_the_lists_and_it_is_tried_on(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = new("echo")
    async with running(server.streams) as bench:
        await until(lambda: bench.names() == ["echo"])
        server.says("server/discover", MCPError(-1, "No."))
        server.end()
        await until(lambda: bench.failures >= 3)
        await until(lambda: bench.published[-1] is None)
        assert bench.ci.catalogue is None
        server.says("server/discover", modern(capabilities=TELLS))
        await until(lambda: bench.names() == ["echo"])


async def test_a_connection_that_lasted_begins_the_pauses_anew(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = new("echo")
    async with running(server.streams) as bench:

        def connected(times: int) -> bool:
            return server.opened == times and bench.server.upstream is not None

        for number in range(4):
            await until(partial(connected, number + 1))
            await trio.sleep(sv.STEADY_S + 1.0)
            server.end()
            await until(lambda: bench.server.upstream is None)
            assert bench.server._failures == 1
        assert bench.names() == ["echo"]


def test_pauses_double_and_end_at_a_minute() -> None:
    for failures, pause in ((1, 0.5), (2, 1.0), (5, 8.0), (40, 60.0)):
        assert 0.8 * pause <= backoff_s(failures) <= 1.2 * pause


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ExceptionGroup("x", [ExceptionGroup("y", [KeyError("inner")])]), "KeyError: 'inner'"),
        (LocalError("It is so.", hint="Try."), "It is so. Try."),
        (trio.TooSlowError(), "It did not answer in time."),
    ],
)
def test_what_went_wrong_is_said_from_inside_its_groups(error: Exception, words: str) -> None:
    assert detail_of(error) == words


# --- its catalogue -------------------------------------------------------------------------------


async def test_a_change_that_it_tells_of_is_read_once_for_many(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = new("echo")
    async with running(server.streams) as bench:
        await until(lambda: bench.names() == ["echo"])
        server.says("tools/list", {"tools": [tool("echo"), tool("look")]})
        before = server.methods().count("tools/list")
        for _ in range(5):
            await server.tell("notifications/tools/list_changed")
        await until(lambda: bench.names() == ["echo", "look"])
        assert server.methods().count("tools/list") == before + 1
        bench.server.refresh()
        await until(lambda: server.methods().count("tools/list") == before + 2)
        assert len(bench.published) == 2


async def test_one_that_tells_of_no_changes_is_asked_now_and_then(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = new("echo", capabilities={"tools": {}})
    async with running(server.streams) as bench:
        await until(lambda: bench.names() == ["echo"])
        server.says("tools/list", MCPError(-1, "Not now."))
        await until(lambda: server.methods().count("tools/list") >= 2)
        server.says("tools/list", {"tools": [tool("look")]})
        await until(lambda: bench.names() == ["look"])


async def test_an_item_that_is_malformed_is_told_of(quick_clock: trio.testing.MockClock) -> None:
    server = new("echo")
    server.says("tools/list", {"tools": [tool("echo"), {"name": "bare"}]})
    async with running(server.streams) as bench:
        await until(lambda: bench.names() == ["echo"])
        assert bench.desk.notices.counters["notices_mcp_item_dropped"] == 1.0


async def test_a_ci_that_is_gone_meanwhile_has_nothing_to_publish(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = new("echo")
    async with running(server.streams) as bench:
        await until(lambda: bench.published)
        bench.desk.inject(ev.DeregisterCi(99, "tool", None, True))
        server.says("tools/list", {"tools": []})
        bench.server.refresh()
        await until(lambda: bench.failures == 1.0)


# --- changes of resources ------------------------------------------------------------------------


async def test_an_old_server_is_subscribed_to_what_somebody_wants(
    quick_clock: trio.testing.MockClock,
) -> None:
    server = Scripted(
        initialize=handshake(capabilities={"resources": {}}),
        **{"resources/list": {"resources": []}, "resources/subscribe": {}},
    )
    heard: list[str] = []
    async with running(server.streams) as bench:
        bench.server.on_resource = heard.append
        await bench.server.ready(own=True)
        ends = [bench.server.subscribe("x:y") for _ in range(2)]
        await until(lambda: "resources/subscribe" in server.methods())
        await server.tell("notifications/resources/updated", uri="x:y")
        await until(lambda: heard == ["x:y"])
        ends[0]()
        await settled(0.5)
        assert "resources/unsubscribe" not in server.methods()
        ends[1]()  # which it refuses; that is no matter
        await until(lambda: "resources/unsubscribe" in server.methods())
        await settled(0.5)
        assert server.methods().count("resources/subscribe") == 1


async def test_a_new_server_is_listened_to_again_when_its_stream_ends(
    quick_clock: trio.testing.MockClock,
) -> None:
    answers: list[Any] = [{}, MCPError(-1, "No more.")]

    async def listen(_params: dict[str, Any]) -> dict[str, Any]:
        if not answers:
            await trio.sleep_forever()
        found = answers.pop(0)
        if isinstance(found, MCPError):
            raise found
        return dict(found)

    server = new("echo", **{"subscriptions/listen": listen})
    async with running(server.streams) as bench:
        await until(lambda: bench.names() == ["echo"])
        await until(lambda: server.methods().count("subscriptions/listen") == 3)
        bench.server.subscribe("x:y")
        await until(lambda: server.methods().count("subscriptions/listen") == 4)
        last = [params for method, params in server.asked if method == "subscriptions/listen"][-1]
        assert last["notifications"]["resourceSubscriptions"] == ["x:y"]


# --- all of them ---------------------------------------------------------------------------------


@asynccontextmanager
async def all_of(desk: Any) -> AsyncIterator[Servers]:
    async with trio.open_nursery() as nursery:
        yield Servers(desk, nursery, {})
        nursery.cancel_scope.cancel()


async def test_there_is_one_for_each_registration_that_names_one(
    monkeypatch: pytest.MonkeyPatch, quick_clock: trio.testing.MockClock
) -> None:
    ways: list[str] = []
    made = new("echo")

    def by(kind: str) -> Any:
        def way(*words: Any) -> Any:
            ways.append(kind)
            return made.streams()

        return way

    for kind in ("process", "http", "link"):
        monkeypatch.setattr(transports, f"by_{kind}", by(kind))
    desk = Desks("a")["a"]
    named: dict[str, Any] = {
        "one": {"stdio": {"command": ["x"]}},
        "two": {"http": {"url": "http://x"}},
        "three": {"socket": True},
    }
    for name, how in named.items():
        desk.member.register(name, mcp=how, how={"kind": "none"}, persist=True)
    desk.member.register("plain")
    told: list[None] = []
    async with all_of(desk) as servers:
        servers.on_catalogue = lambda: told.append(None)
        servers.follow()
        await until(lambda: sorted(ways) == ["http", "link", "process"])
        one = servers.get("ONE")
        assert one is not None and servers.get("plain") is None
        await until(lambda: one.catalogue is not None and len(told) >= 2)
        heard: list[Any] = []
        servers.on_resource = lambda ci, uri: heard.append((ci, uri))
        one.on_resource("x:y")
        assert heard == [("one", "x:y")]
        servers.follow()
        assert servers.get("one") is one
        desk.member.register("one", mcp={"http": {"url": "http://y"}}, how={"kind": "none"})
        servers.follow()
        assert servers.get("one") is not one
        desk.member.do(lambda ticket: ev.DeregisterCi(ticket, "two", None, True))
        servers.follow()
        assert servers.get("two") is None


async def test_what_was_offered_before_is_known_again(
    monkeypatch: pytest.MonkeyPatch, quick_clock: trio.testing.MockClock
) -> None:
    server = new("echo")
    monkeypatch.setattr(transports, "by_http", lambda *_words: server.streams())
    desk = Desks("a")["a"]
    made = catalogue(tools=[tool("known")])
    await offer(desk, "tool", made)
    await offer(desk, "broken", made)
    put = await desk.ask(lambda ticket: ev.PutBlob(ticket, b"no catalogue"))
    reference = {"hash": bytes.fromhex(put["hash"]), "length": put["length"]}
    await desk.ask(lambda ticket: ev.SetCatalogue(ticket, "broken", reference))
    async with all_of(desk) as servers:
        servers.follow()
        known, broken = servers.get("tool"), servers.get("broken")
        assert known is not None and known.catalogue == made
        assert broken is not None and broken.catalogue is None


async def test_when_gossip_begins_again_the_blobs_are_there(
    quick_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = new("echo")
    monkeypatch.setattr(transports, "by_http", lambda *_words: server.streams())
    desks = Desks("a", "b")
    desk, who = desks["a"], {"stack_id": desks["b"].node.env.me}
    made = catalogue(tools=[tool("known")])
    await offer(desk, "tool", made)
    async with all_of(desk) as servers:
        servers.follow()
        desk.member.do(lambda ticket: ev.Govern(ticket, "terms", who | {"mode": "read-only"}))
        desks.settle(7200.0)  # so long that nobody keeps the blob
        ci = desk.node.cis.get("tool")
        assert ci is not None and ci.catalogue is not None
        blob = ci.catalogue["hash"]
        assert blob not in desk.node.blobs.stash
        desk.member.do(lambda ticket: ev.Govern(ticket, "terms", who | {"mode": ""}))
        await until(lambda: blob in desk.node.blobs.stash)
        one = servers.get("tool")
        assert one is not None
        one.catalogue = None
        desk.member.do(lambda ticket: ev.Govern(ticket, "terms", who | {"mode": "read-only"}))
        desk.member.do(lambda ticket: ev.Govern(ticket, "terms", who | {"mode": ""}))
        await until(lambda: server.opened)
