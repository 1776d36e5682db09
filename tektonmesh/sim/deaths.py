"""How long a death takes to be seen: until no running node shows the dead stack as `up`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tektonmesh.core.types import StackState
from tektonmesh.sim.host import Host, Run
from tektonmesh.sim.watcher import Watcher

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

LOOK_S = 0.05


class Deaths(Watcher):
    """Milliseconds for each stack that was killed (`reset_ms`: its kernel tells the peers) and for
    each that froze (`silent_ms`), to within 50 ms."""

    name = "deaths"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.reset_ms: list[float] = []
        self.silent_ms: list[float] = []

    def stopped(self, host: Host) -> None:
        if host.run in (Run.OFF, Run.FROZEN):
            world = self.world
            world.at(world.now + LOOK_S, self._look, host, host.incarnation, world.now, 0)

    def _look(self, dead: Host, incarnation: int, since: float, first: int) -> None:
        """Whoever was seen to know it is not asked again."""
        world = self.world
        if dead.incarnation != incarnation or dead.run not in (Run.OFF, Run.FROZEN):
            return
        hosts = world.hosts
        while first < len(hosts) and not self._shows(hosts[first], dead):
            first += 1
        if first < len(hosts):
            world.at(world.now + LOOK_S, self._look, dead, incarnation, since, first)
            return
        took = self.reset_ms if dead.run is Run.OFF else self.silent_ms
        took.append(round((world.now - since) * 1000.0, 1))

    def _shows(self, host: Host, dead: Host) -> bool:
        if not host.alive or host is dead or not self.world.honest(host):
            return False
        assert host.node is not None
        return host.node.graph.state(dead.stack_id) is StackState.UP
