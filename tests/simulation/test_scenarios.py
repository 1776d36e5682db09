"""Every named world holds what the checkers demand, with liars among the hosts and without."""

from __future__ import annotations

import pytest

from tektonmesh.sim.main import run_world
from tektonmesh.sim.options import connected, edges_of
from tektonmesh.sim.scenarios import SCENARIOS

SECTION_8 = (
    *("writer", "burst", "loss-1", "loss-10", "loss", "partition-10s", "partition-10min"),
    *("partition-3h", "oneway", "one-against-all", "chain", "star", "bridge", "pauses"),
    *("restart-all", "upgrade", "wipe", "clone", "clocks", "slow-disk", "churn-6h", "joins"),
    *("large-owner", "republish", "dropper", "delayer", "replayer", "corrupter", "digest-liar"),
    *("flooder", "equivocator", "keeper"),
)
"""What section 8 of the registry's design lists."""
NAMES = [name for name, scenario in SCENARIOS.items() if not scenario.long]


@pytest.mark.parametrize("name", NAMES)
def test_a_named_world_violates_nothing(name: str) -> None:
    report = run_world(SCENARIOS[name].world(1))
    replay = f"tektonmesh sim --scenario {name} --rng-seed 1"
    assert not report.violations, f"{report.violations}\nreplay: {replay}"
    assert report.looked_at["heads_compared"] > 0


def test_all_that_the_design_lists_is_there_by_name() -> None:
    assert [name for name in SECTION_8 if name not in SCENARIOS] == []


def test_a_variant_has_liars_without_whom_the_others_are_connected() -> None:
    variants = [name for name in SCENARIOS if name.endswith("+liars")]
    assert len(variants) > 25
    for name in variants:
        options = SCENARIOS[name].world(1)
        liars = tuple(index for index, _kind in options.hostile)
        assert liars
        assert connected(options.nodes, edges_of(options), liars)


def test_two_seeds_draw_other_liars_and_other_plans() -> None:
    one, other = SCENARIOS["churn+liars"].world(1), SCENARIOS["churn+liars"].world(2)
    assert one.faults != other.faults
    assert one == SCENARIOS["churn+liars"].world(1)


def test_a_scenario_leaves_out_the_faults_of_hosts_that_a_smaller_world_lacks() -> None:
    small = SCENARIOS["restart-all"].world(1, 3)
    assert small.nodes == 3
    assert all(index < 3 for fault in small.faults for index in fault.nodes)


def test_a_plan_lasts_as_long_as_the_world() -> None:
    faults = SCENARIOS["day"].world(1, None, 7200.0).faults
    assert 3600.0 < max(fault.at_s for fault in faults) < 7200.0
    assert len(SCENARIOS["day"].world(1).faults) > 5 * len(faults)


def test_one_writer_and_no_faults_reaches_everybody_within_a_second() -> None:
    shown = run_world(SCENARIOS["writer"].world(7)).as_dict()
    assert shown["violations"] == []
    assert 0 < shown["p50_ms"] <= shown["p99_ms"] < 1000
    assert shown["idle_bytes_s"] > 0


def test_what_was_parked_arrives_while_its_origin_is_away() -> None:
    seen = run_world(SCENARIOS["durable-parked"].world(1)).looked_at
    assert seen["letters_parked"] >= seen["letters_without_origin"] > 0


def test_readers_go_on_where_their_hosts_died() -> None:
    seen = run_world(SCENARIOS["durable-readings"].world(1)).looked_at
    assert seen["readings_whole"] > seen["readings_resumed"] > 0


def test_a_cold_join_is_measured() -> None:
    seen = run_world(SCENARIOS["cold-join"].world(1)).looked_at
    assert seen["joins_measured"] == 1
    assert 0 < seen["join_bytes_until_named"] <= seen["join_bytes"]
