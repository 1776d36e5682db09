"""The same course for every protocol: how changes spread, what they cost, and what rest costs.

A course is one world: all hosts start, time passes until they are settled, a few writes are made
that do not count, then `CHANGES` that do, all by host 1; then, in calm worlds, nobody writes for a
while. The production core runs it in a `World`, a baseline in an `Arena`; the figures come from the
same gauges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from tektonmesh.sim.arena import Arena, ArenaGauges
from tektonmesh.sim.baselines.central import Central
from tektonmesh.sim.baselines.flooding import Flooding
from tektonmesh.sim.baselines.machine import Baseline
from tektonmesh.sim.baselines.memberlist import Memberlist
from tektonmesh.sim.baselines.scuttlebutt import Scuttlebutt
from tektonmesh.sim.options import Options
from tektonmesh.sim.report import Gauges, Report
from tektonmesh.sim.world import World

CORE = "tektonmesh"
BASELINES: dict[str, type[Baseline]] = {
    "flooding": Flooding,
    "memberlist": Memberlist,
    "scuttlebutt": Scuttlebutt,
    "central": Central,
}
PROTOCOLS = (CORE, *BASELINES)
CONDITIONS = ("calm", "loss", "crashed")
"""calm: nothing goes wrong. loss: 2 % of all packets are lost. crashed: half a second before the
first counted write, 10 % of the hosts fall silent at once."""

WRITER = 1
"""Not host 0, which the central registry is."""
WARM_S = 30.0
WARM_CHANGES = 3
"""Writes after which a tree has been built; they are not counted."""
CHANGES = 10
PAUSE_S = 6.0
"""At least between two writes, with up to a third more: longer than the central registry polls."""
LAST_S = 30.0
"""After the last write, before it counts as missed."""
IDLE_S = 120.0
SAMPLES_MIN = 96
"""Small worlds are run again with other seeds until so many (write, host) pairs are seen."""
LOSS = 0.02
CRASHED = 0.1


@dataclass(frozen=True, slots=True)
class Course:
    """What is run for one row of the report."""

    protocol: str
    nodes: int
    condition: str
    rng_seed: int = 1

    def options(self) -> Options:
        """The world: regional delays, everyone dials its part of a random overlay."""
        return Options(
            rng_seed=self.rng_seed,
            nodes=self.nodes,
            topology="regular",
            regional=True,
            loss=LOSS if self.condition == "loss" else 0.0,
            cis_per_host=1 if self.protocol == CORE else 0,
        )


def run_course(course: Course) -> Report:
    """One world, start to end."""
    world, gauges = _world(course)
    chance = Random(f"course {course.rng_seed}")
    for host in world.hosts:
        world.at(chance.uniform(0.0, world.options.start_spread_s), world.start, host)
    world.run_until(WARM_S)
    _write(world, chance, WARM_CHANGES)
    gauges.begin()
    if course.condition == "crashed":
        _crash(world, chance)
        world.run_until(world.now + 0.5)
    _write(world, chance, CHANGES)
    world.run_until(world.now + LAST_S)
    if course.condition == "calm":
        world.tell("settled")
        world.run_until(world.now + IDLE_S)
    world.tell("finished")
    return gauges.report


def _world(course: Course) -> tuple[World, Gauges]:
    options = course.options()
    if course.protocol == CORE:
        world = World(options, [Gauges])
    else:
        world = Arena(options, BASELINES[course.protocol], [ArenaGauges])
    gauges = world.watchers[0]
    assert isinstance(gauges, Gauges)
    return world, gauges


def _write(world: World, chance: Random, count: int) -> None:
    for _ in range(count):
        name = f"echo-{len(world.workload.written)}"
        world.workload.register(world.hosts[WRITER], name)
        world.run_until(world.now + PAUSE_S * chance.uniform(1.0, 4 / 3))


def _crash(world: World, chance: Random) -> None:
    """A tenth falls silent, one host at least. The writer stays, and host 0: without it a central
    registry would show nothing any more."""
    count = round(CRASHED * len(world.hosts))
    for host in chance.sample(world.hosts[WRITER + 1 :], max(1, count)):
        world.freeze(host)


def courses(
    protocols: Sequence[str], sizes: Sequence[int], conditions: Sequence[str]
) -> list[list[Course]]:
    """For every row the worlds that are run for it."""
    return [
        [
            Course(protocol, nodes, condition, seed)
            for seed in range(1, 1 + max(1, -(-SAMPLES_MIN // nodes)))
        ]
        for nodes in sizes
        for protocol in protocols
        for condition in conditions
    ]


def row_of(group: Sequence[Course], reports: Sequence[Report]) -> dict[str, Any]:
    """The figures of one protocol, size and condition."""
    total = Report()
    for report in reports:
        total.add(report)
    first = group[0]
    return {
        "protocol": first.protocol,
        "nodes": first.nodes,
        "condition": first.condition,
        "worlds": len(group),
        "changes": CHANGES * len(group),
        **total.figures(),
        "violations": len(total.violations),
    }
