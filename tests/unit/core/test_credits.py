"""How far a streamed reply may run ahead of its reader."""

from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.answering import WAITING_MAX
from tektonmesh.core.credits import (
    HAVE_STEP,
    WINDOW_LEAST,
    WINDOW_MAX,
    WINDOW_MIN,
    WINDOWS_MAX,
    Credits,
    Grant,
)
from tektonmesh.core.envelope import KIND_AT, Kind
from tektonmesh.core.ids import show_id
from tektonmesh.core.messages import Forward
from tektonmesh.core.streams import UNSETTLED_MAX
from tests.network import Member, Network
from tests.support import make_env

KIB = 1024


def line(*, reads: bool = False) -> tuple[Network, Member, Member]:
    """a - m - b with the CI `poet` at b; callers at a do not read."""
    network = Network("a", "m", "b")
    network.join("a", "m", "b")
    network["b"].register("poet")
    network.run(1.0)
    network["a"].reads = reads
    return network, network["a"], network["b"]


def say(network: Network, b: Member, size: int, *, delivery: int = -1) -> None:
    """The CI writes `size` bytes in pieces of 1 KiB."""
    for n in range(size // KIB):
        b.chunk(b.deliveries()[delivery], bytes([n % 256]) * KIB)
    network.run(1.0)


def shown(a: Member, ticket: int) -> int:
    return sum(map(len, a.streamed(ticket)))


def read(network: Network, a: Member, ticket: int, size: int) -> None:
    network.handle(a, ev.ChunksTaken(ticket, size))
    network.run(1.0)


# --- grants --------------------------------------------------------------------------------------


def test_a_window_begins_at_64_kib_and_doubles_to_1_mib_while_it_is_used_up_at_once() -> None:
    credits = Credits(make_env())
    grant = credits.open()
    assert (grant.limit, credits.reserved) == (WINDOW_MIN, WINDOW_MIN)
    seen = []
    for _ in range(12):
        while not credits.taken(grant, 16 * KIB, 0.0):
            continue
        seen.append(grant.window)
    assert seen[:4] == [128 * KIB, 256 * KIB, 512 * KIB, WINDOW_MAX]
    assert seen[-1] == WINDOW_MAX and grant.limit == grant.taken + WINDOW_MAX
    credits.close(grant)
    assert credits.reserved == 0


def test_a_window_that_is_used_slowly_stays_as_it_is() -> None:
    env = make_env()
    credits = Credits(env)
    grant = credits.open()
    for _ in range(8):
        env.now += 1.0
        assert credits.taken(grant, 32 * KIB, 0.1)
    assert grant.window == WINDOW_MIN


def test_credit_is_told_when_half_a_window_was_read() -> None:
    credits = Credits(make_env())
    grant = credits.open()
    assert not credits.taken(grant, 31 * KIB, 0.0)
    assert grant.limit == WINDOW_MIN
    assert credits.taken(grant, 1 * KIB, 0.0)


def test_all_windows_together_stay_within_64_mib() -> None:
    credits = Credits(make_env())
    grants = [credits.open() for _ in range(WINDOWS_MAX // WINDOW_MIN)]
    assert credits.reserved == WINDOWS_MAX
    late = credits.open()
    assert late.window == WINDOW_LEAST
    assert credits.taken(grants[0], WINDOW_MIN, 0.0) and grants[0].window == WINDOW_MIN
    for grant in [*grants, late]:
        credits.close(grant)
    assert credits.reserved == 0


# --- between nodes -------------------------------------------------------------------------------


def test_a_reader_that_is_stuck_holds_its_ci_back_and_gets_the_rest_when_it_reads() -> None:
    network, a, b = line()
    ticket = a.send("poet@b", stream=True)
    network.run(0.1)
    say(network, b, 300 * KIB)
    assert shown(a, ticket) == WINDOW_MIN
    assert a.node.forwarding.queued_bytes == 0
    b.reply(b.deliveries()[0], b"the end")
    network.run(1.0)
    assert a.answer(ticket) is None
    for _ in range(40):
        read(network, a, ticket, 16 * KIB)
    whole = b"".join(a.streamed(ticket)) + a.result(ticket)["body"]
    assert whole == b"".join(bytes([n % 256]) * KIB for n in range(300)) + b"the end"


def test_what_has_come_need_not_be_kept_where_it_came_from() -> None:
    network, a, b = line()
    a.send("poet@b", stream=True)
    network.run(0.1)
    say(network, b, 64 * KIB)
    assert b.node.deliveries.kept_for_readers <= HAVE_STEP


def test_other_streams_are_not_held_back() -> None:
    network, a, b = line()
    stuck = a.send("poet@b", stream=True)
    network.run(0.1)
    say(network, b, 200 * KIB)
    a.reads = True
    other = a.send("poet@b", stream=True)
    network.run(0.1)
    say(network, b, 200 * KIB)
    assert (shown(a, stuck), shown(a, other)) == (WINDOW_MIN, 200 * KIB)


def test_a_lost_credit_is_told_again() -> None:
    network, a, b = line()
    ticket = a.send("poet@b", stream=True)
    network.run(0.1)
    say(network, b, 128 * KIB)
    network.passes = lambda _h, _t, m: (
        not (isinstance(m, Forward) and m.envelope[KIND_AT] == Kind.CREDIT)
    )
    read(network, a, ticket, 64 * KIB)
    assert shown(a, ticket) == WINDOW_MIN
    network.passes = lambda *_: True
    network.run(10.0)
    assert shown(a, ticket) == 128 * KIB


def test_a_stack_that_sends_beyond_its_credit_breaks_the_protocol_of_that_stream() -> None:
    network, a, b = line()
    ticket = a.send("poet@b", stream=True)
    network.run(0.1)
    [taken] = [t for t in b.node.deliveries.answering.dedup._rows.values() if t.asker]
    taken.asker.out.credit = 1 << 40  # type: ignore[union-attr]
    say(network, b, 65 * KIB)
    assert a.error(ticket)["code"] == "protocol"
    assert b.of(fx.CancelDelivery)
    [struck] = a.notices("peer_struck")
    assert struck["id"] == show_id(b.id) and "more of the reply than" in struck["reason"]
    assert a.node.env.counts.strikes == 1 and not b.notices("peer_struck")
    other = a.send("poet@b", stream=True)
    network.run(0.1)
    say(network, b, 10 * KIB)
    assert shown(a, other) == 10 * KIB


def test_a_reply_that_is_not_read_before_its_deadline_ends_with_it() -> None:
    network, a, b = line()
    ticket = a.send("poet@b", stream=True, timeout_s=5.0)
    network.run(0.1)
    say(network, b, 100 * KIB)
    b.reply(b.deliveries()[0], b"")
    network.run(10.0)
    assert a.error(ticket)["code"] == "timeout"
    assert b.node.deliveries.kept_for_readers == 0
    assert a.node.requests._credits.reserved == 0


def test_a_cancelled_stream_frees_what_was_kept_for_it() -> None:
    network, a, b = line()
    ticket = a.send("poet@b", stream=True)
    network.run(0.1)
    say(network, b, 100 * KIB)
    assert b.node.deliveries.kept_for_readers > 0
    network.handle(a, ev.CancelCommand(ticket))
    network.run(1.0)
    assert b.node.deliveries.kept_for_readers == 0
    assert a.node.requests._credits.reserved == 0 and b.node.deliveries.open == 0


def test_a_ci_that_writes_4_mib_ahead_of_its_reader_fails_alone() -> None:
    network, a, b = line()
    ticket = a.send("poet@b", stream=True)
    network.run(0.1)
    for _ in range(UNSETTLED_MAX // (64 * KIB) + 3):
        b.chunk(b.deliveries()[0], bytes(64 * KIB))
    network.run(1.0)
    assert a.error(ticket)["code"] == "busy"


def test_what_waits_for_all_readers_together_is_bounded() -> None:
    network, a, b = line()
    tickets = [a.send("poet@b", stream=True) for _ in range(24)]
    network.run(0.1)
    for n in range(24):
        for _ in range(50):
            b.chunk(b.deliveries()[n], bytes(64 * KIB))
    waiting = b.node.deliveries.kept_for_readers
    assert waiting <= WAITING_MAX + 24 * 64 * KIB
    network.run(1.0)
    assert {a.error(t)["code"] for t in tickets if a.answer(t)} == {"busy"}


@pytest.mark.parametrize("size", [10 * KIB, 3 * WINDOW_MAX])
def test_a_local_reply_waits_for_its_reader_too(size: int) -> None:
    network = Network("a")
    a = network["a"]
    a.reads = False
    a.register("poet")
    ticket = a.send("poet", stream=True)
    for _ in range(size // KIB):
        a.chunk(a.deliveries()[0], bytes(KIB))
    assert shown(a, ticket) == min(size, WINDOW_MAX)
    a.reply(a.deliveries()[0], b"end")
    for _ in range(size // WINDOW_MAX):
        read(network, a, ticket, WINDOW_MAX)
    assert b"".join(a.streamed(ticket)) + a.result(ticket)["body"] == bytes(size) + b"end"


def test_a_local_ci_that_writes_far_ahead_of_its_reader_fails_alone() -> None:
    network = Network("a")
    a = network["a"]
    a.reads = False
    a.register("poet")
    ticket = a.send("poet", stream=True)
    for _ in range(90):
        a.chunk(a.deliveries()[0], bytes(64 * KIB))
    assert a.error(ticket)["code"] == "busy"
    other = a.send("poet", stream=True)
    a.reply(a.deliveries()[1], b"fine")
    assert a.result(other)["body"] == b"" and shown(a, other) == 4


def test_reading_what_is_over_changes_nothing() -> None:
    network, a, _ = line()
    before = len(a.effects)
    read(network, a, 999, 5)
    assert [e for e in a.effects[before:] if not isinstance(e, (fx.Notice, fx.Send))] == []


def test_a_message_that_is_not_streamed_has_no_grant() -> None:
    network, a, b = line()
    ticket = a.send("poet@b")
    network.run(0.1)
    read(network, a, ticket, 5)
    say(network, b, 200 * KIB)
    b.reply(b.deliveries()[0], b"")
    network.run(1.0)
    assert len(a.result(ticket)["body"]) == 200 * KIB


def test_a_grant_covers_what_ends_within_it() -> None:
    grant: Any = Grant(10, 0.0)
    assert grant.covers(10) and not grant.covers(11)
