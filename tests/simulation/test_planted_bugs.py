"""Faults that are planted into the production code, one at a time: a named world must see each.

This is the test of the checkers. What is planted, and which world shows it, is the table in
`planted.py`. `test_scenarios` shows that the same worlds are clean without the fault.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tektonmesh.sim.main import run_world
from tektonmesh.sim.scenarios import SCENARIOS
from tests.simulation.planted import PLANTED, Plant

ROOT = Path(__file__).resolve().parents[2]


SEEDS = 6
"""Worlds that are tried, from the named seed on: whatever else changes in the core moves chance."""


def found_by(scenario: str, rng_seed: int) -> list[str]:
    """The checkers that a world violates."""
    report = run_world(SCENARIOS[scenario].world(rng_seed))
    return list(dict.fromkeys(it.checker for _seed, it in report.violations))


@pytest.mark.parametrize(
    ("plant", "scenario", "rng_seed", "checker"),
    PLANTED,
    ids=[plant.__name__ for plant, *_ in PLANTED],
)
def test_a_planted_fault_is_seen(
    monkeypatch: pytest.MonkeyPatch, plant: Plant, scenario: str, rng_seed: int, checker: str
) -> None:
    plant(monkeypatch)
    seeds = range(rng_seed, rng_seed + SEEDS)
    assert any(checker in found_by(scenario, seed) for seed in seeds)


SET_WALK = """
from dataclasses import replace
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.replica import Replica
from tektonmesh.sim.options import draw
from tektonmesh.sim.world import World

honest = Replica.entries
def entries(self, buckets):
    found = {entry.owner: entry for entry in honest(self, buckets)}
    return [found[owner] for owner in set(found)]
Replica.entries = entries

world = World(replace(draw(11, 5), deep_trace=True, duration_s=6.0))
world.run()
print(world.trace)
"""


def test_a_walk_over_a_set_shows_under_other_hash_seeds() -> None:
    traces = [
        subprocess.run(
            [sys.executable, "-c", SET_WALK],
            capture_output=True,
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    ]
    assert all(traces)
    assert len(dict.fromkeys(traces)) > 1
