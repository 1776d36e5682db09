"""A hostile relay between two honest stacks, and a hostile destination."""

from __future__ import annotations

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.envelope import DESTINATION, HEADER_SIZE, MUTABLE_AT, Kind, parse, read_mutable
from tektonmesh.core.messages import Forward, Message, Settled
from tests.network import Network


class Relayed:
    """`a - b - c` with a relay `b` that the test is in charge of: what it is to pass on to `c` is
    kept, and goes only as the test says."""

    def __init__(self) -> None:
        self.network = Network("a", "b", "c")
        self.network.join("a", "b", "c")
        self.a, self.b, self.c = (self.network[name] for name in "abc")
        self.c.register("numa", share="public")
        self.c.echo()
        self.network.settle()
        self.kept: list[Forward] = []
        self.hold = True
        self.network.passes = self._passes

    def _passes(self, one: str, two: str, message: Message) -> bool:
        if isinstance(message, Forward) and (one, two) == ("b", "c"):
            self.kept.append(message)
            return not self.hold
        return True

    def ask(self) -> int:
        """A message of `a` that has got as far as `b`."""
        ticket = self.a.send("numa@c")
        self.network.run(0.1)
        assert self.kept
        return ticket

    def deliver(self, *messages: Message) -> None:
        """`b` says this to `c`."""
        link = self.link("c", "b")
        self.network.handle(self.c, ev.Received(link, messages))
        self.network.run(0.2)

    def link(self, owner: str, far: str) -> int:
        return next(
            number
            for (name, number), (peer, _) in self.network._ends.items()
            if (name, peer) == (owner, far)
        )

    def honest_from_now_on(self) -> None:
        self.hold = False
        self.network.run(20.0)


def changed(forward: Forward, at: int, value: bytes) -> Forward:
    data = forward.envelope
    return Forward(forward.seq, data[:at] + value + data[at + len(value) :])


@pytest.mark.hostile("bit-flip")
@pytest.mark.parametrize("at", [6, 30, 100, HEADER_SIZE + 40, -1])
def test_a_bit_that_is_changed_on_the_way_is_noticed_and_the_message_comes_again(at: int) -> None:
    world = Relayed()
    ticket = world.ask()
    data = world.kept[0].envelope
    where = at % len(data)
    world.deliver(changed(world.kept[0], where, bytes([data[where] ^ 1])))
    assert world.c.deliveries() == []
    world.honest_from_now_on()
    assert world.a.result(ticket)["body"] == b"hello"
    assert len(world.c.deliveries()) == 1


@pytest.mark.hostile("swapped-destination")
def test_a_message_that_is_sent_on_to_another_stack_cannot_be_opened_there() -> None:
    world = Relayed()
    world.a.register("numa", share="public")
    world.b.register("numa", share="public")
    world.network.settle()
    world.ask()
    data = world.kept[0].envelope
    swapped = data[: DESTINATION.start] + world.b.id + data[DESTINATION.stop :]
    link = world.link("b", "a")
    world.network.handle(world.b, ev.Received(link, (Forward(10_000, swapped),)))
    world.network.run(0.5)
    assert world.b.deliveries() == []
    assert world.c.deliveries() == []


@pytest.mark.hostile("raised-hop-limit")
def test_a_relay_cannot_give_a_message_more_hops_than_there_are() -> None:
    world = Relayed()
    world.ask()
    raised = changed(world.kept[0], MUTABLE_AT, b"\xff\xff")
    world.deliver(raised)
    assert len(world.c.deliveries()) == 1
    hop_limit = world.a.node.env.settings.hop_limit
    assert read_mutable(world.kept[0].envelope).hops_left <= hop_limit


@pytest.mark.hostile("stripped-receipt", "replay")
def test_a_relay_that_drops_every_answer_and_repeats_every_message_causes_one_delivery() -> None:
    world = Relayed()
    world.hold = False

    def strip(one: str, two: str, message: Message) -> bool:
        if isinstance(message, Forward) and (one, two) == ("b", "c"):
            world.kept.append(message)
        return not (one == "c" and isinstance(message, (Forward, Settled)))

    world.network.passes = strip
    ticket = world.a.send("numa@c", timeout_s=10.0)
    world.network.run(5.0)
    for number, forward in enumerate(list(world.kept), 1000):
        world.deliver(Forward(number, forward.envelope))
    assert len(world.c.deliveries()) == 1
    world.network.run(10.0)
    assert world.a.error(ticket)["outcome"] == "indeterminate"


@pytest.mark.hostile("forged-loop")
def test_a_trace_that_leads_in_circles_ends_the_message_and_nothing_else() -> None:
    world = Relayed()
    ticket = world.ask()
    for _ in range(40):
        world.deliver(Forward(world.kept[0].seq + 1000, world.kept[0].envelope))
    world.honest_from_now_on()
    assert len(world.c.deliveries()) == 1
    assert world.a.result(ticket)["body"] == b"hello"


@pytest.mark.hostile("resealed")
def test_what_a_destination_passes_on_is_never_from_its_first_origin() -> None:
    """`c` seals to `b` in its own name, and writes `a` into the header."""
    world = Relayed()
    world.b.register("numa", share="public")
    world.network.settle()
    seal = world.c.node.deliveries.sealer.seal
    body = {"to": "numa", "from": "", "ct": "text/plain", "body": b"forged", "left": 9000}
    envelope = seal(Kind.REQUEST, world.b.id, body, ttl_s=9.0)
    forged = envelope.pack(16, 32)
    at = forged.index(world.c.id)
    forged = forged[:at] + world.a.id + forged[at + 32 :]
    world.network.handle(world.b, ev.Received(world.link("b", "c"), (Forward(9000, forged),)))
    world.network.run(0.5)
    assert world.b.deliveries() == []


@pytest.mark.hostile("forged-receipt")
def test_a_relay_cannot_answer_in_the_place_of_the_destination() -> None:
    """`b` seals a reply and a refusal in its own name and writes `c` into their headers."""
    world = Relayed()
    ticket = world.ask()
    asked = parse(world.kept[0].envelope).header.msg_id
    seal = world.b.node.deliveries.sealer.seal
    link = world.link("a", "b")
    bodies = {
        Kind.REPLY: {"body": b"lie", "ct": "text/plain", "off": 0, "tr": b""},
        Kind.NACK: {"code": "not_found", "detail": "lie", "out": "released"},
        Kind.RECEIPT: {"tr": b""},
    }
    for number, (kind, body) in enumerate(bodies.items(), 5000):
        forged = seal(kind, world.a.id, body, ttl_s=5.0, reply_to=asked).pack(16, 32)
        at = forged.index(world.b.id)
        forged = forged[:at] + world.c.id + forged[at + 32 :]
        world.network.handle(world.a, ev.Received(link, (Forward(number, forged),)))
    world.network.run(0.1)
    assert world.a.answer(ticket) is None
    # The relay has used up the numbers of its link with that, which is as good as silence.
    world.network.cut("a", "b")
    world.network.join("a", "b")
    world.honest_from_now_on()
    assert world.a.result(ticket)["body"] == b"hello"


@pytest.mark.hostile("inbox-flood")
def test_one_stack_that_floods_a_ci_leaves_the_others_served() -> None:
    network = Network("a", "b", "c", inbox_per_ci_max=20)
    network.join("a", "b", "c", "a")
    a, b, c = (network[name] for name in "abc")
    c.register("slow", share="public")
    c.register("quick", share="public")
    network.settle()
    flood = [a.send("slow@c", timeout_s=60.0) for _ in range(200)]
    network.run(2.0)
    assert len([d for d in c.deliveries() if d.ci == "slow"]) <= 20
    asked = b.send("quick@c")
    network.run(0.5)
    (mine,) = [d for d in c.deliveries() if d.ci == "quick"]
    c.reply(mine, b"served")
    network.run(0.5)
    assert b.result(asked)["body"] == b"served"
    assert sum(a.answer(ticket) is not None for ticket in flood) >= 180
