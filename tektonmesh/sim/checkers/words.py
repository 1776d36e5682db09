"""What must hold of what nodes say and believe of one another: nothing stale, nothing from the
future, nobody accused who answers, and of two with one key at last only one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tektonmesh.core.graph import read_claim
from tektonmesh.core.ownlinks import SUSPECT
from tektonmesh.core.replica import Change
from tektonmesh.sim.checkers.common import node_of
from tektonmesh.sim.checkers.presence import (
    CALM_S,
    MISLED_S,
    MOST_DOUBT_S,
    SLACK_S,
    clock_doubt_s,
    lie_s,
)
from tektonmesh.sim.host import WALL_START_S, Host, Run
from tektonmesh.sim.watcher import Watcher

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

JUST_BACK_S = 0.5
"""Less than any question waits for its answer: whoever is accused so soon was never asked."""
SLOW_S = 0.3
"""Links with more delay than that answer later than the product's limits were chosen for."""
CLONE_S = 20.0
"""Two with one key have found one another and outbid once each by then."""


class OnlyFresh(Watcher):
    """4: no head is taken that was signed in the future, or whose lease and slack are over."""

    name = "only-fresh"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._doubt_s = clock_doubt_s(world) + lie_s(world)
        self._active = self._doubt_s < MOST_DOUBT_S + MISLED_S

    def changed(self, host: Host, change: Change) -> None:
        if change.kind in ("expired", "forgotten", "flagged") or not self._active:
            return
        if change.owner == host.stack_id or not self.world.honest(host):
            return
        head = node_of(host).replica.owners[change.owner].head
        ahead_s = head.hlc / 1000.0 - (WALL_START_S + self.world.now)
        if ahead_s > SLACK_S + self._doubt_s:
            self.fail(host, f"takes a head that was signed {ahead_s:.1f} s ahead")
        if -ahead_s > min(head.lease_s, 900) + SLACK_S + self._doubt_s:
            self.fail(host, f"takes a head that was signed {-ahead_s:.1f} s ago")


class NobodyIsAccused(Watcher):
    """5: in a calm nobody calls a neighbour suspect that runs and has a link to it, nor does
    anybody who was away itself."""

    name = "nobody-accused"

    def changed(self, host: Host, change: Change) -> None:
        if change.owner != host.stack_id or not self.world.honest(host):
            return
        links = [key for key in change.keys if key.startswith("link/")]
        if not links or not self._should_know_better(host):
            return
        held = node_of(host).replica.owners[host.stack_id]
        for key in links:
            claim = read_claim(key, held.value(key))
            if claim is not None and claim[1][1] == SUSPECT:
                self._check(host, self.world.host_of(claim[0]))

    def _should_know_better(self, host: Host) -> bool:
        options = self.world.options
        if options.loss or options.delay_s + options.jitter_s > SLOW_S:
            return False
        away = host.paused_at > 0.0 and self.world.now - host.changed < JUST_BACK_S
        return away or self.world.calm_s() > CALM_S

    def _check(self, host: Host, other: Host | None) -> None:
        """A link that ended is no accusation; nor is one to a liar, which may do as it likes."""
        if other is None or not other.alive or not self.world.honest(other):
            return
        for end in host.links.values():
            if end.peer.host is other and end.open and end.peer.open and not end.ended:
                self.fail(host, f"suspects {other.name}, which runs and is linked")


class OneSpeaks(Watcher):
    """2: of two that run with one key only one goes on speaking, and that is the newest."""

    name = "one-speaks"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._roles: dict[int, list[Host]] = {}
        for spare in world.hosts[world.options.nodes :]:
            self._roles.setdefault(spare.role, [world.hosts[spare.role]]).append(spare)

    def sweep(self) -> None:
        for hosts in self._roles.values():
            running = [host for host in hosts if host.run is Run.RUNNING]
            since = max((host.changed for host in running), default=0.0)
            if len(running) > 1 and self.world.now - since > CLONE_S:
                self._check(running)

    def _check(self, running: list[Host]) -> None:
        if self.world.faults.last_change > self.world.now - CLONE_S:
            return
        speaking = [host for host in running if not node_of(host).owner.fenced]
        self.count("clones_watched")
        if len(speaking) != 1:
            self.fail(running[0], f"{len(speaking)} of {len(running)} with one key speak")
        elif speaking[0].started < max(host.started for host in running):
            self.fail(speaking[0], "speaks on, though another with its key has started later")
