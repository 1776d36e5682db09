"""What goes wrong in a world, and when: a plan as data, and the machine that carries it out.

A plan is a tuple of `Fault`; the same plan and seed give the same world. Nothing here looks into
a node. At the end of the safety phase `heal` undoes all that can be undone: cuts end, paused
hosts run again, hosts that were to come back do.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tektonmesh.sim.options import Options
    from tektonmesh.sim.world import World

KINDS = ("cut", "oneway", "reset", "kill", "freeze", "wipe", "leave", "pause", "clock")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at `at_s` and, where it can end, ends `for_s` later.

    cut: no packet passes between `nodes` and the rest. oneway: none from `nodes` to the rest.
    reset: the links of `nodes` are reset. kill: the process dies, its kernel says so to the peers.
    freeze: the machine dies in silence. wipe: as kill, and the disk is lost. leave: the stack
    leaves the mesh. pause: the process stands still. clock: the wall clock jumps by `amount_s`.
    With `for_s` of 0 a killed, frozen or left host never comes back.
    """

    at_s: float
    kind: str
    nodes: tuple[int, ...]
    for_s: float = 0.0
    amount_s: float = 0.0


def draw_faults(chance: Random, options: Options, gone: tuple[int, ...]) -> tuple[Fault, ...]:
    """A plan for a random world. Only the hosts in `gone` never come back; who draws the world
    sees to it that the others can still reach one another without them."""
    span = options.duration_s
    plan: list[Fault] = []
    for index in gone:
        kind = chance.choice(("kill", "freeze", "leave"))
        plan.append(Fault(chance.uniform(3.0, span), kind, (index,)))
    rest = [index for index in range(options.nodes) if index not in gone]
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3, 4))):
        kind = chance.choice(KINDS)
        if kind in ("cut", "oneway"):
            nodes = tuple(sorted(chance.sample(rest, chance.randint(1, max(1, len(rest) // 2)))))
        else:
            nodes = (chance.choice(rest),)
        at_s = chance.uniform(1.0, span)
        for_s = chance.uniform(1.0, 25.0)
        plan.append(Fault(at_s, kind, nodes, for_s, chance.uniform(-5.0, 5.0)))
    return tuple(sorted(plan, key=lambda fault: fault.at_s))


class Faults:
    """Carries a plan out and remembers what it disturbed last."""

    def __init__(self, world: World, plan: tuple[Fault, ...]) -> None:
        self._world = world
        self._plan = plan
        self._open: list[Fault] = []
        self._healed = False
        self.last_change = 0.0
        """The instant of the newest disturbance or end of one, for checkers that need calm."""

    def schedule(self) -> None:
        """Put the whole plan into the world's heap."""
        for fault in self._plan:
            self._world.at(fault.at_s, self._begin, fault)

    def heal(self) -> None:
        """End the safety phase: what still waits does not happen, what is open ends now."""
        for fault in list(self._open):
            self._end(fault)
        self._healed = True

    def _begin(self, fault: Fault) -> None:
        if self._healed:
            return
        world = self._world
        self.last_change = world.now
        if fault.kind in ("cut", "oneway"):
            for inside, outside in self._pairs(fault):
                world.network.block(inside, outside)
                if fault.kind == "cut":
                    world.network.block(outside, inside)
        for index in fault.nodes:
            self._begin_on(world, index, fault)
        if fault.for_s:
            self._open.append(fault)
            world.at(world.now + fault.for_s, self._end, fault)

    def _begin_on(self, world: World, index: int, fault: Fault) -> None:
        host = world.hosts[index]
        if fault.kind == "reset":
            world.network.reset_links(host)
        elif fault.kind in ("kill", "wipe"):
            world.kill(host, wipe=fault.kind == "wipe")
        elif fault.kind == "freeze":
            world.freeze(host)
        elif fault.kind == "leave":
            world.leave(host)
        elif fault.kind == "pause":
            world.pause(host)
        elif fault.kind == "clock":
            host.skew_s += fault.amount_s

    def _end(self, fault: Fault) -> None:
        if fault not in self._open:
            return
        self._open.remove(fault)
        world = self._world
        self.last_change = world.now
        if fault.kind in ("cut", "oneway"):
            for inside, outside in self._pairs(fault):
                world.network.unblock(inside, outside)
                if fault.kind == "cut":
                    world.network.unblock(outside, inside)
        for index in fault.nodes:
            if fault.kind == "pause":
                world.resume(world.hosts[index])
            elif fault.kind in ("kill", "wipe", "freeze", "leave"):
                world.start(world.hosts[index])

    def _pairs(self, fault: Fault) -> list[tuple[int, int]]:
        outside = [at for at in range(len(self._world.hosts)) if at not in fault.nodes]
        return [(inside, other) for inside in fault.nodes for other in outside]
