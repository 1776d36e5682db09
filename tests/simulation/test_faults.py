"""What each kind of fault does to a world, and that its end takes it back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tektonmesh.core.effects import Save
from tektonmesh.sim.faults import FOR_EVER, KINDS, Fault
from tektonmesh.sim.host import Host, Run
from tektonmesh.sim.options import Options
from tektonmesh.sim.world import World

QUIET = Options(nodes=4, topology="ring", start_spread_s=0.0, cis_per_host=0, jitter_s=0.0)
ALL_RUN = "running running running running"


def world_with(*faults: Fault, until: float = 5.0) -> World:
    """A running world, at an instant before its faults end."""
    world = World(replace(QUIET, faults=faults))
    for host in world.hosts[: QUIET.nodes]:
        world.at(0.0, world.start, host)
    world.faults.schedule()
    world.run_until(until)
    return world


def held_back(world: World) -> list[tuple[int, int]]:
    pairs = [(one, other) for one in range(4) for other in range(4) if one != other]
    return [pair for pair in pairs if not world.network.passes(*pair)]


def runs(world: World) -> str:
    return " ".join(str(host.run) for host in world.hosts[: QUIET.nodes])


def rtts(host: Host) -> list[float]:
    assert host.node is not None
    return [link.rtt_s for link in host.node.neighbours.links.values()]


# --- the network ---------------------------------------------------------------------------------


def test_a_clog_concerns_those_named_only() -> None:
    world = world_with(Fault(3.0, "clog", (0, 2), 5.0))
    assert held_back(world) == [(0, 2), (2, 0)]
    world.run_until(9.0)
    assert held_back(world) == []


def test_a_swizzle_clogs_one_after_the_other_and_frees_them_one_after_the_other() -> None:
    world = world_with(Fault(2.0, "swizzle", (0, 1, 2), 14.0), until=2.5)
    clogged = []
    for step in range(8):
        world.run_until(2.5 + 2.0 * step)
        clogged.append([at for at in range(3) if not world.network.passes(at, 3)])
    assert clogged[:3] == [[0], [0, 1], [0, 1, 2]]
    assert [len(shut) for shut in clogged] == [1, 2, 3, 3, 2, 1, 0, 0]
    assert held_back(world) == []


def test_a_swizzle_that_is_healed_leaves_nothing_clogged() -> None:
    world = world_with(Fault(2.0, "swizzle", (0, 1, 2), 14.0), until=7.0)
    assert held_back(world)
    world.heal()
    world.run_until(30.0)
    assert held_back(world) == []


def test_a_slow_host_is_reached_later_both_ways_and_nobody_is_calm_meanwhile() -> None:
    world = world_with(Fault(3.0, "slow", (1,), 60.0, 0.2), until=60.0)
    assert min(rtts(world.hosts[1])) > 0.2
    assert min(rtts(world.hosts[3])) < 0.1
    assert world.calm_s() == 0.0
    world.run_until(160.0)
    assert max(rtts(world.hosts[1])) < 0.1
    assert world.calm_s() > 90.0


@pytest.mark.parametrize("kind", ["reset", "storm", "flap", "garble"])
def test_links_that_are_torn_come_back(kind: str) -> None:
    world = world_with(Fault(4.0, kind, (0, 1, 2, 3), 4.0), until=3.9)
    before = {host.index: list(host.links) for host in world.hosts}
    world.run_until(8.5)
    assert [host.index for host in world.hosts if list(host.links) != before[host.index]]
    world.run_until(30.0)
    assert held_back(world) == [] and world.converged() and not world.violations


def test_a_host_is_given_only_so_much_that_its_peer_did_not_send() -> None:
    world = world_with(Fault(3.0, "garble", (0, 1, 2, 3), 30.0), until=33.0)
    struck = world.faults.garbler.struck
    assert len(struck) > 4 and max(struck.values()) == 2


# --- hosts ---------------------------------------------------------------------------------------


def test_a_suspended_machine_has_a_monotonic_clock_that_stood_and_hears_nothing() -> None:
    world = world_with(Fault(4.0, "suspend", (1,), 100.0), until=50.0)
    host = world.hosts[1]
    assert host.run is Run.SUSPENDED and len(held_back(world)) == 6
    before = host.mono(4.0)
    world.run_until(104.001)
    assert host.run is Run.RUNNING and held_back(world) == []
    assert host.mono(104.0) == pytest.approx(before, abs=1e-6)


def test_a_crashloop_starts_a_host_again_and_again_and_leaves_it_running() -> None:
    world = world_with(Fault(3.0, "crashloop", (2,), 5.0), until=20.0)
    assert world.hosts[2].incarnation >= 5
    assert runs(world) == ALL_RUN


def test_an_upgrade_takes_each_host_in_turn_and_their_heads_say_so() -> None:
    world = world_with(Fault(3.0, "upgrade", (0, 1, 2, 3), 20.0), until=35.0)
    assert runs(world) == ALL_RUN
    for host in world.hosts:
        assert host.incarnation == 2 and host.node is not None
        owners = host.node.replica.owners.values()
        assert [held.head.minor for held in owners] == [2, 2, 2, 2]


def test_who_is_to_come_back_while_it_still_leaves_does_so_afterwards() -> None:
    world = world_with(Fault(4.0, "leave", (1,), 10.0), until=4.1)
    world.heal()
    world.run_until(15.0)
    assert runs(world) == ALL_RUN


# --- disks, clocks, clones -----------------------------------------------------------------------


def write(host: Host, value: bytes) -> None:
    host.disk.sync(host.disk.write(Save((("meta", b"test", value),), None)))


def test_with_the_power_goes_what_was_written_last() -> None:
    world = world_with(Fault(4.0, "power", (1,), 20.0, 3.0), until=4.5)
    host = world.hosts[1]
    rows = dict(host.disk.rows)
    assert host.node is not None
    host.node.env.save("meta", b"test", b"late")
    world.run_until(6.9)
    assert host.run is Run.RUNNING
    world.run_until(7.5)
    assert host.run is Run.FROZEN and host.disk.rows == rows
    world.run_until(25.0)
    assert host.run is Run.RUNNING and host.disk.slow_s == 0.0


def test_power_that_is_to_go_later_goes_at_the_heal() -> None:
    world = world_with(Fault(4.0, "power", (1,), 0.0, 100.0))
    world.heal()
    assert world.hosts[1].run is Run.FROZEN
    world.run_until(120.0)
    assert world.hosts[1].run is Run.FROZEN


def test_a_restored_disk_is_that_of_the_beginning() -> None:
    world = world_with(Fault(4.0, "restore", (1,), 3.0))
    host = world.hosts[1]
    write(host, b"later")
    losses = host.disk.losses
    world.run_until(7.001)
    assert ("meta", b"test") not in host.disk.rows
    assert host.disk.losses == losses + 1 and host.incarnation == 2


def test_a_slow_disk_is_as_fast_as_before_at_the_end() -> None:
    world = world_with(Fault(4.0, "slowdisk", (1,), 3.0, 2.0))
    assert world.hosts[1].disk.slow_s == 2.0
    world.run_until(8.0)
    assert world.hosts[1].disk.slow_s == 0.0


def test_a_clone_has_keys_and_disk_of_the_first_and_is_stopped_at_the_end() -> None:
    world = world_with(Fault(4.0, "clone", (1,), 10.0), until=4.001)
    assert len(world.hosts) == 5
    first, clone = world.hosts[1], world.hosts[4]
    assert clone.run is Run.RUNNING and clone.address != first.address
    assert clone.stack_id == first.stack_id and clone.keys == first.keys
    assert ("meta", b"epoch") in clone.disk.rows
    world.run_until(15.0)
    assert clone.run is Run.OFF and first.run is Run.RUNNING and first.incarnation == 2
    assert world.host_of(first.stack_id) is first


def test_a_clock_jumps_for_good() -> None:
    world = world_with(Fault(4.0, "clock", (1,), 1.0, 3600.0), until=10.0)
    assert world.hosts[1].wall(10.0) - world.hosts[0].wall(10.0) == pytest.approx(3600.0)


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_healed_at_any_moment(kind: str) -> None:
    world = world_with(Fault(3.0, kind, (0, 2), 30.0, 0.5), until=6.0)
    world.heal()
    world.settle()
    assert not world.violations
    assert world.converged_after is not None
    assert runs(world) == ALL_RUN and held_back(world) == []


@pytest.mark.parametrize("kind", [kind for kind in FOR_EVER if kind != "clone"])
def test_what_has_no_end_is_not_healed(kind: str) -> None:
    world = world_with(Fault(3.0, kind, (2,)), until=10.0)
    world.heal()
    world.settle()
    assert not world.hosts[2].alive
    assert world.converged_after is not None
