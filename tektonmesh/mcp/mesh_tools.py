"""The tools and resources of the mesh itself, beside those of its CIs.

They let a model find a tool among thousands without having them all in its context, talk to a CI,
and look at the mesh. What they may reach is what the face's scope shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from tektonmesh.core import views
from tektonmesh.mcp import calling, names
from tektonmesh.mcp.federation import Federation
from tektonmesh.mcp.scopes import Scope, Shown
from tektonmesh.net.daemon import Daemon

FOUND_MAX = 50
FOUND_DEFAULT = 10
REGISTRY = "mesh://registry"
_WORD = re.compile(r"[a-z0-9]+")

Use = Callable[[str, dict[str, Any] | None], Awaitable[dict[str, Any]]]
"""Calls a listed tool by its name with arguments."""


def _tool(name: str, text: str, needed: dict[str, str], more: dict[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        key: {"type": "string", "description": about} for key, about in needed.items()
    }
    schema = {"type": "object", "properties": properties | more, "required": list(needed)}
    reads = name not in ("mesh_call_tool", "mesh_send")
    return {
        "name": name,
        "description": text,
        "inputSchema": schema,
        "annotations": {"readOnlyHint": reads, "openWorldHint": not reads},
    }


_NAME = "The name of a tool, as mesh_search_tools gives it."
TOOLS = (
    _tool(
        "mesh_search_tools",
        "Find tools of all CIs of the mesh by words; returns names and descriptions, best first.",
        {"query": "Words that say what the tool should do."},
        {"limit": {"type": "integer", "minimum": 1, "maximum": FOUND_MAX}},
    ),
    _tool(
        "mesh_describe_tool",
        "The full definition of one tool of the mesh, with the schema of its arguments.",
        {"name": _NAME},
        {},
    ),
    _tool(
        "mesh_call_tool",
        "Call a tool of the mesh by its name, also one that is not on this server's list.",
        {"name": _NAME},
        {"arguments": {"type": "object", "description": "The arguments of the tool."}},
    ),
    _tool(
        "mesh_list_cis", "The CIs of all stacks of the mesh, with state and specialties.", {}, {}
    ),
    _tool(
        "mesh_send",
        "Send a message to any CI of the mesh and return its reply.",
        {"to": "The address of the CI, such as numa@west.", "message": "The text to send."},
        {},
    ),
    _tool("mesh_status", "This stack and the mesh around it: links, stacks, queues.", {}, {}),
)


class MeshTools:
    """What one face offers of the mesh itself."""

    def __init__(
        self, daemon: Daemon, federation: Federation, scope: Scope, *, search_only: bool = False
    ) -> None:
        self._daemon = daemon
        self._federation = federation
        self._scope = scope
        self.search_only = search_only
        self._acts: dict[str, Callable[[dict[str, Any], Use], Awaitable[dict[str, Any]]]] = {
            "mesh_search_tools": self._search,
            "mesh_describe_tool": self._describe,
            "mesh_call_tool": self._call_tool,
            "mesh_list_cis": self._list_cis,
            "mesh_send": self._send,
            "mesh_status": self._status,
        }

    def has(self, name: str) -> bool:
        return name in self._acts

    def items(self, kind: str) -> list[dict[str, Any]]:
        """What the lists show of the mesh itself."""
        if kind == "tools":
            return list(TOOLS)
        if kind == "resources":
            about = "All CIs of the mesh as this stack knows them."
            return [_resource(REGISTRY, "registry", about)]
        if kind == "templates":
            return [
                _template("mesh://stack/{stack}", "stack", "One stack of the mesh."),
                _template("mesh://ci/{stack}/{ci}", "ci", "One CI of the mesh."),
            ]
        return []

    async def call(self, name: str, arguments: dict[str, Any], use: Use) -> dict[str, Any]:
        return await self._acts[name](arguments, use)

    # --- tools -----------------------------------------------------------------------------------

    async def _search(self, arguments: dict[str, Any], _use: Use) -> dict[str, Any]:
        limit = arguments.get("limit", FOUND_DEFAULT)
        limit = limit if type(limit) is int and 1 <= limit <= FOUND_MAX else FOUND_DEFAULT
        found = search(list(self._scope.shown("tools").values()), str(arguments.get("query", "")))
        shown = [
            {"name": one.item["name"], "description": one.item.get("description", "")}
            for one in found[:limit]
        ]
        return _said({"tools": shown, "found": len(found)})

    async def _describe(self, arguments: dict[str, Any], _use: Use) -> dict[str, Any]:
        name = str(arguments.get("name", ""))
        shown = self._scope.shown("tools").get(name)
        if shown is None:
            return calling.tool_error(f"There is no tool '{name[:100]}'.")
        return _said(shown.item)

    async def _call_tool(self, arguments: dict[str, Any], use: Use) -> dict[str, Any]:
        name, given = str(arguments.get("name", "")), arguments.get("arguments")
        if given is not None and not isinstance(given, dict):
            return calling.tool_error("The argument 'arguments' must be an object.")
        if self.has(name):
            return calling.tool_error(f"Call '{name}' itself.")
        return await use(name, given or {})

    async def _list_cis(self, _arguments: dict[str, Any], _use: Use) -> dict[str, Any]:
        return _said({"cis": self._cis()})

    async def _send(self, arguments: dict[str, Any], _use: Use) -> dict[str, Any]:
        return await calling.say(
            self._daemon, str(arguments.get("to", "")), arguments.get("message")
        )

    async def _status(self, _arguments: dict[str, Any], _use: Use) -> dict[str, Any]:
        return _said(views.status(self._daemon.node))

    def _cis(self) -> list[dict[str, Any]]:
        """As `tektonmesh cis`, with what each offers."""
        rows = views.cis(self._daemon.node)
        entries = self._federation.entries()
        for row in rows:
            entry = entries.get(row["address"])
            if entry is not None and entry.catalogue is not None:
                row["mcp"] = entry.catalogue.counts()
        return rows

    # --- resources -------------------------------------------------------------------------------

    def read(self, uri: str) -> dict[str, Any] | None:
        """A resource of the mesh itself; None for those of CIs, whose URIs are quoted."""
        inner = uri.removeprefix(names.SCHEME)
        if inner == uri or "%" in inner:
            return None
        parts = inner.split("/")
        found: Any = None
        if parts == ["registry"]:
            found = self._cis()
        elif len(parts) == 2 and parts[0] == "stack":
            found = [one for one in views.stacks(self._daemon.node) if one["name"] == parts[1]]
        elif len(parts) == 3 and parts[0] == "ci":
            address = f"{parts[2]}@{parts[1]}"
            found = [one for one in self._cis() if one["address"] == address]
        else:
            return None
        if not found and parts != ["registry"]:
            raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
        text = json.dumps(found, ensure_ascii=False, indent=1)
        return {"contents": [{"uri": uri, "mimeType": "application/json", "text": text}]}


def search(shown: list[Shown], query: str) -> list[Shown]:
    """Those in which every word of the query occurs, best first: names count most. With no such
    tool, those in which most words do."""
    words = list(dict.fromkeys(_WORD.findall(query.lower())))
    scored = []
    for one in shown:
        name = one.key.lower()
        text = f"{one.item['name']} {one.item.get('title', '')} {one.item.get('description', '')}"
        text = text.lower()
        hits = sum(word in text or word in name for word in words)
        if hits or not words:
            worth = sum(3 * (word in name) + (word in text) for word in words)
            scored.append((hits, worth, one))
    best = max((hits for hits, _worth, _one in scored), default=0)
    kept = [row for row in scored if row[0] == best]
    kept.sort(key=lambda row: (-row[1], row[2].item["name"]))
    return [one for _hits, _worth, one in kept]


def _said(value: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(value, ensure_ascii=False)}]}


def _resource(uri: str, name: str, text: str) -> dict[str, Any]:
    return {"uri": uri, "name": name, "description": text, "mimeType": "application/json"}


def _template(uri: str, name: str, text: str) -> dict[str, Any]:
    shown = {"uriTemplate": uri, "name": name, "description": text}
    return shown | {"mimeType": "application/json"}
