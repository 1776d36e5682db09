"""MCP on the connection of an attached CI, beside its messages.

The CI's connection carries both: what the daemon asks of its MCP server has ids that begin with
`mcp:`, and what belongs to MCP by its method goes there. How it is understood is decided in
`tektonmesh.mcp`.
"""

from __future__ import annotations

import json
from typing import Any

import trio

from tektonmesh.api.lines import LineSocket
from tektonmesh.wire.jsonrpc import Failure, Line, Request, Result

PREFIX = "mcp:"
WAITING_MAX = 1024
"""Messages of one server that wait to be read; a server that says more is cut off."""
_ASKS = ("elicitation/create", "sampling/createMessage", "roots/list")


class McpLink:
    """One CI's half of its connection."""

    def __init__(self, lines: LineSocket) -> None:
        self._lines = lines
        self._put, self.received = trio.open_memory_channel[dict[str, Any]](WAITING_MAX)

    def takes(self, line: Line) -> bool:
        """Whether a line belongs to MCP; it is kept then."""
        if isinstance(line, Request):
            if line.method not in _ASKS and not line.method.startswith("notifications/"):
                return False
            shown: dict[str, Any] = {"method": line.method, "params": line.params}
            self._keep(shown if line.id is None else shown | {"id": line.id})
            return True
        number = _number_of(line)
        if number is None:
            return False
        outcome = {"error": line.error} if isinstance(line, Failure) else {"result": line.result}
        self._keep({"id": number} | outcome)
        return True

    def _keep(self, message: dict[str, Any]) -> None:
        try:
            self._put.send_nowait({"jsonrpc": "2.0"} | message)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            self.close()

    def send(self, message: dict[str, Any]) -> None:
        """A message of the daemon's to the server."""
        if "method" in message and isinstance(message.get("id"), int):
            message = message | {"id": f"{PREFIX}{message['id']}"}
        text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
        self._lines.write(text.encode("utf-8", "replace") + b"\n")

    def close(self) -> None:
        """The connection ended; who reads sees the end."""
        self._put.close()


def _number_of(line: Result | Failure) -> int | None:
    found = line.id
    if not isinstance(found, str) or not found.startswith(PREFIX):
        return None
    digits = found.removeprefix(PREFIX)
    return int(digits) if digits.isdecimal() and len(digits) < 16 else None


def wants_link(params: dict[str, Any]) -> bool:
    """Whether a registration says that its connection carries MCP."""
    found = params.get("mcp")
    return isinstance(found, dict) and found.get("socket") is True
