"""What a world measured, and the sum of many worlds: the figures that `tektonmesh sim` prints.

`p50_ms` and `p99_ms`: from a write until another node shows it. `redundancy`: copies of a change
that a node got for each one it could use. `last_hop`: hops to the node that is reached last, mean
over changes. `idle_bytes_s`: per second and node in the quiet phase, estimated (`wiresize`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tektonmesh.core.events import Received
from tektonmesh.core.messages import Delta, Message
from tektonmesh.core.replica import Change
from tektonmesh.core.types import ContentVersion, LinkId, StackId
from tektonmesh.sim.host import Host
from tektonmesh.sim.watcher import Watcher
from tektonmesh.sim.wiresize import wire_bytes
from tektonmesh.sim.world import Violation, World

NEWS = ("new", "content")


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
    propagation_ms: list[float] = field(default_factory=list)
    last_hops: list[int] = field(default_factory=list)
    idle_bytes: int = 0
    idle_node_s: float = 0.0
    violations: list[tuple[int, Violation]] = field(default_factory=list)
    """(rng_seed, what broke)."""

    def add(self, other: Report) -> None:
        """Take in the figures of another report."""
        for name in ("worlds", "virtual_s", "turns", "calls", "answered", "copies", "useful"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.idle_bytes += other.idle_bytes
        self.idle_node_s += other.idle_node_s
        self.propagation_ms.extend(other.propagation_ms)
        self.last_hops.extend(other.last_hops)
        self.violations.extend(other.violations)

    def as_dict(self) -> dict[str, Any]:
        """The figures as `--json` prints them; null for what did not occur."""
        samples = sorted(self.propagation_ms)
        return {
            "worlds": self.worlds,
            "virtual_s": round(self.virtual_s, 1),
            "turns": self.turns,
            "p50_ms": quantile(samples, 0.50),
            "p99_ms": quantile(samples, 0.99),
            "redundancy": ratio(self.copies, self.useful),
            "last_hop": ratio(sum(self.last_hops), len(self.last_hops)),
            "idle_bytes_s": ratio(self.idle_bytes, self.idle_node_s),
            "calls": self.calls,
            "answered": self.answered,
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


def _has_news(delta: Delta) -> bool:
    """Whether it brings records, not a refresh only."""
    return delta.base is None or bool(delta.puts or delta.deletes)


class Gauges(Watcher):
    """Collects a world's figures. Knows from whom each node heard of a change, and so its hops."""

    name = "gauges"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.report = Report()
        self._born: dict[tuple[StackId, ContentVersion], float] = {}
        self._hops: dict[tuple[StackId, ContentVersion], dict[int, int]] = {}
        self._source: dict[int, int] = {}
        self._idle_from: float | None = None

    def received(self, host: Host, event: Received) -> None:
        end = host.links.get(event.link)
        self._source[host.index] = end.peer.host.index if end is not None else -1
        for message in event.messages:
            if isinstance(message, Delta) and _has_news(message):
                self.report.copies += 1

    def changed(self, host: Host, change: Change) -> None:
        if change.kind not in NEWS or host.node is None:
            return
        held = host.node.replica.owners[change.owner]
        key = (change.owner, held.head.content_version)
        if change.owner == host.stack_id:
            written = self.world.workload.written
            asked = [
                written[(host.index, name)] for name in change.keys if (host.index, name) in written
            ]
            if asked:
                self._born[key] = min(asked)
            self._hops[key] = {host.index: 0}
            return
        self.report.useful += 1
        if key in self._born:
            self.report.propagation_ms.append((self.world.now - self._born[key]) * 1000.0)
        hops = self._hops.get(key)
        if hops is not None and host.index not in hops:
            hops[host.index] = hops.get(self._source.get(host.index, -1), 0) + 1

    def sent(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        if self._idle_from is not None:
            self.report.idle_bytes += wire_bytes(messages)

    def settled(self) -> None:
        self._idle_from = self.world.now

    def finished(self) -> None:
        report, world = self.report, self.world
        if self._idle_from is not None:
            running = sum(1 for host in world.hosts if host.alive)
            report.idle_node_s = (world.now - self._idle_from) * running
        done = [call for call in world.workload.done if call.kind == "send"]
        report.worlds, report.virtual_s, report.turns = 1, world.now, world.turns
        report.calls = len(done)
        report.answered = sum(1 for call in done if call.outcome == "answered")
        report.last_hops = [max(hops.values()) for hops in self._hops.values() if len(hops) > 1]
        report.violations = [(world.options.rng_seed, it) for it in world.violations]
