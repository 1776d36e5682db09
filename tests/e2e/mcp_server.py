"""A small MCP server over stdio with the standard library alone, so that it starts at once.

It speaks the newest dialect and does what tests want of a server: it waits, tells of progress, gets
new tools, changes them, lists malformed ones, and dies.
`python mcp_server.py [--malformed] [NOTE]`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSION = "2026-07-28"
TEXT, NUMBER = {"type": "string"}, {"type": "number"}
lock = threading.Lock()
cancelled: dict[Any, threading.Event] = {}
listeners: dict[Any, dict[str, Any]] = {}


def write(**message: Any) -> None:
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def tool(name: str, description: str, /, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"name": name, "description": description, "inputSchema": schema}


TOOLS = {
    one["name"]: one
    for one in (
        tool("echo", "Say it again.", text=TEXT),
        tool("wait", "Tell of progress until cancelled, then write to a file.", file=TEXT),
        tool("sleep", "Be silent.", seconds=NUMBER),
        tool("pauses", "Be silent many times.", seconds=NUMBER, times={"type": "integer"}),
        tool("add", "Offer another tool.", name=TEXT),
        tool("change", "Change what a tool says of itself.", name=TEXT, description=TEXT),
        tool("touch", "Change the note.", text=TEXT),
        tool("die", "End this process."),
        tool("onward", "Call another tool.", socket=TEXT, ref=TEXT, given={"type": "object"}),
        tool("listeners", "Say who hears of changes."),
        tool("caller", "Say who calls."),
        tool("look", "Read the note.") | {"annotations": {"readOnlyHint": True}},
    )
}
MALFORMED: list[Any] = [
    "no object",
    {"description": "no name"},
    {"name": "noschema"},
    {"name": "list", "inputSchema": {"type": "array"}},
    {"name": "huge", "description": "x" * 70_000, "inputSchema": {"type": "object"}},
    {"name": "numbers", "title": 7, "inputSchema": {"type": "object"}},
    {"name": "icons", "icons": "none", "inputSchema": {"type": "object"}},
    {
        "name": "hidden",
        "description": "Plain\u202e\U000e0041\u200b words\x1b[31m.",
        "inputSchema": {"type": "object"},
    },
]
note = ["first", *(word for word in sys.argv[1:] if not word.startswith("--"))][-1:]


def tell(kind: str, method: str, **params: Any) -> None:
    for number, wanted in list(listeners.items()):
        if wanted.get(kind):
            meta = {"io.modelcontextprotocol/subscriptionId": number}
            write(method=method, params={**params, "_meta": meta})


def progress(params: dict[str, Any], done: int) -> None:
    token = (params.get("_meta") or {}).get("progressToken")
    if token is not None:
        about = {"progressToken": token, "progress": done}
        write(method="notifications/progress", params=about)


def call(number: Any, params: dict[str, Any]) -> Any:
    name, given = params["name"], params.get("arguments") or {}
    if name == "echo":
        return given["text"]
    if name == "look":
        return note[0]
    if name == "listeners":
        return json.dumps(list(listeners.values()))
    if name == "caller":
        return json.dumps(params["_meta"]["tektonmesh/caller"])
    if name == "onward":
        return onward(given, params["_meta"]["tektonmesh/caller"]["call"])
    if name == "wait":
        for done in range(600):
            if cancelled[number].wait(0.05):
                Path(given["file"]).write_text("cancelled")
                return "cancelled"
            progress(params, done)
    if name == "pauses":
        for done in range(given["times"]):
            cancelled[number].wait(given["seconds"])
            progress(params, done)
    elif name == "sleep":
        cancelled[number].wait(given["seconds"])
    elif name == "add":
        TOOLS[given["name"]] = tool(given["name"], "Added.")
        tell("toolsListChanged", "notifications/tools/list_changed")
    elif name == "change":
        TOOLS[given["name"]]["description"] = given["description"]
        tell("toolsListChanged", "notifications/tools/list_changed")
    elif name == "touch":
        note[0] = given["text"]
        tell("resourceSubscriptions", "notifications/resources/updated", uri="note://one")
    elif name == "die":
        os._exit(3)
    return "done"


def onward(given: dict[str, Any], within: str) -> str:
    """Call a tool of the mesh by the daemon's own methods, and say for which call that is."""
    said = {"ref": given["ref"], "arguments": given["given"], "within": within}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "call", "params": said}
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(given["socket"])
        link.sendall(json.dumps(asked).encode() + b"\n")
        heard = json.loads(link.makefile().readline())
    if "error" in heard:
        return json.dumps(heard["error"])
    return str(heard["result"]["content"][0]["text"])


def answer(method: str, number: Any, params: dict[str, Any]) -> dict[str, Any] | None:
    if method == "server/discover":
        changes = {"listChanged": True}
        return {
            "supportedVersions": [VERSION],
            "capabilities": {"tools": changes, "resources": {**changes, "subscribe": True}},
        }
    if method == "tools/list":
        malformed = MALFORMED if "--malformed" in sys.argv else []
        return {"tools": [*TOOLS.values(), *malformed]}
    if method == "resources/list":
        return {"resources": [{"uri": "note://one", "name": "one"}]}
    if method == "resources/templates/list":
        return {"resourceTemplates": []}
    if method == "resources/read":
        return {"contents": [{"uri": params["uri"], "text": note[0]}]}
    if method == "tools/call":
        said = call(number, params)
        return {"content": [{"type": "text", "text": said}]}
    return None


def serve(method: str, number: Any, params: dict[str, Any]) -> None:
    result = answer(method, number, params)
    if result is None:
        write(id=number, error={"code": -32601, "message": "Method not found"})
    else:
        full = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **result}
        write(id=number, result=full)


def main() -> None:
    threads: list[Callable[[], None]] = []
    for line in sys.stdin:
        message = json.loads(line)
        method, number, params = message["method"], message.get("id"), message.get("params") or {}
        if method == "notifications/cancelled":
            listeners.pop(params.get("requestId"), None)
            if params.get("requestId") in cancelled:
                cancelled[params["requestId"]].set()
        elif method == "subscriptions/listen":
            listeners[number] = params["notifications"]
        elif number is not None:
            cancelled[number] = threading.Event()
            worker = threading.Thread(target=serve, args=(method, number, params), daemon=True)
            threads.append(worker.start)
            worker.start()


if __name__ == "__main__":
    main()
