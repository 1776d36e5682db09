"""Durable messages in a world: who sends them to whom. What must become of each is checked by
`letter_checkers`.

What a host promised before its disk was lost is nobody's promise any more, so worlds with durable
messages keep their disks.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tektonmesh.sim.drawn import Drawn
from tektonmesh.sim.host import Host

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

TTL_S = 3600.0
BODIES = (5, 200, 2_000, 40_000)
LARGE = (260_000, 400_000, 1_000_000)


def large_body(size: int) -> bytes:
    """A body of so many bytes of which no two parts are alike."""
    return Random(size).randbytes(size)


class Letters(Drawn):
    """Draws durable messages at a rate and hands them to the workload."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "letters", world.options.letters)

    def draw(self) -> None:
        world = self._world
        host, target = self._chance.choice(world.hosts), self._chance.choice(world.hosts)
        is_large = world.options.large and self._chance.random() < world.options.large
        size = self._chance.choice(LARGE if is_large else BODIES)
        names = world.workload.names_of(target)
        if names and may_write(world, host, target):
            address = f"{self._chance.choice(names)}@{target.name}"
            parked = world.options.parked
            may_park = parked > 0.0 and self._chance.random() < parked
            world.workload.post(host, address, size, TTL_S, may_park=may_park)


def may_write(world: World, host: Host, target: Host) -> bool:
    """Both are honest, and the name means that stack here: the first to claim one keeps it."""
    node = host.node
    if node is None or not host.alive or not (world.honest(host) and world.honest(target)):
        return False
    return node.names.label(target.stack_id) == target.name
