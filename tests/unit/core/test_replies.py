"""What an origin believes of what comes back to it."""

from typing import Any

import pytest

from tektonmesh.core.envelope import Envelope, Kind, trace_entry
from tektonmesh.core.types import short_id
from tests.network import Member, Network


def triple() -> tuple[Network, Member, Member, Member, int, bytes]:
    """a asked a CI at c, through b; the ticket and the message id."""
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network["c"].register("echo")
    network.run(1.0)
    ticket = network["a"].send("echo@c", timeout_s=60.0)
    network.run(0.01)
    msg_id = network["c"].deliveries()[0].msg_id
    return network, network["a"], network["b"], network["c"], ticket, msg_id


def say(
    network: Network, source: Member, to: Member, kind: Kind, body: dict[str, Any], msg_id: bytes
) -> None:
    """Send an answer made by hand."""
    source.node.env.now = network.now
    sealer = source.node.deliveries.sealer
    source.node.forwarding.send(sealer.seal(kind, to.id, body, reply_to=msg_id, ttl_s=10.0))
    network.run(0.02)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.NACK, {"code": "not_found", "out": "released"}),
        (Kind.REPLY, {"body": b"forged", "off": 0}),
        (Kind.CHUNK, {"data": b"forged", "off": 0}),
        (Kind.RECEIPT, {"tr": b""}),
    ],
)
def test_only_the_destination_itself_can_answer(kind: Kind, body: dict[str, Any]) -> None:
    network, a, b, c, ticket, msg_id = triple()
    say(network, b, a, kind, body, msg_id)
    assert a.answer(ticket) is None
    assert not next(iter(a.node.requests._open.values())).received
    c.reply(c.deliveries()[0], b"true")
    network.run(0.1)
    assert a.result(ticket)["body"] == b"true"


def test_a_relay_that_puts_another_source_into_the_header_is_found_out() -> None:
    _network, a, b, c, ticket, msg_id = triple()
    sealer = b.node.deliveries.sealer
    envelope = sealer.seal(Kind.NACK, a.id, {"code": "busy"}, reply_to=msg_id, ttl_s=10.0)
    header = envelope.header._replace(source=c.id)
    a.node.forwarding._handlers[Kind.NACK](envelope._replace(header=header, head=header.pack()))
    assert a.answer(ticket) is None
    a.effects.extend(a.node.env.take())
    assert a.notices("seal_refused")[0]["source"] == c.id.hex()


@pytest.mark.parametrize("kind", [Kind.NACK, Kind.REPLY, Kind.CHUNK, Kind.RECEIPT])
def test_answers_to_what_nobody_asked_are_ignored(kind: Kind) -> None:
    network, a, _, c, ticket, _ = triple()
    say(network, c, a, kind, {"code": "busy"}, bytes(16))
    assert a.answer(ticket) is None


def test_a_nack_of_an_unknown_code_and_outcome_is_read_with_care() -> None:
    network, a, _, c, ticket, msg_id = triple()
    say(network, c, a, Kind.NACK, {"code": "whatever", "out": 5, "detail": b"x"}, msg_id)
    error = a.error(ticket)
    assert (error["code"], error["outcome"]) == ("ci_failed", "indeterminate")
    assert error["detail"] == "The CI took the message and failed."


@pytest.mark.parametrize("body", [{}, {"id": b"short", "pk": bytes(32)}, {"id": 5, "pk": 6}])
def test_an_unknown_key_without_a_new_one_changes_nothing(body: dict[str, Any]) -> None:
    network, a, _, c, ticket, msg_id = triple()
    say(network, c, a, Kind.NACK, body | {"code": "unknown_key"}, msg_id)
    assert a.answer(ticket) is None
    assert next(iter(a.node.requests._open.values())).attempt == 1


def test_a_message_is_sealed_again_once() -> None:
    network, a, _, c, _, msg_id = triple()
    key_id, prekey = c.keys.prekey()
    for _ in range(3):
        body = {"code": "unknown_key", "id": key_id, "pk": prekey}
        say(network, c, a, Kind.NACK, body, msg_id)
    assert next(iter(a.node.requests._open.values())).attempt == 2


@pytest.mark.parametrize("trace", [b"", b"ragged", trace_entry(bytes(8), 0)])
def test_a_receipt_with_a_trace_that_leads_nowhere_still_counts(trace: bytes) -> None:
    network, a, b, c, _, msg_id = triple()
    say(network, c, a, Kind.RECEIPT, {"tr": trace}, msg_id)
    pending = next(iter(a.node.requests._open.values()))
    assert pending.received
    assert pending.path == (a.id, b.id, c.id)


def test_a_receipt_names_the_way_the_message_took() -> None:
    network, a, b, c, _, msg_id = triple()
    trace = trace_entry(short_id(a.id), 1) + trace_entry(short_id(b.id), 2)
    pending = next(iter(a.node.requests._open.values()))
    pending.path = ()
    say(network, c, a, Kind.RECEIPT, {"tr": trace}, msg_id)
    assert pending.path == (a.id, b.id, c.id)


def test_an_offset_beyond_reason_makes_no_reply() -> None:
    network, a, _, c, ticket, msg_id = triple()
    say(network, c, a, Kind.CHUNK, {"data": b"x", "off": 1 << 63}, msg_id)
    say(network, c, a, Kind.CHUNK, {"data": b"x", "off": -1}, msg_id)
    pending = next(iter(a.node.requests._open.values()))
    assert pending.stream.next == 1
    assert a.answer(ticket) is None


def test_a_trace_in_a_reply_is_shown_and_trusted_for_nothing() -> None:
    network, a, _, c, ticket, msg_id = triple()
    body = {"body": b"ok", "ct": "x", "off": 0, "tr": trace_entry(bytes(8), 9)}
    say(network, c, a, Kind.REPLY, body, msg_id)
    result = a.result(ticket)
    assert result["path"] == ["0000000000000000", "c"]
    assert result["hops"] == [{"stack": "0000000000000000", "dwell_ms": 9}]


def test_an_envelope_to_us_that_is_not_for_us_to_read_is_told() -> None:
    _network, a, _, c, ticket, msg_id = triple()
    sealer = c.node.deliveries.sealer
    envelope = sealer.seal(Kind.REPLY, a.id, {"body": b"x"}, reply_to=msg_id, ttl_s=10.0)
    broken: Envelope = envelope._replace(body=b"")
    a.node.forwarding._handlers[Kind.REPLY](broken)
    assert a.answer(ticket) is None
