"""Messages from one stack to another and back, between real nodes."""

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Kind, parse
from tektonmesh.core.messages import Forward, Message
from tests.network import Member, Network


def pair(**settings: object) -> tuple[Network, Member, Member]:
    """a and b, linked; `echo` is registered at b and known at a."""
    network = Network("a", "b", **settings)  # type: ignore[arg-type]
    network.join("a", "b")
    network["b"].register("echo")
    network.run(1.0)
    return network, network["a"], network["b"]


def kinds(network: Network) -> list[tuple[str, Kind]]:
    """From now on, who sent an envelope of which kind to a neighbour."""
    seen: list[tuple[str, Kind]] = []

    def look(here: str, _there: str, message: Message) -> None:
        if isinstance(message, Forward):
            seen.append((here, Kind(parse(message.envelope).header.kind)))

    network.on_message = look
    return seen


# --- the ordinary case ---------------------------------------------------------------------------


def test_a_message_reaches_a_ci_four_hops_away_and_its_reply_comes_back() -> None:
    network = Network("a", "b", "c", "d", "e")
    network.join("a", "b", "c", "d", "e")
    network["e"].register("Echo")
    network["e"].echo()
    network.run(1.0)
    ticket = network["a"].send("echo@e", b"hi", sender="numa")
    network.run(0.1)
    result = network["a"].result(ticket)
    assert result["body"] == b"hi" and result["content_type"] == "text/plain"
    assert (result["to"], result["from"]) == ("echo@e", "numa@a")
    assert result["path"] == ["a", "b", "c", "d", "e"]
    assert [hop["stack"] for hop in result["hops"]] == ["a", "b", "c", "d"]
    assert result["ms"] == pytest.approx(8.0)
    [delivery] = network["e"].deliveries()
    assert (delivery.ci, delivery.sender, delivery.body) == ("Echo", "numa@a", b"hi")
    assert delivery.how == {"kind": "attached", "connection": 1}
    assert delivery.msg_id.hex() == result["id"]


def test_relays_never_hold_the_text() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network["c"].register("echo")
    network["c"].echo()
    network.run(1.0)
    secret = b"the text that nobody on the way may read"
    carried: list[bytes] = []
    network.on_message = lambda _here, _there, m: (
        carried.append(m.envelope) if isinstance(m, Forward) else None
    )
    ticket = network["a"].send("echo@c", secret, sender="numa")
    network.run(0.1)
    assert network["a"].result(ticket)["body"] == secret
    assert len(carried) == 4
    for envelope in carried:
        assert secret not in envelope and b"numa" not in envelope and b"echo" not in envelope


def test_a_quick_reply_costs_two_envelopes_and_no_receipt() -> None:
    network, a, b = pair()
    b.echo()
    seen = kinds(network)
    a.send("echo@b")
    network.run(1.0)
    assert seen == [("a", Kind.REQUEST), ("b", Kind.REPLY)]


def test_a_slow_ci_costs_a_receipt_and_no_second_copy() -> None:
    network, a, b = pair()
    seen = kinds(network)
    ticket = a.send("echo@b", timeout_s=10.0)
    network.run(4.0)
    assert seen == [("a", Kind.REQUEST), ("b", Kind.RECEIPT)]
    b.reply(b.deliveries()[0], b"at last")
    network.run(0.1)
    assert a.result(ticket)["body"] == b"at last"
    assert a.node.requests.pending == b.node.deliveries.open == 0


def test_a_person_sends_as_their_stack() -> None:
    network, a, b = pair()
    a.send("echo@b")
    network.run(0.1)
    assert b.deliveries()[0].sender == "a"


def test_names_are_compared_without_case() -> None:
    network, a, b = pair()
    b.echo()
    ticket = a.send("ECHO@B")
    network.run(0.1)
    assert a.result(ticket)["to"] == "echo@b"


def test_what_a_message_took_is_counted_and_told() -> None:
    network, a, b = pair()
    b.echo()
    a.send("echo@b")
    a.send("nobody@b")
    network.run(0.1)
    assert (a.node.requests.sent, a.node.requests.failed) == (1, 0)
    [done] = a.notices("message_done")
    assert done == {"to_stack": "b", "ms": pytest.approx(2.0), "ok": True, "hops": 1}


# --- answers at once -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("nobody@b", "not_found"),
        ("nobody", "not_found"),
        ("echo@nowhere", "not_found"),
        ("@b", "bad_request"),
        ("", "bad_request"),
        ("shy@b", "not_found"),
        ("closed@b", "not_found"),
        ("asleep@b", "ci_offline"),
    ],
)
def test_what_cannot_be_sent_is_answered_from_the_replica_at_once(target: str, code: str) -> None:
    network, a, b = pair(ci_detach_grace_s=1e6)
    b.register("shy", share="private")
    b.register("closed", share="partners")
    asleep = ev.RegisterCi(99, b.deliveries and _spec("asleep"), 7, None, True)
    network.handle(b, asleep)
    network.handle(b, ev.Detached(7))
    network.run(1.0)
    seen = kinds(network)
    ticket = a.send(target)
    assert a.error(ticket)["code"] == code
    assert seen == []
    assert a.node.requests.pending == 0


def _spec(name: str) -> dict[str, object]:
    from tests.network import spec

    return spec(name)


def test_a_body_over_the_limit_is_refused() -> None:
    _network, a, _ = pair(body_size_max=1000)
    ticket = a.send("echo@b", bytes(1001))
    assert a.error(ticket)["code"] == "too_large"
    assert a.answer(a.send("echo@b", bytes(1000))) is None


def test_an_error_leaves_nothing_behind() -> None:
    _, a, _ = pair()
    before = len(a.node.env.deadlines)
    a.send("nobody@b")
    assert len(a.node.env.deadlines) == before


# --- what the destination says -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "shown", "outcome"),
    [
        ("ci_failed", "ci_failed", "indeterminate"),
        ("busy", "busy", "released"),
        ("ci_offline", "ci_offline", "released"),
        ("no such code", "ci_failed", "indeterminate"),
    ],
)
def test_a_failure_of_the_ci_reaches_the_caller_with_its_outcome(
    code: str, shown: str, outcome: str
) -> None:
    network, a, b = pair()
    b.on_deliver = lambda delivery: b.fail(delivery, code, "It broke.")
    ticket = a.send("echo@b")
    network.run(0.1)
    error = a.error(ticket)
    assert (error["code"], error["detail"], error["outcome"]) == (shown, "It broke.", outcome)
    assert a.node.requests.failed == 1


def test_a_ci_that_went_private_meanwhile_is_not_found() -> None:
    network, a, b = pair()
    network.passes = lambda _here, _there, m: isinstance(m, Forward)
    b.register("echo", share="private")
    ticket = a.send("echo@b")
    network.run(0.1)
    assert a.error(ticket)["code"] == "not_found"
    assert b.deliveries() == []


def test_a_full_ci_answers_busy() -> None:
    network, a, b = pair(inbox_per_ci_max=2)
    tickets = [a.send("echo@b") for _ in range(3)]
    network.run(0.1)
    assert a.error(tickets[2])["code"] == "busy"
    assert a.error(tickets[2])["outcome"] == "released"
    assert b.node.deliveries.open == 2


def test_the_destination_ends_what_takes_too_long() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", timeout_s=2.0)
    network.run(2.5)
    assert a.error(ticket)["code"] == "timeout"
    assert a.error(ticket)["outcome"] == "indeterminate"
    assert b.of(fx.CancelDelivery) == [fx.CancelDelivery(b.deliveries()[0].delivery, "timeout")]
    assert b.node.deliveries.open == 0


def test_a_reply_after_the_end_is_ignored() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", timeout_s=1.0)
    network.run(2.0)
    b.reply(b.deliveries()[0], b"late")
    b.chunk(b.deliveries()[0], b"late")
    b.fail(b.deliveries()[0], "ci_failed")
    network.run(1.0)
    assert a.error(ticket)["code"] == "timeout"


def test_a_timeout_beyond_the_limit_is_cut_and_none_means_the_default() -> None:
    network, a, b = pair(request_timeout_s=7.0, request_timeout_max_s=9.0)
    for timeout_s in (100.0, 0.0, -1.0):
        a.send("echo@b", timeout_s=timeout_s)
    network.run(0.1)
    assert [d.deadline_s for d in b.deliveries()] == [9.0, 7.0, 7.0]


# --- cancelling ----------------------------------------------------------------------------------


def test_a_cancelled_message_is_cancelled_at_its_ci_as_well() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b")
    network.run(0.1)
    network.handle(a, ev.CancelCommand(ticket))
    assert a.error(ticket)["code"] == "cancelled"
    network.run(0.1)
    assert b.of(fx.CancelDelivery) == [fx.CancelDelivery(b.deliveries()[0].delivery, "cancelled")]
    assert a.node.requests.pending == b.node.deliveries.open == 0
    assert len(a.node.deliveries.posts) == 0
    b.reply(b.deliveries()[0], b"too late")
    network.run(1.0)
    assert a.error(ticket)["code"] == "cancelled"
    assert a.notices("message_done") == []


def test_a_cancel_that_overtakes_its_message_prevents_the_delivery() -> None:
    network, a, b = pair()
    held: list[Message] = []

    def hold_requests(_here: str, _there: str, message: Message) -> bool:
        if isinstance(message, Forward) and message.envelope[1] == Kind.REQUEST:
            held.append(message)
            return False
        return True

    network.passes = hold_requests
    ticket = a.send("echo@b")
    network.run(0.05)
    network.handle(a, ev.CancelCommand(ticket))
    network.run(0.1)
    [link] = b.node.neighbours.links
    network.handle(b, ev.Received(link, (held[0],)))
    assert b.deliveries() == []


def test_a_cancel_of_a_message_that_waits_for_room_tells_nobody() -> None:
    network, a, _b = pair(window_messages=1)
    first, second = a.send("echo@b"), a.send("echo@b")
    seen = kinds(network)
    network.handle(a, ev.CancelCommand(second))
    network.run(0.01)
    assert a.error(second) == a.error(second) | {"code": "cancelled", "outcome": "released"}
    assert (("a", Kind.CANCEL)) not in seen
    assert a.answer(first) is None


def test_cancelling_what_nobody_waits_for_does_nothing() -> None:
    network, a, _ = pair()
    before = len(a.effects)
    network.handle(a, ev.CancelCommand(12345))
    assert a.effects[before:] == []


# --- one way -------------------------------------------------------------------------------------


def test_a_one_way_message_is_accepted_once_its_destination_has_it() -> None:
    network, a, b = pair()
    ticket = a.send("echo@b", no_reply=True)
    network.run(0.1)
    result = a.result(ticket)
    assert result == {"id": b.deliveries()[0].msg_id.hex(), "to": "echo@b", "accepted": True}
    seen = kinds(network)
    b.chunk(b.deliveries()[0], b"nobody")
    b.reply(b.deliveries()[0], b"listens")
    network.run(1.0)
    assert seen == []
    assert b.node.deliveries.open == 0


def test_a_one_way_message_that_failed_at_its_ci_was_accepted_nonetheless() -> None:
    network, a, b = pair()
    b.on_deliver = lambda delivery: b.fail(delivery, "ci_failed")
    ticket = a.send("echo@b", no_reply=True)
    network.run(0.1)
    assert a.result(ticket)["accepted"] is True


def test_one_way_messages_wait_for_a_full_ci_instead_of_being_lost() -> None:
    network, a, b = pair(inbox_per_ci_max=2)
    tickets = [a.send("echo@b", no_reply=True) for _ in range(4)]
    network.run(0.2)
    assert [a.answer(ticket) is not None for ticket in tickets] == [True, True, False, False]
    for delivery in b.deliveries():
        b.reply(delivery, b"")
    network.run(2.0)
    assert all(a.result(ticket)["accepted"] for ticket in tickets)
    assert len(b.deliveries()) == 4


def test_a_one_way_message_that_never_finds_room_fails_in_time() -> None:
    network, a, b = pair(inbox_per_ci_max=1)
    a.send("echo@b", no_reply=True)
    ticket = a.send("echo@b", no_reply=True, timeout_s=3.0)
    network.run(4.0)
    assert a.error(ticket)["code"] == "busy"
    assert a.error(ticket)["outcome"] == "released"
    assert len(b.deliveries()) == 1


# --- the window ----------------------------------------------------------------------------------


def test_messages_beyond_the_window_wait_their_turn_and_keep_their_order() -> None:
    network, a, b = pair(window_messages=2)
    tickets = [a.send("echo@b", str(n).encode()) for n in range(4)]
    network.run(0.02)
    assert [d.body for d in b.deliveries()] == [b"0", b"1"]
    b.reply(b.deliveries()[0], b"done")
    network.run(0.01)
    assert [d.body for d in b.deliveries()] == [b"0", b"1", b"2"]
    b.echo()
    for delivery in b.deliveries()[1:]:
        b.reply(delivery, b"done")
    network.run(0.1)
    assert all(a.answer(ticket) is not None for ticket in tickets)
    assert a.node.requests._windows == {}


def test_a_ci_that_takes_its_time_keeps_no_messages_from_leaving() -> None:
    network, a, b = pair(window_messages=2)
    for n in range(4):
        a.send("echo@b", str(n).encode())
    network.run(0.5)
    assert [d.body for d in b.deliveries()] == [b"0", b"1", b"2", b"3"]


def test_too_many_messages_that_wait_are_refused() -> None:
    _, a, _ = pair(window_messages=2)
    tickets = [a.send("echo@b") for _ in range(5)]
    assert a.error(tickets[4])["code"] == "busy"
    assert a.node.requests.pending == 4


def test_a_message_that_waits_too_long_for_its_turn_was_never_sent() -> None:
    network, a, _ = pair(window_messages=1)
    network.passes = lambda here, _there, m: here != "b" or not isinstance(m, Forward)
    a.send("echo@b", timeout_s=60.0)
    ticket = a.send("echo@b", timeout_s=2.0)
    network.run(3.0)
    assert a.error(ticket)["code"] == "timeout"
    assert a.error(ticket)["outcome"] == "released"


# --- local CIs -----------------------------------------------------------------------------------


def alone(**settings: object) -> tuple[Network, Member]:
    network = Network("a", **settings)  # type: ignore[arg-type]
    network.run(0.1)
    network["a"].register("Numa", share="private")
    return network, network["a"]


@pytest.mark.parametrize("target", ["numa", "numa@a", "NUMA"])
def test_a_local_ci_is_reached_without_an_envelope(target: str) -> None:
    _, a = alone()
    a.echo()
    result = a.result(a.send(target, b"hi", sender="athena"))
    assert (result["body"], result["path"], result["hops"]) == (b"hi", ["a"], [])
    assert (result["to"], result["from"]) == ("Numa@a", "athena@a")
    assert a.deliveries()[0].sender == "athena"


def test_a_local_reply_streams_and_its_end_too() -> None:
    _, a = alone()
    ticket = a.send("numa", stream=True)
    delivery = a.deliveries()[0]
    a.chunk(delivery, b"one ")
    a.chunk(delivery, b"two ")
    a.reply(delivery, b"three")
    assert a.streamed(ticket) == [b"one ", b"two ", b"three"]
    assert a.result(ticket)["body"] == b""


def test_a_local_reply_that_nobody_streams_is_collected() -> None:
    _, a = alone()
    ticket = a.send("numa")
    delivery = a.deliveries()[0]
    a.chunk(delivery, b"one ")
    a.reply(delivery, b"two")
    assert a.result(ticket)["body"] == b"one two"
    assert a.streamed(ticket) == []


def test_a_local_reply_that_is_too_large_to_collect_fails() -> None:
    _, a = alone()
    ticket = a.send("numa")
    delivery = a.deliveries()[0]
    for _ in range(5):
        a.chunk(delivery, bytes(1 << 20))
    a.reply(delivery, b"")
    assert a.error(ticket)["code"] == "too_large"


def test_a_local_failure_and_a_local_timeout_are_told() -> None:
    network, a = alone()
    failed, late = a.send("numa"), a.send("numa", timeout_s=1.0)
    a.fail(a.deliveries()[0], "ci_failed", "It broke.")
    network.run(2.0)
    assert a.error(failed)["detail"] == "It broke."
    assert a.error(late)["code"] == "timeout"
    assert a.node.deliveries.open == 0


def test_a_local_message_can_be_cancelled_once() -> None:
    network, a = alone()
    ticket = a.send("numa")
    for _ in range(2):
        network.handle(a, ev.CancelCommand(ticket))
    assert a.error(ticket)["code"] == "cancelled"
    assert len(a.of(fx.CancelDelivery)) == 1


def test_a_local_one_way_message_is_accepted_at_once() -> None:
    _, a = alone()
    assert a.result(a.send("numa", no_reply=True))["accepted"] is True
    assert len(a.deliveries()) == 1


def test_a_local_ci_that_takes_no_messages_is_offline() -> None:
    _, a = alone()
    a.register("mute", how={"kind": "none"})
    assert a.error(a.send("mute"))["code"] == "ci_offline"


# --- leaving -------------------------------------------------------------------------------------


def test_a_stack_that_leaves_answers_everyone_and_takes_no_more() -> None:
    network, a, b = pair()
    a.register("numa")
    waits_here, waits_there = a.send("numa"), a.send("echo@b")
    network.run(0.1)
    incoming = b.send("numa@a")
    network.run(0.1)
    a.do(ev.Leave)
    assert a.error(waits_here)["code"] == a.error(waits_there)["code"] == "leaving"
    assert a.error(a.send("echo@b"))["code"] == "leaving"
    network.run(0.2)
    assert b.error(incoming)["code"] == "leaving"
    assert a.node.requests.pending == a.node.deliveries.open == 0


def test_leaving_sends_nothing_that_waited_for_room() -> None:
    network, a, _ = pair(window_messages=1)
    for _ in range(2):
        a.send("echo@b")
    network.run(0.01)
    seen = kinds(network)
    a.do(ev.Leave)
    network.run(0.01)
    assert ("a", Kind.REQUEST) not in seen


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [(bytes(300_000), "text/plain", "too_large"), (b"hi", "\ud800", "bad_request")],
)
def test_what_can_never_be_sent_fails_at_once_and_keeps_no_place(
    body: bytes, content_type: str, code: str
) -> None:
    network, a, b = pair(body_size_max=1 << 20)
    ticket = a.do(lambda t: ev.SendMessage(t, "echo@b", body, content_type, "", 30.0, False, {}))
    assert a.error(ticket)["code"] == code
    assert a.node.requests.pending == 0
    network.run(40.0)
    assert b.deliveries() == []


def test_messages_for_a_full_ci_keep_none_to_the_rest_of_its_stack_from_leaving() -> None:
    network = Network("a", "b", window_messages=4, inbox_per_ci_max=1)
    network.join("a", "b")
    a, b = network["a"], network["b"]
    for name in ("full", "echo"):
        b.register(name)
    network.run(1.0)
    tickets = []
    for _ in range(20):
        tickets.append(a.send("full@b", no_reply=True, timeout_s=60.0))
        network.run(0.05)
    other = a.send("echo@b")
    network.run(0.05)
    first, second = b.deliveries()
    b.reply(second, b"here")
    network.run(0.1)
    assert a.result(other)["body"] == b"here"
    b.echo()
    b.reply(first, b"")
    network.run(30.0)
    assert all(a.result(ticket)["accepted"] for ticket in tickets), "none of them is lost"
    assert len(b.deliveries()) == 21 and a.node.requests.pending == 0
