"""Streams, large replies and repeats between two stacks: what the destination answers."""

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Kind, parse
from tektonmesh.core.messages import Forward, Message
from tektonmesh.core.streams import REPLAY_SIZE, UNSETTLED_MAX
from tests.network import Filter, Member, Network


def pair(**settings: object) -> tuple[Network, Member, Member]:
    network = Network("a", "b", **settings)  # type: ignore[arg-type]
    network.join("a", "b")
    network["b"].register("echo")
    network.run(1.0)
    return network, network["a"], network["b"]


def kind_of(message: Message) -> int:
    return message.envelope[1] if isinstance(message, Forward) else 0


def dropping(kind: Kind, *which: int) -> Filter:
    """Lose the envelopes of one kind with these numbers (from 0)."""
    count = -1

    def passes(_here: str, _there: str, message: Message) -> bool:
        nonlocal count
        if kind_of(message) != kind:
            return True
        count += 1
        return count not in which

    return passes


def sent_kinds(network: Network) -> list[Kind]:
    seen: list[Kind] = []
    network.on_message = lambda _h, _t, m: (
        seen.append(Kind(parse(m.envelope).header.kind)) if isinstance(m, Forward) else None
    )
    return seen


# --- token streams -------------------------------------------------------------------------------


def test_the_first_token_goes_at_once_and_later_ones_together_within_their_time() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True)
    network.run(0.01)
    seen = sent_kinds(network)
    b.chunk(b.deliveries()[0], b"The ")
    network.run(0.002)
    assert a.streamed(ticket) == [b"The "]
    for token in (b"quick ", b"brown ", b"fox"):
        b.chunk(b.deliveries()[0], token)
        network.run(0.003)
    assert a.streamed(ticket) == [b"The "]
    network.run(0.02)
    assert a.streamed(ticket) == [b"The ", b"quick brown fox"]
    b.reply(b.deliveries()[0], b".")
    network.run(0.01)
    assert a.streamed(ticket) == [b"The ", b"quick brown fox", b"."]
    assert a.result(ticket)["body"] == b""
    assert seen == [Kind.CHUNK, Kind.CHUNK, Kind.REPLY]


def test_what_is_held_when_the_reply_ends_rides_with_its_end() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True)
    network.run(0.01)
    seen = sent_kinds(network)
    for token in (b"a", b"b", b"c"):
        b.chunk(b.deliveries()[0], token)
    b.reply(b.deliveries()[0], b"d")
    network.run(0.1)
    assert b"".join(a.streamed(ticket)) == b"abcd"
    assert seen == [Kind.CHUNK, Kind.REPLY]


def test_a_reply_that_is_not_streamed_comes_in_one_piece() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b")
    network.run(0.01)
    seen = sent_kinds(network)
    for token in (b"a", b"b", b"c"):
        b.chunk(b.deliveries()[0], token)
    b.reply(b.deliveries()[0], b"d")
    network.run(0.1)
    assert a.result(ticket)["body"] == b"abcd"
    assert a.streamed(ticket) == []
    assert seen == [Kind.REPLY]


@pytest.mark.parametrize("stream", [True, False])
def test_a_reply_larger_than_an_envelope_comes_in_pieces(stream: bool) -> None:
    network, a, b = pair(body_size_max=10_000)
    body = bytes(range(256)) * 500
    ticket = a.send("echo@b", stream=stream)
    network.run(0.01)
    b.reply(b.deliveries()[0], body)
    network.run(0.1)
    assert b"".join(a.streamed(ticket)) + a.result(ticket)["body"] == body


def test_a_reply_too_large_to_be_collected_fails_and_stops_its_ci() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b")
    network.run(0.01)
    for _ in range(150):
        b.chunk(b.deliveries()[0], bytes(32_768))
        network.run(0.01)
    assert a.error(ticket)["code"] == "too_large"
    assert b.node.deliveries.open == 0


def test_a_final_reply_too_large_to_be_collected_fails() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b")
    network.run(0.01)
    b.reply(b.deliveries()[0], bytes((4 << 20) + 1))
    network.run(0.1)
    assert a.error(ticket)["code"] == "too_large"


def test_a_large_stream_has_no_limit() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True)
    network.run(0.01)
    for _ in range(150):
        b.chunk(b.deliveries()[0], bytes(32_768))
        network.run(0.01)
    b.reply(b.deliveries()[0], b"")
    network.run(0.1)
    assert sum(map(len, a.streamed(ticket))) == 150 * 32_768
    assert a.result(ticket)["body"] == b""


def test_a_chunk_is_as_good_as_a_receipt() -> None:
    network, a, b = pair()
    a.send("echo@b", stream=True)
    network.run(0.01)
    seen = sent_kinds(network)
    b.chunk(b.deliveries()[0], b"x")
    network.run(3.0)
    assert seen == [Kind.CHUNK]


# --- gaps ----------------------------------------------------------------------------------------


def tokens(network: Network, b: Member, count: int) -> bytes:
    """Stream `count` tokens slowly enough for a piece each."""
    for n in range(count):
        b.chunk(b.deliveries()[0], f"<{n}>".encode())
        network.run(0.03)
    return b"".join(f"<{n}>".encode() for n in range(count))


@pytest.mark.parametrize("lost", [(0,), (3,), (0, 1, 2), (2, 5, 6), (9,)])
def test_lost_pieces_are_filled_and_nothing_comes_twice(lost: tuple[int, ...]) -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True)
    network.run(0.01)
    network.passes = dropping(Kind.CHUNK, *lost)
    said = tokens(network, b, 10)
    b.reply(b.deliveries()[0], b"end")
    network.run(2.0)
    assert b"".join(a.streamed(ticket)) == said + b"end"
    assert a.result(ticket)["body"] == b""


def test_a_gap_is_filled_while_the_stream_still_runs() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True)
    network.run(0.01)
    network.passes = dropping(Kind.CHUNK, 1)
    said = tokens(network, b, 4)
    network.run(0.5)
    assert b"".join(a.streamed(ticket)) == said
    assert a.answer(ticket) is None


def test_a_gap_older_than_what_is_kept_fails_at_the_deadline() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", timeout_s=8.0)
    network.run(0.01)
    network.passes = lambda _h, _t, m: kind_of(m) != Kind.CHUNK
    for _ in range(2 * REPLAY_SIZE // 32_768):
        b.chunk(b.deliveries()[0], bytes(32_768))
    network.run(0.1)
    network.passes = lambda *_: True
    b.reply(b.deliveries()[0], b"end")
    network.run(9.0)
    assert a.error(ticket)["code"] == "timeout"


def test_pieces_that_arrive_twice_are_shown_once() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True)
    network.run(0.01)
    said = tokens(network, b, 3)
    pending = next(iter(a.node.requests._open.values()))
    pending.act_at = 0.0
    a.node.requests.copies._ask_for_rest(pending)
    pending.stream.next = 3
    a.node.requests.copies._ask_for_rest(pending)
    pending.stream.next = len(said)
    network.run(0.1)
    assert b"".join(a.streamed(ticket)) == said


# --- repeats -------------------------------------------------------------------------------------


def repeat(network: Network, source: Member) -> None:
    """Send the open message of `source` once more."""
    source.node.env.now = network.now
    for pending in list(source.node.requests._open.values()):
        source.node.requests.copies._copy(pending)
    network.run(0.0)


def test_a_repeat_of_an_open_message_gets_a_receipt_with_its_own_way() -> None:
    network, a, b = pair()
    a.send("echo@b", timeout_s=60.0)
    network.run(0.01)
    seen = sent_kinds(network)
    repeat(network, a)
    network.run(0.01)
    assert seen == [Kind.REQUEST, Kind.RECEIPT]
    assert len(b.deliveries()) == 1


def test_a_repeat_of_an_answered_message_gets_the_same_answer() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True)
    network.run(0.01)
    network.passes = lambda here, _t, m: here != "b" or not isinstance(m, Forward)
    said = tokens(network, b, 3)
    b.reply(b.deliveries()[0], b"end")
    network.run(0.05)
    network.passes = lambda _h, _t, m: kind_of(m) != Kind.RESEND
    repeat(network, a)
    network.run(0.01)
    pending = next(iter(a.node.requests._open.values()))
    assert pending.stream.end == len(said) + 3
    network.passes = lambda *_: True
    network.run(1.0)
    assert b"".join(a.streamed(ticket)) == said + b"end"
    assert len(b.deliveries()) == 1


def test_a_repeat_of_a_refused_message_is_refused_again_even_if_the_ci_has_come() -> None:
    network, a, b = pair(ci_detach_grace_s=0.1)
    # a still believes in the CI, so it sends to one that is gone.
    network.passes = lambda _h, _t, m: isinstance(m, Forward) and kind_of(m) != Kind.NACK
    b.node.cis.deregister(ev.DeregisterCi(1, "echo", None, True))
    a.send("echo@b")
    network.run(0.05)
    b.register("echo")
    network.passes = lambda *_: True
    repeat(network, a)
    network.run(0.05)
    [failed] = [e for e in a.effects if type(e).__name__ == "AnswerFailed"]
    assert failed.error["code"] == "not_found"
    assert b.deliveries() == []


def test_a_repeat_whose_answer_is_not_kept_any_more_fails_indeterminate() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b")
    network.run(0.01)
    network.passes = lambda here, _t, m: here != "b" or not isinstance(m, Forward)
    b.reply(b.deliveries()[0], b"x")
    dedup = b.node.deliveries._handouts  # the answer is dropped as when its room is needed
    assert len(dedup) == 0
    arrivals = b.node.forwarding._handlers[Kind.REQUEST].__self__  # type: ignore[attr-defined]
    row = next(iter(arrivals._answering.dedup._rows.values()))
    arrivals._answering.dedup._drop_answer(row)
    b.node.deliveries.posts._open.clear()
    network.passes = lambda *_: True
    repeat(network, a)
    network.run(0.05)
    assert a.error(ticket)["code"] == "ci_failed"
    assert a.error(ticket)["outcome"] == "indeterminate"


def test_a_repeat_of_a_one_way_message_is_settled_and_nothing_else() -> None:
    network, a, b = pair()
    network.passes = lambda here, _t, _m: here != "b"
    ticket = a.send("echo@b", no_reply=True)
    network.run(0.01)
    network.passes = lambda *_: True
    seen = sent_kinds(network)
    repeat(network, a)
    network.run(0.01)
    assert a.result(ticket)["accepted"] is True
    assert seen == [Kind.REQUEST]
    assert len(b.deliveries()) == 1


def test_a_gap_that_cannot_be_filled_any_more_does_not_disturb_an_open_stream() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", stream=True, timeout_s=60.0)
    network.run(0.01)
    network.passes = lambda _h, _t, m: kind_of(m) != Kind.CHUNK
    for _ in range(2 * REPLAY_SIZE // 32_768):
        b.chunk(b.deliveries()[0], bytes(32_768))
    network.run(0.1)
    network.passes = lambda *_: True
    b.chunk(b.deliveries()[0], bytes(32_768))
    network.run(1.0)
    assert a.streamed(ticket) == [] and a.answer(ticket) is None
    assert b.node.deliveries.open == 1


def test_what_cannot_be_sealed_for_lack_of_keys_is_asked_for_again() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", timeout_s=60.0)
    network.run(0.01)
    held = b.node.replica.owners[a.id]
    held._values["stack/self"] = {}
    network.run(0.2)
    assert not next(iter(a.node.requests._open.values())).received
    held._values.clear()
    network.run(1.0)
    assert next(iter(a.node.requests._open.values())).received
    b.reply(b.deliveries()[0], b"here")
    network.run(0.1)
    assert a.result(ticket)["body"] == b"here"


def test_the_last_bytes_of_a_reply_can_make_it_too_large() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b")
    network.run(0.01)
    for _ in range(128):
        b.chunk(b.deliveries()[0], bytes(32_768))
        network.run(0.01)
    b.reply(b.deliveries()[0], b"xx")
    network.run(0.1)
    assert a.error(ticket)["code"] == "too_large"


# --- a CI that writes faster than it can be sent -------------------------------------------------


def test_a_reply_that_outruns_its_link_fails_and_others_go_on() -> None:
    network, a, b = pair()
    first, second = a.send("echo@b", stream=True), a.send("echo@b", stream=True)
    network.run(0.01)
    fast, calm = b.deliveries()
    for _ in range(64):
        b.chunk(fast, bytes(1 << 20))
    assert b.node.forwarding.queued_bytes < UNSETTLED_MAX + (2 << 20)
    assert [cancel.delivery for cancel in b.of(fx.CancelDelivery)] == [fast.delivery]
    b.reply(calm, b"calm")
    network.run(1.0)
    error = a.error(first)
    assert (error["code"], error["outcome"]) == ("busy", "indeterminate")
    assert b"".join(a.streamed(second)) == b"calm" and a.result(second)
    assert b.node.forwarding.queued_bytes == 0


@pytest.mark.parametrize("answered", [False, True])
def test_what_is_crowded_is_not_sent_again_on_top(answered: bool) -> None:
    network, a, b = pair()
    a.send("echo@b", stream=True)
    network.run(0.01)
    [delivery] = b.deliveries()
    b.chunk(delivery, b"one")
    if answered:
        b.reply(delivery, b"two")
    network.run(0.01)
    arrivals = b.node.forwarding._handlers[Kind.RESEND].__self__  # type: ignore[attr-defined]
    [taken] = arrivals._answering.dedup._rows.values()
    out = taken.stream or taken.asker.out
    out.unsettled += UNSETTLED_MAX + 1
    seen = sent_kinds(network)
    sealer = a.node.deliveries.sealer
    resend = sealer.seal(Kind.RESEND, b.id, {"off": 0}, reply_to=delivery.msg_id, ttl_s=5.0)
    a.node.env.now = network.now
    a.node.forwarding.send(resend)
    network.run(0.1)
    assert Kind.CHUNK not in seen


@pytest.mark.parametrize("how", ["detail", "content type"])
def test_an_answer_that_cannot_be_packed_is_a_failure_of_its_ci(how: str) -> None:
    network, a, b = pair()
    ticket = a.send("echo@b")
    network.run(0.01)
    [delivery] = b.deliveries()
    if how == "detail":
        b.fail(delivery, "refused", "\ud83d")
    else:
        network.handle(b, ev.ReplyDone(delivery.delivery, b"x", "\ud800"))
    network.run(0.1)
    assert a.error(ticket)["code"] == "ci_failed"
    assert b.node.deliveries.open == 0
    assert len(b.node.deliveries.posts) == 0


# --- pieces that come back -----------------------------------------------------------------------


def poem() -> tuple[Network, Member, Member, int]:
    """a - m - b with a stream from `poet` at b to a, of which the first piece has come."""
    network = Network("a", "m", "b")
    network.join("a", "m", "b")
    network["b"].register("poet")
    network.run(1.0)
    a, b = network["a"], network["b"]
    ticket = a.send("poet@b", stream=True)
    network.run(0.1)
    b.chunk(b.deliveries()[0], b"one ")
    network.run(0.1)
    return network, a, b, ticket


def say_one(network: Network, b: Member, data: bytes) -> None:
    b.chunk(b.deliveries()[0], data)
    network.run(0.05)


@pytest.mark.parametrize("cut", [("a", "m"), ("m", "b")])
def test_a_piece_that_came_back_goes_again_when_a_way_opens_and_is_not_asked_for(
    cut: tuple[str, str],
) -> None:
    network, a, b, ticket = poem()
    network.cut(*cut)
    say_one(network, b, b"two ")
    assert a.streamed(ticket) == [b"one "]
    seen = sent_kinds(network)
    network._join(*cut)
    network.run(0.06)
    assert b"".join(a.streamed(ticket)) == b"one two "
    assert Kind.RESEND not in seen


def test_it_goes_again_soon_although_nobody_tells_of_the_way() -> None:
    network, a, b, ticket = poem()
    network.passes = lambda _from, to, message: (
        to != "b" or type(message).__name__ not in ("Delta", "Ihave")
    )
    network.cut("a", "m")
    say_one(network, b, b"two ")
    seen = sent_kinds(network)
    network._join("a", "m")
    network.run(0.15)
    assert b"".join(a.streamed(ticket)) == b"one two "
    assert Kind.RESEND not in seen


@pytest.mark.parametrize("cut", [("a", "m"), ("m", "b")])
def test_while_no_way_opens_it_goes_again_less_and_less_often(cut: tuple[str, str]) -> None:
    network, a, b, ticket = poem()
    network.cut(*cut)
    say_one(network, b, b"two ")
    seen = sent_kinds(network)
    network.run(1.5)
    assert seen.count(Kind.CHUNK) <= 6
    network._join(*cut)
    network.run(1.2)
    assert b"".join(a.streamed(ticket)) == b"one two "


def test_after_a_calm_time_the_first_pause_is_short_again() -> None:
    network, a, b, ticket = poem()
    for data in (b"two ", b"three "):
        network.cut("a", "m")
        say_one(network, b, data)
        network._join("a", "m")
        network.run(4.0)
    assert b.node.deliveries.answering._mend_s < 0.2
    assert b"".join(a.streamed(ticket)) == b"one two three "


def test_nothing_goes_again_of_a_stream_that_is_not_wanted_any_more() -> None:
    network, a, b, ticket = poem()
    network.cut("a", "m")
    say_one(network, b, b"two ")
    b.fail(b.deliveries()[0], "ci_failed")
    seen = sent_kinds(network)
    network._join("a", "m")
    network.run(2.0)
    assert a.error(ticket)["code"] == "ci_failed"
    assert Kind.CHUNK not in seen and "torn" not in b.node.env.deadlines


def test_a_piece_that_comes_back_after_the_end_is_left_to_be_asked_for() -> None:
    network, a, b, ticket = poem()
    network.passes = lambda _h, to, _m: to != "a"
    b.chunk(b.deliveries()[0], b"two ")
    network.run(0.03)
    b.reply(b.deliveries()[0], b"end")
    network.run(0.03)
    network.cut("a", "m")
    network.passes = lambda *_: True
    assert "torn" not in b.node.env.deadlines
    network._join("a", "m")
    network.run(2.0)
    assert b"".join(a.streamed(ticket)) + a.result(ticket)["body"] == b"one two end"
