"""The figures of a world mean what the report says they mean."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import pytest

from tektonmesh.core.effects import Send
from tektonmesh.core.events import DeregisterCi
from tektonmesh.core.messages import Delta, Message, Ping, Want
from tektonmesh.core.types import ContentVersion, SignedHead
from tektonmesh.sim.host import Host
from tektonmesh.sim.options import Options
from tektonmesh.sim.report import Gauges, Report
from tektonmesh.sim.wiresize import datagram_bytes, fragments, stream_bytes, wire_bytes
from tektonmesh.sim.world import World

PAIR = Options(nodes=2, topology="chain", start_spread_s=0.0, cis_per_host=0, jitter_s=0.0)
HEAD = SignedHead(b"head", b"sig")
VERSION = ContentVersion(0, 1, 1)
BODY = Delta(HEAD, VERSION, ((1, "ci/numa", b"value"),), (), None)
SNAPSHOT = Delta(HEAD, None, (), (), None)
REFRESH = Delta(HEAD, VERSION, (), (), None)
OTHERS = (Ping(1, 2, b""), Want(((bytes(32), None),)))


def settled(options: Options = PAIR) -> tuple[World, Gauges]:
    world = World(options, [Gauges])
    for host in world.hosts:
        world.start(host)
    world.run_until(10.0)
    gauges = world.watchers[0]
    assert isinstance(gauges, Gauges)
    gauges.begin()
    return world, gauges


def write(world: World, host: Host, count: int, wait_s: float) -> None:
    for at in range(count):
        world.workload.register(host, f"echo-{host.index}-{at}")
        world.run_until(world.now + wait_s)


def test_over_a_single_link_no_copy_is_one_too_many() -> None:
    world, gauges = settled()
    write(world, world.hosts[0], 4, 1.0)
    world.tell("finished")
    figures = gauges.report.figures()
    assert gauges.report.copies == gauges.report.useful == 4
    assert figures["redundancy"] == 0.0
    assert figures["last_hop"] == 1.0
    assert figures["missed"] == 0


def test_redundancy_counts_the_copies_that_nobody_could_use() -> None:
    assert Report(copies=10, useful=4).figures()["redundancy"] == 1.5
    assert Report(copies=4, useful=4).figures()["redundancy"] == 0.0
    assert Report().figures()["redundancy"] is None


def test_writes_that_travel_together_are_each_seen() -> None:
    """The owner coalesces them: one head, and what the other shows answers all of them."""
    world, gauges = settled()
    write(world, world.hosts[0], 3, 0.01)
    world.run_until(world.now + 2.0)
    world.tell("finished")
    assert gauges.report.useful == 1
    assert gauges.report.missed == 0
    assert len(gauges.report.propagation_ms) == 1  # from the first of them
    assert gauges.report.propagation_ms[0] > 50.0  # the coalescing


def test_a_later_version_shows_what_came_before_it() -> None:
    """The links break while the other hears nothing: it learns of both writes by one delta."""
    world, gauges = settled()
    world.network.block(0, 1)
    write(world, world.hosts[0], 2, 1.0)
    assert gauges.report.propagation_ms == []
    world.network.reset_links(world.hosts[0])
    world.network.unblock(0, 1)
    world.run_until(world.now + 20.0)
    world.tell("finished")
    assert gauges.report.missed == 0
    older, newer = sorted(gauges.report.propagation_ms, reverse=True)
    assert older - newer == pytest.approx(1000.0)


def test_a_record_that_changes_by_itself_is_no_write() -> None:
    world, gauges = settled()
    host = world.hosts[0]
    write(world, host, 1, 1.0)
    world.inject(host, DeregisterCi(world.ticket(), "echo-0-0", None, True))
    world.run_until(world.now + 2.0)
    world.tell("finished")
    assert gauges.report.useful == 2
    assert len(gauges.report.propagation_ms) == 1


def test_a_write_that_a_running_host_does_not_show_is_missed() -> None:
    world, gauges = settled(replace(PAIR, nodes=3, topology="full"))
    world.freeze(world.hosts[2])
    world.network.block(0, 1)
    write(world, world.hosts[0], 1, 1.0)
    world.tell("finished")
    assert gauges.report.missed == 1  # the frozen one does not count


def test_a_host_that_was_started_since_is_not_measured() -> None:
    world, gauges = settled(replace(PAIR, nodes=3, topology="full"))
    world.kill(world.hosts[2], wipe=True)
    write(world, world.hosts[0], 1, 5.0)
    world.start(world.hosts[2])
    world.run_until(world.now + 10.0)
    world.tell("finished")
    assert world.converged()
    assert len(gauges.report.propagation_ms) == 1
    assert gauges.report.missed == 0


def test_what_happened_before_the_beginning_does_not_count() -> None:
    world, gauges = settled()
    write(world, world.hosts[0], 2, 1.0)
    assert gauges.report.useful
    gauges.begin()
    world.tell("finished")
    assert gauges.report.figures()["bytes_per_change"] is None
    assert gauges.report.last_hops == []


@pytest.mark.parametrize(
    ("messages", "bodies", "announcements"),
    [
        ((BODY,), (BODY,), ()),
        ((SNAPSHOT,), (SNAPSHOT,), ()),
        ((REFRESH,), (), ()),
        ((BODY, *OTHERS), (BODY,), OTHERS[1:]),
        (OTHERS, (), OTHERS[1:]),
    ],
)
def test_bodies_and_announcements_are_weighed_apart(
    messages: tuple[Message, ...], bodies: tuple[Message, ...], announcements: tuple[Message, ...]
) -> None:
    world, gauges = settled()
    before = gauges.report.body_bytes, gauges.report.announce_bytes
    gauges.sent(world.hosts[0], 1, messages)
    report = gauges.report
    assert report.body_bytes - before[0] == (wire_bytes(bodies) if bodies else 0)
    assert report.announce_bytes - before[1] == (wire_bytes(announcements) if announcements else 0)
    assert gauges.copies(world.hosts[0], messages) == len(bodies)


def test_rest_is_weighed_from_the_moment_on_that_all_has_settled() -> None:
    class Listener(World):
        sent_by: ClassVar[dict[int, int]] = {}

        def _send(self, host: Host, send: Send) -> None:
            super()._send(host, send)
            size = wire_bytes(send.messages)
            self.sent_by[host.index] = self.sent_by.get(host.index, 0) + size

    world = Listener(PAIR, [Gauges])
    for host in world.hosts:
        world.start(host)
    world.run_until(10.0)
    world.tell("settled")
    world.sent_by.clear()
    world.run_until(40.0)
    world.tell("finished")
    gauges = world.watchers[0]
    assert isinstance(gauges, Gauges)
    assert gauges.report.idle_bytes == sum(world.sent_by.values()) > 0
    assert gauges.report.idle_peak_bytes_s == pytest.approx(
        max(world.sent_by.values()) / 30.0, abs=0.01
    )
    assert gauges.report.idle_node_s == pytest.approx(60.0)


def test_a_sum_of_reports_has_the_figures_of_all() -> None:
    assert Report().idle_peak_bytes_s is None
    one = Report(worlds=1, copies=3, useful=2, body_bytes=100, propagation_ms=[5.0], missed=1)
    one.add(Report(worlds=1, copies=5, useful=2, body_bytes=60, announce_bytes=40, last_hops=[3]))
    one.add(Report(idle_peak_bytes_s=4.0))
    one.add(Report(idle_peak_bytes_s=3.0))
    figures = one.figures()
    assert one.worlds == 2
    assert figures["idle_peak_bytes_s"] == 4.0
    assert figures["redundancy"] == 1.0
    assert figures["bytes_per_change"] == 50.0
    assert figures["announce_bytes"] == 10.0
    assert figures["missed"] == 1
    assert figures["last_hop"] == 3.0


def test_a_batch_on_a_stream_weighs_its_records_and_headers() -> None:
    assert stream_bytes(100) == 100 + 22 + 52 + 26
    assert stream_bytes(100, tls=False) == 100 + 52 + 26
    assert stream_bytes(16_384) == 16_384 + 22 + 52 + 26
    assert stream_bytes(16_385) == 16_385 + 2 * (22 + 52) + 26


@pytest.mark.parametrize(("size", "packets"), [(1, 1), (1472, 1), (1473, 2), (2952, 2), (2953, 3)])
def test_a_datagram_travels_in_packets_of_1500_bytes(size: int, packets: int) -> None:
    assert fragments(size) == packets
    assert datagram_bytes(size) == size + 8 + 20 * packets


def test_hops_follow_the_link_that_brought_the_news() -> None:
    options = replace(PAIR, nodes=4, seeds_only=True, walls=True)
    world, gauges = settled(options)
    write(world, world.hosts[0], 1, 2.0)
    world.tell("finished")
    assert gauges.report.last_hops == [3]
