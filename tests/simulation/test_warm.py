"""Worlds that start in the middle of their life: everyone is linked and holds the same."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tektonmesh.core.node import Node
from tektonmesh.core.overlay import SLACK
from tektonmesh.core.ownlinks import link_key
from tektonmesh.sim.deaths import Deaths
from tektonmesh.sim.faults import Fault
from tektonmesh.sim.main import run_world
from tektonmesh.sim.options import Options, links_each
from tektonmesh.sim.scenarios import SCENARIOS, WARM
from tektonmesh.sim.warm import Warm
from tektonmesh.sim.world import World
from tektonmesh.wire.codec import Codec

NODES = 40
QUIET = replace(WARM, nodes=NODES, writes=0.0, duration_s=20.0)


def started(options: Options = QUIET, instant: float = 0.0) -> World:
    world = World(options)
    Warm(world, {}, Codec()).start()
    world.workload.schedule()
    world.run_until(instant)
    assert not world.violations
    return world


def prints(world: World) -> list[bytes]:
    return [host.node.replica.fingerprint() for host in world.hosts if host.node is not None]


def contents(world: World, but: int = -1) -> list[int]:
    """How often each host (but one) changed its records so far, as it sees itself."""
    found = []
    for host in world.hosts:
        if host.index == but:
            continue
        assert host.node is not None
        found.append(host.node.replica.owners[host.stack_id].head.content_ver)
    return found


def test_all_hold_the_same_at_the_start() -> None:
    world = started()
    assert len(prints(world)) == NODES
    assert len(set(prints(world))) == 1
    for host in world.hosts:
        assert host.node is not None
        assert host.node.replica.count() == NODES


def test_every_host_has_all_links_it_would_look_for_and_knows_their_round_trips() -> None:
    world = started()
    for host in world.hosts:
        assert host.node is not None
        links = host.node.neighbours.links.values()
        assert links_each(NODES) + SLACK <= len(links) <= links_each(NODES) + 2 * SLACK
        assert any(link.outbound for link in links)
        for link in links:
            assert link.rtt_s > 0.0
            claim = host.node.owner.get(link_key(link.stack_id))
            assert claim is not None and claim["cost"] == link.cost.ms
        assert not host.node.graph.adrift()


def test_without_writes_few_change_a_record() -> None:
    world = started()
    assert contents(world) == [1] * NODES
    world.run_until(20.0)
    changed = sum(version > 1 for version in contents(world))
    assert changed <= NODES // 4, "a few costs are measured anew"
    assert len(set(prints(world))) == 1


def test_a_write_reaches_all_with_few_copies_too_many() -> None:
    report = run_world(replace(WARM, nodes=NODES)).as_dict()
    assert report["violations"] == []
    assert report["p50_ms"] > 0
    assert 0 <= report["redundancy"] <= 0.3


class Observed(Warm):
    """Shows the base that all hosts share."""

    def _base(self) -> Node:
        self.base = super()._base()
        return self.base


def held_by(node: Node) -> dict[bytes, object]:
    owners = node.replica.owners.items()
    return {owner: (held.signed, dict(held.records), held.expired) for owner, held in owners}


def test_what_hosts_change_does_not_change_their_base() -> None:
    faults = (Fault(2.0, "kill", (20,)),)
    world = World(replace(WARM, nodes=NODES, faults=faults))
    warm = Observed(world, {}, Codec())
    warm.start()
    before = held_by(warm.base), warm.base.replica.fingerprint(), len(warm.base.neighbours.links)
    states = [warm.base.graph.state(host.stack_id) for host in world.hosts]
    world.faults.schedule()
    world.workload.schedule()
    world.run_until(10.0)
    assert sum(contents(world, but=20)) > NODES, "somebody wrote"
    assert before == (
        held_by(warm.base),
        warm.base.replica.fingerprint(),
        len(warm.base.neighbours.links),
    )
    assert states == [warm.base.graph.state(host.stack_id) for host in world.hosts]


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name.startswith("scale")])
def test_worlds_to_scale_have_their_faults_among_the_hosts_they_have(name: str) -> None:
    options = SCENARIOS[name].world(1, NODES)
    assert options.warm and options.nodes == NODES
    assert all(0 < at < NODES for fault in options.faults for at in fault.nodes)
    if name == "scale-crash":
        assert [len(dict.fromkeys(fault.nodes)) for fault in options.faults] == [NODES // 10]


def test_the_same_seed_gives_the_same_warm_world() -> None:
    options = replace(WARM, nodes=NODES, deep_trace=True)
    first = started(options, 8.0).trace
    assert started(options, 8.0).trace == first
    assert started(replace(options, rng_seed=2), 8.0).trace != first


def test_a_killed_host_is_seen_within_two_seconds_and_a_frozen_one_within_six() -> None:
    faults = (Fault(3.0, "kill", (20,)), Fault(9.0, "freeze", (13,)))
    world = World(replace(QUIET, faults=faults), (Deaths,))
    world.run()
    (deaths,) = [watcher for watcher in world.watchers if isinstance(watcher, Deaths)]
    assert len(deaths.reset_ms) == len(deaths.silent_ms) == 1
    assert 1000.0 <= deaths.reset_ms[0] <= 2000.0, "not before the grace of a restart"
    assert 1000.0 <= deaths.silent_ms[0] <= 6000.0
