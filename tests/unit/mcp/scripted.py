"""An MCP server in memory that answers as it is told to, message by message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
import trio
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage

NEW, OLD = "2026-07-28", "2025-11-25"
Answer = dict[str, Any] | MCPError | Callable[[dict[str, Any]], Awaitable[Any]]


class Scripted:
    """`answers` by method: a result, an error, or what makes one of the params. What has no answer
    is no method there. `asked` are the requests and notifications as they came."""

    def __init__(self, **answers: Answer) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.heard: list[dict[str, Any]] = []
        self.metadata: list[Any] = []
        self.opened = 0
        self._nursery: trio.Nursery | None = None

    def says(self, method: str, answer: Answer) -> None:
        self.answers[method] = answer

    def methods(self) -> list[str]:
        return [method for method, _params in self.asked]

    @asynccontextmanager
    async def streams(self, _server: Any = None) -> AsyncIterator[tuple[Any, Any]]:
        """A connection with it, as transports give one."""
        self.opened += 1
        to_client, read = anyio.create_memory_object_stream[Any](100)
        write, from_client = anyio.create_memory_object_stream[Any](100)
        self._out = to_client
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._serve, from_client)
            with to_client, read, write, from_client:
                yield read, write
            nursery.cancel_scope.cancel()

    def end(self) -> None:
        """It is gone."""
        self._out.close()

    async def tell(self, method: str, **params: Any) -> None:
        await self._say({"method": method, "params": params})

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask its client something, and wait for the answer."""
        await self._say({"id": 900 + len(self.heard), "method": method, "params": params})
        count = len(self.heard)
        while len(self.heard) == count:
            await trio.sleep(0.001)
        return self.heard[-1]

    async def _serve(self, incoming: Any) -> None:
        async for message in incoming:
            self.metadata.append(message.metadata)
            said = message.message.model_dump(by_alias=True, exclude_unset=True)
            if "method" not in said:
                self.heard.append(said)
                continue
            self.asked.append((said["method"], said.get("params") or {}))
            if "id" in said and self._nursery is not None:
                self._nursery.start_soon(self._answer, said)

    async def _answer(self, said: dict[str, Any]) -> None:
        found = self.answers.get(said["method"], MCPError(types.METHOD_NOT_FOUND, "No method."))
        try:
            if callable(found):
                found = await found(said.get("params") or {})
            if isinstance(found, MCPError):
                raise found
        except MCPError as error:
            shown = error.error.model_dump(by_alias=True, exclude_none=True)
            await self._say({"id": said["id"], "error": shown})
        else:
            await self._say({"id": said["id"], "result": found})

    async def _say(self, message: dict[str, Any]) -> None:
        whole = types.jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0"} | message)
        await self._out.send(SessionMessage(whole))


def modern(**more: Any) -> dict[str, Any]:
    """The answer to `server/discover` of the newest dialect."""
    meta = {types.SERVER_INFO_META_KEY: {"name": "scripted", "version": "1"}}
    plain: dict[str, Any] = {"supportedVersions": [NEW], "capabilities": {}, "_meta": meta}
    return plain | more


def handshake(**more: Any) -> dict[str, Any]:
    """The answer to `initialize` of an older one."""
    server = {"name": "scripted", "version": "1"}
    return {"protocolVersion": OLD, "capabilities": {}, "serverInfo": server} | more
