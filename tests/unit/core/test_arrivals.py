"""What a destination makes of envelopes that strangers and liars may have made."""

from typing import Any

import pytest

from tektonmesh.core.envelope import NO_ID, Envelope, Kind
from tektonmesh.core.sealing import Copy
from tests.network import Member, Network


def pair(**settings: object) -> tuple[Network, Member, Member]:
    network = Network("a", "b", **settings)  # type: ignore[arg-type]
    network.join("a", "b")
    network["b"].register("echo")
    network.run(1.0)
    return network, network["a"], network["b"]


def request(**changes: Any) -> dict[str, Any]:
    plain = {"to": "echo", "from": "numa", "ct": "text/plain", "body": b"hi", "left": 30_000}
    return plain | changes


def sealed(
    a: Member,
    b: Member,
    body: Any,
    kind: Kind = Kind.REQUEST,
    *,
    reply_to: bytes = NO_ID,
    n: int = 1,
) -> Envelope:
    sealer = a.node.deliveries.sealer
    return sealer.seal(kind, b.id, body, ttl_s=30.0, reply_to=reply_to, copy=Copy(n.to_bytes(16)))


def deliver(network: Network, a: Member, envelope: Envelope) -> list[str]:
    """Send an envelope made by hand; its hop-by-hop fate."""
    fates: list[str] = []
    a.node.env.now = network.now
    a.node.forwarding.send(envelope, fates.append)
    network.run(0.05)
    return fates


def nacks(network: Network, a: Member, envelope: Envelope) -> list[dict[str, Any]]:
    """The nacks that come back for an envelope."""
    found: list[dict[str, Any]] = []
    sealer = a.node.deliveries.sealer

    def take(nack: Envelope) -> str:
        found.append(sealer.open(nack))
        return ""

    a.node.forwarding.receive(Kind.NACK, take)
    deliver(network, a, envelope)
    return found


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (request(to="nobody"), "not_found"),
        (request(to=7), "not_found"),
        (request(left=0), "timeout"),
        (request(left=-5), "timeout"),
        (request(left=True), "timeout"),
        (request(left="soon"), "timeout"),
        ({}, "not_found"),
        (request(**{"from": "../numa"}), "bad_request"),
        (request(**{"from": "numa\x1b[31m"}), "bad_request"),
        (request(**{"from": "numa@c"}), "bad_request"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_by_name(body: dict[str, Any], code: str) -> None:
    network, a, b = pair()
    [nack] = nacks(network, a, sealed(a, b, body))
    assert nack["code"] == code
    assert b.deliveries() == []


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [("from", 5, "a"), ("from", "", "a"), ("from", "Numa", "Numa@a")],
)
def test_the_sender_is_named_after_the_stack_that_sealed(
    field: str, value: object, shown: str
) -> None:
    network, a, b = pair()
    deliver(network, a, sealed(a, b, request(**{field: value})))
    assert b.deliveries()[0].sender == shown


def test_a_deadline_beyond_all_limits_is_cut() -> None:
    network, a, b = pair(request_timeout_max_s=60.0)
    deliver(network, a, sealed(a, b, request(left=10**15)))
    assert b.deliveries()[0].deadline_s == 60.0


def test_a_body_that_is_no_map_or_no_bytes_is_harmless() -> None:
    network, a, b = pair()
    assert deliver(network, a, sealed(a, b, [1, 2])) == ["settled"]
    assert b.notices("seal_refused")[0]["detail"] == "The body of the envelope is not a map."
    deliver(network, a, sealed(a, b, request(body="text", ct=5), n=2))
    assert (b.deliveries()[0].body, b.deliveries()[0].content_type) == (b"", "")


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.CANCEL, Kind.RESEND])
@pytest.mark.parametrize("fault", ["body", "source", "flags", "destination"])
def test_what_was_not_sealed_so_is_told_and_ignored(kind: Kind, fault: str) -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    b, a = network["b"], network["a"]
    b.register("echo")
    network.run(1.0)
    envelope = sealed(a, b, request(), kind)
    header = envelope.header
    if fault == "body":
        envelope = envelope._replace(body=envelope.body[:-1] + b"?")
    elif fault == "source":
        header = header._replace(source=network["c"].id)
    elif fault == "flags":
        header = header._replace(flags=2)
    else:
        key = a.node.deliveries.sealer._key_of(network["c"].id)
        header = header._replace(key_id=key.key_id)
    envelope = envelope._replace(header=header, head=header.pack())
    deliver(network, a, envelope)
    assert b.deliveries() == []
    network.run(1.0)
    refused = b.notices("seal_refused")
    assert len(refused) == (0 if fault == "destination" else 1)


def test_a_message_from_a_stack_that_is_not_known_is_ignored() -> None:
    network, a, b = pair()
    envelope = sealed(a, b, request())
    b.node.replica.drop(a.id)
    deliver(network, a, envelope)
    assert b.deliveries() == []
    assert b.notices("seal_refused")


def test_an_id_that_a_relay_saw_cannot_be_used_up_by_it() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network["c"].register("echo")
    network.run(1.0)
    a, b, c = (network[name] for name in "abc")
    assert deliver(network, b, sealed(b, c, request(), n=77)) == ["settled"]
    deliver(network, a, sealed(a, c, request(), n=77))
    assert [d.sender for d in c.deliveries()] == ["numa@b", "numa@a"]


def test_a_source_that_sends_too_much_is_told_to_wait() -> None:
    network, a, b = pair(source_rate_per_s=5.0)
    tickets = [a.send("echo@b") for _ in range(25)]
    network.run(0.1)
    answered = [a.error(ticket)["code"] for ticket in tickets if a.answer(ticket)]
    assert answered == ["busy"] * 5
    assert len(b.deliveries()) == 20
    network.run(1.0)
    tickets = [a.send("echo@b") for _ in range(6)]
    network.run(0.1)
    assert sum(a.answer(ticket) is not None for ticket in tickets) == 1


def test_a_resend_for_what_is_not_known_is_answered() -> None:
    network, a, b = pair()
    envelope = sealed(a, b, {"off": 0}, Kind.RESEND, reply_to=(5).to_bytes(16))
    [nack] = nacks(network, a, envelope)
    assert (nack["code"], nack["out"]) == ("ci_failed", "indeterminate")


def test_a_resend_of_a_one_way_message_says_that_there_is_no_answer() -> None:
    network, a, b = pair()
    deliver(network, a, sealed(a, b, request(nr=True), n=5))
    envelope = sealed(a, b, {"off": 0}, Kind.RESEND, reply_to=(5).to_bytes(16), n=6)
    [nack] = nacks(network, a, envelope)
    assert nack["code"] == "ci_failed"


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.CANCEL, Kind.RESEND])
def test_what_was_sealed_to_a_lost_prekey_changes_nothing(kind: Kind) -> None:
    network, a, b = pair()
    envelope = sealed(a, b, request(), kind)
    b.keys._prekeys.clear()
    b.keys.add_prekey(bytes(range(32)))
    found = nacks(network, a, envelope)
    assert [nack["code"] for nack in found] == (["unknown_key"] if kind == Kind.REQUEST else [])
    assert b.deliveries() == []


def test_a_cancel_of_an_answered_message_changes_nothing() -> None:
    network, a, b = pair()
    b.echo()
    deliver(network, a, sealed(a, b, request(), n=5))
    deliver(network, a, sealed(a, b, {}, Kind.CANCEL, reply_to=(5).to_bytes(16), n=6))
    envelope = sealed(a, b, {"off": 0}, Kind.RESEND, reply_to=(5).to_bytes(16), n=7)
    replies: list[Envelope] = []
    a.node.forwarding.receive(Kind.REPLY, lambda reply: replies.append(reply) or "")
    deliver(network, a, envelope)
    assert len(replies) == 1


def test_a_flood_of_cancels_makes_nobody_elses_message_a_second_delivery() -> None:
    network = Network("a", "c", "d", dedup_max=50)
    network.join("a", "c", "d")
    a, c, d = (network[name] for name in "acd")
    c.register("echo")
    network.settle()
    deliver(network, a, sealed(a, c, request()))
    c.reply(c.deliveries()[0], b"done")
    for n in range(200):
        deliver(network, d, sealed(d, c, {}, Kind.CANCEL, reply_to=n.to_bytes(16), n=n))
    again = a.node.deliveries.sealer.seal(
        Kind.REQUEST, c.id, request(), ttl_s=30.0, copy=Copy((1).to_bytes(16), 1)
    )
    deliver(network, a, again)
    assert len(c.deliveries()) == 1


def test_a_cancel_of_what_is_not_known_counts_as_a_message_of_its_source() -> None:
    network, a, b = pair(source_rate_per_s=1.0)
    for n in range(20):
        deliver(network, a, sealed(a, b, {}, Kind.CANCEL, reply_to=n.to_bytes(16), n=n))
    arrivals = b.node.forwarding._handlers[Kind.CANCEL].__self__  # type: ignore[attr-defined]
    assert 4 <= len(arrivals._answering.dedup) <= 6
