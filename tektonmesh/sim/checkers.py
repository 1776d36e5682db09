"""What must hold of the registry in every world: the invariants of docs/design/registry.md.

Each class checks one sentence, named in its docstring. Most look at the one owner that changed;
the costly ones look at all pairs once in a while (`sweep`) or at the end (`settled`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tektonmesh.core.head import hash_head
from tektonmesh.core.messages import Buckets, Forward, Message, Vector, Want
from tektonmesh.core.node import Node
from tektonmesh.core.replica import Change, Held
from tektonmesh.core.types import ContentVersion, LinkId, StackId, StackState, Status, Version
from tektonmesh.sim.host import WALL_START_S, Host, Run
from tektonmesh.sim.watcher import Watcher

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

CALM_S = 15.0
"""After this long without a disturbance everybody in reach must be up: a ping interval, the
suspicion, a redial with its pause, and what the records need to travel."""
REDIAL_S = 2.0
"""For how long anybody may be taken for unreachable even then."""
MOST_DOUBT_S = 30.0
"""Where clocks are wrong by more, nobody can say from outside when a lease is over."""
DETECT_S = 6.0
JOIN_S = 5.0
"""A host that was started this long ago is well connected."""
SLOW_S = 10.0
"""More time for worlds that lose packets: three retransmissions in a row are no rarity there."""


def node_of(host: Host) -> Node:
    """The node that runs on a host."""
    assert host.node is not None
    return host.node


def honest_hosts(world: World) -> list[Host]:
    """The hosts whose node runs and tells the truth."""
    return [host for host in world.hosts if host.alive and world.honest(host)]


def lossy(world: World) -> bool:
    """Whether this world's links are slower than the product's limits were chosen for."""
    return world.options.loss >= 0.05


class ExactBytes(Watcher):
    """1 and 7: what a node shows of X at a version is byte for byte what X had then."""

    name = "exact-bytes"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._history: dict[StackId, dict[Version, dict[str, bytes]]] = {
            host.stack_id: {} for host in world.hosts if world.honest(host)
        }

    def changed(self, host: Host, change: Change) -> None:
        history = self._history.get(change.owner)
        held = node_of(host).replica.owners.get(change.owner)
        if history is None or held is None or held.expired or not self.world.honest(host):
            return
        version = held.head.version
        if change.owner == host.stack_id:
            self._publish(host, history, held)
        elif version not in history:
            self.fail(host, f"shows {self._name(change.owner)} at {version}: never published")
        elif held.records != history[version]:
            self.fail(host, f"shows other records of {self._name(change.owner)} at {version}")

    def _publish(self, host: Host, history: dict[Version, dict[str, bytes]], held: Held) -> None:
        known = history.get(held.head.version)
        if known is None:
            history[held.head.version] = dict(held.records)
        elif known != held.records:
            self.fail(host, f"published {held.head.version} twice with other records")

    def _name(self, owner: StackId) -> str:
        host = self.world.host_of(owner)
        return host.name if host is not None else "a stranger"


class NeverBack(Watcher):
    """2: versions never go back on a node while it runs; those of its own, never at all. Of two
    heads at one version the one with the smaller hash stays."""

    name = "never-back"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen: dict[tuple[int, int, StackId], tuple[Version, int]] = {}
        self._own: dict[int, Version] = {}

    def changed(self, host: Host, change: Change) -> None:
        held = node_of(host).replica.owners.get(change.owner)
        if held is None or not self.world.honest(host):
            return
        version = held.head.version
        rank = version, -int.from_bytes(hash_head(held.signed.head))
        key = (host.index, host.incarnation, change.owner)
        if rank < self._seen.get(key, rank):
            self.fail(host, f"went back from {self._seen[key][0]} to {version}")
        self._seen[key] = rank
        if change.owner == host.stack_id:
            if version < self._own.get(host.index, version):
                self.fail(host, f"published {version} after {self._own[host.index]}")
            self._own[host.index] = version


class Converges(Watcher):
    """3 and 12: once writes stop and all is healed, everyone holds the same within two repair
    periods, record for record, whatever the order in which it arrived."""

    name = "converges"

    def agreed(self) -> None:
        for owner in self.world.hosts:
            if self.world.honest(owner):
                self._compare(honest_hosts(self.world), owner)

    def settled(self) -> None:
        if self.world.converged_after is None:
            difference = self._difference(honest_hosts(self.world))
            settle_s = self.world.options.settle_s
            self.fail(None, f"not converged {settle_s} s after the heal: {difference}")

    def _compare(self, hosts: list[Host], owner: Host) -> None:
        """One content version is one set of records, on whatever way it came."""
        stores: dict[ContentVersion, dict[str, bytes]] = {}
        for host in hosts:
            held = node_of(host).replica.owners.get(owner.stack_id)
            if held is None or held.expired:
                continue
            if stores.setdefault(held.head.content_version, held.records) != held.records:
                self.fail(host, f"holds other records of {owner.name} at one version")

    def _difference(self, hosts: list[Host]) -> str:
        parts: list[str] = []
        for host in hosts:
            node = node_of(host)
            row = [f"{host.name}:"]
            for other in self.world.hosts:
                held = node.replica.owners.get(other.stack_id)
                version = "-" if held is None else f"{held.head.content_ver}"
                expired = "x" if held is not None and held.expired else ""
                state = node.graph.state(other.stack_id).value[0]
                row.append(f"{other.name}={version}{expired}{state}")
            parts.append(" ".join(row))
        return " | ".join(parts)


class OneTruth(Watcher):
    """8: of heads at one version all honest nodes pick the same, also where the owner said two
    things at once."""

    name = "one-truth"

    def agreed(self) -> None:
        for owner in self.world.hosts:
            picked: dict[Version, bytes] = {}
            for host in honest_hosts(self.world):
                held = node_of(host).replica.owners.get(owner.stack_id)
                if held is None or held.expired:
                    continue
                if picked.setdefault(held.head.version, held.signed.head) != held.signed.head:
                    self.fail(host, f"picked another head of {owner.name} than others")


class NoResurrection(Watcher):
    """4: nothing that left is listed again by who knew it had, and nothing expired returns
    without newer news."""

    name = "no-resurrection"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._gone: dict[tuple[int, int, StackId], Version] = {}

    def changed(self, host: Host, change: Change) -> None:
        node = node_of(host)
        held = node.replica.owners.get(change.owner)
        owner = self.world.host_of(change.owner)
        if held is None or owner is None or not self.world.honest(owner):
            return
        key = (host.index, host.incarnation, change.owner)
        live = node.replica.live(change.owner)
        if held.head.status == Status.LEFT or held.expired:
            self._gone[key] = held.head.version
        elif live and key in self._gone and held.head.version <= self._gone[key]:
            self.fail(host, f"lists {owner.name} again at {held.head.version}")


class NoFalseEnd(Watcher):
    """5 and 7: nobody is deregistered who runs and could refresh, nobody has left who did not
    say so, and after a calm while everyone in reach is up."""

    name = "no-false-end"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._doubted: dict[tuple[int, int], float] = {}

    def sweep(self) -> None:
        world = self.world
        running = honest_hosts(world)
        calm = world.calm_s()
        for host in running:
            near = world.network.component(host) if calm > self._calm_s() else []
            for other in running:
                state = node_of(host).graph.state(other.stack_id)
                if state is StackState.LEFT and other.run is Run.RUNNING:
                    self._check_left(host, other)
                elif other in near:
                    self._check_up(host, other, state)

    def changed(self, host: Host, change: Change) -> None:
        """Nothing expires before its lease is over, as far as the clocks agree on when that is."""
        jumps = [abs(fault.amount_s) for fault in self.world.options.faults]
        doubt_s = 1.0 + 2.0 * (self.world.options.skew_s + max(jumps, default=0.0))
        if change.kind == "expired" and doubt_s < MOST_DOUBT_S and self.world.honest(host):
            head = node_of(host).replica.owners[change.owner].head
            early_s = head.hlc / 1000.0 + head.lease_s - (WALL_START_S + self.world.now)
            if early_s > doubt_s:
                self.fail(host, f"lets an owner expire {early_s:.1f} s before its lease is over")

    def _check_up(self, host: Host, other: Host, state: StackState) -> None:
        """In a calm: up, but for the time that one redial takes."""
        key = (host.index, other.index)
        if state in (StackState.UP, StackState.SELF):
            self._doubted.pop(key, None)
            return
        since = self._doubted.setdefault(key, self.world.now)
        limit_s = REDIAL_S + (SLOW_S if lossy(self.world) else 0.0)
        if self.world.now - since > limit_s:
            calm_s = self.world.calm_s()
            self.fail(host, f"shows {other.name} as {state} after {calm_s:.1f} s of calm")

    def _check_left(self, host: Host, other: Host) -> None:
        """A `left` of an earlier start may stand for a while; one of this start is a lie, unless
        the stack is leaving right now."""
        held = node_of(host).replica.owners.get(other.stack_id)
        own = node_of(other).replica.owners.get(other.stack_id)
        leaving = own is not None and own.head.status == Status.LEFT
        if held is None or own is None or leaving:
            return
        if held.head.version >= own.head.version:
            self.fail(host, f"shows {other.name} as left; it never said so")

    def _calm_s(self) -> float:
        return CALM_S + (SLOW_S if lossy(self.world) else 0.0)


class DeathIsSeen(Watcher):
    """6: a dead X is not `up` any more, anywhere in its component, 6 s later, and it is gone after
    its lease in any case."""

    name = "death-is-seen"

    def stopped(self, host: Host) -> None:
        world = self.world
        if world.honest(host):
            wait_s = DETECT_S + (SLOW_S if lossy(world) else 0.0)
            world.at(world.now + wait_s, self._look, host, host.incarnation, world.now)

    def _look(self, dead: Host, incarnation: int, since: float) -> None:
        world = self.world
        if dead.incarnation != incarnation or world.faults.last_change > since:
            return
        if any(host.changed > since - JOIN_S for host in world.hosts if host is not dead):
            return
        for host in honest_hosts(world):
            if node_of(host).graph.state(dead.stack_id) is StackState.UP:
                self.fail(host, f"still shows {dead.name} as up, {world.now - since:.1f} s dead")

    def sweep(self) -> None:
        world = self.world
        for dead in world.hosts:
            if dead.run in (Run.RUNNING, Run.PAUSED) or not dead.incarnation:
                continue
            for host in honest_hosts(world):
                self._check_lease(host, dead)

    def _check_lease(self, host: Host, dead: Host) -> None:
        node = node_of(host)
        held = node.replica.owners.get(dead.stack_id)
        if held is None or not node.replica.live(dead.stack_id):
            return
        left = self.world.now - dead.changed - held.head.lease_s
        if left > 30.0 + 2.0 * self.world.options.skew_s:
            self.fail(host, f"still lists {dead.name}, {left:.0f} s after its lease")


class Bounded(Watcher):
    """9: queues and memory stay bounded."""

    name = "bounded"
    queue_max = 5_000
    deadlines_max = 5_000

    def sweep(self) -> None:
        if self.world.network.longest_queue > self.queue_max:
            self.fail(None, f"{self.world.network.longest_queue} messages waited for one link")
        for host in self.world.hosts:
            if host.node is not None and len(host.node.env.deadlines) > self.deadlines_max:
                self.fail(host, f"{len(host.node.env.deadlines)} deadlines")


class Quiet(Watcher):
    """11: without writes there is nothing on the links but keepalives, fingerprints, refreshes,
    and now and then a link's cost."""

    name = "quiet"
    cost_news_max = 3
    """Changes per host for costs that settle."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._watching = False
        self._loud: tuple[type, ...] = (Vector, Buckets, Forward)
        if not any(name.startswith("refresh") for name, _value in world.options.settings):
            # Short leases are half over before a refresh has crossed a few links.
            self._loud += (Want,)
        self._news: dict[tuple[StackId, Version], None] = {}

    def settled(self) -> None:
        # Where packets are lost, links are too, now and then, and new ones compare at once. A liar
        # never rests.
        self._watching = not (self.world.options.loss or self.world.options.hostile)

    def sent(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        for message in messages if self._watching else ():
            if isinstance(message, self._loud):
                self.fail(host, f"sent a {type(message).__name__} in a quiet world")

    def changed(self, host: Host, change: Change) -> None:
        if not self._watching or change.kind not in ("new", "content"):
            return
        others = [key for key in change.keys if not key.startswith("link/")]
        if others or change.kind == "new":
            self.fail(host, f"learned {change.kind} {others} in a quiet world")
        head = node_of(host).replica.owners[change.owner].head
        self._news[(change.owner, head.version)] = None

    def finished(self) -> None:
        if len(self._news) > self.cost_news_max * len(self.world.hosts):
            self.fail(None, f"{len(self._news)} changes in a quiet world")


REGISTRY_CHECKERS: tuple[type[Watcher], ...] = (
    ExactBytes,
    NeverBack,
    Converges,
    OneTruth,
    NoResurrection,
    NoFalseEnd,
    DeathIsSeen,
    Bounded,
    Quiet,
)
