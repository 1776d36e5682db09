"""Durable streams between real nodes: byte for byte, over restarts of every stack on the way."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Kind, parse
from tektonmesh.core.messages import Forward, Message
from tektonmesh.core.readers import ABANDONED_S, TAIL_MAX
from tektonmesh.core.saying import BEHIND_MAX, KEPT_MAX
from tests.network import Member, Network

TOKENS = [f"token-{number} ".encode() for number in range(4000)]
WHOLE = b"".join(TOKENS)


def chain(*names: str, **settings: Any) -> Network:
    """Stacks in a row; `talker` is registered at the last."""
    network = Network(*names, **settings)
    network.join(*names)
    network[names[-1]].register("talker", persist=True)
    network.run(1.0)
    return network


class Caller:
    """Reads one stream at `member`, and goes on after its stack restarted."""

    def __init__(self, network: Network, name: str, **options: Any) -> None:
        self.network, self.name, self.options = network, name, options
        self.got = b""
        self.ticket = 0

    def ask(self, target: str = "talker@b", **more: Any) -> None:
        self.gather()
        options = {"key": "k", "offset": len(self.got)} | self.options | more
        self.ticket = self.network[self.name].send(
            target, b"talk", stream=True, timeout_s=600.0, **options
        )

    def gather(self) -> bytes:
        """What it has: what its ticket brought, behind what came before."""
        if self.ticket:
            member = self.network[self.name]
            self.got += b"".join(member.streamed(self.ticket))
            member.effects = [
                effect
                for effect in member.effects
                if not (isinstance(effect, fx.AnswerChunk) and effect.ticket == self.ticket)
            ]
        return self.got

    def result(self) -> dict[str, Any]:
        return self.network[self.name].result(self.ticket)

    def error(self) -> dict[str, Any]:
        return self.network[self.name].error(self.ticket)


class Ci:
    """Says the tokens, a few at a time, and goes on where its stack says that it is."""

    def __init__(self, network: Network, name: str, *, offsets: bool = True) -> None:
        self.network, self.name, self.offsets = network, name, offsets
        self.at = 0
        self.delivery: fx.Deliver | None = None
        self.attempts: list[tuple[int, int | None]] = []
        network[name].on_deliver = self.take

    def take(self, delivery: fx.Deliver) -> None:
        self.delivery = delivery
        self.attempts.append((delivery.attempt, delivery.reply_from))
        self.at = delivery.reply_from or 0

    def say(self, size: int) -> None:
        assert self.delivery is not None
        data, number = WHOLE[self.at : self.at + size], self.delivery.delivery
        offset = self.at if self.offsets else None
        self.at += len(data)
        member = self.network[self.name]
        self.network.handle(member, ev.ReplyChunk(number, data, offset))

    def end(self, rest: bytes = b"") -> None:
        assert self.delivery is not None
        self.network[self.name].reply(self.delivery, rest)

    def back(self) -> None:
        """After a restart of its stack."""
        member = self.network[self.name]
        member.on_deliver = self.take
        member.register("talker", persist=True)
        self.network.run(0.2)


def nothing_left(*members: Member) -> None:
    for member in members:
        durable = member.node.durable
        assert len(durable.outbox) == len(durable.inbox) == len(durable.courier) == 0
        assert durable.inbox.unconfirmed == durable.inbox.sayings.kept_bytes == 0
        assert durable.readers._credits.reserved == 0
        for table in ("outbox", "outnews", "inbox", "lease", "said"):
            assert [key for name, key in member.saved if name == table] == []


def settled(network: Network) -> None:
    """Until marks, ends and confirmations are exchanged."""
    network.run(15.0)


# --- the ordinary case ---------------------------------------------------------------------------


def test_a_stream_with_a_key_comes_as_it_is_said_and_leaves_nothing() -> None:
    network = chain("a", "m", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(12)
    network.run(0.01)
    assert caller.gather() == WHOLE[:12]  # the first token waits for nothing but the disk
    while ci.at < len(WHOLE):
        ci.say(500)
        network.run(0.005)
    ci.end(b"the end")
    network.run(0.5)
    assert caller.gather() == WHOLE + b"the end"
    assert caller.result()["body"] == b""
    assert caller.result()["path"] == ["a", "m", "b"]
    settled(network)
    nothing_left(network["a"], network["b"])
    assert ci.attempts == [(0, 0)]


def test_a_ci_of_the_same_stack_streams_the_same_way() -> None:
    network = chain("b")
    ci, caller = Ci(network, "b"), Caller(network, "b")
    caller.ask("talker")
    network.run(0.1)
    ci.say(3000)
    network.run(0.1)
    ci.say(2000)
    ci.end()
    network.run(0.5)
    assert caller.gather() == WHOLE[:5000] and caller.result()["body"] == b""
    nothing_left(network["b"])


def test_nothing_leaves_before_it_is_durable() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    network["b"].disk_stuck = True
    ci.say(100)
    network.run(1.0)
    assert caller.gather() == b"" and network["b"].of(fx.ReplyKept) == []
    network.write("b")
    network.run(0.1)
    assert caller.gather() == WHOLE[:100]
    [kept] = network["b"].of(fx.ReplyKept)
    assert (kept.delivery, kept.offset) == (ci.delivery.delivery, 100)


def test_an_empty_reply_is_a_reply() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.end()
    settled(network)
    assert caller.gather() == b"" and caller.result()["body"] == b""
    nothing_left(network["a"], network["b"])


def test_a_failure_in_the_middle_is_told_behind_what_was_said() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(100)
    network["b"].fail(ci.delivery, "ci_failed", "out of words")
    settled(network)
    assert caller.gather() == WHOLE[:100]
    assert (caller.error()["code"], caller.error()["detail"]) == ("ci_failed", "out of words")
    nothing_left(network["a"], network["b"])


# --- what breaks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["a", "m", "b"])
def test_a_stack_that_restarts_in_the_middle_costs_no_byte_and_doubles_none(victim: str) -> None:
    network = chain("a", "m", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    for part in range(6):
        ci.say(6000)
        network.run(0.02)
        if part == 2:
            caller.gather()
            peers = {"a": ("m",), "m": ("a", "b"), "b": ("m",)}[victim]
            network.restart(victim, *peers)
            if victim == "b":
                ci.back()
            if victim == "a":
                caller.ask()
    while ci.at < len(WHOLE):
        ci.say(6000)
        network.run(0.02)
    ci.end()
    settled(network)
    assert caller.gather() == WHOLE
    assert caller.result()["body"] == b""
    settled(network)
    nothing_left(network["a"], network["b"])


def test_cut_twenty_times_at_every_stack_it_is_the_same_bytes() -> None:
    network = chain("a", "m", "b")
    luck = random.Random(3)
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    cuts = 0
    while ci.at < len(WHOLE) or cuts < 20:
        ci.say(luck.randrange(1, 2500))
        network.run(luck.random() * 0.03)
        if cuts < 20 and ci.at > cuts * len(WHOLE) / 22:
            cuts += 1
            kind = luck.randrange(4)
            if kind == 0:
                caller.gather()
                network.restart("a", "m")
                caller.ask()
            elif kind == 1:
                network.restart("m", "a", "b")
            elif kind == 2:
                network.restart("b", "m")
                ci.back()
            else:
                network.cut("m", "b")
                network.run(luck.random())
                network.join("m", "b")
    ci.end()
    settled(network)
    assert caller.gather() == WHOLE
    settled(network)
    nothing_left(network["a"], network["b"])


def test_pieces_and_words_that_are_lost_on_the_way_are_asked_for() -> None:
    network = chain("a", "b")
    luck = random.Random(2)

    def passes(_here: str, _there: str, message: Message) -> bool:
        if not isinstance(message, Forward):
            return True
        lossy = parse(message.envelope).header.kind in (Kind.CHUNK, Kind.CREDIT, Kind.REPLY)
        return not lossy or luck.random() > 0.4

    network.passes = passes
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(1.0)
    while ci.at < len(WHOLE):
        ci.say(3000)
        network.run(0.05)
    ci.end()
    network.run(120.0)
    assert caller.gather() == WHOLE
    network.passes = lambda *_: True
    settled(network)
    nothing_left(network["a"], network["b"])


def test_a_caller_that_comes_back_after_the_end_gets_the_end() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(5000)
    ci.end()
    settled(network)
    assert caller.gather() == WHOLE[:5000]
    caller.got = WHOLE[:1200]  # what it had read when its stack was killed
    network.restart("a", "b")
    caller.ticket = 0
    caller.ask()
    network.run(0.5)
    assert caller.gather() == WHOLE[:5000] and caller.result()["body"] == b""


def test_what_is_not_kept_any_more_is_told_and_not_made_up() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    for _ in range(60):
        network.handle(network["b"], ev.ReplyChunk(ci.delivery.delivery, bytes(30_000), None))
        network.run(0.1)
    ci.end()
    settled(network)
    assert len(caller.gather()) == 1_800_000 > TAIL_MAX
    again = Caller(network, "a")
    again.ask()
    network.run(0.5)
    assert again.error()["code"] == "not_found"
    beyond = Caller(network, "a", offset=1_800_001)
    beyond.ask()
    network.run(0.5)
    assert beyond.error()["code"] == "not_found"


def test_the_newest_caller_reads_and_the_one_before_it_is_told() -> None:
    network = chain("a", "b")
    ci, first, second = Ci(network, "b"), Caller(network, "a"), Caller(network, "a")
    first.ask()
    network.run(0.5)
    ci.say(1000)
    network.run(0.1)
    second.ask()
    network.run(0.1)
    ci.say(1000)
    ci.end()
    network.run(1.0)
    assert first.gather() == WHOLE[:1000] and first.error()["code"] == "conflict"
    assert second.gather() == WHOLE[:2000]


# --- CIs that are lost ---------------------------------------------------------------------------


def begun_twice(offsets: bool) -> tuple[Network, Ci, Caller]:
    """A CI that has said 5,000 bytes and got the message again."""
    network = chain("a", "b")
    ci, caller = Ci(network, "b", offsets=offsets), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(5000)
    network.run(0.1)
    assert ci.delivery is not None
    number = ci.delivery.delivery
    network.handle(network["b"], ev.ReplyFailed(number, "ci_failed", "it ended", lost=True))
    network.run(1.0)
    assert ci.attempts == [(0, 0), (1, 5000)]
    return network, ci, caller


def test_a_ci_that_begins_anew_with_the_same_words_goes_on_where_it_was() -> None:
    network, ci, caller = begun_twice(offsets=False)
    ci.at = 0  # it does not care what is here already
    ci.say(9000)
    ci.end()
    network.run(1.0)
    assert caller.gather() == WHOLE[:9000]


def test_a_ci_that_begins_anew_with_other_words_fails() -> None:
    network, ci, caller = begun_twice(offsets=False)
    other = ev.ReplyChunk(ci.delivery.delivery, b"something else", None)
    network.handle(network["b"], other)
    settled(network)
    assert caller.gather() == WHOLE[:5000]
    assert caller.error()["code"] == "ci_failed" and "other words" in caller.error()["detail"]
    nothing_left(network["a"], network["b"])


def test_a_ci_may_say_the_last_words_alone_where_it_was() -> None:
    network, ci, caller = begun_twice(offsets=True)
    assert ci.delivery is not None
    done = ev.ReplyDone(ci.delivery.delivery, b"the end", "text/plain", offset=5000)
    network.handle(network["b"], done)
    settled(network)
    assert caller.gather() == WHOLE[:5000] + b"the end"
    assert caller.result()["body"] == b""
    nothing_left(network["a"], network["b"])


def test_a_ci_that_begins_anew_and_ends_sooner_fails() -> None:
    network, ci, caller = begun_twice(offsets=False)
    ci.at = 0
    ci.say(4000)
    ci.end()
    settled(network)
    assert caller.gather() == WHOLE[:5000]
    assert caller.error()["code"] == "ci_failed" and "sooner" in caller.error()["detail"]
    nothing_left(network["a"], network["b"])


def test_a_ci_that_leaves_something_out_fails() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    network.handle(network["b"], ev.ReplyChunk(ci.delivery.delivery, b"later", 5))
    network.run(1.0)
    assert caller.error()["code"] == "ci_failed" and "left out" in caller.error()["detail"]


def test_a_ci_far_ahead_of_a_reader_that_reads_nothing_fails_as_busy() -> None:
    network = chain("a", "b")
    network["a"].reads = False
    ci, caller = Ci(network, "b", offsets=False), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    number = ci.delivery.delivery
    for _ in range(KEPT_MAX // 100_000 + 1):
        network.handle(network["b"], ev.ReplyChunk(number, bytes(100_000), None))
        network.run(0.01)
    network.run(1.0)
    assert caller.error()["code"] == "busy"
    assert len(caller.gather()) == 64 << 10  # what its credit was
    settled(network)
    nothing_left(network["a"], network["b"])


def test_what_the_reader_has_long_had_is_let_go_here() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b", offsets=False), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    for _ in range(80):
        network.handle(network["b"], ev.ReplyChunk(ci.delivery.delivery, bytes(100_000), None))
        network.run(0.2)
    assert len(caller.gather()) == 8_000_000
    kept = sum(len(value) for (table, _), value in network["b"].saved.items() if table == "said")
    assert kept == network["b"].node.durable.inbox.sayings.kept_bytes
    assert kept < BEHIND_MAX + (1 << 20) + 200_000


def test_rows_of_a_reply_whose_message_is_gone_are_dropped_at_the_start() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(5000)
    network.run(0.1)
    b = network["b"]
    b.saved = {place: row for place, row in b.saved.items() if place[0] == "said"}
    b = network.restart("b", "a")
    assert [key for name, key in b.saved if name == "said"] == []


def test_what_was_said_and_ended_while_nothing_led_there_comes_after_a_restart() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(3000)
    network.run(0.1)
    network.cut("a", "b")
    ci.say(5000)
    ci.end()
    network.run(1.0)
    network.restart("b", "a")
    settled(network)
    assert caller.gather() == WHOLE[:8000] and caller.result()["body"] == b""
    assert ci.attempts == [(0, 0)]
    nothing_left(network["a"], network["b"])


def test_a_crash_of_the_origin_finds_what_its_caller_had_not_read_yet() -> None:
    """Told that the caller had it, the stack of the CI keeps it nevertheless, for a while."""
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    while ci.at < len(WHOLE):
        ci.say(4000)
        network.run(0.2)
    caller.gather()
    caller.got = WHOLE[:100]
    caller.ticket = 0
    network.restart("a", "b")
    caller.ask()
    network.run(1.0)
    ci.end()
    settled(network)
    assert caller.gather() == WHOLE


def test_all_of_it_may_be_here_when_its_caller_comes_back() -> None:
    network = chain("b")
    ci, caller = Ci(network, "b"), Caller(network, "b")
    caller.ask("talker")
    network.run(0.1)
    ci.say(3000)
    network.run(0.1)
    caller.gather()
    network.restart("b")
    ci.back()
    ci.say(2000)
    ci.end()
    network.run(1.0)
    caller.ask("talker")
    network.run(1.0)
    assert caller.gather() == WHOLE[:5000] and caller.result()["body"] == b""
    nothing_left(network["b"])


@pytest.mark.parametrize("names", ["b", "ab"])
def test_a_restart_before_the_first_word_leaves_it_a_stream(names: str) -> None:
    network = chain(*names)
    ci, caller = Ci(network, "b"), Caller(network, names[0])
    caller.ask("talker@b")
    network.run(0.5)
    network.restart("b", *names[:-1])
    ci.back()
    if names == "b":
        caller.ask("talker@b")
    network.run(12.0)
    assert ci.attempts == [(0, 0), (1, 0)]
    ci.say(3000)
    ci.end()
    network.run(2.0)
    assert caller.gather() == WHOLE[:3000] and caller.result()["body"] == b""
    nothing_left(network["b"])


def test_an_empty_reply_that_ended_before_a_restart_is_told_to_who_comes_back() -> None:
    network = chain("b")
    ci, caller = Ci(network, "b"), Caller(network, "b")
    caller.ask("talker")
    network.run(0.1)
    network.restart("b")
    ci.back()
    ci.end()
    network.run(0.5)
    network.restart("b")
    caller.ask("talker")
    network.run(1.0)
    assert caller.gather() == b"" and caller.result()["body"] == b""
    nothing_left(network["b"])


@pytest.mark.parametrize("names", ["b", "ab"])
def test_a_stream_that_nobody_reads_for_a_minute_is_given_up_and_its_ci_told(names: str) -> None:
    network = chain(*names)
    ci, caller = Ci(network, "b"), Caller(network, names[0])
    caller.ask("talker@b")
    network.run(0.5)
    ci.say(1000)
    network.run(0.1)
    network.handle(network[names[0]], ev.CancelCommand(caller.ticket))
    network.run(ABANDONED_S - 5.0)
    assert network["b"].of(fx.CancelDelivery) == []
    network.run(10.0)
    [told] = network["b"].of(fx.CancelDelivery)
    assert told.delivery == ci.delivery.delivery
    settled(network)
    nothing_left(*(network[name] for name in names))


def test_a_stream_whose_origin_restarts_and_whose_caller_stays_away_is_given_up_too() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(1000)
    network.restart("a", "b")
    network.run(ABANDONED_S + 20.0)
    assert len(network["b"].of(fx.CancelDelivery)) == 1
    nothing_left(network["a"], network["b"])


def test_a_reader_that_comes_back_in_time_keeps_its_stream() -> None:
    network = chain("a", "b")
    ci, caller = Ci(network, "b"), Caller(network, "a")
    caller.ask()
    network.run(0.5)
    ci.say(1000)
    network.run(0.1)
    caller.gather()
    network.handle(network["a"], ev.CancelCommand(caller.ticket))
    network.run(ABANDONED_S - 5.0)
    caller.ask()
    network.run(20.0)
    ci.say(1000)
    ci.end()
    network.run(1.0)
    assert caller.gather() == WHOLE[:2000] and caller.result()["body"] == b""
    network.run(ABANDONED_S + 5.0)
    nothing_left(network["a"], network["b"])
