"""Everything of MCP in one daemon: which face a caller gets, and who hears of what."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from mcp import Client

from tektonmesh.errors import LocalError, StoreError
from tektonmesh.mcp import frames
from tektonmesh.mcp import hub as hub_module
from tektonmesh.mcp.base import FILE_NAME
from tektonmesh.mcp.hub import ALL, offers_of
from tests.desks import catalogue, offer, tool
from tests.unit.mcp.hubs import MADE, HubBench, a_hub
from tests.unit.mcp.test_scopes import PLAIN, entry

pytestmark = [
    # The official client leaves streams of its own to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]


async def names(face: Any) -> list[str]:
    async with Client(face.gateway.server, cache=None) as client:
        return [one.name for one in (await client.list_tools()).tools]


# --- faces ---------------------------------------------------------------------------------------


async def test_everything_one_ci_and_a_view_are_faces_of_their_own(tmp_path: Path) -> None:
    views = {
        "some": SimpleNamespace(allow=("files@b/look",), mode="full"),
        "search": SimpleNamespace(allow=("files@b",), mode="search"),
    }
    async with a_hub(tmp_path, views=views) as bench:
        await bench.offer()
        every = await bench.hub.face()
        assert {"mesh_search_tools", "b__files__echo"} <= set(await names(every))
        one = await bench.hub.face(ci="files@b")
        assert await names(one) == ["echo", "look"]
        assert one.gateway.server.instructions == "Be kind."
        assert "b__files__echo" not in await names(await bench.hub.face(view="some"))
        assert "b__files__look" in await names(await bench.hub.face(view="some"))
        assert "b__files__look" not in await names(await bench.hub.face(view="search"))


async def test_a_face_is_kept_and_found_by_every_spelling_of_its_ci(tmp_path: Path) -> None:
    async with a_hub(tmp_path) as bench:
        await bench.offer("Files")
        one = await bench.hub.face(ci="Files@b")
        assert await bench.hub.face(ci="files@b") is one
        assert await bench.hub.face() is await bench.hub.face()


@pytest.mark.parametrize("wanted", [{"ci": "absent@b"}, {"view": "absent"}])
async def test_what_is_not_known_has_no_face(tmp_path: Path, wanted: dict[str, str]) -> None:
    async with a_hub(tmp_path) as bench:
        with pytest.raises(LocalError) as raised:
            await bench.hub.face(**wanted)
        assert raised.value.code.name == "not_found"


async def test_a_ci_that_callers_here_may_not_use_has_no_face(tmp_path: Path) -> None:
    async with a_hub(tmp_path) as bench:
        await bench.offer()
        bench.imports("other")
        with pytest.raises(LocalError, match="No CI is known"):
            await bench.hub.face(ci="files@b")


async def test_a_ci_that_offers_other_things_is_another_server(tmp_path: Path) -> None:
    async with a_hub(tmp_path) as bench:
        await bench.offer()
        before = await bench.hub.face(ci="files@b")
        await bench.offer(made=catalogue({"capabilities": {"tools": {}}}, tools=[tool("echo")]))
        after = await bench.hub.face(ci="files@b")
        assert after is not before and before.ended.cancel_called
        assert after.gateway.offers == ("tools", "logging")


async def test_the_face_that_was_used_least_lately_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "FACES_MAX", 2)
    async with a_hub(tmp_path) as bench:
        for name in ("one", "two", "three"):
            await bench.offer(name)
        one, two = await bench.hub.face(ci="one@b"), await bench.hub.face(ci="two@b")
        await bench.hub.face(ci="one@b")
        await bench.hub.face(ci="three@b")
        assert two.ended.cancel_called and not one.ended.cancel_called


async def test_two_that_want_the_same_face_at_once_get_one(tmp_path: Path) -> None:
    async with a_hub(tmp_path) as bench:
        await bench.offer()
        found: list[Any] = []

        async def ask(**wanted: str) -> None:
            found.append(await bench.hub.face(**wanted))

        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(lambda: ask(ci="files@b"))
                nursery.start_soon(ask)
        assert len(found) == 4 and len({id(one) for one in found}) == 2


def test_the_capabilities_of_a_face_are_those_of_its_server() -> None:
    assert offers_of(PLAIN) == ("tools",)
    assert offers_of(entry("files", made=None)) == ("tools",)
    assert offers_of(entry("files", made=catalogue({"capabilities": 7}))) == ("logging",)
    told: dict[str, Any] = {word: {} for word in ALL}
    assert offers_of(entry("files", made=catalogue({"capabilities": told}))) == ALL


# --- changes -------------------------------------------------------------------------------------


async def changed(bench: HubBench, client: Client, act: Any) -> list[str]:
    """The lists that a listening host is told of after `act`."""
    found: list[str] = []
    async with client.listen(
        tools_list_changed=True, resources_list_changed=True, prompts_list_changed=True
    ) as changes:
        await act()

        async def read() -> None:
            async for event in changes:
                found.append(type(event).__name__)

        with trio.move_on_after(1.5):
            await read()
    return found


async def test_a_host_hears_of_changes_of_what_its_face_shows(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    more = catalogue(MADE.info, tools=[tool("echo"), tool("new")], prompts=[{"name": "ask"}])
    async with a_hub(tmp_path) as bench:
        await bench.offer()
        await bench.offer("other")
        await trio.sleep(1.0)
        face = await bench.hub.face(ci="files@b")
        async with Client(face.gateway.server, cache=None) as client:

            async def other() -> None:
                await bench.offer("other", more)

            async def mine() -> None:
                await bench.offer("files", more)

            assert await changed(bench, client, other) == []
            assert await changed(bench, client, mine) == [
                "ToolsListChanged", "ResourcesListChanged",
            ]  # fmt: skip


async def test_changes_of_a_resource_are_heard_of_until_nobody_listens(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_hub(tmp_path) as bench:
        await bench.offer()
        face = await bench.hub.face(ci="files@b")
        server = bench.servers["files"]
        async with Client(face.gateway.server, cache=None) as client:
            async with client.listen(resource_subscriptions=["note://one"]) as changes:
                await trio.testing.wait_all_tasks_blocked()
                assert server.subscribed == ["note://one"]
                [(_ci, _uris, talk)] = bench.serving._listeners.values()
                for uri in ("note://two", "note://one"):
                    about = {"uri": uri}
                    line = frames.notification_line("notifications/resources/updated", about)
                    talk.say(line)
                with trio.fail_after(5):
                    event: Any = await anext(aiter(changes))
                assert str(event.uri) == "note://one"
            with trio.fail_after(5):
                while server.subscribed:
                    await trio.sleep(0.1)


async def test_listening_that_fails_is_begun_again_after_a_pause(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_hub(tmp_path) as bench:
        await bench.offer()
        face = await bench.hub.face(ci="files@b")
        server = bench.servers.pop("files")
        async with (
            Client(face.gateway.server, cache=None) as client,
            client.listen(resource_subscriptions=["note://one"]),
        ):
            await trio.sleep(1.0)
            bench.servers["files"] = server
            await trio.sleep(hub_module.LISTEN_PAUSE_S)
            assert server.subscribed == ["note://one"]


# --- the hub itself ------------------------------------------------------------------------------


async def test_a_hub_takes_calls_while_it_lasts(tmp_path: Path) -> None:
    async with a_hub(tmp_path) as bench:
        assert bench.a.calls == 1 and bench.a.attached == [1]
    assert bench.a.calls == 0 and bench.a.attached == []


async def test_a_registration_that_names_a_server_has_one_from_then_on(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with a_hub(tmp_path) as bench:
        assert bench.hub.servers.get("mine") is None
        await offer(bench.a, "mine", MADE)
        await trio.sleep(0.1)
        assert bench.hub.servers.get("mine") is not None


async def test_what_was_pinned_is_on_the_disk_soon_and_at_the_end(tmp_path: Path) -> None:
    async with a_hub(tmp_path) as bench:
        await bench.offer()
        await names(await bench.hub.face(ci="files@b"))
        assert bench.hub.pins.unsaved
        with trio.fail_after(5):
            while bench.hub.pins.unsaved:
                await trio.sleep(0.05)
        await bench.offer("late")
        await names(await bench.hub.face(ci="late@b"))
        assert bench.hub.pins.unsaved
    assert not bench.hub.pins.unsaved


async def test_a_home_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, whatever it is called" * 100)
    with pytest.raises(BaseExceptionGroup) as raised:
        async with a_hub(tmp_path):
            raise AssertionError
    assert raised.group_contains(StoreError)
