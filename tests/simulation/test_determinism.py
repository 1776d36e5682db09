"""The same seed gives the same world, turn for turn and byte for byte, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from tektonmesh.sim.options import draw
from tektonmesh.sim.world import World

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (3, 11, 29)
PROGRAM = """
from dataclasses import replace
from tektonmesh.sim.options import draw
from tektonmesh.sim.world import World
for seed in {seeds}:
    world = World(replace(draw(seed, 5), deep_trace=True, duration_s=8.0))
    world.run()
    print(seed, world.trace, world.turns)
"""


def trace_under(hash_seed: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seeds=SEEDS)],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=environment,
        text=True,
    )
    return done.stdout


def test_the_same_seed_gives_the_same_trace_under_three_hash_seeds() -> None:
    first = trace_under("0")
    assert len(first.splitlines()) == len(SEEDS)
    assert trace_under("1") == first
    assert trace_under("4242") == first


def test_another_seed_gives_another_trace() -> None:
    traces = []
    for seed in (1, 2):
        world = World(replace(draw(5, 3), rng_seed=seed, duration_s=3.0))
        world.run()
        traces.append(world.trace)
    assert traces[0] != traces[1]


def test_watchers_do_not_change_a_world() -> None:
    from tektonmesh.sim.checkers import REGISTRY_CHECKERS
    from tektonmesh.sim.message_checkers import MESSAGE_CHECKERS

    options = replace(draw(11), duration_s=10.0)
    alone, watched = World(options), World(options, [*REGISTRY_CHECKERS, *MESSAGE_CHECKERS])
    alone.run()
    watched.run()
    assert not watched.violations
    assert alone.turns == watched.turns
