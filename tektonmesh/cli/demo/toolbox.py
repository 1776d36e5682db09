"""A tiny MCP server for the demonstration, with the standard library alone: one tool that counts
words. Run as a program it serves on stdio."""

from __future__ import annotations

import json
import sys
from typing import Any

VERSION = "2026-07-28"
TOOL = "count_words"
_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
_TOOLS = [{"name": TOOL, "description": "Count the words of a text.", "inputSchema": _SCHEMA}]


def answer(method: str, params: dict[str, Any]) -> dict[str, Any] | None:
    """The result of one request; None for what this server does not know."""
    if method == "server/discover":
        return {"supportedVersions": [VERSION], "capabilities": {"tools": {}}}
    if method == "tools/list":
        return {"tools": _TOOLS}
    if method == "tools/call":
        count = len(str(params.get("arguments", {}).get("text", "")).split())
        return {"content": [{"type": "text", "text": str(count)}]}
    return None


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        result = answer(asked["method"], asked.get("params") or {})
        said: dict[str, Any] = {"jsonrpc": "2.0", "id": asked["id"]}
        if result is None:
            said["error"] = {"code": -32601, "message": "Method not found"}
        else:
            full = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
            said["result"] = full | result
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
