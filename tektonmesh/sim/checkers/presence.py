"""What must hold of who is there: no false end, no resurrection, and a death that is seen in time.

What is demanded of a node follows from what it could know: from the components of honest hosts,
from who was a neighbour of whom, and from how long the world has been calm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tektonmesh.core.graph import read_claim
from tektonmesh.core.replica import Change
from tektonmesh.core.types import StackId, StackState, Status, Version
from tektonmesh.sim.checkers.common import Durable, honest_hosts, lossy, node_of
from tektonmesh.sim.components import Labels
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
RENEW_S = 30.0
"""Beyond one refresh interval with its jitter: a redial, and what a repair may take."""
DETECT_S = 6.0
DETECT_NOTICED_S = 2.0
"""The same where the kernel of the dead says so: the grace of a restart and one flood."""
JOIN_S = 5.0
"""A host that was started this long ago is well connected."""
SLOW_S = 10.0
"""More time for worlds that lose packets: three retransmissions in a row are no rarity there."""
SLACK_S = 30.0
"""How long a head is kept beyond its lease."""
WAITED_S = 4.5
"""A node that hears one clock only, and another than its own, waits for so long."""
CLOSE_S = 2.0
"""As near to the slack as clocks of honest nodes differ by."""
MISLED_S = 60.0
"""A single liar can set a clock by so much, and no more."""
LARGE = 1000
"""From so many hosts on, nobody looks at all pairs."""


def clock_doubt_s(world: World) -> float:
    """By how much two honest nodes may differ over when a lease is over."""
    jumps = [
        abs(fault.amount_s) if fault.kind == "clock" else fault.for_s
        for fault in world.options.faults
        if fault.kind in ("clock", "suspend")
    ]
    return 1.0 + 2.0 * (world.options.skew_s + max(jumps, default=0.0))


def lie_s(world: World) -> float:
    """By how much those that lie about the time may set an honest clock that hears few others."""
    return MISLED_S if any(kind == "clock-liar" for _at, kind in world.options.hostile) else 0.0


class NoResurrection(Watcher):
    """4: nothing that left is listed again by who knew it had, and nothing expired returns
    without newer news; also not over a restart, unless the disk was lost."""

    name = "no-resurrection"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._gone: Durable[Version] = Durable(world)

    def changed(self, host: Host, change: Change) -> None:
        node = node_of(host)
        held = node.replica.owners.get(change.owner)
        owner = self.world.host_of(change.owner)
        if held is None or owner is None or not self.world.honest(owner):
            return
        if held.head.status == Status.LEFT or held.expired:
            self.count("ends_seen")
            self._gone.note(host, change.owner, held.head.version)
        elif node.replica.live(change.owner):
            self._check(host, owner, held.head.version)

    def stopped(self, host: Host) -> None:
        self._gone.stopped(host)

    def started(self, host: Host) -> None:
        replica = node_of(host).replica
        for owner in self._gone.started(host):
            shown = self.world.host_of(owner)
            if shown is not None and replica.live(owner):
                self._check(host, shown, replica.owners[owner].head.version)

    def _check(self, host: Host, owner: Host, version: Version) -> None:
        gone = self._gone.newest(host, owner.stack_id)
        if gone is None or not self.world.honest(host):
            return
        if version <= gone:
            self.fail(host, f"lists {owner.name} again at {version}")
        self._gone.forget(host, owner.stack_id)


class NoFalseEnd(Watcher):
    """5 and 7: nobody is deregistered who runs and could refresh, nobody has left who did not
    say so, and after a calm while everyone in reach is up."""

    name = "no-false-end"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._doubted: dict[int, dict[int, float]] = {}
        self._looked_at: dict[int, tuple[int, int]] = {}
        self._touched: dict[int, dict[StackId, None]] = {}
        self._labels: Labels = {}
        self._misled: dict[int, float] = {}
        """Hosts that waited for an honest peer before they first spoke, and had none but liars,
        which may set a clock: until this instant nobody need believe them."""

    # --- up --------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """In a calm, look at every host whose graph has changed since it was looked at, and again
        at those that doubt somebody."""
        world = self.world
        labels = world.components.look()
        if world.calm_s() <= CALM_S + self._slow_s() or labels is not self._labels:
            self._labels = labels
            self._doubted, self._looked_at = {}, {}
            return
        for host in honest_hosts(world):
            seen = (host.incarnation, node_of(host).graph.generation)
            if self._looked_at.get(host.index) != seen:
                self._looked_at[host.index] = seen
                self._look(host, self._candidates(host))
            elif host.index in self._doubted:
                self._look(host, [world.hosts[at] for at in self._doubted[host.index]])
        self._touched = {}

    def _candidates(self, host: Host) -> list[Host]:
        world = self.world
        if len(world.hosts) < LARGE:
            return world.hosts
        touched = [world.host_of(owner) for owner in self._touched.get(host.index, ())]
        return [it for it in touched if it is not None]

    def _look(self, host: Host, others: list[Host]) -> None:
        """Up, but for the time that one redial takes."""
        graph, label = node_of(host).graph, self._labels[host.index]
        doubted = self._doubted.pop(host.index, {})
        still: dict[int, float] = {}
        for other in others:
            near = self._labels.get(other.index) == label
            if near and not graph.reachable(other.stack_id) and not self._is_misled(other):
                still[other.index] = doubted.get(other.index, self.world.now)
                self._check_doubt(host, other, still[other.index])
        if still:
            self._doubted[host.index] = still

    def _check_doubt(self, host: Host, other: Host, since: float) -> None:
        if self.world.now - since > REDIAL_S + self._slow_s():
            calm_s = self.world.calm_s()
            state = node_of(host).graph.state(other.stack_id)
            self.fail(host, f"shows {other.name} as {state} after {calm_s:.1f} s of calm")

    def _is_misled(self, other: Host) -> bool:
        """Whether lies have set its clock so far ahead that what it signs is not fresh to others:
        until that much time has passed, and repair has brought it."""
        node, now = other.node, self.world.now
        if node is not None and lie_s(self.world):
            ahead_s = node.clock.now_ms() / 1000.0 - (WALL_START_S + now)
            if ahead_s > SLACK_S - CLOSE_S:
                self._misled[other.index] = now + CALM_S
        return self._misled.get(other.index, 0.0) > now

    def _note_misled(self, host: Host) -> None:
        peers = [end.peer.host for end in host.links.values()]
        waited = self.world.now - host.started > WAITED_S
        if waited and peers and not any(map(self.world.honest, peers)):
            self._misled[host.index] = self.world.now + MISLED_S

    def _slow_s(self) -> float:
        return SLOW_S if lossy(self.world) else 0.0

    # --- ends ------------------------------------------------------------------------------------

    def changed(self, host: Host, change: Change) -> None:
        if len(self.world.hosts) >= LARGE:
            self._touched.setdefault(host.index, {})[change.owner] = None
        if change.kind not in ("expired", "left", "new") or not self.world.honest(host):
            return
        other = self.world.host_of(change.owner)
        if change.owner == host.stack_id and change.kind == "new":
            self._note_misled(host)
        if change.kind == "expired":
            self._check_expired(host, other, change.owner)
        elif other is not None and other.run is Run.RUNNING and self.world.speaks(other):
            self._check_left(host, other)

    def _check_expired(self, host: Host, other: Host | None, owner: StackId) -> None:
        """Nothing expires before its lease is over, as far as the clocks agree on when that is,
        nor while its owner runs and had a way to tell that it does."""
        doubt_s = clock_doubt_s(self.world)
        if doubt_s >= MOST_DOUBT_S:
            return
        head = node_of(host).replica.owners[owner].head
        early_s = head.hlc / 1000.0 + head.lease_s - (WALL_START_S + self.world.now)
        if early_s > doubt_s + lie_s(self.world):
            self.fail(host, f"lets an owner expire {early_s:.1f} s before its lease is over")
        if other is None or not self.world.speaks(other):
            return
        joined_s = self.world.now - self.world.components.together_since(host, other)
        if joined_s > head.lease_s / 3.0 * 1.25 + RENEW_S + doubt_s:
            self.fail(host, f"lets {other.name} expire, with whom it was joined {joined_s:.0f} s")

    def _check_left(self, host: Host, other: Host) -> None:
        """A `left` of an earlier start may stand for a while; one of this start is a lie, unless
        the stack is leaving right now."""
        held = node_of(host).replica.owners.get(other.stack_id)
        own = node_of(other).replica.owners.get(other.stack_id)
        if held is None or own is None or not held.left or own.left:
            return
        self.count("departures_compared")
        if held.head.version >= own.head.version:
            self.fail(host, f"shows {other.name} as left; it never said so")


class DeathIsSeen(Watcher):
    """6: a dead X is not `up` any more 6 s later (2 s where its kernel says so), anywhere in the
    component it was in, if its neighbours were honest. It is gone after its lease in any case."""

    name = "death-is-seen"

    def stopped(self, host: Host) -> None:
        world = self.world
        if not world.speaks(host) or not self._neighbours_are_honest(host):
            return
        silent = host.run in (Run.FROZEN, Run.LEFT) or world.options.loss
        wait_s = DETECT_S if silent else DETECT_NOTICED_S
        wait_s += SLOW_S if lossy(world) else 0.0
        world.at(world.now + wait_s, self._look, host, host.incarnation, world.now)

    def _neighbours_are_honest(self, host: Host) -> bool:
        """One that is not can keep the dead one `up` until its lease is over."""
        node = node_of(host)
        held = node.replica.owners.get(host.stack_id)
        keys = held.keys("link") if held is not None else []
        for key in keys:
            claim = read_claim(key, held.value(key) if held is not None else None)
            peer = self.world.host_of(claim[0]) if claim is not None else None
            if peer is None or not self.world.honest(peer):
                return False
        return True

    def _look(self, dead: Host, incarnation: int, since: float) -> None:
        """Whoever began after the death, or was not well connected by then, is not asked; nor is
        anybody where something else went wrong that takes as long to be seen."""
        world = self.world
        if dead.incarnation != incarnation or world.faults.last_change > since:
            return
        if dead.run is not Run.LEFT and world.faults.calm_before(since) < DETECT_S:
            return
        if any(host.alive and host.changed > since - JOIN_S for host in world.hosts):
            return
        self.count("deaths_checked")
        for host in honest_hosts(world):
            if node_of(host).graph.state(dead.stack_id) is StackState.UP:
                self.fail(host, f"still shows {dead.name} as up, {world.now - since:.1f} s dead")

    def sweep(self) -> None:
        world = self.world
        for dead in world.hosts:
            if dead.node is not None or not dead.incarnation:
                continue
            if world.now - dead.changed > SLACK_S and not self._has_twin(dead):
                for host in honest_hosts(world):
                    self._check_lease(host, dead)

    def _has_twin(self, dead: Host) -> bool:
        """Whether another process has the same keys, and speaks for the stack."""
        if len(self.world.hosts) == self.world.options.nodes:
            return False
        return any(it.node is not None and it.role == dead.role for it in self.world.hosts)

    def _check_lease(self, host: Host, dead: Host) -> None:
        """A clock that is in doubt expires nobody; one that slews may be slow by a tenth."""
        node = node_of(host)
        held = node.replica.owners.get(dead.stack_id)
        if held is None or not node.replica.live(dead.stack_id) or node.clock.alarm:
            return
        over_s = self.world.now - dead.changed - held.head.lease_s - SLACK_S
        slewing = clock_doubt_s(self.world) >= MOST_DOUBT_S
        slow_s = 0.12 * self.world.now if slewing else 0.0
        if over_s > 2.0 * self.world.options.skew_s + slow_s:
            self.fail(host, f"still lists {dead.name}, {over_s:.0f} s after it could")
