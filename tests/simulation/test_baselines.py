"""The baselines do what their protocols are known for: what follows from how each is built."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tektonmesh.sim.arena import Arena, ArenaGauges, baseline_of
from tektonmesh.sim.baselines.central import POLL_S, Central
from tektonmesh.sim.baselines.flooding import Flooding
from tektonmesh.sim.baselines.machine import Baseline, DatagramCame, SendTo
from tektonmesh.sim.baselines.memberlist import ALIVE, DEAD, Memberlist
from tektonmesh.sim.baselines.scuttlebutt import DEAD_AFTER_S, Scuttlebutt
from tektonmesh.sim.compare import BASELINES
from tektonmesh.sim.host import Host
from tektonmesh.sim.options import Options
from tektonmesh.sim.regions import one_way_s
from tektonmesh.sim.report import Report

ROOT = Path(__file__).resolve().parents[2]
SMALL = Options(nodes=6, topology="full", start_spread_s=0.5, cis_per_host=0)
NAMES = list(BASELINES)
REPAIRING = ["memberlist", "scuttlebutt", "central"]
PROGRAM = """
from tektonmesh.sim.compare import Course, PROTOCOLS, run_course
for protocol in PROTOCOLS[1:]:
    for condition in ("loss", "crashed"):
        report = run_course(Course(protocol, 5, condition, 7))
        print(protocol, condition, report.turns, report.figures())
"""


class Tapped(Arena):
    """An arena that notes where datagrams go, and how many come."""

    def __init__(self, options: Options, kind: type[Baseline]) -> None:
        super().__init__(options, kind)
        self.sent_to: list[str] = []
        self.arrived = 0

    def _send_to(self, host: Host, send: SendTo) -> None:
        self.sent_to.append(send.address)
        super()._send_to(host, send)

    def _came(self, host: Host, incarnation: int, event: DatagramCame) -> None:
        self.arrived += 1
        super()._came(host, incarnation, event)


def run_all(world: Arena) -> None:
    """All hosts start, and a few seconds pass."""
    for host in world.hosts:
        world.at(world.chance.uniform(0.0, world.options.start_spread_s), world.start, host)
    world.run_until(5.0)


def started(kind: type[Baseline], options: Options = SMALL) -> Arena:
    """An arena that runs for a few seconds already."""
    world = Arena(options, kind, [ArenaGauges])
    run_all(world)
    gauges_of(world).begin()
    return world


def gauges_of(world: Arena) -> ArenaGauges:
    gauges = world.watchers[0]
    assert isinstance(gauges, ArenaGauges)
    return gauges


def write(world: Arena, host: int, name: str, wait_s: float) -> None:
    world.workload.register(world.hosts[host], name)
    world.run_until(world.now + wait_s)


def report_of(world: Arena) -> Report:
    world.tell("finished")
    assert not world.violations
    return gauges_of(world).report


def pairs(world: Arena, inside: tuple[int, ...]) -> list[tuple[int, int]]:
    outside = [host.index for host in world.hosts if host.index not in inside]
    return [pair for one in inside for other in outside for pair in ((one, other), (other, one))]


def cut(world: Arena, inside: tuple[int, ...]) -> None:
    for source, target in pairs(world, inside):
        world.network.block(source, target)


def heal(world: Arena, inside: tuple[int, ...]) -> None:
    for source, target in pairs(world, inside):
        world.network.unblock(source, target)


def shows(world: Arena, host: int, owner: int, key: str) -> bool:
    entry = baseline_of(world.hosts[host]).entries[world.hosts[owner].address]
    record = entry.records.get(key)
    return record is not None and record[1] is not None


# --- all of them ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("name", NAMES)
def test_a_baseline_shows_every_write_everywhere(name: str, loss: float) -> None:
    world = started(BASELINES[name], replace(SMALL, loss=loss))
    for at in range(4):
        write(world, at, f"echo-{at}", 1.0)
    world.run_until(world.now + 60.0)
    assert world.converged()
    report = report_of(world)
    assert report.missed == 0
    assert len(report.propagation_ms) == 4 * 5
    assert report.useful >= 5
    assert report.copies >= report.useful


@pytest.mark.parametrize("name", NAMES)
def test_what_is_deregistered_is_shown_nowhere(name: str) -> None:
    world = started(BASELINES[name])
    write(world, 2, "echo-1", 20.0)
    assert all(shows(world, host, 2, "ci/echo-1") for host in range(6))
    world.workload.deregister(world.hosts[2], "echo-1")
    world.run_until(world.now + 20.0)
    assert not any(shows(world, host, 2, "ci/echo-1") for host in range(6))
    assert world.converged()


@pytest.mark.parametrize("name", REPAIRING)
def test_what_a_cut_kept_back_comes_after_it(name: str) -> None:
    world = started(BASELINES[name])
    cut(world, (4, 5))
    write(world, 1, "echo-1", 8.0)
    assert shows(world, 3, 1, "ci/echo-1")
    assert not shows(world, 4, 1, "ci/echo-1")
    heal(world, (4, 5))
    world.run_until(world.now + 90.0)
    assert world.converged()
    assert shows(world, 4, 1, "ci/echo-1")


def run_under(hash_seed: str) -> str:
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        check=True,
        cwd=ROOT,
        env=environment,
        text=True,
    )
    return done.stdout


def test_a_comparison_is_the_same_in_every_process() -> None:
    first = run_under("0")
    assert len(first.splitlines()) == 2 * len(NAMES)
    assert run_under("4242") == first


# --- flooding ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 6, 9])
def test_flooding_a_full_mesh_of_n_has_a_redundancy_of_n_minus_2(count: int) -> None:
    world = started(Flooding, replace(SMALL, nodes=count))
    for at in range(3):
        write(world, 1, f"echo-{at}", 1.0)
    figures = report_of(world).figures()
    assert figures["redundancy"] == count - 2
    assert figures["last_hop"] == 1


def test_flooding_a_ring_meets_at_the_far_side() -> None:
    world = started(Flooding, replace(SMALL, nodes=8, topology="ring", jitter_s=0.0))
    write(world, 0, "echo-1", 1.0)
    report = report_of(world)
    assert report.copies - report.useful == 2  # what the two that are last send one another
    assert report.last_hops == [4]
    assert max(report.propagation_ms) == pytest.approx(4 * 10.0)


def test_a_change_takes_as_long_as_the_way_to_each_region() -> None:
    options = replace(SMALL, nodes=6, regional=True, jitter_s=0.0)
    world = started(Flooding, options)
    write(world, 0, "echo-1", 1.0)
    straight = sorted(1000.0 * one_way_s(0, other) for other in range(1, 6))
    assert report_of(world).propagation_ms == pytest.approx(straight)


def test_flooding_says_nothing_at_rest() -> None:
    world = started(Flooding)
    world.tell("settled")
    world.run_until(world.now + 60.0)
    report = report_of(world)
    assert report.idle_node_s == pytest.approx(6 * 60.0)
    assert report.idle_bytes == 0


def test_flooding_dials_again_when_a_link_ends() -> None:
    world = started(Flooding)
    world.kill(world.hosts[0])
    world.run_until(world.now + 3.0)
    world.start(world.hosts[0])
    world.run_until(world.now + 3.0)
    write(world, 1, "echo-1", 1.0)
    assert shows(world, 0, 1, "ci/echo-1")


# --- the central registry ------------------------------------------------------------------------


def test_a_poller_learns_of_a_write_after_half_its_interval_on_average() -> None:
    world = started(Central, replace(SMALL, nodes=24))
    for at in range(12):
        write(world, 1, f"echo-{at}", 1.3 * POLL_S)
    report = report_of(world)
    figures = report.figures()
    assert figures["p50_ms"] == pytest.approx(1000.0 * POLL_S / 2, rel=0.15)
    assert max(report.propagation_ms) < 1000.0 * (POLL_S + 0.1)
    assert figures["last_hop"] == 2
    assert report.copies - report.useful == 12  # the writer gets its own back


def test_what_the_registry_itself_writes_is_one_hop_away() -> None:
    world = started(Central)
    write(world, 0, "echo-1", 2 * POLL_S)
    assert report_of(world).last_hops == [1]


def test_without_the_registry_nobody_learns_anything() -> None:
    world = started(Central)
    world.freeze(world.hosts[0])
    write(world, 1, "echo-1", 60.0)
    assert report_of(world).missed == 4


def test_a_registry_that_restarts_is_dialled_again() -> None:
    world = started(Central)
    world.kill(world.hosts[0])
    world.run_until(world.now + 3.0)
    world.start(world.hosts[0])
    world.run_until(world.now + 3.0)
    write(world, 1, "echo-1", 2 * POLL_S)
    assert all(shows(world, host, 1, "ci/echo-1") for host in range(6))


# --- memberlist ----------------------------------------------------------------------------------


def states_of(world: Arena, subject: Host) -> list[str]:
    """What every running host believes of one."""
    machines = [baseline_of(host) for host in world.hosts if host.alive]
    return [it.state_of(subject.address)[0] for it in machines if isinstance(it, Memberlist)]


def test_memberlist_sends_a_change_so_often_and_no_more() -> None:
    world = started(Memberlist, replace(SMALL, nodes=20))
    write(world, 1, "echo-1", 20.0)
    report = report_of(world)
    limit = 4 * 2  # 4 * ceil(log10(21)), by each of the 20
    assert report.copies == 20 * limit
    assert report.useful == 19


def test_a_retransmission_takes_some_rounds_of_200_ms() -> None:
    world = started(Memberlist, replace(SMALL, nodes=20))
    write(world, 1, "echo-1", 20.0)
    report = report_of(world)
    assert 2 <= report.last_hops[0] <= 7
    assert max(report.propagation_ms) < 200.0 * 7 + 100.0


def test_memberlist_gives_up_one_that_is_silent_and_takes_it_back() -> None:
    world = started(Memberlist)
    silent = world.hosts[3]
    world.freeze(silent)
    world.run_until(world.now + 60.0)
    assert states_of(world, silent) == [DEAD] * 5
    world.start(silent)
    world.run_until(world.now + 60.0)
    assert states_of(world, silent) == [ALIVE] * 6


def test_one_that_only_paused_says_that_it_lives() -> None:
    world = started(Memberlist, replace(SMALL, nodes=12))
    paused = world.hosts[3]
    world.pause(paused)
    world.run_until(world.now + 4.0)
    world.resume(paused)
    world.run_until(world.now + 30.0)
    assert states_of(world, paused) == [ALIVE] * 12
    machine = baseline_of(world.hosts[0])
    assert isinstance(machine, Memberlist)
    assert machine.state_of(paused.address)[1] >= 1  # it was suspected, and said no


def test_one_that_others_reach_is_not_suspected() -> None:
    world = started(Memberlist)
    far = world.hosts[3]
    for pair in ((0, 3), (3, 0)):
        world.network.block(*pair)
    world.run_until(world.now + 40.0)
    for host in world.hosts:
        machine = baseline_of(host)
        assert isinstance(machine, Memberlist)
        assert machine.state_of(far.address) == (ALIVE, 0)


def test_a_full_exchange_repairs_what_gossip_lost() -> None:
    """Nothing is queued any more when host 5 is back: only the exchange can tell it."""
    world = started(Memberlist)
    cut(world, (5,))
    write(world, 1, "echo-1", 3.0)
    heal(world, (5,))
    world.run_until(world.now + 0.5)
    before = shows(world, 5, 1, "ci/echo-1")
    world.run_until(world.now + 65.0)
    assert not before
    assert shows(world, 5, 1, "ci/echo-1")


# --- scuttlebutt ---------------------------------------------------------------------------------


def test_an_exchange_brings_only_what_is_lacking() -> None:
    world = started(Scuttlebutt, replace(SMALL, nodes=20))
    for at in range(5):
        write(world, 1, f"echo-{at}", 6.0)
    report = report_of(world)
    figures = report.figures()
    assert figures["redundancy"] < 1.5
    assert figures["bytes_per_change"] < 600  # one record, however many the owner has by now
    assert max(report.propagation_ms) < 6000.0


def test_a_digest_grows_with_the_mesh() -> None:
    weights = []
    for count in (10, 20):
        world = started(Scuttlebutt, replace(SMALL, nodes=count))
        world.tell("settled")
        world.run_until(world.now + 20.0)
        weights.append(report_of(world).figures()["idle_bytes_s"])
    assert 1.5 < weights[1] / weights[0] < 2.0


def test_nobody_speaks_with_one_whose_heartbeat_stands_still() -> None:
    world = Tapped(SMALL, Scuttlebutt)
    run_all(world)
    silent = world.hosts[3]
    world.freeze(silent)
    world.run_until(world.now + DEAD_AFTER_S + 5.0)
    world.sent_to.clear()
    world.run_until(world.now + 10.0)
    assert len(world.sent_to) > 100
    assert silent.address not in world.sent_to


# --- datagrams -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "packets"), [(10, 1), (100, 2)])
def test_a_datagram_is_lost_with_any_of_its_packets(count: int, packets: int) -> None:
    """Scuttlebutt's digests of 100 nodes take two packets, those of 10 one."""
    world = Tapped(replace(SMALL, nodes=count, loss=0.3), Scuttlebutt)
    run_all(world)
    world.run_until(world.now + 20.0)
    assert world.arrived / len(world.sent_to) == pytest.approx(0.7**packets, abs=0.03)
