"""What a world measured, and the sum of many worlds: the figures that `tektonmesh sim` prints.

`p50_ms` and `p99_ms`: from a write until another node shows it, or a later one of that owner; hosts
that were started since do not count. `redundancy`: copies of changes (bodies, not announcements)
that nodes got and could not use, for each one they could: the relative message redundancy of
Plumtree (Leitao, Pereira and Rodrigues, 2007), 0 at best. `last_hop`: hops to the node that a write
reaches last, mean over writes. `missed`: running nodes that did not show a write at the end, summed
over writes. `bytes_per_change`: of bodies and announcements, for each change at each node that
could use it; `announce_bytes` is the part of announcements. `idle_bytes_s`: per second and node in
the quiet phase; `idle_peak_bytes_s` is that of the node that sends most. Bytes are estimates
(`wiresize`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tektonmesh.core.events import Received
from tektonmesh.core.messages import Delta, Graft, Ihave, Message, Prune, Want
from tektonmesh.core.replica import Change
from tektonmesh.core.types import LinkId, StackId
from tektonmesh.sim.host import Host
from tektonmesh.sim.watcher import Violation, Watcher
from tektonmesh.sim.wiresize import wire_bytes
from tektonmesh.sim.world import World

NEWS = ("new", "content")
ANNOUNCEMENTS = (Want, Ihave, Graft, Prune)
"""Messages that are about changes and bring none."""


COUNTS = (
    "worlds",
    "virtual_s",
    "turns",
    "calls",
    "answered",
    "copies",
    "useful",
    "missed",
    "body_bytes",
    "announce_bytes",
    "idle_bytes",
    "idle_node_s",
)


PROMISES = {
    "false_deregistrations": "no-false-end",
    "resurrections": "no-resurrection",
    "accepted_forgeries": "exact-bytes",
}
"""What the registry promises above all, and the checker that counts how often it was broken."""


@dataclass(slots=True)
class Report:
    """The figures of one or many worlds."""

    worlds: int = 0
    virtual_s: float = 0.0
    turns: int = 0
    calls: int = 0
    answered: int = 0
    copies: int = 0
    useful: int = 0
    missed: int = 0
    body_bytes: int = 0
    announce_bytes: int = 0
    propagation_ms: list[float] = field(default_factory=list)
    last_hops: list[int] = field(default_factory=list)
    reset_seen_ms: list[float] = field(default_factory=list)
    silent_seen_ms: list[float] = field(default_factory=list)
    """How long a death took until nobody showed the stack as up: killed, and frozen ones."""
    idle_bytes: int = 0
    idle_node_s: float = 0.0
    idle_peak_bytes_s: float | None = None
    looked_at: dict[str, int] = field(default_factory=dict)
    """What the checkers compared: a world without violations says nothing where this is zero."""
    violations: list[tuple[int, Violation]] = field(default_factory=list)
    """(rng_seed, what broke)."""

    def add(self, other: Report) -> None:
        """Take in the figures of another report."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        peaks = (self.idle_peak_bytes_s, other.idle_peak_bytes_s)
        self.idle_peak_bytes_s = max((peak for peak in peaks if peak is not None), default=None)
        self.propagation_ms.extend(other.propagation_ms)
        self.last_hops.extend(other.last_hops)
        self.reset_seen_ms.extend(other.reset_seen_ms)
        self.silent_seen_ms.extend(other.silent_seen_ms)
        for name, count in other.looked_at.items():
            self.looked_at[name] = self.looked_at.get(name, 0) + count
        self.violations.extend(other.violations)

    def _broken(self, checker: str) -> int:
        return sum(it.checker == checker for _seed, it in self.violations)

    def figures(self) -> dict[str, Any]:
        """How changes spread and what that costs; None for what did not occur."""
        samples = sorted(self.propagation_ms)
        return {
            "p50_ms": quantile(samples, 0.50),
            "p99_ms": quantile(samples, 0.99),
            "redundancy": ratio(self.copies - self.useful, self.useful),
            "last_hop": ratio(sum(self.last_hops), len(self.last_hops)),
            "missed": self.missed,
            "bytes_per_change": ratio(self.body_bytes + self.announce_bytes, self.useful),
            "announce_bytes": ratio(self.announce_bytes, self.useful),
            "idle_bytes_s": ratio(self.idle_bytes, self.idle_node_s),
            "idle_peak_bytes_s": self.idle_peak_bytes_s,
        }

    def as_dict(self) -> dict[str, Any]:
        """The figures as `--json` prints them; null for what did not occur."""
        return {
            "worlds": self.worlds,
            "virtual_s": round(self.virtual_s, 1),
            "turns": self.turns,
            **self.figures(),
            "reset_seen_ms": max(self.reset_seen_ms, default=None),
            "silent_seen_ms": max(self.silent_seen_ms, default=None),
            "calls": self.calls,
            "answered": self.answered,
            "looked_at": dict(sorted(self.looked_at.items())),
            **{name: self._broken(checker) for name, checker in PROMISES.items()},
            "violations": [
                {
                    "rng_seed": seed,
                    "checker": it.checker,
                    "at_s": it.instant,
                    "host": it.host,
                    "detail": it.detail,
                }
                for seed, it in self.violations
            ],
        }


def quantile(ordered: list[float], part: float) -> float | None:
    """The value below which `part` of the sorted samples lie."""
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 2)


def ratio(above: float, below: float) -> float | None:
    return round(above / below, 2) if below else None


def _is_body(message: Message) -> bool:
    """Whether it brings records, not a refresh only."""
    return isinstance(message, Delta) and (
        message.base is None or bool(message.puts or message.deletes)
    )


@dataclass(slots=True, eq=False)
class Spread:
    """One change of one owner, and how far it has come: `hops` by host."""

    version: Any
    asked: float
    hops: dict[int, int]


class Gauges(Watcher):
    """Collects a world's figures. Knows from whom each node heard of a write, and so its hops.

    What stands in a message and which version a node shows is asked of methods of their own, so
    that other protocols than the core's are measured by the same rules (`sim/arena.py`).
    """

    name = "gauges"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.report = Report()
        self._spreads: dict[StackId, list[Spread]] = {}
        self._shown: dict[tuple[int, StackId], Any] = {}
        self._counted: dict[tuple[int, str], float] = {}
        self._source: dict[int, int] = {}
        self._idle_from: float | None = None
        self._idle_sent: dict[int, int] = {}
        if world.options.measure_from_s:
            world.at(world.options.measure_from_s, self.begin)

    def begin(self) -> None:
        """Forget the figures so far: what counts begins now."""
        self.report = Report()
        self._spreads = {}

    # --- what differs between protocols ----------------------------------------------------------

    def source_of(self, host: Host, event: Received) -> int:
        """The number of the host that sent what a host is about to receive; -1 if it is gone."""
        end = host.links.get(event.link)
        return end.peer.host.index if end is not None else -1

    def version(self, host: Host, owner: StackId) -> Any:
        """What orders the record sets of an owner, for the one that a host shows."""
        assert host.node is not None
        return host.node.replica.owners[owner].head.content_version

    def copies(self, host: Host, messages: tuple[Message, ...]) -> int:
        """How many bodies a host is about to receive."""
        return sum(1 for message in messages if _is_body(message))

    def weigh(self, link: LinkId, messages: tuple[Message, ...]) -> tuple[int, int]:
        """The bytes of the bodies in a batch, and of its announcements."""
        bodies = tuple(message for message in messages if _is_body(message))
        others = tuple(message for message in messages if isinstance(message, ANNOUNCEMENTS))
        return (
            wire_bytes(bodies) if bodies else 0,
            wire_bytes(others) if others else 0,
        )

    def weigh_all(self, link: LinkId, messages: tuple[Message, ...]) -> int:
        """The bytes of a whole batch."""
        return wire_bytes(messages)

    # --- what is noted ---------------------------------------------------------------------------

    def received(self, host: Host, event: Received) -> None:
        self._source[host.index] = self.source_of(host, event)
        self.report.copies += self.copies(host, event.messages)

    def changed(self, host: Host, change: Change) -> None:
        if change.kind not in NEWS or host.node is None:
            return
        owner, version = change.owner, self.version(host, change.owner)
        if owner == host.stack_id:
            self._born(host, version, change)
            return
        self.report.useful += 1
        before = self._shown.get((host.index, owner))
        self._shown[(host.index, owner)] = version
        for spread in reversed(self._spreads.get(owner, ())):
            if before is not None and spread.version <= before:
                break
            if spread.version <= version:
                self._reached(host, spread)

    def _born(self, host: Host, version: Any, change: Change) -> None:
        """Writes that were asked for are followed; each once, however often its record changes."""
        written, asked = self.world.workload.written, []
        for name in change.keys:
            at = written.get((host.index, name))
            if at is not None and self._counted.get((host.index, name)) != at:
                self._counted[(host.index, name)] = at
                asked.append(at)
        if asked:
            spread = Spread(version, min(asked), {host.index: 0})
            self._spreads.setdefault(change.owner, []).append(spread)

    def _reached(self, host: Host, spread: Spread) -> None:
        if host.index not in spread.hops and host.started <= spread.asked:
            source = self._source.get(host.index, -1)
            spread.hops[host.index] = spread.hops.get(source, 0) + 1
            self.report.propagation_ms.append((self.world.now - spread.asked) * 1000.0)

    def sent(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        bodies, announcements = self.weigh(link, messages)
        self.report.body_bytes += bodies
        self.report.announce_bytes += announcements
        if self._idle_from is not None:
            size = self.weigh_all(link, messages)
            self.report.idle_bytes += size
            self._idle_sent[host.index] = self._idle_sent.get(host.index, 0) + size

    def settled(self) -> None:
        self._idle_from = self.world.now

    def finished(self) -> None:
        report, world = self.report, self.world
        if self._idle_from is not None:
            running = sum(1 for host in world.hosts if host.alive)
            report.idle_node_s = (world.now - self._idle_from) * running
            most = max(self._idle_sent.values(), default=0)
            report.idle_peak_bytes_s = ratio(most, world.now - self._idle_from)
        done = [call for call in world.workload.done if call.kind == "send"]
        report.worlds, report.virtual_s, report.turns = 1, world.now, world.turns
        report.calls = len(done)
        report.answered = sum(1 for call in done if call.outcome == "answered")
        for watcher in world.watchers:
            for name, count in watcher.counts.items():
                report.looked_at[name] = report.looked_at.get(name, 0) + count
        report.violations = [(world.options.rng_seed, it) for it in world.violations]
        for owner, spreads in self._spreads.items():
            for spread in spreads:
                if len(spread.hops) > 1:
                    report.last_hops.append(max(spread.hops.values()))
                report.missed += sum(1 for host in world.hosts if self._lacks(host, owner, spread))

    def _lacks(self, host: Host, owner: StackId, spread: Spread) -> bool:
        if not host.alive or host.started > spread.asked or host.stack_id == owner:
            return False
        return host.index not in spread.hops
