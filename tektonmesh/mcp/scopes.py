"""What one face of the gateway shows: everything under common names, or one CI under its own.

It decides the list of each kind and what a name or URI on it means. A name is found in the table
that made the list and is never taken apart. Both scopes leave out what the rules deny and what
changed since it was pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol

from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp import names, rules
from tektonmesh.mcp.federation import Entry, Federation, speaks

SEND = "send_message"
"""The tool that stands for a CI which offers none: its messages."""


@dataclass(frozen=True)
class Shown:
    """An item on a list: `item` is how the list has it, `key` what its CI calls it. `speaks` says
    that it is a CI's messages as a tool."""

    entry: Entry
    kind: str
    key: str
    item: cat.Item
    speaks: bool = False


class Scope(Protocol):
    """What a face asks of what it shows."""

    def shown(self, kind: str) -> dict[str, Shown]:
        """The items of a kind by the name or URI on the list."""

    def resource(self, uri: str) -> tuple[Entry, str] | None:
        """The CI of a resource, listed or not, and what that CI calls it."""

    def outward(self, entry: Entry, uri: str) -> str:
        """The URI on the list for one of a CI."""

    def concerns(self, entry: Entry) -> bool:
        """Whether changes of a CI are changes here."""


def send_tool(entry: Entry, name: str) -> cat.Item:
    """The messages of a CI as a tool, so that any host can talk to it."""
    about = f" {entry.description}" if entry.description else ""
    return {
        "name": name,
        "title": f"Message {entry.address}",
        "description": f"Send a message to the CI {entry.address} and return its reply.{about}",
        "inputSchema": {
            "type": "object",
            "properties": {"message": {"type": "string", "description": "The text to send."}},
            "required": ["message"],
        },
    }


def allowed(federation: Federation, entry: Entry, kind: str) -> Iterator[cat.Item]:
    """The items of a CI that may be used and are as they were pinned."""
    for item in entry.items(kind):
        if not federation.may(rules.VERB[kind], entry, str(item[cat.KEY_OF[kind]])):
            continue
        if kind in ("resources", "templates") or federation.is_as_pinned(entry, kind, item):
            yield item


class OneCi:
    """One CI with its own names: what the official conformance suite is run through. A table is
    made anew when something has changed."""

    def __init__(self, federation: Federation, address: str) -> None:
        self._federation = federation
        self.address = address
        self._version = -1
        self._tables: dict[str, dict[str, Shown]] = {}

    @property
    def entry(self) -> Entry | None:
        return self._federation.find(self.address)

    def shown(self, kind: str) -> dict[str, Shown]:
        entry = self.entry
        if self._version != self._federation.version:
            self._version, self._tables = self._federation.version, {}
        if kind not in self._tables:
            self._tables[kind] = self._table(kind, entry)
        return self._tables[kind]

    def _table(self, kind: str, entry: Entry | None) -> dict[str, Shown]:
        if entry is None:
            return {}
        if kind == "tools" and speaks(entry):
            tool = send_tool(entry, SEND)
            return {SEND: Shown(entry, kind, SEND, tool, speaks=True)}
        word = cat.KEY_OF[kind]
        return {
            item[word]: Shown(entry, kind, item[word], item)
            for item in allowed(self._federation, entry, kind)
        }

    def resource(self, uri: str) -> tuple[Entry, str] | None:
        entry = self.entry
        return None if entry is None else (entry, uri)

    def outward(self, _entry: Entry, uri: str) -> str:
        return uri

    def concerns(self, entry: Entry) -> bool:
        mine = self.entry
        return entry.address == (mine.address if mine is not None else self.address)


class Everything:
    """All CIs, or those that a view allows, under names that tell them apart. The tables are made
    anew when something has changed."""

    def __init__(
        self, federation: Federation, wants: Callable[[Entry, str], bool] | None = None
    ) -> None:
        self._federation = federation
        self._wants = wants or (lambda _entry, _key: True)
        self._version = -1
        self._tables: dict[str, dict[str, Shown]] = {}

    def shown(self, kind: str) -> dict[str, Shown]:
        if self._version != self._federation.version:
            # Reading the entries may itself find news, which is then seen the next time.
            entries = list(self._federation.entries().values())
            self._version = self._federation.version
            self._tables = {one: self._table(one, entries) for one in cat.KINDS}
        return self._tables[kind]

    def _table(self, kind: str, entries: list[Entry]) -> dict[str, Shown]:
        table: dict[str, Shown] = {}
        for entry in entries:
            if kind == "tools" and speaks(entry) and self._wants(entry, SEND):
                name = names.exposed_name(entry.stack, entry.ci, SEND)
                table[name] = Shown(entry, kind, SEND, send_tool(entry, name), speaks=True)
            for item in allowed(self._federation, entry, kind):
                key = str(item[cat.KEY_OF[kind]])
                if self._wants(entry, key):
                    listed = self._listed(entry, kind, item)
                    table[str(listed[cat.KEY_OF[kind]])] = Shown(entry, kind, key, listed)
        return table

    def _listed(self, entry: Entry, kind: str, item: cat.Item) -> cat.Item:
        word = cat.KEY_OF[kind]
        if word == "name":
            name = names.exposed_name(entry.stack, entry.ci, item["name"])
        else:
            name = self.outward(entry, item[word])
        origin = f"[{entry.address}]"
        text = item.get("description")
        return item | {word: name, "description": f"{origin} {text}" if text else origin}

    def resource(self, uri: str) -> tuple[Entry, str] | None:
        parts = names.split_uri(uri)
        if parts is None:
            return None
        stack, ci, inner = parts
        entry = self._federation.entries().get(f"{ci}@{stack}")
        if entry is None or not self._wants(entry, inner):
            return None
        return entry, inner

    def outward(self, entry: Entry, uri: str) -> str:
        return names.exposed_uri(entry.stack, entry.ci, uri)

    def concerns(self, _entry: Entry) -> bool:
        return True


def wants_of(patterns: tuple[str, ...]) -> Callable[[Entry, str], bool]:
    """The allowlist of a view: `ci@stack` for all of a CI, `ci@stack/item` for some; `*` as in
    file names."""
    pairs = [names.split_reference(text) or (text, "*") for text in patterns]

    def wants(entry: Entry, key: str) -> bool:
        return any(
            fnmatchcase(entry.address.lower(), address.lower()) and fnmatchcase(key, item)
            for address, item in pairs
        )

    return wants


def rewritten(scope: Scope, entry: Entry, result: dict[str, Any]) -> dict[str, Any]:
    """A result with the URIs of its resources as the list has them."""
    changed = dict(result)
    for word in ("contents", "content"):
        if isinstance(result.get(word), list):
            changed[word] = [_with_uri(scope, entry, one) for one in result[word]]
    if isinstance(result.get("messages"), list):
        changed["messages"] = [
            one | {"content": _with_uri(scope, entry, one.get("content"))}
            if isinstance(one, dict)
            else one
            for one in result["messages"]
        ]
    return changed


def _with_uri(scope: Scope, entry: Entry, part: Any) -> Any:
    if isinstance(part, dict):
        if isinstance(part.get("resource"), dict):
            return part | {"resource": _with_uri(scope, entry, part["resource"])}
        if isinstance(part.get("uri"), str):
            return part | {"uri": scope.outward(entry, part["uri"])}
    return part
