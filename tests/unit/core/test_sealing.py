import pytest

from tektonmesh.core.envelope import Envelope, Kind, join_parts, parts_of
from tektonmesh.core.sealing import Copy, bytes_of, number_of, text_of
from tektonmesh.core.types import SealKey
from tektonmesh.errors import DeliveryError, LocalError, RemoteError
from tests.network import Member, Network


def pair() -> tuple[Network, Member, Member]:
    network = Network("a", "b")
    network.join("a", "b")
    return network, network["a"], network["b"]


def test_only_the_destination_can_open_and_it_knows_the_source() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c", "a")
    a, b, c = (network[name].node.deliveries.sealer for name in "abc")
    envelope = a.seal(Kind.REQUEST, network["b"].id, {"to": "numa"}, ttl_s=5.0)
    assert b.open(envelope) == {"to": "numa"}
    with pytest.raises((RemoteError, LocalError)):
        c.open(envelope)


def test_the_header_says_what_a_relay_needs() -> None:
    _, a, b = pair()
    body = {"to": "numa"}
    envelope = a.node.deliveries.sealer.seal(
        Kind.RECEIPT,
        b.id,
        body,
        ttl_s=5.0,
        reply_to=bytes([7]) * 16,
        copy=Copy(bytes(16), 3, bytes(8)),
    )
    header = envelope.header
    assert (header.source, header.destination) == (a.id, b.id)
    assert (header.kind, header.send_class, header.attempt) == (Kind.RECEIPT, 0, 3)
    assert (header.ttl_ms, header.reply_to) == (5000, bytes([7]) * 16)
    assert header.size == len(a.node.env.codec.pack(body))
    assert envelope.avoid == bytes(8)


@pytest.mark.parametrize(("ttl_s", "ttl_ms"), [(-3.0, 1000), (0.0, 1000), (1e12, 0xFFFF_FFFF)])
def test_a_time_to_live_stays_in_its_field(ttl_s: float, ttl_ms: int) -> None:
    _, a, b = pair()
    envelope = a.node.deliveries.sealer.seal(
        Kind.NACK, b.id, {}, ttl_s=ttl_s, copy=Copy(bytes(16), 1 << 20)
    )
    assert envelope.header.ttl_ms == ttl_ms
    assert envelope.header.attempt == 0xFFFF


def test_ids_sort_by_the_time_they_were_made_and_never_repeat() -> None:
    network, a, _ = pair()
    ids = []
    for _ in range(10):
        ids.append(a.node.deliveries.sealer.new_id())
        network.run(2.0)
        a.node.env.now = network.now
    assert ids == sorted(ids)
    same_instant = [a.node.deliveries.sealer.new_id() for _ in range(100)]
    assert len(dict.fromkeys(same_instant)) == 100
    assert all(len(one) == 16 for one in ids)


def test_a_stack_that_is_not_known_cannot_be_sealed_to() -> None:
    _, a, _ = pair()
    with pytest.raises(DeliveryError) as caught:
        a.node.deliveries.sealer.seal(Kind.REQUEST, bytes(32), {}, ttl_s=5.0)
    assert caught.value.code.name == "unreachable"


def test_a_published_key_of_small_order_cannot_be_sealed_to() -> None:
    _, a, b = pair()
    sealer = a.node.deliveries.sealer
    assert sealer.learn_prekey(b.id, {"id": bytes(8), "pk": bytes(32)})
    with pytest.raises(DeliveryError):
        sealer.seal(Kind.REQUEST, b.id, {}, ttl_s=5.0)


def test_a_learnt_prekey_holds_until_the_stack_publishes_another() -> None:
    _, a, b = pair()
    sealer = a.node.deliveries.sealer
    held = a.node.replica.owners[b.id]
    published = sealer._key_of(b.id)
    sealer.learn_prekey(b.id, {"id": b"learnt..", "pk": bytes([9]) * 32})
    assert sealer._key_of(b.id) == SealKey(held.keydoc.box_pk, b"learnt..", bytes([9]) * 32)
    newer = {"box": {"id": b"newer...", "pk": bytes([8]) * 32}}
    held._values["stack/self"] = newer
    assert sealer._key_of(b.id).key_id == b"newer..."
    held._values.clear()
    assert sealer._key_of(b.id) == published


@pytest.mark.parametrize("box", [None, 5, {}, {"id": b"short", "pk": bytes(32)}, {"id": bytes(8)}])
def test_a_record_without_a_key_of_the_right_form_is_no_key(box: object) -> None:
    _, a, b = pair()
    held = a.node.replica.owners[b.id]
    held._values["stack/self"] = {"box": box}
    with pytest.raises(DeliveryError):
        a.node.deliveries.sealer.seal(Kind.REQUEST, b.id, {}, ttl_s=5.0)


def test_a_prekey_of_a_stack_that_is_not_known_is_not_learnt() -> None:
    _, a, _ = pair()
    body = {"id": bytes(8), "pk": bytes(32)}
    assert not a.node.deliveries.sealer.learn_prekey(bytes(32), body)


def test_fields_of_a_strangers_body_are_read_with_bounds() -> None:
    body = {"text": "x" * 300, "data": b"y", "number": 500, "flag": True, "less": -1}
    assert text_of(body, "text") == "x" * 256
    assert text_of(body, "data") == text_of(body, "none") == ""
    assert bytes_of(body, "data") == b"y"
    assert bytes_of(body, "text") == b""
    assert [number_of(body, key, 100) for key in ("number", "flag", "less", "none")] == [
        100,
        0,
        0,
        0,
    ]


# --- a body that many share ----------------------------------------------------------------------


def shared_copy() -> tuple[Network, Envelope]:
    network, a, b = pair()
    sealer = a.node.deliveries.sealer
    shared = sealer.share(bytes([7]) * 16, b"all hands", "text/plain")
    copy = Copy(bytes(16), shared=shared)
    return network, sealer.seal(Kind.REQUEST, b.id, {"to": "numa"}, ttl_s=5.0, copy=copy)


def test_a_shared_body_is_opened_with_what_is_sealed_for_one() -> None:
    network, envelope = shared_copy()
    assert (envelope.header.kind, envelope.header.reply_to) == (Kind.SHARED, bytes([7]) * 16)
    assert b"all hands" not in envelope.body
    body = network["b"].node.deliveries.sealer.open(envelope)
    assert (body["to"], body["body"], body["ct"]) == ("numa", b"all hands", "text/plain")


@pytest.mark.parametrize("at", [0, 2, 50, -1])
def test_a_changed_bit_of_either_part_is_noticed(at: int) -> None:
    network, envelope = shared_copy()
    changed = bytearray(envelope.body)
    changed[at] ^= 1
    with pytest.raises(RemoteError):
        network["b"].node.deliveries.sealer.open(envelope._replace(body=bytes(changed)))


def test_a_member_cannot_put_another_text_into_the_copies_of_others() -> None:
    """All members know the key; the hash that is sealed for each tells what was locked with it."""
    network, envelope = shared_copy()
    b = network["b"].node.deliveries.sealer
    key = b.open(envelope)["k"]
    own, _locked = parts_of(envelope.body)
    forged = b.env.crypto.lock(key, b.env.codec.pack({"body": b"stand down", "ct": ""}))
    with pytest.raises(RemoteError, match="not the one it names"):
        b.open(envelope._replace(body=join_parts(own, forged)))
