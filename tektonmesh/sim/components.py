"""Which honest hosts can find one another, now and for how long: what checkers may demand.

Two hosts are together if a chain of honest running hosts joins them, each of which can reach the
next. A liar joins nobody: the registry promises nothing to a stack whose only link is to one. It
looks when it is asked (checkers do twice a second) and works anew only after a change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tektonmesh.sim.host import Host

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

KEPT_S = 1200.0
"""History beyond the longest lease and its slack is of no use."""

Labels = dict[int, int]
"""Host -> the smallest index in its component; who is in none is missing."""


class Components:
    """The components of a world, with their past as far as anybody looked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._looked_at = (-1, 0)
        self._volatile = any(it.kind in ("clone", "clock") for it in world.options.faults)
        """Whether hosts may fall silent, or speak again, without a start or an end."""
        self._past: list[tuple[float, Labels]] = [(0.0, {})]

    def look(self) -> Labels:
        """The components of this instant."""
        world = self._world
        speakers = sum(map(world.speaks, world.hosts)) if self._volatile else 0
        if self._looked_at != (world.shifts, speakers):
            self._looked_at = (world.shifts, speakers)
            self._note(self._work_out())
        return self._past[-1][1]

    def together(self, one: Host, other: Host) -> bool:
        """Whether the two can find each other now."""
        labels = self.look()
        return one.index in labels and labels[one.index] == labels.get(other.index)

    def together_since(self, one: Host, other: Host) -> float:
        """Since when that was so without a break; infinity if it is not so now."""
        self.look()
        since = float("inf")
        for instant, labels in reversed(self._past):
            if labels.get(one.index, -1) != labels.get(other.index, -2):
                break
            since = instant
        return since

    def _note(self, labels: Labels) -> None:
        now = self._world.now
        self._past.append((now, labels))
        old = 0
        while self._past[old + 1][0] < now - KEPT_S:
            old += 1
        del self._past[:old]

    def _work_out(self) -> Labels:
        world = self._world
        hosts = [host for host in world.hosts if host.alive and world.speaks(host)]
        if world.network.open_to_all:
            return {host.index: hosts[0].index for host in hosts}
        labels: Labels = {}
        for first in hosts:
            if first.index not in labels:
                self._spread(first, hosts, labels)
        return labels

    def _spread(self, first: Host, hosts: list[Host], labels: Labels) -> None:
        may_join = self._world.network.may_join
        labels[first.index] = first.index
        queue = [first]
        for here in queue:
            for there in hosts:
                if there.index not in labels and may_join(here, there):
                    labels[there.index] = first.index
                    queue.append(there)
