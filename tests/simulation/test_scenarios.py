"""Every named world holds what the checkers demand, for several seeds."""

from __future__ import annotations

import pytest

from tektonmesh.sim.main import run_world
from tektonmesh.sim.scenarios import SCENARIOS

SEEDS = (1, 2)


@pytest.mark.parametrize("rng_seed", SEEDS)
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_a_named_world_violates_nothing(name: str, rng_seed: int) -> None:
    report = run_world(SCENARIOS[name].world(rng_seed, None))
    replay = f"tektonmesh sim --scenario {name} --rng-seed {rng_seed}"
    assert not report.violations, f"{report.violations}\nreplay: {replay}"


def test_a_scenario_leaves_out_the_faults_of_hosts_that_a_smaller_world_lacks() -> None:
    small = SCENARIOS["restart-all"].world(1, 3)
    assert small.nodes == 3
    assert all(index < 3 for fault in small.faults for index in fault.nodes)


def test_one_writer_and_no_faults_reaches_everybody_within_a_second() -> None:
    shown = run_world(SCENARIOS["writer"].world(7, None)).as_dict()
    assert shown["violations"] == []
    assert 0 < shown["p50_ms"] <= shown["p99_ms"] < 1000
    assert shown["idle_bytes_s"] > 0
