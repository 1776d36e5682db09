"""Worlds of 3-12 nodes, drawn from their seeds: the invariants hold in all of them.

200 of them unless TEKTONMESH_WORLDS says otherwise.
"""

from __future__ import annotations

import os
import sys

import pytest

from tektonmesh.sim.main import RANDOM, replay_command, run_worlds
from tektonmesh.sim.options import draw
from tektonmesh.sim.report import Report

WORLDS = int(os.environ.get("TEKTONMESH_WORLDS", "200"))
WORKERS = 2


def say(done: int, count: int, total: Report) -> None:
    """A line for every tenth of the work, also under pytest's capture."""
    if (done * 10 // count) != ((done - 1) * 10 // count):
        line = f"worlds: {done} of {count}, {len(total.violations)} violations"
        print(line, file=sys.__stderr__, flush=True)


@pytest.mark.timeout(1200)
def test_random_worlds_violate_nothing() -> None:
    report = run_worlds([draw(seed) for seed in range(1, WORLDS + 1)], WORKERS, say)
    asked = {"scenario": RANDOM}
    lines = [
        f"{it.checker} at {it.instant} s on {it.host}: {it.detail}\n"
        f"  replay: {replay_command(asked, seed)}"
        for seed, it in report.violations
    ]
    assert not lines, "\n".join(lines)
    assert report.worlds == WORLDS
    assert report.answered > WORLDS, "the worlds must really send messages"
