"""How much a link may bring, and what becomes of one that brings more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.envelope import (
    CONTROL_KINDS,
    CONTROL_SIZE_MAX,
    ENTRIES_MAX,
    ENTRY_SIZE,
    HEADER_SIZE,
    Envelope,
    Header,
    Kind,
    SendClass,
    trace_entry,
)
from tektonmesh.core.grants import GIVEN_LEAST, GIVEN_MAX, Grants
from tektonmesh.core.ids import show_id
from tektonmesh.core.lanes import CREDIT_FIRST, WINDOW_MAX, WINDOW_MIN, Kept, Lane
from tektonmesh.core.messages import Forward, LinkCredit, Message, Released
from tektonmesh.core.sealing import CONTROL_PLAIN_MAX
from tektonmesh.core.types import SHORT_ID_SIZE
from tests.network import Member, Network

KIB = 1024


class Table:
    """Lanes of one node that holds `held` bytes."""

    def __init__(self, count: int = 1) -> None:
        self.held = 0
        self.lanes = {n: Lane(n, bytes([n % 256]) * 32) for n in range(count)}
        self.grants = Grants(self.lanes, lambda: self.held)

    def bring(self, number: int, size: int) -> LinkCredit | None:
        """So much comes on a link; what it is told then."""
        self.lanes[number].received += size
        return self.grants.more(self.lanes[number])


# --- giving --------------------------------------------------------------------------------------


def test_a_link_is_told_more_when_half_of_what_it_gets_is_used_up() -> None:
    table = Table()
    assert table.grants.given == CREDIT_FIRST
    assert table.bring(0, WINDOW_MIN // 2 - 1) is None
    assert table.bring(0, 1) == LinkCredit(WINDOW_MIN // 2 + WINDOW_MIN)
    assert table.grants.given == WINDOW_MIN


def test_a_link_with_a_long_round_trip_gets_as_much_as_it_can_have_on_its_way() -> None:
    table = Table()
    table.lanes[0].note_rtt(1.0)
    assert table.bring(0, 0) == LinkCredit(WINDOW_MAX)
    assert table.bring(0, WINDOW_MAX // 4) is None


def test_what_is_given_and_what_is_held_stay_within_64_mib() -> None:
    table = Table(count=12)
    for lane in table.lanes.values():
        lane.note_rtt(1.0)
        table.grants.more(lane)
    assert table.grants.given <= GIVEN_MAX
    assert [lane.granted for lane in table.lanes.values()][:7] == [WINDOW_MAX] * 7
    assert table.lanes[11].granted == CREDIT_FIRST, (
        "the last ones find no room and keep what is due"
    )


def test_what_is_held_leaves_less_to_give() -> None:
    table = Table()
    table.lanes[0].note_rtt(1.0)
    table.held = GIVEN_MAX - (1 << 20)
    assert table.bring(0, 0) == LinkCredit(1 << 20)


def test_without_room_every_link_still_gets_a_little() -> None:
    table = Table()
    table.held = 2 * GIVEN_MAX
    assert table.bring(0, CREDIT_FIRST - GIVEN_LEAST) is None, "so much it has already"
    assert table.bring(0, GIVEN_LEAST) == LinkCredit(CREDIT_FIRST + GIVEN_LEAST)


def test_a_link_that_took_its_last_envelope_beyond_its_credit_owes_it() -> None:
    table = Table()
    table.held = GIVEN_MAX
    assert table.bring(0, CREDIT_FIRST + 200 * KIB) == LinkCredit(
        CREDIT_FIRST + 200 * KIB + GIVEN_LEAST
    )
    assert table.grants.given == GIVEN_LEAST


# --- using it ------------------------------------------------------------------------------------


def envelope(n: int, size: int, send_class: int = 2, kind: Kind = Kind.REQUEST) -> bytes:
    header = Header(
        kind, n.to_bytes(16), bytes(32), bytes([7]) * 32, 0, 60_000, 0,
        send_class=send_class,
    )  # fmt: skip
    return Envelope(header, header.pack(), bytes(size), trace_entry(b"here" * 2, 0)).pack(16, 32)


def send(lane: Lane, size: int, send_class: int = 2, now: float = 1.0) -> bool:
    return lane.forward(Kept(b"", now, 32), envelope(1, size, send_class), send_class, now)


def test_an_envelope_may_begin_within_the_credit_and_the_next_waits_for_more() -> None:
    lane = Lane(1, bytes(32))
    lane.window = 1 << 30
    lane.sent = CREDIT_FIRST - 1
    assert send(lane, 200 * KIB)
    assert not send(lane, 10, now=2.0) and lane.waiting.count == 1 and lane.starved_at == 2.0
    assert not send(lane, 10, now=3.0) and lane.starved_at == 2.0
    assert not lane.pump(4.0)
    lane.on_credit(lane.sent)
    assert not lane.pump(4.0)
    lane.on_credit(lane.sent + 1)
    assert lane.starved_at == float("inf")
    assert lane.pump(4.0) and lane.waiting.count == 1, "one may begin"


def test_control_needs_no_credit_and_takes_none() -> None:
    lane = Lane(1, bytes(32))
    lane.sent = lane.limit
    before = lane.sent
    assert send(lane, 100, send_class=0)
    assert lane.sent == before


def test_older_news_of_credit_take_nothing_back() -> None:
    lane = Lane(1, bytes(32))
    lane.on_credit(9 << 20)
    lane.on_credit(1)
    assert lane.limit == 9 << 20


def test_a_queue_of_our_own_is_not_starved() -> None:
    lane = Lane(1, bytes(32))
    assert send(lane, 300 * KIB)
    assert not send(lane, 300 * KIB)
    assert lane.starved_at == float("inf")


# --- between nodes -------------------------------------------------------------------------------


def pair() -> tuple[Network, Member, Member]:
    network = Network("a", "b", source_rate_per_s=0.0)
    network.join("a", "b")
    for name in ("a", "b"):
        network[name].register("echo")
        network[name].echo()
    network.run(1.0)
    return network, network["a"], network["b"]


def only_link(member: Member) -> int:
    [link] = member.node.neighbours.links
    return link


def lane_of(member: Member) -> Lane:
    [lane] = member.node.forwarding._lanes.values()
    return lane


def test_two_ends_that_both_fill_their_windows_never_wait_for_one_another() -> None:
    network, a, b = pair()
    body = bytes(100 * KIB)
    tickets = [(a, a.send("echo@b", body)) for _ in range(40)]
    tickets += [(b, b.send("echo@a", body)) for _ in range(40)]
    network.run(5.0)
    assert all(member.result(ticket)["body"] == body for member, ticket in tickets)
    assert lane_of(a).sent > 8 * CREDIT_FIRST and lane_of(b).sent > 8 * CREDIT_FIRST
    for member in (a, b):
        assert member.node.forwarding.queued_bytes == 0
        assert not member.notices("peer_struck") and not member.notices("hop_silent")


def test_two_ends_without_any_room_never_wait_for_one_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tektonmesh.core.grants.GIVEN_MAX", 0)
    test_two_ends_that_both_fill_their_windows_never_wait_for_one_another()


def test_both_ends_count_alike() -> None:
    network, a, b = pair()
    for _ in range(30):
        a.send("echo@b", bytes(30 * KIB))
        network.run(0.1)
    one, other = lane_of(a), lane_of(b)
    assert (one.sent, one.received) == (other.received, other.sent)
    assert one.limit == other.granted


def received(member: Member, link: int, *messages: Message) -> list[Any]:
    before = len(member.effects)
    member.network.handle(member, ev.Received(link, messages))
    return member.effects[before:]


def test_a_link_that_brings_more_than_it_may_is_closed_and_its_stack_is_struck() -> None:
    _network, a, b = pair()
    link, data = only_link(b), envelope(1, 250 * KIB)
    fits = [Forward(n << 2 | 2, data) for n in (1, 2, 3)]
    effects = received(b, link, *fits)
    assert not [e for e in effects if isinstance(e, fx.CloseLink)], "the third began within it"
    lane_of(b).granted = lane_of(b).received  # as if nothing more had been given
    effects = received(b, link, Forward(4 << 2 | 2, envelope(2, 10)))
    [closed] = [e for e in effects if isinstance(e, fx.CloseLink)]
    assert (closed.code, "credit" in closed.detail) == ("protocol", True)
    [struck] = b.notices("peer_struck")
    assert struck["id"] == show_id(a.id) and "credit" in struck["reason"]


def test_control_is_taken_from_a_link_that_has_no_credit() -> None:
    _network, _a, b = pair()
    lane_of(b).granted = lane_of(b).received
    data = envelope(1, 10, send_class=0, kind=Kind.RECEIPT)
    effects = received(b, only_link(b), Forward(1 << 2, data))
    assert not [e for e in effects if isinstance(e, fx.CloseLink)]


@pytest.mark.parametrize(
    ("kind", "size"), [(Kind.REQUEST, 10), (Kind.CHUNK, 10), (Kind.NACK, CONTROL_SIZE_MAX)]
)
def test_what_only_calls_itself_control_needs_credit_and_goes_back(kind: Kind, size: int) -> None:
    """Another label would free whole bodies of credit here, and of quotas at every relay."""
    _network, _a, b = pair()
    lane, data = lane_of(b), envelope(1, size, send_class=0, kind=kind)
    before = lane.received
    effects = received(b, only_link(b), Forward(1 << 2, data))
    assert lane.received == before + len(data)
    said = [m for e in effects if isinstance(e, fx.Send) for m in e.messages]
    assert [m.code for m in said if isinstance(m, Released)] == ["refused"]
    lane.granted = lane.received
    effects = received(b, only_link(b), Forward(2 << 2, data))
    assert [e.code for e in effects if isinstance(e, fx.CloseLink)] == ["protocol"]


def test_all_that_is_sealed_as_control_is_within_its_bound_on_the_longest_way() -> None:
    grown = CONTROL_PLAIN_MAX + HEADER_SIZE + ENTRIES_MAX * (ENTRY_SIZE + SHORT_ID_SIZE)
    assert grown + 256 < CONTROL_SIZE_MAX  # what sealing adds
    network = Network("a", "b")
    network.join("a", "b")
    sealer = network["a"].node.deliveries.sealer
    for kind in CONTROL_KINDS:
        classes = [
            sealer.seal(kind, network["b"].id, {"detail": "x" * size}, ttl_s=9.0).header.send_class
            for size in (10, CONTROL_PLAIN_MAX + 1)
        ]
        assert classes == [SendClass.CONTROL, SendClass.INTERACTIVE]


def without_credit(here: str) -> Callable[[str, str, Message], bool]:
    """A neighbour that gives none."""
    return lambda source, _to, message: not (source == here and type(message) is LinkCredit)


def test_what_waits_for_credit_that_does_not_come_goes_another_way() -> None:
    network = Network("a", "b", "c", "d", source_rate_per_s=0.0)
    network.join("a", "b", "c")
    network.join("a", "d", "c")
    network["c"].register("echo")
    network["c"].echo()
    network.run(1.0)
    first = network["a"].send("echo@c")
    network.run(0.5)
    used = network["a"].result(first)["path"][1]
    network.passes = without_credit(used)
    body = bytes(30 * KIB)
    tickets = [network["a"].send("echo@c", body) for _ in range(40)]
    network.run(8.0)
    assert all(network["a"].result(ticket)["body"] == body for ticket in tickets)
    assert network["a"].notices("hop_silent")


def test_where_there_is_no_other_way_it_waits_until_credit_comes() -> None:
    network, a, b = pair()
    network.passes = without_credit("b")
    body = bytes(100 * KIB)
    tickets = [a.send("echo@b", body, timeout_s=60.0) for _ in range(12)]
    network.run(0.6)
    assert [t for t in tickets if a.answer(t) is None] and lane_of(a).waiting.count
    network.passes = lambda *_: True
    a.network.handle(a, ev.Received(only_link(a), (LinkCredit(lane_of(b).granted),)))
    network.run(20.0)
    assert all(a.result(ticket)["body"] == body for ticket in tickets)


def test_credit_for_a_link_that_is_gone_changes_nothing() -> None:
    _network, a, _b = pair()
    a.node.forwarding.on_link_credit(77, LinkCredit(1))
    assert lane_of(a).limit == CREDIT_FIRST
