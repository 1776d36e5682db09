"""A call of nearly 15 minutes over two daemons, with the clock of both made to run faster."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
import trio.testing
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tektonmesh.api.doors import open_doors
from tektonmesh.core import events as ev
from tektonmesh.mcp import frames, servers, upstream
from tektonmesh.net.daemon import open_daemon
from tests.e2e.hosts import SERVER, said
from tests.integration.daemons import config_of, spec_of, state_of, until

# The official client leaves inner generators of its HTTP library to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
RATE = 40.0
"""Seconds of the daemons in one of the server's, which is a process of its own."""
PAUSE_S, PAUSES = 70.0, 12


def test_a_call_of_nearly_15_minutes_with_silences_over_a_minute_comes_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PAUSE_S > frames.IDLE_S, "only the owner's word can keep such a call alive"
    assert 800.0 < PAUSE_S * PAUSES < frames.CALL_MAX_S
    # The server starts no faster for it.
    monkeypatch.setattr(upstream, "PROBE_TIMEOUT_S", RATE * upstream.PROBE_TIMEOUT_S)
    monkeypatch.setattr(servers, "START_TIMEOUT_S", RATE * servers.START_TIMEOUT_S)
    clock = trio.testing.MockClock(rate=RATE)
    steps, took = trio.run(partial(long_call, tmp_path), clock=clock)
    assert steps == list(range(PAUSES))
    assert PAUSE_S * PAUSES <= took < frames.CALL_MAX_S


async def long_call(home: Path) -> tuple[list[float], float]:
    """What was heard of its progress, and how long it took by the daemons' clock."""
    steps: list[float] = []

    async def heard(done: float, _total: float | None, _words: str | None) -> None:
        steps.append(done)

    async with (
        open_daemon(config_of(home, "east")) as east,
        open_doors(east),
        open_daemon(config_of(home, "west", seeds=(east.listen[0],))) as west,
        open_doors(west),
    ):
        await until(lambda: state_of(east, "west") == "up", within_s=10.0 * RATE)
        server = {"stdio": {"command": [sys.executable, str(SERVER)]}}
        spec = spec_of("slow", how={"kind": "none"}, mcp=server, persist=True)
        await west.ask(lambda ticket: ev.RegisterCi(ticket, spec, None, None, True))
        transport = httpx2.AsyncHTTPTransport(uds=str(east.socket_path))
        async with (
            httpx2.AsyncClient(transport=transport, timeout=2000.0) as http,
            Client(
                streamable_http_client("http://localhost/mcp", http_client=http), cache=None
            ) as client,
        ):
            await until_listed(client, "west__slow__pauses")
            began = trio.current_time()
            given: dict[str, Any] = {"seconds": PAUSE_S / RATE, "times": PAUSES}
            done = await client.call_tool("west__slow__pauses", given, progress_callback=heard)
            assert said(done) == "done"
            return steps, trio.current_time() - began


async def until_listed(client: Client, name: str) -> None:
    with trio.fail_after(20.0 * RATE):
        while name not in [tool.name for tool in (await client.list_tools()).tools]:
            await trio.sleep(0.1 * RATE)
