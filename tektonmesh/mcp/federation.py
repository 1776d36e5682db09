"""What the whole mesh offers, as this stack's replica has it: read locally, also in a partition.

It decides which CIs are listed, with which catalogue, and when that has changed. Catalogues that
are not here yet are fetched behind the lists and appear when they have come; nothing here waits for
another stack.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import trio

from tektonmesh.core import events as ev
from tektonmesh.core.ci import OFFLINE
from tektonmesh.core.ids import parse_id, show_id
from tektonmesh.core.replica import Change
from tektonmesh.core.types import StackId
from tektonmesh.core.views_cis import cis_of
from tektonmesh.errors import MeshError
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp import rules
from tektonmesh.mcp.pins import Pin, Pins
from tektonmesh.mcp.servers import Servers
from tektonmesh.net.daemon import Daemon

_LOG = logging.getLogger(__name__)

DEBOUNCE_S = 0.25
FETCH_TIMEOUT_S = 60.0
FETCH_PAUSE_S = 10.0
FETCHES_MAX = 8
NOTICES = ("ci_registered", "ci_deregistered", "ci_offline", "ci_up", "stack_up")


@dataclass(frozen=True)
class Entry:
    """One CI of the mesh. `catalogue` is None while it offers nothing through MCP, or while what
    it offers has not come."""

    stack_id: str
    stack: str
    ci: str
    local: bool
    state: str
    mcp: bool
    description: str
    catalogue: cat.Catalogue | None

    @property
    def address(self) -> str:
        return f"{self.ci}@{self.stack}"

    def items(self, kind: str) -> tuple[cat.Item, ...]:
        return () if self.catalogue is None else self.catalogue.items(kind)


Changed = Callable[[dict[str, Entry], dict[str, Entry]], None]


class Federation:
    """The entries of all CIs, and who wants to know when they change."""

    def __init__(self, daemon: Daemon, servers: Servers, pins: Pins) -> None:
        self._daemon = daemon
        self._servers = servers
        self._pins = pins
        self._entries: dict[str, Entry] | None = None
        self._told: dict[str, Entry] = {}
        self._catalogues: dict[bytes, cat.Catalogue] = {}
        self._fetching: dict[bytes, None] = {}
        self._dirty = trio.Event()
        self._watchers: dict[int, Changed] = {}
        self._last = 0
        self._nursery: trio.Nursery | None = None
        self._limit = trio.CapacityLimiter(FETCHES_MAX)
        self.version = 0
        """Goes up whenever entries may have changed; what is made of them is kept by it."""
        daemon.node.replica.watch(self._replica_changed)
        daemon.notices.heed(NOTICES, lambda _notice: self.touch())

    # --- reads -----------------------------------------------------------------------------------

    def entries(self) -> dict[str, Entry]:
        """All CIs by address, this stack's first."""
        if self._entries is None:
            self._entries = {entry.address: entry for entry in self._read()}
        return self._entries

    def find(self, address: str) -> Entry | None:
        """The entry of an address, which may be short (`numa`, `numa@we`) as everywhere."""
        found = self.entries().get(address)
        if found is not None:
            return found
        try:
            owner, ci = self._daemon.node.names.resolve(address)
        except MeshError:
            return None
        stack_id = show_id(owner)
        for entry in self.entries().values():
            if entry.stack_id == stack_id and entry.ci.lower() == ci.lower():
                return entry
        return None

    def may(self, verb: str, entry: Entry, item: str = "") -> bool:
        """Whether this stack lets its own callers use that (the owner judges for itself)."""
        owner = parse_id(entry.stack_id)
        return rules.may_use(self._daemon.node, owner, verb, entry.ci, item)

    def pin_of(self, entry: Entry, kind: str, item: cat.Item) -> Pin:
        return Pin(entry.stack_id, entry.ci.lower(), kind, str(item[cat.KEY_OF[kind]]))

    def is_as_pinned(self, entry: Entry, kind: str, item: cat.Item) -> bool:
        """Whether an item is what it was when this stack first saw it. One's own are."""
        return entry.local or self._pins.fits(self.pin_of(entry, kind, item), item)

    def _read(self) -> Iterator[Entry]:
        node = self._daemon.node
        for owner in [node.env.me, *(one for one in node.replica.owners if one != node.env.me)]:
            for row in cis_of(node, owner):
                yield self._entry(owner, row)

    def _entry(self, owner: StackId, row: dict[str, Any]) -> Entry:
        node = self._daemon.node
        mcp, made, description = False, None, ""
        if row["local"]:
            server = self._servers.get(row["name"])
            ci = node.cis.get(row["name"])
            mcp = ci is not None and ci.mcp is not None
            made = server.catalogue if server is not None else None
            description = str(ci.spec["description"]) if ci is not None else ""
        else:
            held = node.replica.owners[owner]
            key = row["name"].lower()
            record = held.value(f"ci/{key}") or {}
            mcp, description = record.get("mcp") is True, str(record.get("description") or "")
            reference = held.value(f"catalog/{key}") if mcp else None
            if reference is not None:
                # Until the new one has come, the old one is nearer to the truth than none.
                made = self._catalogue(reference.get("hash")) or self._former(owner, row["name"])
        return Entry(
            stack_id=show_id(owner),
            stack=row["stack"],
            ci=row["name"],
            local=row["local"],
            state=row["state"],
            mcp=mcp,
            description=cat.clean_text(description),
            catalogue=made if row["state"] != OFFLINE else None,
        )

    def _catalogue(self, blob: Any) -> cat.Catalogue | None:
        """What a blob lists, if it is here; it is fetched otherwise."""
        if not isinstance(blob, bytes):
            return None
        if blob not in self._catalogues:
            data = self._daemon.node.blobs.stash.get(blob)
            if data is None:
                self._fetch(blob)
                return None
            try:
                self._catalogues[blob] = cat.unpack(data, self._warn)
            except MeshError as error:
                self._warn(error.detail)
                self._catalogues[blob] = cat.Catalogue()
        return self._catalogues[blob]

    def _former(self, owner: StackId, ci: str) -> cat.Catalogue | None:
        """What a CI offered when watchers were told last."""
        stack_id = show_id(owner)
        return next(
            (
                entry.catalogue
                for entry in self._told.values()
                if entry.stack_id == stack_id and entry.ci == ci
            ),
            None,
        )

    def _warn(self, detail: str) -> None:
        _LOG.warning("a catalogue of another stack: %s", detail)

    # --- changes ---------------------------------------------------------------------------------

    def touch(self) -> None:
        """Something may have changed; whoever reads from now on sees it, watchers hear of it after
        the debounce."""
        self._entries = None
        self.version += 1
        self._dirty.set()

    def watch(self, callback: Changed) -> Callable[[], None]:
        """Call `callback(before, after)` with the entries that differ; what is returned ends
        it."""
        self._last += 1
        number = self._last
        self._watchers[number] = callback
        return lambda: self._watchers.pop(number, None) and None

    def _replica_changed(self, change: Change) -> None:
        if change.kind == "refresh":
            return
        about = any(key.startswith(("ci/", "catalog/")) for key in change.keys)
        if about or change.kind != "content":
            self.touch()

    async def keep_telling(self, nursery: trio.Nursery) -> None:
        """The task behind `watch` and behind fetching, for ever."""
        self._nursery = nursery
        self._told = dict(self.entries())
        while True:
            await self._dirty.wait()
            await trio.sleep(DEBOUNCE_S)
            self._dirty = trio.Event()
            before, after = self._told, self.entries()
            self._told = dict(after)
            differing = [
                address
                for address in {**before, **after}
                if before.get(address) != after.get(address)
            ]
            if differing:
                old = {one: before[one] for one in differing if one in before}
                new = {one: after[one] for one in differing if one in after}
                for callback in list(self._watchers.values()):
                    callback(old, new)
            self._drop_old()

    def _drop_old(self) -> None:
        """Forget catalogues that nobody refers to any more."""
        kept = [id(entry.catalogue) for entry in self._told.values()]
        for blob, made in list(self._catalogues.items()):
            if id(made) not in kept:
                del self._catalogues[blob]

    def _fetch(self, blob: bytes) -> None:
        if blob in self._fetching or self._nursery is None:
            return
        self._fetching[blob] = None
        self._nursery.start_soon(self._fetch_one, blob)

    async def _fetch_one(self, blob: bytes) -> None:
        """What cannot be had now is tried again after a pause, if it is still referred to."""
        try:
            async with self._limit:
                await self._daemon.ask(lambda ticket: ev.GetBlob(ticket, blob, FETCH_TIMEOUT_S))
        except MeshError as error:
            _LOG.debug("a catalogue did not come: %s", error.sentence())
            await trio.sleep(FETCH_PAUSE_S)
        finally:
            del self._fetching[blob]
        self.touch()


def kinds_that_differ(before: Entry | None, after: Entry | None) -> list[str]:
    """Which lists of a CI differ between two entries: tools, resources, prompts."""
    differing = []
    for kind, lists in (
        ("tools", ("tools",)),
        ("resources", ("resources", "templates")),
        ("prompts", ("prompts",)),
    ):
        old = [before.items(one) if before is not None else () for one in lists]
        new = [after.items(one) if after is not None else () for one in lists]
        if old != new or (kind == "tools" and _speaks(before) != _speaks(after)):
            differing.append(kind)
    return differing


def _speaks(entry: Entry | None) -> bool:
    """Whether it is listed with a tool of its own for messages."""
    return entry is not None and not entry.mcp and entry.state != OFFLINE
