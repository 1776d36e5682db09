"""What happens in a world again and again, at instants drawn at a rate (a Poisson process)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tektonmesh.sim.world import World


class Drawn:
    """Draws until it is stopped; `draw` is the subclass's. Its chance is its own, so that a world
    without it stays what it is."""

    def __init__(self, world: World, what: str, rate: float) -> None:
        self._world = world
        self._chance = Random(f"{what} {world.options.rng_seed}")
        self._rate = rate
        self._stopped = False

    def schedule(self) -> None:
        if self._rate:
            self._later()

    def stop(self) -> None:
        """Nothing more is begun."""
        self._stopped = True

    def _later(self) -> None:
        pause_s = self._chance.expovariate(self._rate)
        self._world.at(self._world.now + pause_s, self._next)

    def _next(self) -> None:
        if not self._stopped:
            self._later()
            self.draw()

    def draw(self) -> None:
        """Let it happen once."""
        raise NotImplementedError
