"""MCP hosts for tests: the official client, on the Unix socket of a stack."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import trio
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.e2e.stacks import Stack, wait_until

SERVER = Path(__file__).with_name("mcp_server.py")
CONFORMANCE = Path(__file__).parents[1] / "conformance" / "server.py"


def attach(stack: Stack, name: str, *options: str, server: Path = SERVER, **more: Any) -> None:
    """Register a CI of that name with an MCP server of its own, whose catalogue is there when this
    returns."""
    command = [sys.executable, str(server), *options]
    before = changes(stack)
    mcp = {"stdio": {"command": command}}
    stack.rpc("register", name=name, attach=False, persist=True, mcp=mcp, **more)
    wait_until("a catalogue", lambda: changes(stack) > before, within_s=30)


def changes(stack: Stack) -> int:
    return stack.log.read_text().count("catalogue changed")


@asynccontextmanager
async def host(
    stack: Stack,
    face: str = "/mcp",
    *,
    patience_s: float = 60.0,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> AsyncIterator[Client]:
    """A client of one face; `mode="legacy"` is one of the old era."""
    socket = str(stack.home / "tektonmesh.sock")
    transport = httpx2.AsyncHTTPTransport(uds=socket)
    async with (
        httpx2.AsyncClient(transport=transport, timeout=patience_s, headers=headers) as http,
        Client(
            streamable_http_client(f"http://localhost{face}", http_client=http),
            cache=None,
            **options,
        ) as client,
    ):
        yield client


async def tools(client: Client) -> list[str]:
    return [tool.name for tool in (await client.list_tools()).tools]


async def listed(client: Client, wanted: Callable[[list[str]], object], within_s: float) -> float:
    """Until the list of tools is as wanted; the seconds that took."""
    began = trio.current_time()
    with trio.fail_after(within_s):
        while not wanted(await tools(client)):
            await trio.sleep(0.02)
    return trio.current_time() - began


def said(result: Any) -> str:
    """The text of a result."""
    return str(result.content[0].text)
