"""What the whole mesh offers, as one stack's replica and what others told it alone have it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from tektonmesh.core import events as ev
from tektonmesh.core.ci import OFFLINE
from tektonmesh.core.ids import show_id
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp import federation as fed
from tektonmesh.mcp.federation import Entry, Federation, kinds_that_differ
from tektonmesh.mcp.parts import Part, Parts
from tektonmesh.mcp.pins import Pins
from tektonmesh.mcp.serving import Serving
from tests.desks import Desks, catalogue, offer, tool

MADE = catalogue(
    tools=[tool("echo"), tool("look")], resources=[{"uri": "note://one", "name": "one"}]
)
IDS = tuple(Desks("a", "b")[name].node.env.me for name in "ab")
FOREIGN = {"mesh_keys": (), "allowed_ids": IDS}


class Bench:
    """The federation as a sees it; b has the CIs, whose servers offer what `made` says."""

    def __init__(self, home: Path, nursery: trio.Nursery, **settings: Any) -> None:
        self.desks = Desks("a", "b", **settings)
        self.a, self.b = self.desks["a"], self.desks["b"]
        self.made: dict[str, cat.Catalogue] = {}
        servers: Any = SimpleNamespace(get=self.server)
        self.b.takes_calls(Serving(self.b, servers, nursery))
        self.own: dict[str, Any] = {}
        mine: Any = SimpleNamespace(get=lambda name: self.own.get(name.lower()))
        pins = Pins(home)
        pins.open()
        self.parts = Parts(home)
        self.parts.open()
        self.federation = Federation(self.a, mine, pins, self.parts)

    def server(self, name: str) -> Any:
        made = self.made.get(name.lower())
        return None if made is None else SimpleNamespace(name=name, catalogue=made)

    async def offer(self, name: str, made: cat.Catalogue = MADE, **more: Any) -> None:
        self.made[name.lower()] = made
        await offer(self.b, name, made, **more)
        self.desks.settle(2.0)

    def govern(self, act: str, **params: Any) -> None:
        who = {"stack_id": self.a.node.env.me}
        self.b.member.do(lambda ticket: ev.Govern(ticket, act, who | params))
        self.desks.settle()

    def entry(self, address: str) -> Entry:
        found = self.federation.find(address)
        assert found is not None
        return found

    def tools(self, address: str) -> list[str]:
        return [item["name"] for item in self.entry(address).items("tools")]


@asynccontextmanager
async def a_bench(home: Path, *, telling: bool = True, **settings: Any) -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        bench = Bench(home, nursery, **settings)
        if telling:
            nursery.start_soon(bench.federation.keep_telling, nursery)
            await trio.testing.wait_all_tasks_blocked()
        yield bench
        nursery.cancel_scope.cancel()


async def pause(seconds: float = 1.0) -> None:
    await trio.sleep(seconds)
    await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def quick_clock() -> trio.testing.MockClock:
    """For what waits for a worker thread too, during which no time may be jumped over."""
    return trio.testing.MockClock(rate=25.0)


# --- reads ---------------------------------------------------------------------------------------


async def test_own_cis_come_first_with_what_their_servers_offer(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("Tool")
        await offer(bench.a, "Mine", MADE, description="Of\u202e mine.")
        bench.a.member.register("plain")
        bench.own["mine"] = SimpleNamespace(catalogue=MADE)
        bench.federation.touch()
        entries = bench.federation.entries()
        assert list(entries) == ["Mine@a", "plain@a", "Tool@b"]
        mine, plain = entries["Mine@a"], entries["plain@a"]
        assert mine.local and mine.mcp and mine.catalogue is MADE and mine.says
        assert mine.description == "Of mine."
        assert not plain.mcp and plain.catalogue is None and plain.items("tools") == ()
        assert bench.federation.entries() is entries


async def test_an_address_may_be_short_and_in_any_case(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("Tool")
        for address in ("Tool@b", "tool@B", f"tool@{show_id(bench.b.node.env.me)}"):
            assert bench.entry(address).address == "Tool@b"
        assert bench.federation.find("tool@nowhere") is None
        assert bench.federation.find("other@b") is None


async def test_what_is_gossiped_is_fetched_and_appears(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("tool")
        bench.federation.entries()
        await pause()
        assert bench.tools("tool@b") == ["echo", "look"]
        assert bench.entry("tool@b").says


async def test_without_its_tasks_nothing_is_fetched(tmp_path: Path) -> None:
    async with a_bench(tmp_path, telling=False, blob_prefetch_bytes_per_s=0) as bench:
        await bench.offer("tool")
        assert bench.entry("tool@b").catalogue is None
        await trio.testing.wait_all_tasks_blocked()
        assert bench.tools("tool@b") == []


async def test_a_blob_that_is_no_catalogue_is_an_empty_one_and_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("tool")
        put = await bench.b.ask(lambda ticket: ev.PutBlob(ticket, b"no catalogue"))
        reference = {"hash": bytes.fromhex(put["hash"]), "length": put["length"]}
        await bench.b.ask(lambda ticket: ev.SetCatalogue(ticket, "tool", reference))
        bench.desks.settle(2.0)
        bench.federation.entries()
        await pause()
        assert bench.entry("tool@b").catalogue == cat.Catalogue()
        assert "cannot be read" in caplog.text


async def test_a_reference_that_is_none_leads_to_nothing(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("tool")
        await bench.b.ask(lambda ticket: ev.SetCatalogue(ticket, "tool", {"hash": "text"}))
        bench.desks.settle(2.0)
        assert bench.entry("tool@b").catalogue is None
        await bench.b.ask(lambda ticket: ev.SetCatalogue(ticket, "tool", None))
        bench.desks.settle(2.0)
        assert bench.entry("tool@b").mcp and bench.entry("tool@b").catalogue is None


async def test_until_the_new_list_has_come_the_old_one_stays(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("tool")
        bench.federation.entries()
        await pause()
        reference = {"hash": bytes(32), "length": 9}
        await bench.b.ask(lambda ticket: ev.SetCatalogue(ticket, "tool", reference))
        bench.desks.settle(2.0)
        assert bench.tools("tool@b") == ["echo", "look"]
        await pause(fed.FETCH_TIMEOUT_S)
        assert bench.tools("tool@b") == ["echo", "look"]


async def test_a_ci_that_is_offline_offers_nothing(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        bench.b.member.register("numa")
        bench.b.inject(ev.Detached(1))
        bench.desks.settle(2.0)
        assert bench.entry("numa@b").state == OFFLINE


async def test_items_are_pinned_but_for_ones_own(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("Tool")
        entry, item = bench.entry("tool@b"), tool("echo")
        assert bench.federation.pin_of(entry, "tools", item)[1:] == ("tool", "tools", "echo")
        assert bench.federation.is_as_pinned(entry, "tools", item)
        changed = item | {"description": "Other."}
        assert not bench.federation.is_as_pinned(entry, "tools", changed)
        bench.a.member.register("mine")
        bench.federation.touch()
        assert bench.federation.is_as_pinned(bench.entry("mine@a"), "tools", changed)


async def test_the_import_policy_is_asked_for_lists_and_messages(tmp_path: Path) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("tool")
        bench.b.member.register("plain")
        bench.desks.settle()
        assert bench.entry("plain@b").says
        params = {"stack_id": bench.b.node.env.me, "imports": ["tool"]}
        bench.a.member.do(lambda ticket: ev.Govern(ticket, "terms", params))
        assert not bench.entry("plain@b").says
        assert bench.federation.may("tool.call", bench.entry("tool@b"), "echo")
        assert not bench.federation.may("discover", bench.entry("plain@b"))


# --- what an owner told this stack alone ---------------------------------------------------------


async def test_what_may_be_used_is_asked_for_and_goes_with_its_grant(
    tmp_path: Path, quick_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path, **FOREIGN) as bench:
        await bench.offer("tool")
        bench.b.member.register("plain", share="public")
        bench.desks.settle()
        assert bench.tools("tool@b") == [] and not bench.entry("plain@b").says
        bench.govern("grant", verb="tool.call:echo")
        bench.govern("grant", verb="message", ci="plain")
        bench.federation.entries()
        await pause()
        assert bench.tools("tool@b") == ["echo"] and bench.entry("plain@b").says
        bench.govern("terms", mode="full")
        bench.federation.entries()
        await pause()
        assert bench.tools("tool@b") == ["echo", "look"]
        bench.govern("terms", mode="")
        bench.b.member.do(
            lambda ticket: ev.Govern(ticket, "revoke", {"stack_id": bench.a.node.env.me})
        )
        bench.desks.settle()
        assert bench.tools("tool@b") == [] and not bench.parts.places()


async def test_what_was_told_is_there_after_a_restart_without_asking(
    tmp_path: Path, quick_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path, **FOREIGN) as bench:
        await bench.offer("tool")
        bench.govern("grant", verb="tool.call:echo")
        bench.federation.entries()
        await pause()
        assert bench.tools("tool@b") == ["echo"] and bench.parts.unsaved
        bench.parts.flush()
        bench.made.clear()
        again = Parts(tmp_path)
        again.open()
        servers: Any = SimpleNamespace(get=lambda _name: None)
        federation = Federation(bench.a, servers, Pins(tmp_path), again)
        found = federation.find("tool@b")
        assert found is not None and [it["name"] for it in found.items("tools")] == ["echo"]


async def test_a_part_that_is_damaged_on_the_disk_lists_nothing(tmp_path: Path) -> None:
    async with a_bench(tmp_path, telling=False, **FOREIGN) as bench:
        await bench.offer("tool")
        bench.govern("grant", verb="tool.call:echo")
        place = (bench.b.node.env.me, "tool")
        digest = bench.a.node.sharing.uses(place[0]).lists["tool"]
        bench.parts.put(place, Part(digest, b"nonsense"))
        bench.federation.touch()
        assert bench.tools("tool@b") == []


async def test_parts_of_what_is_no_longer_told_are_forgotten(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path, **FOREIGN) as bench:
        bench.parts.put((bench.b.node.env.me, "absent"), Part(b"1", b""))
        bench.federation.touch()
        await pause()
        assert not bench.parts.places()


async def test_a_partner_s_ci_is_used_like_any_other(
    tmp_path: Path, quick_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path, **FOREIGN) as bench:
        await bench.offer("club", share="partners", description="For some.")
        bench.govern("terms", mode="full")
        bench.federation.entries()
        await pause()
        assert bench.tools("club@b") == ["echo", "look"]
        assert bench.entry("club@b").description == "For some."


async def test_what_cannot_be_had_is_dropped_and_tried_again(
    tmp_path: Path, quick_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path, **FOREIGN) as bench:
        await bench.offer("tool")
        bench.govern("terms", mode="full")
        bench.federation.entries()
        await pause()
        kept = bench.made.pop("tool")
        bench.govern("terms", mode="read-only")
        bench.govern("grant", verb="tool.call:look")
        bench.federation.entries()
        await pause()
        assert bench.tools("tool@b") == []
        bench.made["tool"] = kept
        await pause(2 * fed.FETCH_PAUSE_S)
        assert bench.tools("tool@b") == ["look"]


@pytest.mark.parametrize("word", ["digest", "catalogue"])
async def test_an_owner_that_answers_nonsense_is_asked_again_later(
    tmp_path: Path,
    quick_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
    word: str,
) -> None:
    whole = Serving._catalogue

    async def nonsense(self: Any, server: Any, source: str) -> dict[str, Any]:
        return await whole(self, server, source) | {word: "no hex, no base64"}

    async with a_bench(tmp_path, **FOREIGN) as bench:
        monkeypatch.setattr(Serving, "_catalogue", nonsense)
        await bench.offer("tool")
        bench.govern("terms", mode="full")
        bench.federation.entries()
        await pause()
        assert bench.tools("tool@b") == []
        monkeypatch.setattr(Serving, "_catalogue", whole)
        await pause(2 * fed.FETCH_PAUSE_S)
        assert bench.tools("tool@b") == ["echo", "look"]


async def test_an_answer_that_is_not_the_one_that_was_told_of_is_kept_and_asked_for_again(
    tmp_path: Path, quick_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, asked = Serving._catalogue, 0

    async def early(self: Any, server: Any, source: str) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return await whole(self, server, source) | {"digest": "00"}

    async with a_bench(tmp_path, **FOREIGN) as bench:
        monkeypatch.setattr(Serving, "_catalogue", early)
        await bench.offer("tool")
        bench.govern("terms", mode="full")
        bench.federation.entries()
        await pause(5.0)
        assert bench.tools("tool@b") == ["echo", "look"]
        assert 3 <= asked <= 6
        # It says in mid-answer that there is nothing any more.
        bench.govern("terms", mode="")
        await pause(5.0)
        assert bench.tools("tool@b") == []


# --- changes -------------------------------------------------------------------------------------


async def test_watchers_hear_what_differs_after_the_debounce(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    heard: list[tuple[list[str], list[str]]] = []
    async with a_bench(tmp_path) as bench:
        end = bench.federation.watch(lambda old, new: heard.append((list(old), list(new))))
        bench.b.member.register("plain")
        bench.desks.settle(2.0)
        bench.federation.touch()
        await trio.sleep(fed.DEBOUNCE_S / 2)
        assert heard == []
        await pause()
        assert heard == [([], ["plain@b"])]
        bench.federation.touch()
        await pause()
        assert len(heard) == 1
        end()
        end()
        bench.b.member.do(lambda ticket: ev.DeregisterCi(ticket, "plain", None, True))
        bench.desks.settle(2.0)
        await pause()
        assert len(heard) == 1


async def test_only_what_is_about_cis_or_their_stack_is_a_change(tmp_path: Path) -> None:
    async with a_bench(tmp_path, telling=False) as bench:
        before = bench.federation.version
        bench.desks.network.run(400.0)  # refreshes
        bench.desks.network.cut("a", "b")  # changes the links of a
        bench.desks.network.join("a", "b")
        bench.desks.network.run(2.0)
        assert bench.federation.version == before
        bench.b.member.register("plain")
        bench.desks.settle(2.0)
        assert bench.federation.version > before


async def test_catalogues_that_nobody_refers_to_are_forgotten(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_bench(tmp_path) as bench:
        await bench.offer("tool")
        bench.federation.entries()
        await pause()
        assert len(bench.federation._catalogues) == 1
        bench.b.member.do(lambda ticket: ev.DeregisterCi(ticket, "tool", None, True))
        bench.desks.settle(2.0)
        await pause()
        assert bench.federation._catalogues == {}


def entry(made: cat.Catalogue | None, **more: Any) -> Entry:
    fields: dict[str, Any] = {"local": False, "state": "up", "mcp": True, "description": ""}
    return Entry("id", "b", "tool", catalogue=made, **(fields | more))


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (entry(None), entry(MADE), ["tools", "resources"]),
        (entry(MADE), entry(MADE), []),
        (entry(MADE), entry(catalogue(tools=[*MADE.tools])), ["resources"]),
        (None, entry(catalogue(prompts=[{"name": "ask"}])), ["prompts"]),
        (None, entry(None, mcp=False), ["tools"]),
        (entry(None, mcp=False), entry(None, mcp=False, says=False), ["tools"]),
        (entry(None, mcp=False), entry(None, mcp=False, state=OFFLINE), ["tools"]),
        (entry(MADE), None, ["tools", "resources"]),
    ],
)
def test_which_lists_differ(before: Entry | None, after: Entry | None, kinds: list[str]) -> None:
    assert kinds_that_differ(before, after) == kinds
