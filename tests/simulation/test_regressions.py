"""Worlds that once failed. Each file of `regressions/` names one, and what it showed.

A file says `scenario` and `rng_seed`, or all its `options`, since what a seed draws changes with
the way of drawing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tektonmesh.sim.faults import Fault
from tektonmesh.sim.main import plan, run_world
from tektonmesh.sim.options import Options

FILES = sorted((Path(__file__).parent / "regressions").glob("*.json"))


def worlds_of(told: dict[str, Any]) -> list[Options]:
    if "options" not in told:
        return plan(told)
    faults = tuple(
        Fault(at_s, kind, tuple(nodes), *rest)
        for at_s, kind, nodes, *rest in told["options"].get("faults", ())
    )
    pairs = {
        field: tuple((one, other) for one, other in told["options"].get(field, ()))
        for field in ("settings", "hostile", "records")
    }
    return [Options(**told["options"] | pairs | {"faults": faults})]


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_a_world_that_once_failed_violates_nothing(path: Path) -> None:
    told = json.loads(path.read_text())
    for options in worlds_of(told):
        report = run_world(options)
        assert not report.violations, f"{told['showed']}\n{report.violations}"
