"""What the whole mesh offers, as this stack's replica has it: read locally, also in a partition.

It decides which CIs are listed, with which catalogue, and when that has changed. Catalogues that
are not here yet are fetched behind the lists and appear when they have come; nothing here waits for
another stack.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import trio

from tektonmesh.core import events as ev
from tektonmesh.core.ci import OFFLINE, key_of
from tektonmesh.core.ids import parse_id, show_id
from tektonmesh.core.replica import Change
from tektonmesh.core.types import StackId
from tektonmesh.core.views_cis import cis_of
from tektonmesh.errors import MeshError, RemoteError
from tektonmesh.mcp import calling, frames, rules
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp.parts import Part, Parts, Place
from tektonmesh.mcp.pins import Pin, Pins
from tektonmesh.mcp.servers import Servers
from tektonmesh.net.daemon import Daemon

_LOG = logging.getLogger(__name__)

DEBOUNCE_S = 0.25
FETCH_TIMEOUT_S = 60.0
FETCH_PAUSE_S = 10.0
TELL_PAUSE_S = 1.0
FETCHES_MAX = 8
NOTICES = ("ci_registered", "ci_deregistered", "ci_offline", "ci_up", "stack_up")


@dataclass(frozen=True)
class Entry:
    """One CI of the mesh. `catalogue` is None while it offers nothing through MCP, or while what
    it offers has not come; `says` tells that callers here may speak to it."""

    stack_id: str
    stack: str
    ci: str
    local: bool
    state: str
    mcp: bool
    description: str
    catalogue: cat.Catalogue | None
    says: bool = True

    @property
    def address(self) -> str:
        return f"{self.ci}@{self.stack}"

    def items(self, kind: str) -> tuple[cat.Item, ...]:
        return () if self.catalogue is None else self.catalogue.items(kind)


Changed = Callable[[dict[str, Entry], dict[str, Entry]], None]


class Federation:
    """The entries of all CIs, and who wants to know when they change."""

    def __init__(self, daemon: Daemon, servers: Servers, pins: Pins, parts: Parts) -> None:
        self._daemon = daemon
        self._servers = servers
        self._pins = pins
        self._entries: dict[str, Entry] | None = None
        self._told: dict[str, Entry] = {}
        self._catalogues: dict[bytes, cat.Catalogue] = {}
        self._fetching: dict[bytes | Place, None] = {}
        self._dirty = trio.Event()
        self._watchers: dict[int, Changed] = {}
        self._last = 0
        self._nursery: trio.Nursery | None = None
        self._limit = trio.CapacityLimiter(FETCHES_MAX)
        self.version = 0
        """Goes up whenever entries may have changed; what is made of them is kept by it."""
        self._parts = parts
        self._offers: dict[Place, cat.Catalogue] = {}
        """What is in the parts that have been read."""
        daemon.node.replica.watch(self._replica_changed)
        daemon.node.sharing.watch(lambda _owner: self.touch())
        daemon.node.rights.watch(lambda _stack: self.touch())
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
        if row["local"]:
            mcp, description, made = self._own(row["name"])
        else:
            mcp, description, made = self._others(owner, row["name"])
        return Entry(
            stack_id=show_id(owner),
            stack=row["stack"],
            ci=row["name"],
            local=row["local"],
            state=row["state"],
            mcp=mcp,
            description=cat.clean_text(description),
            catalogue=made if row["state"] != OFFLINE else None,
            says=row["local"] or self._says(owner, row["name"]),
        )

    def _own(self, name: str) -> tuple[bool, str, cat.Catalogue | None]:
        """Of a CI here: whether it has an MCP server, its description, what it offers."""
        server, ci = self._servers.get(name), self._daemon.node.cis.get(name)
        description = str(ci.spec["description"]) if ci is not None else ""
        has = ci is not None and ci.mcp is not None
        return has, description, server.catalogue if server is not None else None

    def _others(self, owner: StackId, name: str) -> tuple[bool, str, cat.Catalogue | None]:
        """The same of a CI elsewhere."""
        node, key = self._daemon.node, key_of(name)
        held = node.replica.owners[owner]
        record = held.value(f"ci/{key}") or node.sharing.record(owner, key) or {}
        description = str(record.get("description") or "")
        if record.get("mcp") is not True:
            return False, description, None
        uses = node.sharing.uses(owner)
        if uses is not None:
            return True, description, self._told_alone(owner, name, uses.lists.get(key))
        reference = held.value(f"catalog/{key}")
        if reference is None:
            return True, description, None
        # Until the new one has come, the old one is nearer to the truth than none.
        found = self._catalogue(reference.get("hash")) or self._former(owner, name)
        return True, description, found

    def _says(self, owner: StackId, name: str) -> bool:
        """Whether callers here may speak to a CI elsewhere, as far as its owner told."""
        uses = self._daemon.node.sharing.uses(owner)
        told = uses is None or key_of(name) in uses.say
        return told and rules.may_use(self._daemon.node, owner, "message", name)

    def _told_alone(self, owner: StackId, ci: str, digest: bytes | None) -> cat.Catalogue | None:
        """What an owner lets this stack know of a CI's catalogue; it is asked for otherwise."""
        place = (owner, key_of(ci))
        if digest is None:
            self._drop_part(place)
            return None
        held = self._parts.get(place)
        if held is None or held.digest != digest:
            self._fetch(place, ci)
        if held is not None and place not in self._offers:
            self._offers[place] = self._unpacked(held.data)
        return self._offers.get(place)

    def _drop_part(self, place: Place) -> bool:
        self._offers.pop(place, None)
        return self._parts.drop(place)

    def _catalogue(self, blob: Any) -> cat.Catalogue | None:
        """What a blob lists, if it is here; it is fetched otherwise."""
        if not isinstance(blob, bytes):
            return None
        if blob not in self._catalogues:
            data = self._daemon.node.blobs.stash.get(blob)
            if data is None:
                self._fetch(blob)
                return None
            self._catalogues[blob] = self._unpacked(data)
        return self._catalogues[blob]

    def _unpacked(self, data: bytes) -> cat.Catalogue:
        """What is listed in a blob or part; nothing if that cannot be read."""
        try:
            return cat.unpack(data, self._warn)
        except MeshError as error:
            self._warn(error.detail)
            return cat.Catalogue()

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
        """Forget catalogues that nobody refers to any more, and parts of what is no longer told."""
        kept = [id(entry.catalogue) for entry in self._told.values()]
        for blob, made in list(self._catalogues.items()):
            if id(made) not in kept:
                del self._catalogues[blob]
        for place in self._parts.places():
            if self._digest_told(place) is None:
                self._drop_part(place)

    def _fetch(self, what: bytes | Place, ci: str = "") -> None:
        if what in self._fetching or self._nursery is None:
            return
        self._fetching[what] = None
        self._nursery.start_soon(self._fetch_one, what, ci)

    async def _fetch_one(self, what: bytes | Place, ci: str) -> None:
        """What cannot be had now is tried again after a pause, if it is still referred to."""
        try:
            async with self._limit:
                if isinstance(what, bytes):
                    await self._daemon.ask(lambda ticket: ev.GetBlob(ticket, what, FETCH_TIMEOUT_S))
                else:
                    await self._ask_owner(what, ci)
        except (MeshError, calling.CallFailed) as error:
            _LOG.debug("a catalogue did not come: %s", error)
            if not isinstance(what, bytes) and self._drop_part(what):
                self.touch()  # nobody knows whether what is held may still be used
            await trio.sleep(FETCH_PAUSE_S)
        finally:
            del self._fetching[what]
        self.touch()

    async def _ask_owner(self, place: Place, ci: str) -> None:
        """Have what an owner lets this stack know. Raises MeshError, CallFailed."""
        address = f"{ci}@{show_id(place[0])}"
        result = await calling.call(
            self._daemon, address, frames.CATALOGUE, {}, heard=calling.unheard
        )
        try:
            digest = bytes.fromhex(str(result.get("digest")))
            data = base64.b64decode(str(result.get("catalogue")), validate=True)
        except ValueError:
            raise RemoteError("A catalogue is not of the form of one.") from None
        made = await trio.to_thread.run_sync(cat.unpack, data, self._warn)
        self._parts.put(place, Part(digest, data))
        self._offers[place] = made
        if digest != self._digest_told(place):
            await trio.sleep(TELL_PAUSE_S)  # what it may use is changing; the news are on their way

    def _digest_told(self, place: Place) -> bytes | None:
        uses = self._daemon.node.sharing.uses(place[0])
        return None if uses is None else uses.lists.get(place[1])


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
        if old != new or (kind == "tools" and speaks(before) != speaks(after)):
            differing.append(kind)
    return differing


def speaks(entry: Entry | None) -> bool:
    """Whether a CI is to be had by its messages alone, as a tool of its own."""
    return entry is not None and entry.says and not entry.mcp and entry.state != OFFLINE
