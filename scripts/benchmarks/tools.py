"""`mcp`: a call of a tool through the gateway, here and over links, beside the bare SDK."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from scripts.benchmarks.figures import Figure, middle, quantile
from scripts.benchmarks.fleet import fleet, processes
from tests.e2e.stacks import Stack, wait_until

TEXT = "x" * 100
SERVER = Path(__file__).with_name("mcp_server.py")


def timed(socket: Path, face: str, tool: str, count: int) -> list[float]:
    """Milliseconds of each call, after a warm-up."""

    async def act() -> list[float]:
        transport = httpx2.AsyncHTTPTransport(uds=str(socket))
        async with (
            httpx2.AsyncClient(transport=transport, timeout=60.0) as http,
            Client(
                streamable_http_client(f"http://localhost{face}", http_client=http), cache=None
            ) as client,
        ):
            took = []
            for number in range(count + count // 10):
                began = time.perf_counter()
                await client.call_tool(tool, {"text": TEXT})
                if number >= count // 10:
                    took.append((time.perf_counter() - began) * 1000.0)
            return took

    return trio.run(act)


def mcp(*, quick: bool) -> Iterator[Figure]:
    """`tools/call` of an echo, p50: direct, in one stack, over 1 and 3 links."""
    count, repeats = (50, 1) if quick else (500, 3)
    with tempfile.TemporaryDirectory() as folder, processes() as running, fleet() as mesh:
        floor_socket = Path(folder) / "s"
        running.start("mcp_server", str(floor_socket))
        stacks = mesh.chain("abcd")
        owner = stacks[-1]
        server = {"stdio": {"command": [sys.executable, str(SERVER), "--stdio"]}}
        owner.rpc("register", name="echo", attach=False, persist=True, mcp=server)
        for stack in stacks:
            wait_until("the tool", lambda one=stack: knows(one), within_s=30)
        floors: list[list[float]] = []
        real: dict[int, list[list[float]]] = {0: [], 1: [], 3: []}
        for _ in range(repeats):
            floors.append(timed(floor_socket, "/mcp", "echo", count))
            for links, runs in real.items():
                stack = stacks[-1 - links]
                socket = stack.home / "tektonmesh.sock"
                runs.append(timed(socket, "/mcp/ci/echo@d", "echo", count))
        floor = middle([middle(run) for run in floors])
        goals = {0: "", 1: "at most 1.25", 3: "at most 1.5"}
        for links, runs in real.items():
            value = middle([middle(run) for run in runs])
            yield Figure(
                "mcp",
                f"tools/call, {links} link(s), p50",
                value,
                "ms",
                count * repeats,
                p50=value,
                p99=middle([quantile(run, 0.99) for run in runs]),
                limit=("direct", floor),
                goal=goals[links],
            )


def knows(stack: Stack) -> bool:
    return "echo@d" in stack.cis() and bool(stack.rpc("tools", ci="echo@d"))
