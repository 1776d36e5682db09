"""Lists of tools: read from the local replica, large ones too, and in a partition."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from tektonmesh.api.doors import open_doors
from tektonmesh.core import events as ev
from tektonmesh.mcp import catalogue as cat
from tektonmesh.net.daemon import Daemon, open_daemon
from tests.integration.daemons import config_of, spec_of, state_of, until

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
CIS, TOOLS = 100, 10
LIST_S = 0.2


async def offer(daemon: Daemon, name: str) -> None:
    """A CI with a catalogue, as if its server had been asked."""
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string", "description": "x" * 300}},
    }
    tools = [
        {"name": f"tool_{number}", "description": f"{name}: " + "y" * 300, "inputSchema": schema}
        for number in range(TOOLS)
    ]
    made = cat.make({"capabilities": {"tools": {}}}, {"tools": tools}, lambda _word: None)
    spec = spec_of(name, how={"kind": "none"}, mcp={"http": {"url": "http://127.0.0.1:9/mcp"}})
    await daemon.ask(
        lambda ticket: ev.RegisterCi(ticket, spec | {"persist": True}, None, None, True)
    )
    put = await daemon.ask(lambda ticket: ev.PutBlob(ticket, cat.pack(made)))
    reference = {"hash": bytes.fromhex(put["hash"]), "length": put["length"]} | made.counts()
    await daemon.ask(lambda ticket: ev.SetCatalogue(ticket, name, reference))


async def test_a_thousand_tools_of_a_hundred_cis_are_listed_in_one_page_at_once_also_in_a_partition(
    tmp_path: Path,
) -> None:
    async with open_daemon(config_of(tmp_path, "east")) as east, open_doors(east):
        async with open_daemon(config_of(tmp_path, "west", seeds=(east.listen[0],))) as west:
            await until(lambda: state_of(east, "west") == "up")
            for number in range(CIS):
                await offer(west, f"ci{number}")
            async with host(east) as client:
                with trio.fail_after(60):
                    while await count(client) < CIS * TOOLS:
                        await trio.sleep(0.2)
                assert await quickest(client) < LIST_S
        # The daemon of west ended without leaving: for east it is unreachable.
        await until(lambda: state_of(east, "west") == "unreachable", within_s=20)
        async with host(east) as client:
            assert await count(client) == CIS * TOOLS
            assert await quickest(client) < LIST_S
            with pytest.raises(MCPError) as raised:
                await client.call_tool("west__ci7__tool_1", {})
            assert raised.value.error.data["code"] == "unreachable"


@asynccontextmanager
async def host(daemon: Daemon) -> AsyncIterator[Client]:
    transport = httpx2.AsyncHTTPTransport(uds=str(daemon.socket_path))
    async with httpx2.AsyncClient(transport=transport, timeout=60.0) as http:
        face = streamable_http_client("http://localhost/mcp", http_client=http)
        async with Client(face, cache=None) as client:
            yield client


async def count(client: Client) -> int:
    page = await client.list_tools()
    assert page.next_cursor is None, "old clients read the first page alone"
    return sum(tool.name.startswith("west__") for tool in page.tools)


async def quickest(client: Client) -> float:
    """The best of five: this machine does other things as well."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        await client.list_tools()
        took.append(time.perf_counter() - began)
    return min(took)
