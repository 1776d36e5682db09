"""The other floor of `mcp`: a relay of one tool on the bare SDK, a server in front and a client
behind, with nothing between them. `mcp_relay SOCKET`; it starts the server that it leads to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import mcp_types as types
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.server.lowlevel.server import Server

from scripts.benchmarks.mcp_server import SCHEMA, list_tools

SERVER = Path(__file__).with_name("mcp_server.py")


async def main() -> None:
    behind = StdioServerParameters(command=sys.executable, args=[str(SERVER), "--stdio"])
    async with Client(stdio_client(behind), cache=None) as client:

        async def call_tool(_ctx: Any, params: Any) -> Any:
            return await client.call_tool(params.name, params.arguments)

        server: Server[Any] = Server(
            "relay", version="1", get_tool_input_schema=lambda _name: SCHEMA
        )
        server.add_request_handler("tools/list", types.PaginatedRequestParams, list_tools)
        server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
        config = Config()
        config.bind = [f"unix:{sys.argv[1]}"]
        config.accesslog = config.errorlog = None
        app: Any = server.streamable_http_app(host="any")
        async with trio.open_nursery() as nursery:
            await nursery.start(serve, app, config)
            print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main)
