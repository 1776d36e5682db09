"""What a person or program asks of MCP through this daemon's own methods: lists, a call, approval.

The same entries and rules as the faces for hosts. Items that changed since they were pinned are
shown here, marked, because somebody has to look at them.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from tektonmesh.api import validate
from tektonmesh.errors import CODES, LocalError, MeshError
from tektonmesh.mcp import calling, names
from tektonmesh.mcp.catalogue import KEY_OF, Item, definition_hash
from tektonmesh.mcp.federation import Entry, speaks
from tektonmesh.mcp.hub import Hub
from tektonmesh.mcp.rules import VERB, Use
from tektonmesh.mcp.scopes import send_tool

REF_SIZE_MAX = 2400
METHODS = {"tools": "tools/call", "prompts": "prompts/get", "resources": "resources/read"}
Params = Mapping[str, Any]


class Asking:
    """The answers, from one hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def listing(self, kind: str, params: Params) -> list[dict[str, Any]]:
        """`{"ci"?}`: the items of a kind, each `{"ref", "name", "ci", "state", "title",
        "description", ...}`; `state` is "ok" or "changed", `hash` is what a grant may name."""
        wanted = validate.text(params, "ci", default="", size_max=REF_SIZE_MAX)
        federation = self._hub.federation
        if wanted:
            found = federation.find(wanted)
            if found is None:
                raise _unknown(wanted)
            entries = [found]
        else:
            entries = list(federation.entries().values())
        rows = []
        for entry in entries:
            if kind == "tools" and speaks(entry):
                rows.append(self._row(entry, kind, send_tool(entry, "send_message")))
            for one in (kind, "templates") if kind == "resources" else (kind,):
                for item in entry.items(one):
                    if federation.may(VERB[one], entry, str(item[KEY_OF[one]])):
                        rows.append(self._row(entry, one, item))
        return rows

    def _row(self, entry: Entry, kind: str, item: Item) -> dict[str, Any]:
        key = str(item[KEY_OF[kind]])
        pinned = kind in ("resources", "templates") or self._hub.federation.is_as_pinned(
            entry, kind, item
        )
        named = KEY_OF[kind] == "name"
        outer = names.exposed_name if named else names.exposed_uri
        row = {
            "ref": names.reference(entry.ci, entry.stack, key),
            "name": outer(entry.stack, entry.ci, key),
            "ci": entry.address,
            "state": "ok" if pinned or speaks(entry) else "changed",
            "title": item.get("title") or "",
            "description": item.get("description") or "",
        }
        if kind == "tools" and not speaks(entry):
            row["hash"] = definition_hash(item)
        more = ("inputSchema", "outputSchema", "annotations", "arguments", "mimeType")
        return row | {word: item[word] for word in more if word in item}

    # --- calls -----------------------------------------------------------------------------------

    async def call(self, params: Params, sender: str = "") -> dict[str, Any]:
        """`{"ref", "arguments"?, "within"?}`: the result of a tool as its CI gave it, called by the
        CI `sender` or a person. Raises MeshError."""
        entry, kind, item = self._find(params, ("tools", "prompts", "resources"))
        arguments = params.get("arguments")
        if arguments is not None and not isinstance(arguments, dict):
            raise validate.field_error("arguments", "must be an object")
        if speaks(entry):
            text = (arguments or {}).get("message")
            return await calling.say(self._hub.daemon, entry.address, text)
        if not self._hub.federation.is_as_pinned(entry, kind, item):
            raise LocalError(
                f"'{params.get('ref')}' has changed since it was first seen here.",
                code="refused",
                hint="Look at it with `tektonmesh tools approve`.",
            )
        within = _call_id(params)
        said: dict[str, Any] = {KEY_OF[kind]: item[KEY_OF[kind]]}
        if kind != "resources":
            said["arguments"] = arguments or {}
        try:
            result = await calling.call(
                self._hub.daemon,
                entry.address,
                METHODS[kind],
                said,
                heard=calling.unheard,
                caller=calling.Calling(sender, Use(kind, str(said[KEY_OF[kind]])).verb, within),
            )
        except calling.CallFailed as error:
            raise _mesh_error(error) from None
        if not entry.local:
            self._hub.used(METHODS[kind])
        return result

    # --- approval --------------------------------------------------------------------------------

    async def approve(self, params: Params) -> dict[str, Any]:
        """`{"ref", "look"?}`: accept a changed item as it is now; with `look` only show what has
        changed. `diff` are lines as of diff(1)."""
        entry, kind, item = self._find(params, ("tools", "prompts"))
        pins, federation = self._hub.pins, self._hub.federation
        pin = federation.pin_of(entry, kind, item)
        before = await self._hub.in_thread(pins.definition, pin)
        changed = not federation.is_as_pinned(entry, kind, item)
        if changed and not validate.flag(params, "look"):
            pins.approve(pin, item)
            await self._hub.in_thread(pins.flush)
            federation.touch()
        return {
            "ref": names.reference(entry.ci, entry.stack, pin.name),
            "changed": changed,
            "diff": difference(before or {}, item) if changed else [],
        }

    def _find(self, params: Params, kinds: tuple[str, ...]) -> tuple[Entry, str, Item]:
        """The item that `ref` means: `ci@stack/item`, or its name on the common list."""
        ref = validate.text(params, "ref", default="", size_max=REF_SIZE_MAX)
        if not ref:
            raise validate.field_error("ref", "is missing: ci@stack/tool is needed")
        federation = self._hub.federation
        parts = names.split_reference(ref)
        entry = federation.find(parts[0]) if parts is not None else None
        for one in [entry] if entry is not None else federation.entries().values():
            key = parts[1] if entry is not None and parts is not None else ""
            for kind in kinds:
                found = _item_of(one, kind, key, ref)
                if found is not None and federation.may(VERB[kind], one, str(found[KEY_OF[kind]])):
                    return one, kind, found
        if entry is not None:
            self._require_server(entry)
        raise _unknown(ref)

    def _require_server(self, entry: Entry) -> None:
        """Raises LocalError if a CI of this stack offers nothing because its server failed."""
        server = self._hub.servers.get(entry.ci) if entry.local else None
        if server is not None and server.catalogue is None and server.why:
            raise LocalError(
                f"The MCP server of '{entry.address}' failed: {server.why.rstrip('.')}.",
                code="ci_offline",
                hint="It is tried again by itself; register the CI anew with another --mcp.",
            )


def _call_id(params: Params) -> bytes:
    given = validate.text(params, "within", default="", size_max=64)
    try:
        return bytes.fromhex(given)
    except ValueError:
        raise validate.field_error("within", "must be the id of a call") from None


def _item_of(entry: Entry, kind: str, key: str, ref: str) -> Item | None:
    items = list(entry.items(kind))
    if kind == "tools" and speaks(entry):
        items.append(send_tool(entry, "send_message"))
    for item in items:
        mine = str(item[KEY_OF[kind]])
        named = KEY_OF[kind] == "name"
        outer = names.exposed_name if named else names.exposed_uri
        if (key and mine == key) or (not key and outer(entry.stack, entry.ci, mine) == ref):
            return item
    return None


def difference(before: Item, after: Item) -> list[str]:
    """What changed, as lines with + and -."""
    old, new = (
        json.dumps(one, ensure_ascii=False, indent=1, sort_keys=True).splitlines()
        for one in (before, after)
    )
    return [line.rstrip("\n") for line in difflib.unified_diff(old, new, "pinned", "now", n=1)]


def _unknown(ref: str) -> LocalError:
    return LocalError(
        f"Nothing is known here as '{ref[:100]}'.",
        code="not_found",
        hint="`tektonmesh tools` lists what is.",
    )


def _mesh_error(error: calling.CallFailed) -> MeshError:
    """A call's failure for those who speak our own methods."""
    data = error.data if isinstance(error.data, dict) else {}
    code = data.get("code")
    known = code if isinstance(code, str) and code in CODES else "ci_failed"
    return MeshError(error.message or "The call failed.", code=known, data={"mcp": error.code})
