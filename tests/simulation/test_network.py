"""The links of a world: in order, never a silent gap, and honest about who cannot be reached."""

from __future__ import annotations

from dataclasses import replace

from tektonmesh.core.effects import Dial
from tektonmesh.core.events import DialFailed, Event, LinkDown, LinkUp, Received
from tektonmesh.core.messages import Pong
from tektonmesh.sim.host import Host, Run
from tektonmesh.sim.options import Options
from tektonmesh.sim.world import World

QUIET = Options(
    nodes=2, topology="chain", duration_s=5.0, start_spread_s=0.0, cis_per_host=0, jitter_s=0.02
)
NONCE = 1 << 40
"""Pongs that nobody waits for pass through a node without any effect."""


class Recorder(World):
    """A world that notes which events reach which host."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.seen: list[tuple[int, Event]] = []

    def inject(self, host: Host, event: Event) -> None:
        self.seen.append((host.index, event))
        super().inject(host, event)

    def of(self, host: Host, kind: type) -> list[Event]:
        return [event for index, event in self.seen if index == host.index and type(event) is kind]

    def nonces(self, host: Host) -> list[int]:
        return [
            message.nonce - NONCE
            for event in self.of(host, Received)
            for message in event.messages
            if isinstance(message, Pong) and message.nonce >= NONCE
        ]


def linked(options: Options = QUIET) -> tuple[Recorder, Host, Host]:
    world = Recorder(options)
    for host in world.hosts:
        world.start(host)
    world.run_until(4.0)
    one, other = world.hosts
    assert one.links and other.links
    return world, one, other


def send(world: World, host: Host, numbers: range) -> None:
    link = next(iter(host.links))
    for number in numbers:
        world.network.send(host, link, (Pong(NONCE + number, 0),))


def test_messages_of_a_link_arrive_in_order_despite_jitter_and_loss() -> None:
    world, one, other = linked(replace(QUIET, loss=0.3))
    send(world, one, range(50))
    world.run_until(world.now + 60.0)
    assert world.nonces(other) == list(range(50))


def test_a_cut_holds_messages_back_and_a_heal_delivers_them() -> None:
    world, one, other = linked()
    world.network.block(0, 1)
    send(world, one, range(3))
    world.run_until(world.now + 0.5)
    assert world.nonces(other) == []
    world.network.unblock(0, 1)
    world.run_until(world.now + 1.0)
    assert world.nonces(other) == [0, 1, 2]


def test_a_kill_ends_the_links_of_the_peers_and_a_freeze_does_not() -> None:
    for act, ended in ((World.kill, True), (World.freeze, False)):
        world, one, other = linked()
        act(world, one)
        world.run_until(world.now + 0.3)
        assert bool(world.of(other, LinkDown)) == ended


def test_a_reset_is_noticed_at_both_ends() -> None:
    world, one, other = linked()
    world.network.reset_links(one)
    world.run_until(world.now + 0.3)
    assert world.of(one, LinkDown)
    assert world.of(other, LinkDown)


def test_a_link_that_is_reset_at_both_ends_at_once_ends() -> None:
    world, one, other = linked()
    world.network.reset_links(one)
    world.network.reset_links(other)
    world.run_until(world.now + 0.3)
    assert world.of(one, LinkDown)
    assert world.of(other, LinkDown)


def test_dialling_fails_with_the_reason() -> None:
    world, one, other = linked()
    world.freeze(other)
    asked = {
        "self": Dial(one.address, None),
        "unreachable": Dial("192.0.2.1:1", None),
        "wrong_identity": Dial(world.hosts[1].address, bytes(32)),
    }
    world.start(other)
    world.run_until(world.now + 2.0)
    for code, dial in asked.items():
        before = len(world.of(one, DialFailed))
        world.network.dial(one, dial)
        world.run_until(world.now + 3.5)
        codes = [event.code for event in world.of(one, DialFailed)[before:]]
        assert code in codes


def test_what_arrives_during_a_pause_is_dealt_with_after_it() -> None:
    world, one, other = linked()
    world.pause(other)
    assert other.run is Run.PAUSED
    send(world, one, range(2))
    world.run_until(world.now + 0.4)
    assert other.backlog
    world.resume(other)
    assert other.run is Run.RUNNING
    assert world.nonces(other)[-2:] == [0, 1]


def test_both_ends_of_a_link_are_told_of_it_once() -> None:
    world, one, other = linked()
    assert len(world.of(one, LinkUp)) == len(world.of(other, LinkUp)) >= 1
