"""Replies that resume, through the doors of a daemon that goes away and comes back."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tektonmesh.api.client import Client
from tektonmesh.api.dialect import Request
from tektonmesh.errors import MeshError
from tektonmesh.sync import Client as SyncClient
from tektonmesh.sync import Message
from tests.doors import lines_to, open_stack, until
from tests.integration.test_api_http import http_to

WORDS = [f"word-{number} " for number in range(300)]
WHOLE = "".join(WORDS)
ASKED: dict[str, Any] = {"to": "numa", "body": "go", "stream": True, "idempotency_key": "k"}


async def test_a_ci_that_says_offsets_is_told_what_it_need_not_keep(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 1, "method": "send", "params": ASKED})
        asked = await ci.read()
        assert asked is not None and asked["params"]["reply_from"] == 0
        number = asked["id"]
        params = {"id": number, "data": "one ", "offset": 0}
        await ci.write({"method": "reply.chunk", "params": params})
        kept = await ci.read()
        assert kept is not None and kept["method"] == "reply.kept"
        assert kept["params"] == {"id": number, "offset": 4}
        # What it says twice is heard once; where it leaves something out it fails.
        params = {"id": number, "data": "one two ", "offset": 0}
        await ci.write({"method": "reply.chunk", "params": params})
        heard = [await user.read(), await user.read()]
        assert [one["params"]["data"] for one in heard if one] == ["one ", "two "]
        params = {"id": number, "data": "four", "offset": 14}
        await ci.write({"method": "reply.chunk", "params": params})
        failed = await user.read()
        assert failed is not None and failed["error"]["data"]["code"] == "ci_failed"


async def test_a_ci_that_says_none_hears_of_nothing(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 1, "method": "send", "params": ASKED})
        asked = await ci.read()
        assert asked is not None
        params = {"id": asked["id"], "data": "one "}
        await ci.write({"method": "reply.chunk", "params": params})
        await ci.write({"id": asked["id"], "result": {"body": "two"}})
        assert (await ci.call(2, "ping"))["result"] == {}
        got = [await user.read() for _ in range(3)]
        assert [one["params"]["data"] for one in got if one and "method" in one] == ["one ", "two"]


@pytest.mark.parametrize("offset", ["x", -1, 1.5e30])
async def test_a_malformed_offset_fails_that_answer(tmp_path: Path, offset: Any) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 1, "method": "send", "params": ASKED})
        asked = await ci.read()
        assert asked is not None
        params = {"id": asked["id"], "data": "one ", "offset": offset}
        await ci.write({"method": "reply.chunk", "params": params})
        failed = await user.read()
        assert failed is not None and failed["error"]["data"]["code"] == "ci_failed"


async def test_an_event_stream_goes_on_from_an_offset(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        http_to(doors) as http,
    ):
        await ci.call(1, "register", name="numa")
        headers = {"accept": "text/event-stream", "idempotency-key": "k"}
        got: list[str] = []

        async def read(place: str) -> None:
            got.append((await http.post(place, json={"message": "go"}, headers=headers)).text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, "/api/message/numa")
            asked = await ci.read()
            assert asked is not None
            await ci.write({"id": asked["id"], "result": {"body": "hello, world"}})
        await read("/api/message/numa?offset=7")
        assert "hello, world" in got[0]
        assert '"world"' in got[1] and "hello" not in got[1]


class Gate:
    """Lets a handler go on from half of its words when it is opened."""

    def __init__(self) -> None:
        self.half = trio.Event()
        self.open = trio.Event()
        self.runs = 0

    async def talk(self, _request: Request) -> AsyncIterator[str]:
        self.runs += 1
        for number, word in enumerate(WORDS):
            if number == len(WORDS) // 2:
                self.half.set()
                await self.open.wait()
            yield word


async def serve(path: Path, handler: Any) -> None:
    """A CI of the first daemon at `path`, and of those after it."""
    async with Client(path) as client:
        await client.register("numa")
        await client.serve(handler)


async def test_handler_and_caller_outlive_their_daemon(tmp_path: Path) -> None:
    gate, got = Gate(), []
    path = tmp_path / "west" / "tektonmesh.sock"

    async def read() -> None:
        async with (
            Client(path) as user,
            user.stream("numa", "go", resume=True, timeout=60) as reply,
        ):
            async for text in reply:
                got.append(text)
        assert reply.reply is not None and reply.reply.body == WHOLE
        nursery.cancel_scope.cancel()

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            async with open_stack(tmp_path) as doors:
                nursery.start_soon(serve, path, gate.talk)
                await until(lambda: doors.daemon.node.cis.get("numa"))
                nursery.start_soon(read)
                await gate.half.wait()
            gate.open.set()  # it says the rest to nobody
            await trio.sleep(0.1)
            async with open_stack(tmp_path):
                await trio.sleep_forever()
    assert "".join(got) == WHOLE and gate.runs == 1


async def test_the_blocking_client_does_so_too(tmp_path: Path) -> None:
    half, go_on, runs = threading.Event(), threading.Event(), []

    def talk(_message: Message) -> Iterator[str]:
        runs.append(1)
        for number, word in enumerate(WORDS):
            if number == len(WORDS) // 2:
                half.set()
                go_on.wait(20)
            yield word

    path = tmp_path / "west" / "tektonmesh.sock"
    ci, got = SyncClient(path), []

    def serve() -> None:
        try:
            ci.serve(talk)
        except MeshError:
            pass

    def read() -> None:
        with SyncClient(path) as user, user.stream("numa", "go", resume=True, timeout=60) as reply:
            got.extend(reply)

    async with open_stack(tmp_path):
        await trio.to_thread.run_sync(ci.register, "numa")
        threads = [threading.Thread(target=act, daemon=True) for act in (serve, read)]
        for thread in threads:
            thread.start()
        await trio.to_thread.run_sync(half.wait, 10)
    go_on.set()
    async with open_stack(tmp_path):
        await until(lambda: not threads[1].is_alive(), within_s=30)
        await trio.to_thread.run_sync(ci.close)
    assert "".join(got) == WHOLE and runs == [1]


async def test_a_handler_whose_daemon_stays_away_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tektonmesh.api.works.AWAY_S", 0.1)
    ended = trio.Event()

    async def talk(_request: Request) -> AsyncIterator[str]:
        try:
            while True:
                yield "on and on "
                await trio.sleep(0.01)
        finally:
            ended.set()

    path = tmp_path / "west" / "tektonmesh.sock"
    async with trio.open_nursery() as nursery:
        async with open_stack(tmp_path) as doors:
            nursery.start_soon(serve, path, talk)
            await until(lambda: doors.daemon.node.cis.get("numa"))
            async with (
                Client(path) as user,
                user.stream("numa", "go", idempotency_key="k", timeout=60) as reply,
            ):
                assert await reply.__anext__()
        with trio.fail_after(5):
            await ended.wait()
        nursery.cancel_scope.cancel()
