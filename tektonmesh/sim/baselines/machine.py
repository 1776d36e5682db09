"""What every baseline has in common: its records, its writes, and the face that a world asks for.

A baseline takes the events of a node (`LinkUp`, `Received`, `RegisterCi`, `Tick` ...), and beside
them datagrams; it gives effects and shows one deadline. Nodes are called by their addresses, and
all of them are known from the start with the records of `base`, as in a mesh that has run a while.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from tektonmesh.core import events as ev
from tektonmesh.core.ci import Ci, key_of
from tektonmesh.core.effects import Answer, Effect
from tektonmesh.core.machine import Env
from tektonmesh.core.trust import Verdict
from tektonmesh.core.types import LinkId, SignedKeyDoc, StackId
from tektonmesh.wire.codec import pack

DATAGRAM: LinkId = 0
"""Stands for the link of what came or goes as a datagram; no link has this number."""

Records = Mapping[str, tuple[int, bytes | None]]
"""Key -> (version of the owner that wrote it, value); a value of None says that it was deleted."""


class Entry(NamedTuple):
    """What a node shows of one owner; never changed, so that many nodes may share it."""

    version: int
    records: Records


class Place(NamedTuple):
    """Where a node stands: its address, those of all nodes (the same on each), whom it dials, and
    what everybody holds of everybody at the start."""

    address: str
    peers: tuple[str, ...]
    seeds: tuple[str, ...]
    base: Mapping[str, Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A message of a baseline. `size` is what it weighs packed, `body_size` how much of that are
    changes of records; `bodies` are the (owner, version) of these. `tls` is false for a protocol
    that runs in the clear."""

    size: int
    body_size: int = 0
    bodies: tuple[tuple[str, int], ...] = ()
    tls: bool = True


@dataclass(frozen=True, slots=True)
class SendTo:
    """Effect: one datagram. It may be lost, and nobody is told."""

    address: str
    message: Said


@dataclass(frozen=True, slots=True)
class DatagramCame:
    """Event: what `SendTo` sent from `address` is here."""

    address: str
    messages: tuple[Said, ...]
    link: LinkId = DATAGRAM


def packed_size(value: Any) -> int:
    """What a value weighs on the wire without any headers. Baselines need no canonical form."""
    return len(msgpack.packb(value))


class Baseline:
    """One node. A protocol overrides what it needs of the methods below `handle`."""

    def __init__(self, env: Env, place: Place) -> None:
        self.env = env
        self.address = place.address
        self.peers = place.peers
        self.seeds = place.seeds
        self.entries: dict[str, Entry] = dict(place.base)
        self._watchers: list[Callable[[str, tuple[str, ...]], None]] = []
        self._events: dict[type, Callable[[Any], None]] = {
            ev.LinkUp: self.link_up,
            ev.LinkDown: lambda event: self.link_down(event.link),
            ev.DialFailed: lambda event: self.dial_failed(event.address),
            ev.Received: self._received,
            ev.RegisterCi: self._register,
            ev.DeregisterCi: self._deregister,
            DatagramCame: lambda event: self.datagrams(event.address, event.messages),
        }

    # --- the face towards a world ----------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The instant of the earliest deadline; infinity when nothing is due."""
        return self.env.deadlines.earliest()

    @property
    def trust(self) -> Baseline:
        """It is its own: everyone is admitted."""
        return self

    def own_keydoc(self) -> SignedKeyDoc:
        """Shown on a new link; no baseline looks at it."""
        return self.env.identity.keydoc

    def judge(
        self, stack_id: StackId, name: str, keydoc: SignedKeyDoc, proved_secret: bool
    ) -> Verdict:
        return Verdict(True, "allowed")

    def watch(self, callback: Callable[[str, tuple[str, ...]], None]) -> None:
        """Hear of (owner, keys) after every change of what this node shows."""
        self._watchers.append(callback)

    def start(self, now: float) -> list[Effect]:
        """The first turn."""
        self.env.now = now
        self.started()
        return self.env.take()

    def handle(self, event: Any, now: float) -> list[Effect]:
        """Deal fully with one event; those that mean nothing to a baseline are passed over."""
        self.env.now = now
        act = self._events.get(type(event))
        if act is not None:
            act(event)
        self.env.deadlines.run_due(now)
        return self.env.take()

    # --- what a protocol overrides ---------------------------------------------------------------

    def started(self) -> None:
        """Set the first deadlines, dial."""

    def wrote(self, key: str) -> None:
        """The own record `key` was written and is shown; tell the others."""

    def link_up(self, event: ev.LinkUp) -> None:
        """A link to another node is there."""

    def link_down(self, link: LinkId) -> None:
        """A link is gone."""

    def dial_failed(self, address: str) -> None:
        """A dial came to nothing."""

    def received(self, link: LinkId, messages: tuple[Any, ...]) -> None:
        """Messages came on a link."""

    def datagrams(self, address: str, messages: tuple[Any, ...]) -> None:
        """Datagrams came."""

    # --- what protocols use ----------------------------------------------------------------------

    @property
    def own(self) -> Entry:
        """What this node shows of itself."""
        return self.entries[self.address]

    def show(self, owner: str, entry: Entry, keys: tuple[str, ...]) -> None:
        """From now on this is what the node shows of an owner."""
        self.entries[owner] = entry
        for callback in self._watchers:
            callback(owner, keys)

    def merge(self, owner: str, records: Records) -> bool:
        """Take those of the records that are newer than what is shown; whether there were any."""
        held = self.entries[owner]
        news = {
            key: record
            for key, record in records.items()
            if key not in held.records or held.records[key][0] < record[0]
        }
        if not news:
            return False
        version = max([held.version, *(record[0] for record in news.values())])
        self.show(owner, Entry(version, {**held.records, **news}), tuple(sorted(news)))
        return True

    def every(self, name: str, interval_s: float, act: Callable[[], None]) -> None:
        """Do something at once after a random part of the interval, and after every interval."""

        def again() -> None:
            self.env.deadlines.set(name, self.env.after(interval_s), again)
            act()

        first = self.env.after(interval_s * self.env.chance.random())
        self.env.deadlines.set(name, first, again)

    def some(self, count: int, wanted: Callable[[str], bool]) -> list[str]:
        """At most `count` different nodes, drawn evenly from those that are `wanted`. As
        memberlist does, it tries three times as often as there are nodes, then has too few."""
        found: dict[str, None] = {}
        for _ in range(3 * len(self.peers)):
            if len(found) == count:
                break
            peer = self.peers[self.env.chance.randrange(len(self.peers))]
            if peer != self.address and peer not in found and wanted(peer):
                found[peer] = None
        return list(found)

    # --- events ----------------------------------------------------------------------------------

    def _received(self, event: ev.Received) -> None:
        """A link that is closed in good order says so with a message of the core's."""
        self.received(event.link, tuple(it for it in event.messages if isinstance(it, Said)))

    def _register(self, event: ev.RegisterCi) -> None:
        record = Ci(event.spec, "", b"", event.connection).record()
        self._write(event.ticket, f"ci/{key_of(event.spec['name'])}", pack(record))

    def _deregister(self, event: ev.DeregisterCi) -> None:
        self._write(event.ticket, f"ci/{key_of(event.name)}", None)

    def _write(self, ticket: int, key: str, value: bytes | None) -> None:
        self.merge(self.address, {key: (self.own.version + 1, value)})
        self.env.emit(Answer(ticket, {}))
        self.wrote(key)
