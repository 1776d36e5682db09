"""Durable messages between real nodes: accepted, carried, taken, answered, confirmed."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Kind, parse
from tektonmesh.core.messages import Forward, Message
from tektonmesh.core.policy import Terms
from tektonmesh.errors import DeliveryError, LocalError
from tests.network import Member, Network


def pair(**settings: Any) -> tuple[Network, Member, Member]:
    """a and b, linked; `echo` is registered at b and known at a."""
    network = Network("a", "b", **settings)
    network.join("a", "b")
    network["b"].register("echo", persist=True)
    network.run(1.0)
    return network, network["a"], network["b"]


def post(member: Member, target: str = "echo@b", body: bytes = b"hello", **options: Any) -> int:
    return member.send(target, body, durable=True, **options)


def state(member: Member, msg_id: str) -> str:
    shown = member.node.durable.outbox.history(bytes.fromhex(msg_id))
    assert shown is not None
    return str(shown["state"])


def rows(member: Member, table: str) -> list[bytes]:
    return [key for name, key in member.saved if name == table]


def nothing_left(*members: Member) -> None:
    """Neither in memory nor on the disk is anything that waits."""
    for member in members:
        durable = member.node.durable
        assert len(durable.outbox) == len(durable.inbox) == len(durable.courier) == 0
        assert durable.inbox.unconfirmed == len(durable.commits) == 0
        for table in ("outbox", "outnews", "inbox", "lease"):
            assert rows(member, table) == []


def lose(network: Network, *lost: Kind) -> None:
    """From now on envelopes of these kinds are settled by the network and never arrive."""

    def passes(_here: str, _there: str, message: Message) -> bool:
        return not (isinstance(message, Forward) and parse(message.envelope).header.kind in lost)

    network.passes = passes


# --- the ordinary case ---------------------------------------------------------------------------


def test_a_message_is_accepted_delivered_answered_and_confirmed() -> None:
    network, a, b = pair()
    b.echo()
    ticket = post(a)
    network.run(0.5)
    result = a.result(ticket)
    assert result["accepted"] is True
    [delivery] = b.deliveries()
    assert (delivery.msg_id.hex(), delivery.attempt) == (result["id"], 0)
    assert delivery.sender == "a"
    shown = a.node.durable.outbox.history(delivery.msg_id)
    assert shown is not None
    states = [step["state"] for step in shown["transitions"]]
    assert states == ["accepted", "sent", "received", "answered"]
    assert (shown["body"], shown["to"]) == (b"hello", "echo@b")
    nothing_left(a, b)
    assert len(rows(b, "taken")) == 1 and len(rows(a, "sent")) == 1


def test_accepted_is_said_only_once_it_is_durable() -> None:
    network, a, b = pair()
    b.echo()
    a.disk_stuck = True
    ticket = post(a)
    network.run(5.0)
    assert a.answer(ticket) is None and b.deliveries() == []
    network.write("a")
    network.run(0.5)
    assert a.result(ticket)["accepted"] is True and len(b.deliveries()) == 1


def test_a_receipt_and_the_delivery_follow_the_commit_of_the_inbox_row() -> None:
    network, a, b = pair()
    b.disk_stuck = True
    ticket = post(a)
    network.run(2.0)
    assert state(a, a.result(ticket)["id"]) == "sent" and b.deliveries() == []
    network.write("b")
    network.run(0.5)
    assert state(a, a.result(ticket)["id"]) == "received" and len(b.deliveries()) == 1


def test_a_ci_of_the_same_stack_is_reached_the_same_way() -> None:
    network = Network("a")
    a = network["a"]
    a.register("echo")
    a.echo()
    ticket = post(a, "echo")
    network.run(0.5)
    assert state(a, a.result(ticket)["id"]) == "answered"
    nothing_left(a)


def test_no_such_ci_on_this_stack_is_refused_at_once() -> None:
    network = Network("a")
    assert network["a"].error(post(network["a"], "nobody"))["code"] == "not_found"


def test_a_reply_that_is_not_wanted_is_not_carried() -> None:
    network, a, b = pair()
    b.echo()
    ticket = post(a, no_reply=True)
    network.run(0.5)
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and (shown["state"], shown["body"]) == ("answered", b"")


def test_a_long_reply_comes_in_pieces() -> None:
    network, a, b = pair()
    long = bytes(range(256)) * 4000

    def talk(delivery: fx.Deliver) -> None:
        b.chunk(delivery, long[:700_000])
        b.reply(delivery, long[700_000:])

    b.on_deliver = talk
    ticket = post(a)
    network.run(2.0)
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and shown["body"] == long
    nothing_left(a, b)


# --- what fails on the way -----------------------------------------------------------------------


def test_a_message_for_a_stack_that_is_away_waits_and_leaves_at_once_when_it_is_back() -> None:
    network, a, b = pair()
    b.echo()
    network.cut("a", "b")
    network.run(40.0)
    ticket = post(a)
    network.run(60.0)
    assert state(a, a.result(ticket)["id"]) == "accepted"
    network.join("a", "b")
    assert state(a, a.result(ticket)["id"]) == "answered"


def test_all_receipts_lost_for_thirty_seconds_cost_copies_and_no_second_delivery() -> None:
    network, a, b = pair()
    b.on_deliver = lambda _delivery: None
    lose(network, Kind.RECEIPT)
    tickets = [post(a) for _ in range(3)]
    network.run(0.1)
    ids = [a.result(ticket)["id"] for ticket in tickets]
    network.run(30.0)
    assert [state(a, one) for one in ids] == ["sent"] * 3
    shown = a.node.durable.outbox.history(bytes.fromhex(ids[0]))
    assert shown is not None and 4 <= shown["copies"] <= 12
    assert len(b.deliveries()) == 3
    network.passes = lambda *_: True
    network.run(12.0)
    assert [state(a, one) for one in ids] == ["received"] * 3
    for delivery in b.deliveries():
        b.reply(delivery, b"late")
    network.run(1.0)
    assert [state(a, one) for one in ids] == ["answered"] * 3
    assert len(b.deliveries()) == 3
    nothing_left(a, b)


def test_a_lost_reply_is_carried_again_until_it_is_confirmed() -> None:
    network, a, b = pair()
    b.echo()
    lose(network, Kind.REPLY)
    ticket = post(a)
    network.run(5.0)
    assert state(a, a.result(ticket)["id"]) == "received"
    assert b.node.durable.inbox.unconfirmed == 1
    network.passes = lambda *_: True
    network.run(12.0)
    assert state(a, a.result(ticket)["id"]) == "answered"
    nothing_left(a, b)


def test_a_reply_whose_confirmation_is_lost_is_confirmed_again() -> None:
    network, a, b = pair()
    b.echo()
    lose(network, Kind.RECEIPT)
    ticket = post(a)
    network.run(3.0)
    assert state(a, a.result(ticket)["id"]) == "answered"
    assert b.node.durable.inbox.unconfirmed == 1
    network.passes = lambda *_: True
    network.run(12.0)
    nothing_left(a, b)


def test_an_end_that_is_not_durable_is_not_confirmed() -> None:
    network, a, b = pair()
    ticket = post(a)
    network.run(0.5)
    a.disk_stuck = True
    b.reply(b.deliveries()[0], b"done")
    network.run(20.0)
    assert state(a, a.result(ticket)["id"]) == "answered"
    assert b.node.durable.inbox.unconfirmed == 1
    a = network.restart("a", "b")
    network.run(12.0)
    assert state(a, rows(a, "sent")[0].hex()) == "answered"
    nothing_left(a, b)


def test_a_relay_that_acknowledges_and_discards_is_gone_round() -> None:
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "d")
    network.join("a", "c", "d")
    network["d"].register("echo")
    network["d"].echo()
    network.run(2.0)
    used: list[str] = []

    def discards(here: str, _there: str, message: Message) -> bool:
        """The relay that got the message first passes nothing on."""
        if not isinstance(message, Forward) or here not in "bc":
            return True
        if parse(message.envelope).header.kind == Kind.REQUEST:
            used.append(here)
        return here != used[0]

    network.passes = discards
    ticket = post(network["a"], "echo@d")
    network.run(20.0)
    assert state(network["a"], network["a"].result(ticket)["id"]) == "answered"
    assert sorted(dict.fromkeys(used)) == ["b", "c"]


# --- restarts ------------------------------------------------------------------------------------


def test_a_message_outlives_its_origin() -> None:
    network, a, b = pair()
    network.cut("a", "b")
    ticket = post(a)
    network.run(0.1)
    msg_id = a.result(ticket)["id"]
    a = network.restart("a")
    assert state(a, msg_id) == "accepted"
    b.echo()
    network.join("a", "b")
    network.run(2.0)
    assert state(a, msg_id) == "answered" and len(b.deliveries()) == 1
    nothing_left(a, b)


@pytest.mark.hostile("replay-after-restart")
def test_a_message_that_was_received_is_not_sent_again_after_a_restart_and_its_reply_comes() -> (
    None
):
    network, a, b = pair()
    ticket = post(a)
    network.run(0.5)
    msg_id = a.result(ticket)["id"]
    a = network.restart("a", "b")
    assert state(a, msg_id) == "received" and len(a.node.durable.courier) == 0
    b.reply(b.deliveries()[0], b"done")
    network.run(1.0)
    assert state(a, msg_id) == "answered"


def test_a_message_in_the_hands_of_a_ci_is_given_again_with_its_attempt_raised() -> None:
    network, a, b = pair()
    ticket = post(a)
    network.run(0.5)
    b = network.restart("b", "a")
    assert b.deliveries() == []
    b.register("echo", persist=True)
    network.run(0.1)
    [delivery] = b.deliveries()
    assert (delivery.attempt, delivery.body) == (1, b"hello")
    b.reply(delivery, b"done")
    network.run(1.0)
    assert state(a, a.result(ticket)["id"]) == "answered"


def test_an_answer_outlives_its_stack() -> None:
    network, a, b = pair()
    b.echo()
    lose(network, Kind.REPLY)
    ticket = post(a)
    network.run(1.0)
    network.passes = lambda *_: True
    b = network.restart("b", "a")
    network.run(3.0)
    assert state(a, a.result(ticket)["id"]) == "answered" and b.deliveries() == []
    nothing_left(a, b)


@pytest.mark.hostile("replay-after-restart")
def test_a_copy_that_comes_after_the_end_is_known_by_its_time() -> None:
    network, a, b = pair()
    b.echo()
    copies: list[Forward] = []

    def keep(here: str, _there: str, message: Message) -> None:
        if here == "a" and isinstance(message, Forward):
            kind = parse(message.envelope).header.kind
            copies.extend([message] * (kind == Kind.REQUEST))

    network.on_message = keep
    post(a)
    network.run(1.0)
    post(a)
    network.run(1.0)
    assert len(rows(b, "taken")) == 1, "the second message took the mark of the first along"
    link = next(link for (name, link) in network._ends if name == "b")
    late = Forward(1 << 20, copies[0].envelope)
    network.handle(b, ev.Received(link, (late,)))
    network.run(1.0)
    assert len(b.deliveries()) == 2 and len(rows(b, "inbox")) == 0
    b = network.restart("b", "a")
    link = next(link for (name, link) in network._ends if name == "b")
    network.handle(b, ev.Received(link, (Forward(1 << 21, copies[0].envelope),)))
    network.run(1.0)
    assert b.deliveries() == []


def test_a_clock_that_was_set_back_makes_no_id_that_sorts_before_an_older_one() -> None:
    network, a, b = pair()
    b.echo()
    ticket = post(a)
    network.run(1.0)
    first = a.result(ticket)["id"]
    a = network.restart("a", "b")
    a.node.clock.now_ms = lambda: int(first[:12], 16) - 3_600_000  # type: ignore[method-assign]
    ticket = post(a)
    network.run(1.0)
    assert a.result(ticket)["id"][:12] >= first[:12]
    assert len(b.deliveries()) == 2


# --- CIs -----------------------------------------------------------------------------------------


def test_a_message_waits_for_a_ci_that_was_here_lately() -> None:
    network, a, b = pair()
    b.do(lambda t: ev.DeregisterCi(t, "echo", None, True))
    network.run(60.0)
    ticket = post(a)
    network.run(60.0)
    assert state(a, a.result(ticket)["id"]) == "received" and b.deliveries() == []
    b = network.restart("b", "a")
    b.echo()
    b.register("echo")
    network.run(1.0)
    assert state(a, a.result(ticket)["id"]) == "answered"


def test_a_message_does_not_reach_a_ci_that_came_back_as_a_private_one() -> None:
    network, a, b = pair()
    b.do(lambda t: ev.DeregisterCi(t, "echo", None, True))
    network.run(10.0)
    ticket = post(a)
    network.run(10.0)
    b.echo()
    b.register("echo", share="private")
    network.run(5.0)
    assert b.deliveries() == []
    assert state(a, a.result(ticket)["id"]) == "failed"
    nothing_left(a, b)


def test_a_ci_that_nobody_knows_is_refused_for_good_by_its_stack() -> None:
    network, a, b = pair()
    ticket = post(a, "nobody@b")
    network.run(2.0)
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and shown["state"] == "failed"
    assert (shown["error"]["code"], shown["error"]["outcome"]) == ("not_found", "released")
    nothing_left(a, b)


def test_a_day_after_it_went_a_ci_is_not_waited_for() -> None:
    network, a, b = pair(ci_memory_s=100.0)
    b.do(lambda t: ev.DeregisterCi(t, "echo", None, True))
    network.run(101.0)
    ticket = post(a)
    network.run(2.0)
    assert state(a, a.result(ticket)["id"]) == "failed"


def test_a_ci_that_is_lost_five_times_makes_a_dead_letter() -> None:
    network, a, b = pair()

    def crash(delivery: fx.Deliver) -> None:
        failed = ev.ReplyFailed(delivery.delivery, "ci_failed", "It ended.", lost=True)
        network.handle(b, failed)

    b.on_deliver = crash
    ticket = post(a)
    network.run(60.0)
    assert [delivery.attempt for delivery in b.deliveries()] == [0, 1, 2, 3, 4]
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and shown["state"] == "failed"
    assert shown["error"]["outcome"] == "indeterminate"
    assert "5 times" in shown["error"]["detail"]
    [letter] = b.notices("dead_letter")
    assert (letter["ci"], letter["sender"]) == ("echo", "a")
    nothing_left(a, b)


def test_a_lease_that_runs_out_gives_the_message_again() -> None:
    network, a, b = pair(delivery_lease_s=10.0)
    post(a)
    network.run(11.0)
    assert [delivery.attempt for delivery in b.deliveries()] == [0, 1]
    assert len(b.of(fx.CancelDelivery)) == 1


@pytest.mark.parametrize("code", ["ci_offline", "busy"])
def test_a_ci_that_takes_nothing_now_gets_it_later_as_a_first_attempt(code: str) -> None:
    network, a, b = pair()
    post(a)
    network.run(0.1)
    b.fail(b.deliveries()[0], code)
    network.run(1.0)
    assert [delivery.attempt for delivery in b.deliveries()] == [0, 0]


def test_what_a_ci_says_no_to_has_failed() -> None:
    network, a, b = pair()
    ticket = post(a)
    network.run(0.1)
    b.fail(b.deliveries()[0], "ci_failed", "It would not.")
    network.run(1.0)
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None
    assert (shown["state"], shown["error"]["detail"]) == ("failed", "It would not.")


def test_a_ci_has_a_few_messages_at_a_time_in_the_order_they_came() -> None:
    network, a, b = pair()
    for number in range(20):
        post(a, body=b"%d" % number)
    network.run(1.0)
    assert [int(delivery.body) for delivery in b.deliveries()] == list(range(16))
    for delivery in b.deliveries()[:4]:
        b.reply(delivery, b"")
    network.run(0.1)
    assert len(b.deliveries()) == 20


def test_a_slow_ci_causes_no_copies() -> None:
    network, a, _b = pair()
    ticket = post(a)
    network.run(300.0)
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and (shown["state"], shown["copies"]) == ("received", 1)


# --- time ----------------------------------------------------------------------------------------


def test_a_message_expires_at_its_origin_and_its_sender_can_know() -> None:
    network, a, b = pair()
    network.cut("a", "b")
    network.run(40.0)
    ticket = post(a, ttl_s=100.0)
    network.run(101.0)
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and shown["state"] == "expired"
    assert (shown["error"]["code"], shown["error"]["outcome"]) == ("expired", "released")
    nothing_left(a)
    network.join("a", "b")
    assert b.deliveries() == []


def test_a_message_expires_at_its_destination_and_its_mark_an_hour_later() -> None:
    network, a, b = pair()
    b.do(lambda t: ev.DeregisterCi(t, "echo", None, True))
    ticket = post(a, ttl_s=50.0)
    network.run(60.0)
    assert state(a, a.result(ticket)["id"]) == "expired"
    nothing_left(a, b)
    assert len(rows(b, "taken")) == 1
    network.run(3700.0)
    assert rows(b, "taken") == [] and b.node.durable.inbox.marks == 0


def test_a_lease_ends_with_the_message() -> None:
    network, a, b = pair()
    ticket = post(a, ttl_s=20.0)
    network.run(25.0)
    assert len(b.of(fx.CancelDelivery)) == 1
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and shown["error"]["outcome"] == "indeterminate"
    nothing_left(a, b)


# --- bounds and refusals -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [{"outbox_per_stack": 2}, {"outbox_messages": 2}, {"outbox_bytes": 1200}],
    ids=["of one stack", "of all", "bytes"],
)
def test_a_full_outbox_refuses_and_says_when_to_try_again(settings: dict[str, int]) -> None:
    network, a, _b = pair(**settings)
    network.cut("a", "b")
    network.run(40.0)
    accepted = [post(a), post(a)]
    network.run(0.1)
    error = a.error(post(a))
    assert (error["code"], error["outcome"], error["retry_after_s"]) == ("busy", "released", 60.0)
    assert all(a.result(ticket)["accepted"] for ticket in accepted)
    assert len(a.node.durable.outbox) == 2


def test_a_full_inbox_leaves_the_message_with_its_origin() -> None:
    network, a, b = pair(inbox_messages=1)
    tickets = [post(a), post(a)]
    network.run(3.0)
    states = sorted(state(a, a.result(ticket)["id"]) for ticket in tickets)
    assert states == ["received", "sent"]
    b.echo()
    b.reply(b.deliveries()[0], b"")
    network.run(15.0)
    assert [state(a, a.result(ticket)["id"]) for ticket in tickets] == ["answered"] * 2


def test_a_disk_that_refuses_is_told_and_nothing_is_accepted() -> None:
    network, a, b = pair()
    b.echo()
    a.disk_stuck = True
    ticket = post(a)
    network.handle(a, ev.StoreTrouble(True))
    error = a.error(ticket)
    assert (error["code"], error["retry"], error["retry_after_s"]) == ("store", "later", 30.0)
    assert a.error(post(a))["code"] == "store"
    network.write("a")
    network.handle(a, ev.StoreTrouble(False))
    network.run(1.0)
    assert rows(a, "outbox") == [] and b.deliveries() == []
    network.run(0.1)
    ticket = post(a)
    network.run(1.0)
    assert a.result(ticket)["accepted"] and len(b.deliveries()) == 1


def test_a_destination_whose_disk_refuses_takes_nothing_until_it_can() -> None:
    network, a, b = pair()
    b.echo()
    b.disk_stuck = True
    ticket = post(a)
    network.run(0.1)
    network.handle(b, ev.StoreTrouble(True))
    network.run(5.0)
    assert b.deliveries() == [] and state(a, a.result(ticket)["id"]) == "sent"
    network.write("b")
    network.handle(b, ev.StoreTrouble(False))
    network.run(15.0)
    assert state(a, a.result(ticket)["id"]) == "answered" and len(b.deliveries()) == 1


# --- keys and callers ----------------------------------------------------------------------------


def test_a_key_is_the_same_message_again_also_after_a_restart() -> None:
    network, a, b = pair()
    b.echo()
    first = a.send("echo@b", b"hi", key="k")
    network.run(0.5)
    assert a.result(first)["body"] == b"hi" and a.result(first)["path"] == ["a", "b"]
    a = network.restart("a", "b")
    again = a.send("echo@b", b"hi", key="k")
    assert a.result(again)["id"] == rows(a, "sent")[0].hex()
    assert a.result(again)["body"] == b"hi"
    durably = post(a, body=b"hi", key="k")
    assert a.result(durably)["accepted"]
    assert a.error(a.send("echo@b", b"other", key="k"))["code"] == "conflict"
    assert len(b.deliveries()) == 1


def test_a_caller_that_repeats_a_key_waits_for_the_first() -> None:
    network, a, b = pair()
    first, second = (a.send("echo@b", b"hi", key="k") for _ in range(2))
    network.run(0.5)
    b.reply(b.deliveries()[0], b"done")
    network.run(0.5)
    assert a.result(first)["body"] == a.result(second)["body"] == b"done"
    assert len(b.deliveries()) == 1


def test_a_caller_that_waits_is_told_in_time_and_the_message_is_over_with_it() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", b"hi", key="k", timeout_s=5.0)
    network.run(6.0)
    error = a.error(ticket)
    assert (error["code"], error["outcome"]) == ("timeout", "indeterminate")
    network.run(2.0)
    nothing_left(a, b)


def test_a_caller_that_waits_is_told_soon_that_nothing_leads_there() -> None:
    network, a, _b = pair()
    network.cut("a", "b")
    network.run(40.0)
    ticket = a.send("echo@b", b"hi", key="k")
    network.run(2.5)
    error = a.error(ticket)
    assert (error["code"], error["outcome"]) == ("unreachable", "released")
    nothing_left(a)
    again = a.send("echo@b", b"hi", key="k")
    assert a.answer(again) is None, "what was not delivered may be tried again"


def test_a_caller_that_goes_away_leaves_the_message_to_be_repeated() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", b"hi", key="k")
    network.run(0.1)
    network.handle(a, ev.CancelCommand(ticket))
    assert a.error(ticket)["code"] == "cancelled"
    again = a.send("echo@b", b"hi", key="k")
    b.reply(b.deliveries()[0], b"done")
    network.run(0.5)
    assert a.result(again)["body"] == b"done"


def test_a_stack_that_leaves_keeps_what_it_accepted() -> None:
    network, a, _b = pair()
    network.cut("a", "b")
    ticket, waiting = post(a), a.send("echo@b", b"x", key="k")
    network.run(0.1)
    a.do(ev.Leave)
    assert a.error(waiting)["code"] == "leaving"
    assert a.error(post(a))["code"] == "leaving"
    assert a.result(ticket)["accepted"] and len(rows(a, "outbox")) == 2


def test_a_row_that_means_nothing_is_dropped_and_told() -> None:
    network, a, _b = pair()
    for table in ("outbox", "outnews", "sent", "inbox", "taken", "lease", "low", "gone"):
        a.saved[table, b"\x01" * 16] = b"\0\0\0\x01\xc1"
    a.saved["outbox", b"\x02" * 16] = b"\0\0\0\x01\x90"
    a.saved["taken", b"\x02" * 48] = b"\0\0\0\x01\x90"
    a.saved["sent", b"\x02" * 16] = b"\0\0\0\x01\x90"
    a.saved["gone", b"\x02"] = b"\0\0\0\x01\x90"
    a.saved["low", b"\x02" * 32] = b"\0\0\0\x01\x90"
    a.saved["inbox", b"\x03" * 48] = b"\0\0\0\x01\x90"
    a.saved["lease", b"\x03" * 48] = b"\0\0\0\x01\x90"
    a = network.restart("a", "b")
    assert len(a.notices("message_row_dropped")) == 14
    network.run(0.1)
    assert {table for table, _ in a.saved} & {"outbox", "taken", "sent", "gone", "lease"} == set()


def test_a_refusing_disk_leaves_what_is_known_of_ended_messages() -> None:
    network, a, b = pair()
    b.echo()
    post(a)
    network.run(1.0)
    post(a)
    network.run(1.0)
    low = b.saved["low", a.id]
    b.disk_stuck = True
    post(a)
    network.run(0.1)
    network.handle(b, ev.StoreTrouble(True))
    network.write("b")
    network.handle(b, ev.StoreTrouble(False))
    assert b.saved["low", a.id] >= low
    network.run(15.0)
    assert len(b.deliveries()) == 3
    nothing_left(a, b)


def test_an_origin_can_fill_no_more_than_its_part() -> None:
    network, a, b = pair(marks_per_stack=2)
    for _ in range(4):
        post(a)
    post(a, "nobody@b")
    network.run(5.0)
    assert b.node.durable.inbox.marks == 2 and len(b.deliveries()) == 2
    b.register("other")
    ticket = post(b, "other")
    network.run(0.1)
    assert state(b, b.result(ticket)["id"]) == "received"


def test_a_message_whose_time_is_over_when_it_is_written_is_not_handed_out() -> None:
    network, a, b = pair()
    b.disk_stuck = True
    ticket = post(a, ttl_s=2.0)
    network.run(3.0)
    network.write("b")
    network.run(5.0)
    assert b.deliveries() == []
    assert state(a, a.result(ticket)["id"]) == "expired"
    nothing_left(a, b)


def test_another_prekey_is_used_when_the_destination_asks_for_it() -> None:
    network, a, b = pair()
    b.echo()
    asked: list[int] = []
    honest = b.keys.open

    def forgot(static: bytes, key_id: bytes, aad: bytes, sealed: bytes) -> bytes:
        if not asked:
            asked.append(1)
            raise LocalError("This key is not ours.", code="not_found")
        return honest(static, key_id, aad, sealed)

    b.keys.open = forgot  # type: ignore[method-assign]
    ticket = post(a)
    network.run(0.25)
    assert state(a, a.result(ticket)["id"]) == "answered"


def test_a_stack_that_is_busy_with_one_source_is_asked_later() -> None:
    network, a, b = pair(source_rate_per_s=1.0)
    b.echo()
    tickets = [post(a) for _ in range(6)]
    network.run(30.0)
    assert [state(a, a.result(ticket)["id"]) for ticket in tickets] == ["answered"] * 6


def test_a_message_that_can_never_be_sent_fails_with_its_reason() -> None:
    network, a, b = pair(body_size_max=300_000)
    ticket = post(a, body=b"x" * 262_000)
    follows = post(a, body=b"small")
    network.run(1.0)
    shown = a.node.durable.outbox.history(bytes.fromhex(a.result(ticket)["id"]))
    assert shown is not None and shown["state"] == "failed"
    assert (shown["error"]["code"], shown["error"]["outcome"]) == ("too_large", "released")
    assert state(a, a.result(follows)["id"]) == "received" and len(b.deliveries()) == 1


def test_a_message_with_a_false_sender_is_refused() -> None:
    network, a, b = pair()
    a.node.durable.outbox.accept(
        ev.SendMessage(99, "echo@b", b"x", "text/plain", "a\nb", 5.0, False, {"durable": True}),
        b.id,
        "echo",
        5.0,
    )
    network.handle(a, ev.Tick())
    network.run(1.0)
    assert state(a, a.result(99)["id"]) == "failed" and b.deliveries() == []


def test_what_follows_a_deregistration_is_forgotten_when_the_ci_is_back() -> None:
    _network, _a, b = pair()
    b.do(lambda t: ev.DeregisterCi(t, "echo", None, True))
    assert rows(b, "gone") == [b"echo"]
    b.register("echo")
    assert rows(b, "gone") == []


def test_only_so_many_cis_that_went_are_remembered() -> None:
    network, _a, b = pair(ci_max=3)
    b.do(lambda t: ev.DeregisterCi(t, "echo", None, True))
    for name in ("one", "two", "three", "four"):
        b.register(name)
        b.do(lambda t, name=name: ev.DeregisterCi(t, name, None, True))  # type: ignore[misc]
    assert sorted(rows(b, "gone")) == [b"four", b"three", b"two"]
    b = network.restart("b", "a")
    assert ("two", True) in b.node.durable.known and ("one", True) not in b.node.durable.known


def test_a_private_ci_is_no_ci_for_other_stacks() -> None:
    network, a, b = pair()
    b.register("shy", share="private")
    ticket = post(a, "shy@b")
    local = post(b, "shy")
    network.run(1.0)
    assert state(a, a.result(ticket)["id"]) == "failed"
    assert state(b, b.result(local)["id"]) == "received"
    b.do(lambda t: ev.DeregisterCi(t, "shy", None, True))
    again = post(a, "shy@b")
    network.run(1.0)
    assert state(a, a.result(again)["id"]) == "failed"


# --- the window ----------------------------------------------------------------------------------


def test_no_more_than_a_window_is_on_its_way_and_the_rest_follows_in_order() -> None:
    network, a, b = pair(window_messages=2)
    lose(network, Kind.RECEIPT)
    for number in range(4):
        post(a, body=b"%d" % number)
    network.run(1.0)
    assert [delivery.body for delivery in b.deliveries()] == [b"0", b"1"]
    network.passes = lambda *_: True
    network.run(12.0)
    assert [delivery.body for delivery in b.deliveries()] == [b"0", b"1", b"2", b"3"]


def test_what_waits_behind_a_window_expires_in_its_time() -> None:
    network, a, b = pair(window_messages=1)
    lose(network, Kind.RECEIPT)
    first, second = post(a), post(a, ttl_s=5.0)
    network.run(6.0)
    assert state(a, a.result(second)["id"]) == "expired"
    network.passes = lambda *_: True
    network.run(12.0)
    assert state(a, a.result(first)["id"]) == "received" and len(b.deliveries()) == 1


def test_a_copy_goes_another_way_at_once_when_its_way_breaks() -> None:
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "d")
    network.join("a", "c", "d")
    network["d"].register("echo")
    network.run(2.0)
    network.passes = lambda here, _there, message: (
        not (
            isinstance(message, Forward)
            and here == "d"
            and parse(message.envelope).header.kind == Kind.RECEIPT
        )
    )
    ticket = post(network["a"], "echo@d")
    network.run(0.2)
    network.passes = lambda *_: True
    msg_id = network["a"].result(ticket)["id"]
    assert state(network["a"], msg_id) == "sent"
    used = network["a"].node.durable.outbox.find(bytes.fromhex(msg_id))
    assert used is not None
    middle = next(name for name in "bc" if network[name].id in used.path)
    network.cut("a", middle)
    network.run(0.15)
    assert state(network["a"], msg_id) == "received"


def test_a_stack_that_is_away_for_long_costs_one_timer() -> None:
    network, a, _b = pair()
    network.cut("a", "b")
    network.run(40.0)
    for _ in range(50):
        post(a)
    network.run(1.0)
    before = a.node.env.deadlines._seq
    network.run(120.0)
    assert a.node.env.deadlines._seq - before < 200


def test_a_stack_whose_keys_are_not_known_is_tried_again() -> None:
    network, a, b = pair()
    b.echo()
    honest = a.node.deliveries.sealer._key_of
    missing: list[int] = []

    def key_of(to: bytes) -> Any:
        if len(missing) < 3:
            missing.append(1)
            raise DeliveryError("The keys of the stack are not known here yet.")
        return honest(to)

    a.node.deliveries.sealer._key_of = key_of  # type: ignore[method-assign]
    ticket = post(a)
    network.run(20.0)
    assert state(a, a.result(ticket)["id"]) == "answered"


# --- the policy ----------------------------------------------------------------------------------


def test_a_stack_that_may_not_speak_to_a_ci_leaves_no_message_for_it() -> None:
    network, a, b = pair()
    b.node.rights.set_terms(a.node.env.me, Terms(mode="read-only"))
    ticket = post(a)
    network.run(5.0)
    assert state(a, a.result(ticket)["id"]) == "failed"
    assert b.deliveries() == [] and rows(b, "inbox") == []


def test_callers_here_leave_no_message_where_our_own_terms_keep_them_out() -> None:
    network, a, b = pair()
    a.node.rights.set_terms(b.node.env.me, Terms(imports=()))
    ticket = post(a)
    network.run(1.0)
    assert a.error(ticket)["code"] == "refused" and rows(a, "outbox") == []


def test_the_word_that_an_answer_is_safe_goes_round_a_relay_that_swallows_it() -> None:
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "d")
    network.join("a", "c", "d")
    network["d"].register("echo")
    network.run(2.0)
    a, d = network["a"], network["d"]
    d.echo()
    route = a.node.forwarding.path
    liar: list[str] = []

    def passes(here: str, there: str, message: object) -> bool:
        """The first relay that a tells of its receipt swallows all of these from then on."""
        if isinstance(message, Forward) and here == "a" and there in "bc":
            kind = parse(message.envelope).header.kind
            if kind == Kind.RECEIPT:
                liar.append(there)
                return there != liar[0]
        return True

    network.passes = passes
    post(a, "echo@d")
    network.run(10.0)
    assert d.node.durable.inbox.unconfirmed == 0
    assert len(dict.fromkeys(liar)) == 2 and route(d.id)
