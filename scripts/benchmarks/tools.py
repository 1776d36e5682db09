"""`mcp`: a call of a tool through the gateway, here and over links, beside the bare SDK."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from scripts.benchmarks.figures import Figure, middle, quantile
from scripts.benchmarks.fleet import fleet, processes
from tests.e2e.hosts import attach, host, said
from tests.e2e.stacks import Stack, wait_until

TEXT = "x" * 100
FLOOR, FACE = "http://localhost/mcp", "http://localhost/mcp/ci/echo@d"
PAUSES = 14
SERVER = Path(__file__).with_name("mcp_server.py")


def timed(
    url: str,
    tool: str,
    count: int,
    *,
    socket: Path | None = None,
    headers: dict[str, str] | None = None,
    mode: Any = "auto",
) -> list[float]:
    """Milliseconds of each call by a client in this process, after a warm-up."""

    async def act() -> list[float]:
        transport = httpx2.AsyncHTTPTransport(uds=None if socket is None else str(socket))
        async with (
            httpx2.AsyncClient(transport=transport, timeout=60.0, headers=headers) as http,
            Client(streamable_http_client(url, http_client=http), cache=None, mode=mode) as client,
        ):
            took = []
            for number in range(count + count // 10):
                began = time.perf_counter()
                result = await client.call_tool(tool, {"text": TEXT})
                assert not result.is_error, result
                if number >= count // 10:
                    took.append((time.perf_counter() - began) * 1000.0)
            return took

    return trio.run(act)


def mcp(*, quick: bool) -> Iterator[Figure]:
    """`tools/call` of an echo, p50: direct, over a bare relay, in one stack, over 1 and 3 links."""
    count, repeats = (50, 1) if quick else (500, 3)
    with tempfile.TemporaryDirectory() as folder, processes() as running, fleet() as mesh:
        floor_socket = Path(folder) / "s"
        relay_socket = Path(folder) / "r"
        running.start("mcp_server", str(floor_socket))
        running.start("mcp_relay", str(relay_socket))
        stacks = mesh.chain("abcd")
        owner = stacks[-1]
        server = {"stdio": {"command": [sys.executable, str(SERVER), "--stdio"]}}
        owner.rpc("register", name="echo", attach=False, persist=True, mcp=server)
        for stack in stacks:
            wait_until("the tool", lambda one=stack: knows(one), within_s=30)
        floors: list[list[float]] = []
        relays: list[list[float]] = []
        real: dict[int, list[list[float]]] = {0: [], 1: [], 3: []}
        for _ in range(repeats):
            floors.append(timed(FLOOR, "echo", count, socket=floor_socket))
            relays.append(timed(FLOOR, "echo", count, socket=relay_socket))
            for links, runs in real.items():
                stack = stacks[-1 - links]
                socket = stack.home / "tektonmesh.sock"
                runs.append(timed(FACE, "echo", count, socket=socket))
        floor = middle([middle(run) for run in floors])
        beside, samples = ("direct", floor), count * repeats
        relay = middle([middle(run) for run in relays])
        yield Figure("mcp", "bare relay of the SDK, p50", relay, "ms", samples, limit=beside)
        goals = {0: "", 1: "at most 1.25", 3: "at most 1.5"}
        for links, runs in real.items():
            value = middle([middle(run) for run in runs])
            yield Figure(
                "mcp",
                f"tools/call, {links} link(s), p50",
                value,
                "ms",
                samples,
                p50=value,
                p99=middle([quantile(run, 0.99) for run in runs]),
                limit=beside,
                goal=goals[links],
            )


def knows(stack: Stack) -> bool:
    return "echo@d" in stack.cis() and bool(stack.rpc("tools", ci="echo@d"))


def silence(*, quick: bool) -> Iterator[Figure]:
    """Two calls over a link that last for nearly the 15 min that a call may: the server of one
    says something every 62 s, that of the other nothing before its end. What they took beyond."""
    pause = 1 if quick else 62
    with fleet() as mesh:
        a, b = mesh.chain("ab")
        attach(b, "slow")
        wait_until(
            "the tool", lambda: any(it["ci"] == "slow@b" for it in a.rpc("tools")), within_s=30
        )
        told, took = trio.run(both, a, pause)
    seconds = PAUSES * pause
    yield Figure("silence", "silences of a minute, beyond", took["pauses"] - seconds, "s", 1)
    yield Figure("silence", "progress that was heard", told, "times", 1)
    yield Figure("silence", "one silence, beyond", took["sleep"] - seconds, "s", 1)


async def both(stack: Stack, pause: int) -> tuple[int, dict[str, float]]:
    """How often progress was heard, and the seconds of each call."""
    told: list[float] = []
    took: dict[str, float] = {}

    async def heard(done: float, _total: float | None, _words: str | None) -> None:
        told.append(done)

    async def call(name: str, **arguments: int) -> None:
        began = time.perf_counter()
        async with host(stack, "/mcp/ci/slow@b", patience_s=1000.0) as client:
            done = await client.call_tool(name, arguments, progress_callback=heard)
        assert said(done) == "done", done
        took[name] = time.perf_counter() - began

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(call, "pauses", seconds=pause, times=PAUSES))
        nursery.start_soon(partial(call, "sleep", seconds=PAUSES * pause))
    return len(told), took
