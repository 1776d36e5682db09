"""MCP line by line on a connection of the Unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
import trio
import trio.testing

from tektonmesh.api.lines import LineSocket
from tektonmesh.mcp.session import Said, serve
from tektonmesh.net.rounds import Rounds
from tests.unit.mcp.hubs import HubBench, a_hub

VERSION = "2026-07-28"
META = {types.PROTOCOL_VERSION_META_KEY: VERSION, types.CLIENT_CAPABILITIES_META_KEY: {}}
SHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "host", "version": "1"},
}


class Host:
    """The other end of the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._rest = b""
        self.over = trio.Event()

    async def say(self, *messages: Any) -> None:
        lines = [
            one if isinstance(one, bytes) else json.dumps({"jsonrpc": "2.0"} | one).encode()
            for one in messages
        ]
        await self._stream.send_all(b"".join(line + b"\n" for line in lines))

    async def hear(self) -> Any:
        with trio.fail_after(5):
            while b"\n" not in self._rest:
                data = await self._stream.receive_some()
                if not data:
                    return None
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    async def stop_talking(self) -> None:
        await self._stream.send_eof()

    async def hang_up(self) -> None:
        await self._stream.aclose()


@asynccontextmanager
async def a_host(home: Path, said: Said | None = None) -> AsyncIterator[tuple[HubBench, Host]]:
    async with a_hub(home) as bench, trio.open_nursery() as nursery:
        await bench.offer()
        face = await bench.hub.face(ci="files@b")
        near, far = socket.socketpair()
        near.setblocking(False)
        host = Host(far)

        async def serving() -> None:
            with near:
                await serve(face, LineSocket(near, b"", Rounds()), said or Said("", ""))
            host.over.set()

        nursery.start_soon(serving)
        yield bench, host
        await host.hang_up()
        with trio.fail_after(5):
            await host.over.wait()


def request(number: int, method: str, **params: Any) -> dict[str, Any]:
    return {"id": number, "method": method, "params": params}


async def test_the_newest_dialect_needs_no_greeting(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (_bench, host):
        await host.say(request(1, "tools/list", _meta=META))
        found = await host.hear()
        assert [it["name"] for it in found["result"]["tools"]] == ["echo", "look"]
        await host.say(request(2, "tools/call", name="echo", arguments={"a": 1}, _meta=META))
        assert (await host.hear())["result"]["content"][0]["text"] == "{'a': 1}"


async def test_an_old_host_shakes_hands(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (_bench, host):
        await host.say(request(1, "initialize", **SHAKE))
        assert (await host.hear())["result"]["instructions"] == "Be kind."
        await host.say({"method": "notifications/initialized"}, request(2, "tools/list"))
        assert len((await host.hear())["result"]["tools"]) == 2


async def test_whose_host_it_is_was_said_by_the_connection(tmp_path: Path) -> None:
    async with a_host(tmp_path, Said("numa", "token")) as (bench, host):
        bench.a.member.register("numa")
        seen: list[Any] = []

        async def note(_method: str, params: dict[str, Any], _flight: Any) -> dict[str, Any]:
            seen.append(params["_meta"]["tektonmesh/caller"]["ci"])
            return {"content": []}

        bench.servers["files"].call = note
        await host.say(request(1, "tools/call", name="echo", _meta=META))
        assert "result" in await host.hear()
        assert seen == ["numa"]
    assert Said("", "token").headers == {}


async def test_a_line_that_is_no_message_costs_nothing_but_itself(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (_bench, host):
        await host.say(b"no json", b"[]", request(1, "tools/list", _meta=META))
        while (found := await host.hear()).get("id") != 1:
            continue
        assert found["result"]["tools"]


async def test_a_host_that_only_stopped_talking_hears_the_answers_to_what_it_asked(
    tmp_path: Path,
) -> None:
    async with a_host(tmp_path) as (bench, host):
        go = trio.Event()

        async def slow(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
            await go.wait()
            return {"content": []}

        bench.servers["files"].call = slow
        listen = {"notifications": {"toolsListChanged": True}, "_meta": META}
        await host.say(
            request(1, "subscriptions/listen", **listen),
            request(2, "tools/call", name="echo", _meta=META),
            request(3, "no/such/method", _meta=META),
        )
        await host.stop_talking()
        heard: dict[Any, Any] = {}
        while 3 not in heard:
            found = await host.hear()
            heard[found.get("id")] = found
        assert "error" in heard[3] and not host.over.is_set()
        go.set()
        while 2 not in heard:
            found = await host.hear()
            heard[found.get("id")] = found
        assert "result" in heard[2]
        # The stream of changes, which has no end, holds nobody up.
        with trio.fail_after(5):
            await host.over.wait()


async def test_a_host_that_hangs_up_in_mid_call_cancels_it(tmp_path: Path) -> None:
    cancelled = trio.Event()

    async def never(_method: str, _params: Any, _flight: Any) -> dict[str, Any]:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    async with a_host(tmp_path) as (bench, host):
        bench.servers["files"].call = never
        await host.say(request(1, "tools/call", name="echo", _meta=META))
        await trio.testing.wait_all_tasks_blocked(0.05)
    with trio.fail_after(5):
        await cancelled.wait()


async def test_a_line_without_an_end_ends_the_connection(tmp_path: Path) -> None:
    async with a_host(tmp_path) as (_bench, host):
        with pytest.raises(trio.BrokenResourceError):
            await host._stream.send_all(b"x" * (64 << 20))
        with trio.fail_after(5):
            await host.over.wait()
