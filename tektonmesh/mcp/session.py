"""MCP on a connection of the Unix socket: one JSON-RPC object per line, as on stdio."""

from __future__ import annotations

import anyio
import mcp_types as types
import trio
from mcp.shared.message import ServerMessageMetadata, SessionMessage

from tektonmesh.api.lines import LineSocket
from tektonmesh.errors import LocalError
from tektonmesh.mcp.gateway import CI_HEADER, TOKEN_HEADER
from tektonmesh.mcp.hub import Face

BUFFER = 16
POLL_S = 0.05
ENDLESS = "subscriptions/listen"


class Said:
    """What the connection said of itself, in the form in which HTTP says it with each request."""

    def __init__(self, sender: str, token: str) -> None:
        self.headers = {CI_HEADER: sender, TOKEN_HEADER: token} if sender else {}


async def serve(face: Face, lines: LineSocket, said: Said) -> None:
    """Until the host hangs up. The first request decides the era."""
    to_server, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](BUFFER)
    outgoing, from_server = anyio.create_memory_object_stream[SessionMessage](BUFFER)

    owed: dict[types.RequestId, None] = {}

    async def read() -> None:
        async with to_server:
            try:
                while (batch := await lines.read()) is not None:
                    for line in batch:
                        message = _message(line, said)
                        _note_owed(message, owed)
                        await to_server.send(message)
                # A host that only stopped talking still hears the answers to what it asked.
                while owed and not lines.hung_up():
                    await trio.sleep(POLL_S)
            except (LocalError, anyio.BrokenResourceError):
                return  # An endless line, or a server that has ended.

    async def write() -> None:
        async with from_server:
            async for message in from_server:
                if isinstance(message.message, types.JSONRPCResponse | types.JSONRPCError):
                    owed.pop(message.message.id or "", None)
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                lines.write(text.encode("utf-8", "replace") + b"\n")
                await lines.room()

    server = face.gateway.server
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lines.write_out)
        nursery.start_soon(read)
        nursery.start_soon(write)
        await server.run(incoming, outgoing, server.create_initialization_options())
        nursery.cancel_scope.cancel()


def _note_owed(message: SessionMessage | Exception, owed: dict[types.RequestId, None]) -> None:
    if isinstance(message, SessionMessage):
        inner = message.message
        if isinstance(inner, types.JSONRPCRequest) and inner.method != ENDLESS:
            owed[inner.id] = None


def _message(line: bytes, said: Said) -> SessionMessage | Exception:
    about = ServerMessageMetadata(request_context=said)
    try:
        read = types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        return SessionMessage(read, metadata=about)
    except ValueError as error:
        return error
