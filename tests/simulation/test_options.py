"""How worlds are drawn, and that what is drawn makes sense."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tektonmesh.sim.faults import KINDS
from tektonmesh.sim.hostile import HOSTILE
from tektonmesh.sim.options import TOPOLOGIES, Options, connected, draw, edges_of

MANY = [draw(seed) for seed in range(1, 301)]


def test_the_same_seed_draws_the_same_world() -> None:
    assert draw(42) == draw(42)
    assert draw(42) != draw(43)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("count", [3, 4, 7, 12])
def test_every_topology_is_connected(topology: str, count: int) -> None:
    edges = edges_of(Options(nodes=count, topology=topology))
    assert connected(count, edges, ())
    assert all(0 <= one < count and 0 <= other < count and one != other for one, other in edges)


def test_a_chain_without_its_middle_is_not_connected() -> None:
    edges = edges_of(Options(nodes=3, topology="chain"))
    assert not connected(3, edges, (1,))
    assert not connected(1, (), (0,))


def test_hosts_that_are_gone_for_good_leave_the_others_connected() -> None:
    for options in MANY:
        gone = tuple(
            index
            for fault in options.faults
            for index in fault.nodes
            if fault.kind in ("kill", "freeze", "leave") and not fault.for_s
        )
        assert connected(options.nodes, edges_of(options), gone)


def test_the_swarm_reaches_every_feature() -> None:
    kinds = {fault.kind: None for options in MANY for fault in options.faults}
    assert sorted(kinds) == sorted(KINDS)
    assert {options.topology for options in MANY} == set(TOPOLOGIES)
    assert {kind for options in MANY for _, kind in options.hostile} == set(HOSTILE)
    assert any(options.seeds_only for options in MANY)
    assert any(options.walls for options in MANY)
    assert any(options.real_codec for options in MANY)
    assert any(options.loss == 0.25 for options in MANY)
    assert any(not options.faults for options in MANY)
    assert {options.nodes for options in MANY} >= {3, 4, 5, 6, 7, 8, 10, 12}


def test_settings_of_a_world_reach_its_nodes() -> None:
    options = replace(Options(), seeds_only=True, settings=(("refresh_min_s", 6.0),))
    settings = options.node_settings(listen=("10.0.0.1:7700",))
    assert settings.seeds_only
    assert settings.refresh_min_s == 6.0
    assert settings.listen == ("10.0.0.1:7700",)


def test_nodes_of_large_worlds_keep_nothing_for_people_unless_told_to() -> None:
    assert Options(nodes=12).node_settings().chronicle_max > 0
    assert Options(nodes=1000).node_settings().chronicle_max == 0
    told = Options(nodes=1000, settings=(("chronicle_max", 8),), seeds_only=True)
    assert told.node_settings().chronicle_max == 8 and told.node_settings().seeds_only
    assert told.node_settings(chronicle_max=9).chronicle_max == 9
