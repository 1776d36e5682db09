"""Large bodies between real nodes: offered, pulled, checked and handed over in one piece."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Kind, parse
from tektonmesh.core.large import CHUNK_SIZE, Large
from tektonmesh.core.messages import Forward, HopAck, Message, Settled
from tektonmesh.core.offers import UNSETTLED_MAX
from tektonmesh.core.pulls import IDLE_S, PULLS_PER_STACK
from tests.network import Member, Network

SIZE = 20 * CHUNK_SIZE + 777
BODY = random.Random(5).randbytes(SIZE)


def pair(**settings: Any) -> tuple[Network, Member, Member]:
    """a and b, linked; `big` is registered at b and known at a."""
    network = Network("a", "b", **settings)
    network.join("a", "b")
    network["b"].register("big", persist=True)
    network.run(1.0)
    return network, network["a"], network["b"]


def send_large(member: Member, body: bytes = BODY, target: str = "big@b", **options: Any) -> int:
    large = member.files.hand_in(body)
    return member.send(target, b"", large=large, **{"timeout_s": 300.0} | options)


def answer_with_size(member: Member) -> None:
    """The CI says how many bytes its file has and whether they are the ones."""

    def answer(delivery: fx.Deliver) -> None:
        assert delivery.large is not None and delivery.body == b""
        got = bytes(member.files.bodies[delivery.large.name])
        member.reply(delivery, b"%d %d" % (len(got), got == BODY))

    member.on_deliver = answer


def only_lose(network: Network, *lost: Kind) -> None:
    def passes(_here: str, _there: str, message: Message) -> bool:
        return not (isinstance(message, Forward) and parse(message.envelope).header.kind in lost)

    network.passes = passes


def part_way(network: Network, member: Member, chunks: int = 5) -> str:
    """Until some chunks are on the disk of the destination, and others are not; the file's name."""
    for _ in range(100):
        network.run(0.001)
        for name in member.node.durable.pulls.names:
            if chunks <= chunks_here(member, name) < SIZE // CHUNK_SIZE:
                return name
    raise AssertionError("it was too quick")


def chunks_here(member: Member, name: str) -> int:
    body = member.files.bodies.get(name, b"")
    return sum(any(body[at : at + 100]) for at in range(0, len(body), CHUNK_SIZE))


def parts_sent(network: Network, since: list[int]) -> None:
    """Counts the parts that leave a from now on into `since`."""

    def see(here: str, _there: str, message: Message) -> None:
        if isinstance(message, Forward) and here == "a":
            since[0] += parse(message.envelope).header.kind == Kind.PART

    network.on_message = see


def nothing_left(*members: Member) -> None:
    for member in members:
        durable = member.node.durable
        assert len(durable.outbox) == len(durable.inbox) == len(durable.courier) == 0
        assert len(durable.pulls) == len(durable.offers) == 0 and not durable.offers._unsettled
        assert member.files.bodies == {} == member.files.sums


# --- the ordinary case ---------------------------------------------------------------------------


def test_a_large_body_is_handed_over_whole_and_no_file_is_left() -> None:
    network, a, b = pair()
    answer_with_size(b)
    sent = [0]
    parts_sent(network, sent)
    ticket = send_large(a)
    network.run(3.0)
    assert a.result(ticket)["body"] == b"%d 1" % SIZE
    assert 21 + 1 <= sent[0] <= 21 * 4 + 1  # each once: chunks, or quarters of them, and the sums
    assert len(b.deliveries()) == 1
    nothing_left(a, b)


def test_what_a_body_on_its_way_still_lacks_is_told() -> None:
    network, a, b = pair()
    answer_with_size(b)
    ticket = send_large(a)
    name = part_way(network, b)
    here = chunks_here(b, name) * CHUNK_SIZE
    assert 0 < b.node.durable.pulls.lacking_bytes <= SIZE - here + CHUNK_SIZE
    network.run(3.0)
    assert a.result(ticket)["body"] == b"%d 1" % SIZE
    assert b.node.durable.pulls.lacking_bytes == 0
    only_lose(network, Kind.PART)
    send_large(a, BODY[::-1])
    network.run(0.1)
    assert b.node.durable.pulls.lacking_bytes == SIZE, "not even its sums are known"


def test_a_caller_that_does_not_wait_is_told_when_it_is_accepted() -> None:
    network, a, b = pair()
    answer_with_size(b)
    ticket = send_large(a, durable=True)
    network.run(3.0)
    assert a.result(ticket)["accepted"] is True
    nothing_left(a, b)


def test_a_ci_of_the_same_stack_gets_the_file_of_the_caller() -> None:
    network = Network("a")
    a = network["a"]
    a.register("big")
    answer_with_size(a)
    ticket = send_large(a, target="big")
    network.run(1.0)
    assert a.result(ticket)["body"] == b"%d 1" % SIZE
    nothing_left(a)


def test_a_relay_learns_neither_name_nor_hash() -> None:
    network = Network("a", "m", "b")
    network.join("a", "m", "b")
    network["b"].register("big")
    network.run(1.0)
    a, b = network["a"], network["b"]
    answer_with_size(b)
    seen = []
    network.on_message = lambda _here, _there, message: (
        seen.append(message.envelope) if isinstance(message, Forward) else None
    )
    large = a.files.hand_in(BODY)
    ticket = a.send("big@b", b"", large=large, timeout_s=60.0)
    network.run(5.0)
    assert a.result(ticket)["body"] == b"%d 1" % SIZE
    [delivery] = b.deliveries()
    words = (large.root, large.name[:32].encode(), delivery.large.name[:32].encode(), BODY[:32])
    assert len(seen) > 40
    assert not [one for one in seen for word in words if word in one]


def test_parts_go_behind_everything_else() -> None:
    network, a, b = pair()
    answer_with_size(b)
    classes = []

    def see(_here: str, _there: str, message: Message) -> None:
        if isinstance(message, Forward):
            header = parse(message.envelope).header
            if header.kind in (Kind.PULL, Kind.PART):
                classes.append((Kind(header.kind), int(header.send_class)))

    network.on_message = see
    send_large(a)
    network.run(3.0)
    assert sorted(dict.fromkeys(classes)) == [(Kind.PULL, 1), (Kind.PART, 3)]


# --- what fails on the way -----------------------------------------------------------------------


def test_lost_parts_and_lost_questions_are_asked_for_again() -> None:
    network, a, b = pair()
    answer_with_size(b)
    luck = random.Random(1)

    def passes(_here: str, _there: str, message: Message) -> bool:
        if not isinstance(message, Forward):
            return True
        kind = parse(message.envelope).header.kind
        return (
            kind not in (Kind.PULL, Kind.PART) or luck.random() > 0.15
        )  # a link gives credit for half a MB

    network.passes = passes
    ticket = send_large(a)
    for _ in range(40):  # what a link loses its credit never counts: a new one begins anew
        network.run(4.0)
        if a.answer(ticket) is None:
            network.cut("a", "b")
            network.join("a", "b")
    assert a.result(ticket)["body"] == b"%d 1" % SIZE
    network.passes = lambda *_: True
    network.run(15.0)
    nothing_left(a, b)


def test_a_way_that_opens_again_carries_on_where_it_broke() -> None:
    network, a, b = pair()
    answer_with_size(b)
    sent = [0]
    parts_sent(network, sent)
    ticket = send_large(a)
    part_way(network, b)
    network.cut("a", "b")
    network.run(20.0)
    network.join("a", "b")
    network.run(15.0)
    assert a.result(ticket)["body"] == b"%d 1" % SIZE
    assert sent[0] < 21 * 4  # what was on its way when it broke came twice, no more
    nothing_left(a, b)


def test_a_destination_that_restarts_keeps_what_its_disk_has() -> None:
    network, a, b = pair()
    answer_with_size(b)
    ticket = send_large(a)
    have = chunks_here(b, part_way(network, b))
    b.files._unsynced.clear()  # the system wrote it down by itself
    sent = [0]
    parts_sent(network, sent)
    b = network.restart("b", "a")
    answer_with_size(b)
    b.register("big", persist=True)
    network.run(30.0)
    assert a.result(ticket)["body"] == b"%d 1" % SIZE
    assert sent[0] <= 4 * (21 - have) + 1
    nothing_left(a, b)


def test_chunks_that_a_crash_took_are_found_and_brought_again() -> None:
    network, a, b = pair()
    ticket = send_large(a)
    part_way(network, b)
    b = network.restart("b", "a")
    answer_with_size(b)
    b.register("big", persist=True)
    network.run(30.0)
    assert a.result(ticket)["body"] == b"%d 1" % SIZE


def test_an_origin_that_restarts_goes_on_offering_what_it_accepted() -> None:
    network, a, b = pair()
    answer_with_size(b)
    ticket = send_large(a, durable=True)
    part_way(network, b)
    assert a.result(ticket)["accepted"] is True and b.deliveries() == []
    a = network.restart("a", "b")
    network.run(30.0)
    assert len(b.deliveries()) == 1
    nothing_left(a, b)


def test_a_message_that_waits_for_its_ci_over_a_restart_keeps_its_file() -> None:
    network, a, b = pair()
    send_large(a, durable=True)
    network.run(3.0)
    [first] = b.deliveries()
    b = network.restart("b", "a")
    assert first.large is not None and b.node.durable.holds(first.large.name)
    answer_with_size(b)
    b.register("big", persist=True)
    network.run(5.0)
    [again] = b.deliveries()
    assert (again.large, again.attempt) == (first.large, 1)
    nothing_left(a, b)


def test_what_comes_for_a_message_that_has_ended_is_given_up() -> None:
    network, a, b = pair()
    only_lose(network, Kind.PART)
    ticket = send_large(a, timeout_s=5.0)
    network.run(4.0)
    assert len(b.node.durable.pulls) == 1
    network.run(4.0)
    assert a.error(ticket)["code"] == "timeout"
    network.passes = lambda *_: True
    network.run(15.0)
    nothing_left(a, b)


def test_a_body_ends_with_the_time_of_its_message() -> None:
    network, a, b = pair()
    only_lose(network, Kind.PART)
    send_large(a, timeout_s=5.0)
    network.run(30.0)
    assert len(b.node.durable.pulls) == 0 and b.files.bodies == {}


# --- who lies, and disks that fail ---------------------------------------------------------------


def test_a_body_that_is_not_the_one_its_message_names_is_refused_for_good() -> None:
    network, a, b = pair()
    large = a.files.hand_in(BODY)
    wrong = Large(large.name, large.size, bytes(32))
    ticket = a.send("big@b", b"", large=wrong, timeout_s=60.0)
    network.run(5.0)
    error = a.error(ticket)
    assert (error["code"], error["outcome"]) == ("protocol", "released")
    nothing_left(a, b)


def test_a_chunk_that_changed_at_its_origin_is_never_handed_over() -> None:
    network, a, b = pair()
    large = a.files.hand_in(BODY)
    a.files.bodies[large.name][5 * CHUNK_SIZE] ^= 1
    ticket = a.send("big@b", b"", large=large, timeout_s=60.0)
    network.run(10.0)
    assert a.error(ticket)["code"] == "protocol"
    assert b.deliveries() == []
    nothing_left(a, b)


def test_a_part_of_a_wrong_length_counts_as_a_wrong_one() -> None:
    network, a, b = pair()
    large = a.files.hand_in(BODY)
    del a.files.bodies[large.name][-700:]
    ticket = a.send("big@b", b"", large=large, timeout_s=60.0)
    network.run(10.0)
    assert a.error(ticket)["code"] == "protocol" and b.deliveries() == []


def test_an_origin_whose_file_is_gone_fails_the_message() -> None:
    network, a, b = pair()
    large = a.files.hand_in(BODY)
    a.files.bodies.clear()
    ticket = a.send("big@b", b"", large=large, timeout_s=60.0)
    network.run(5.0)
    assert a.error(ticket)["code"] == "store"
    network.run(30.0)
    assert len(b.node.durable.pulls) == 0


def test_a_destination_without_room_on_its_disk_says_so_and_takes_it_later() -> None:
    network, a, b = pair()
    answer_with_size(b)
    b.files.refuses = "store"
    ticket = send_large(a, durable=True)
    network.run(5.0)
    msg_id = bytes.fromhex(a.result(ticket)["id"])
    assert b.deliveries() == [] and a.node.durable.outbox.find(msg_id) is not None
    b.files.refuses = ""
    network.run(30.0)
    assert len(b.deliveries()) == 1
    nothing_left(a, b)


@pytest.mark.parametrize(("limit", "code"), [(SIZE - 1, "too_large"), (SIZE, "")])
def test_a_destination_has_a_largest_body(limit: int, code: str) -> None:
    network, a, b = pair()
    answer_with_size(b)
    object.__setattr__(b.node.env.settings, "large_body_max", limit)
    ticket = send_large(a)
    network.run(5.0)
    assert (a.error(ticket)["code"] if code else "") == code
    nothing_left(a, b)


def test_one_origin_takes_a_quarter_of_the_room_and_a_number_of_places() -> None:
    network, a, b = pair(large_bodies_bytes=8 * SIZE, large_body_max=SIZE)
    b.on_deliver = lambda _delivery: None
    for _ in range(3):
        send_large(a, durable=True)
    network.run(10.0)
    assert len(b.deliveries()) == 2  # what the CI has is still here
    for delivery in b.deliveries():
        b.reply(delivery, b"done")
    network.run(30.0)
    assert len(b.deliveries()) == 3
    network, a, b = pair()
    only_lose(network, Kind.PART)
    for _ in range(PULLS_PER_STACK + 3):
        send_large(a, durable=True)
    network.run(5.0)
    assert len(b.node.durable.pulls) == PULLS_PER_STACK


def test_only_the_stack_that_a_message_is_for_gets_parts_of_its_body() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b")
    network.join("a", "c")
    network["b"].register("big")
    network.run(1.0)
    a, c = network["a"], network["c"]
    only_lose(network, Kind.PART)
    send_large(a)
    network.run(1.0)
    [msg_id] = a.node.durable.outbox._open
    reads = a.files.reads
    sealer, forwarding = c.node.deliveries.sealer, c.node.forwarding
    body = {"at": [0]}
    forwarding.send(sealer.seal(Kind.PULL, a.id, body, reply_to=msg_id, ttl_s=5.0))
    network.handle(c, ev.Tick())
    network.run(0.05)
    assert a.files.reads <= reads + 1  # b may have asked again meanwhile
    assert network["b"].node.durable.pulls.names


def test_nonsense_in_a_question_is_passed_over() -> None:
    network, a, b = pair()
    only_lose(network, Kind.PART)
    send_large(a)
    network.run(0.1)
    [msg_id] = a.node.durable.outbox._open
    reads = a.files.reads
    for wanted in ([-1, 1, 1 << 50, "0", None, SIZE + 1], "all", None):
        sealed = b.node.deliveries.sealer.seal(
            Kind.PULL, a.id, {"at": wanted}, reply_to=msg_id, ttl_s=5.0
        )
        b.node.forwarding.send(sealed)
    network.handle(b, ev.Tick())
    network.run(0.05)
    assert a.files.reads == reads


def test_rows_that_name_half_a_body_are_dropped_at_the_start() -> None:
    network, a, b = pair()
    send_large(a, durable=True)
    network.run(3.0)
    for member, table in ((a, "outbox"), (b, "inbox")):
        for (name, key), row in list(member.saved.items()):
            if name == table:
                length = int.from_bytes(row[:4])
                words = member.node.env.codec.unpack(row[4 : 4 + length])
                packed = member.node.env.codec.pack_flat(words[:-1])
                member.saved[name, key] = len(packed).to_bytes(4) + packed
    b = network.restart("b", "a")
    assert len(b.node.durable.inbox) == 0
    a = network.restart("a", "b")
    assert len(a.node.durable.outbox) == 0


def test_the_same_key_with_the_same_body_is_the_same_message() -> None:
    network, a, b = pair()
    answer_with_size(b)
    first = send_large(a, key="k")
    network.run(3.0)
    second = send_large(a, key="k")
    third = send_large(a, BODY[::-1], key="k")
    network.run(3.0)
    assert a.result(first)["id"] == a.result(second)["id"]
    assert a.error(third)["code"] == "conflict"
    assert len(b.deliveries()) == 1


def test_a_body_of_which_nothing_comes_gives_up_its_place_and_its_message_brings_it_again() -> None:
    network, a, b = pair()
    answer_with_size(b)
    send_large(a, durable=True)
    name = part_way(network, b)
    network.cut("a", "b")
    network.run(IDLE_S + 60.0)
    assert b.node.durable.pulls.names == [] and chunks_here(b, name) > 0
    network.join("a", "b")
    network.run(20.0)
    assert len(b.deliveries()) == 1
    nothing_left(a, b)


def test_a_stack_that_asks_faster_than_it_takes_gets_no_more() -> None:
    network, a, b = pair()
    big = bytes(3 * UNSETTLED_MAX)
    only_lose(network, Kind.PART)
    send_large(a, big)
    network.run(0.2)
    [msg_id] = a.node.durable.outbox._open
    network.passes = lambda _here, _there, message: not isinstance(message, Settled | HopAck)
    reads = a.files.reads
    offsets = list(range(0, len(big), CHUNK_SIZE))
    for at in range(0, len(offsets), 100):
        body = {"at": offsets[at : at + 100], "n": CHUNK_SIZE}
        sealed = b.node.deliveries.sealer.seal(Kind.PULL, a.id, body, reply_to=msg_id, ttl_s=5.0)
        b.node.forwarding.send(sealed)
    network.handle(b, ev.Tick())
    network.run(0.1)
    assert 10 < a.files.reads - reads <= UNSETTLED_MAX // CHUNK_SIZE + 8


def test_a_caller_that_hangs_up_ends_its_body_on_the_way_and_at_the_ci() -> None:
    network, a, b = pair()
    ticket = send_large(a)
    part_way(network, b)
    network.handle(a, ev.CancelCommand(ticket))
    network.run(5.0)
    assert a.error(ticket)["code"] == "cancelled" and b.deliveries() == []
    nothing_left(a, b)
    ticket = send_large(a)
    network.run(5.0)
    assert len(b.deliveries()) == 1
    network.handle(a, ev.CancelCommand(ticket))
    network.run(15.0)
    assert len(b.of(fx.CancelDelivery)) == 1
    nothing_left(a, b)


def test_a_caller_that_hangs_up_leaves_what_has_a_key() -> None:
    network, a, b = pair()
    answer_with_size(b)
    ticket = send_large(a, key="k")
    part_way(network, b)
    network.handle(a, ev.CancelCommand(ticket))
    network.run(15.0)
    assert len(b.deliveries()) == 1
    nothing_left(a, b)
