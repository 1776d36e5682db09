"""MCP on a connection of the Unix socket: one JSON-RPC object per line, as on stdio."""

from __future__ import annotations

import anyio
import mcp_types as types
import trio
from mcp.shared.message import SessionMessage

from tektonmesh.api.lines import LineSocket
from tektonmesh.errors import LocalError
from tektonmesh.mcp.hub import Face

BUFFER = 16


async def serve(face: Face, lines: LineSocket) -> None:
    """Until the host hangs up. The first request decides the era."""
    to_server, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](BUFFER)
    outgoing, from_server = anyio.create_memory_object_stream[SessionMessage](BUFFER)

    async def read() -> None:
        async with to_server:
            try:
                while (batch := await lines.read()) is not None:
                    for line in batch:
                        await to_server.send(_message(line))
            except (LocalError, anyio.BrokenResourceError):
                return  # An endless line, or a server that has ended.

    async def write() -> None:
        async with from_server:
            async for message in from_server:
                said = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                lines.write(said.encode("utf-8", "replace") + b"\n")
                await lines.room()

    server = face.gateway.server
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.write_out)
        nursery.start_soon(read)
        nursery.start_soon(write)
        await server.run(incoming, outgoing, server.create_initialization_options())
        nursery.cancel_scope.cancel()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error
