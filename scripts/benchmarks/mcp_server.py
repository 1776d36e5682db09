"""The floor of `mcp`: a server with one tool on the bare SDK. `mcp_server --stdio`, or
`mcp_server SOCKET` (or `HOST:PORT`) for Streamable HTTP."""

from __future__ import annotations

import sys
from typing import Any

import mcp_types as types
import trio
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
CACHED = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


async def list_tools(_ctx: Any, _params: Any) -> dict[str, Any]:
    return {"tools": [{"name": "echo", "description": "Echo.", "inputSchema": SCHEMA}]} | CACHED


async def call_tool(_ctx: Any, params: Any) -> dict[str, Any]:
    said = {"type": "text", "text": params.arguments["text"]}
    return {"content": [said], "resultType": "complete"}


async def main() -> None:
    server: Server[Any] = Server("floor", version="1", get_tool_input_schema=lambda _name: SCHEMA)
    server.add_request_handler("tools/list", types.PaginatedRequestParams, list_tools)
    server.add_request_handler("tools/call", types.CallToolRequestParams, call_tool)
    if sys.argv[1:] == ["--stdio"]:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
        return
    from hypercorn.config import Config
    from hypercorn.trio import serve

    config = Config()
    config.bind = [sys.argv[1] if ":" in sys.argv[1] else f"unix:{sys.argv[1]}"]
    config.accesslog = config.errorlog = None
    app: Any = server.streamable_http_app(host="any")  # without the check of the Host header

    async with trio.open_nursery() as nursery:
        await nursery.start(serve, app, config)
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main)
