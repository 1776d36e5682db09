"""Parsers of `wire/codec`: canonical msgpack, and one for each kind of message that it numbers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from scripts.fuzzing import material
from scripts.fuzzing.parser import Parser, is_shown_in
from scripts.fuzzing.seeds import Fill, filled, is_typed, packed_messages
from tektonmesh.core import messages as msg
from tektonmesh.core.record import RecordSet
from tektonmesh.core.types import ContentVersion
from tektonmesh.errors import RemoteError
from tektonmesh.wire import limits
from tektonmesh.wire.codec import KIND, decode_message, encode_message, pack, size_max, unpack

HEAVY_MANY = (20_000, 9_999, 7_000, 4_096, 3_000, 1_000, 100)
"""Items in each array of a heavy message; the most that fit are taken."""
BULK = b"\xc6" + (limits.MESSAGE_SIZE_MAX - 5).to_bytes(4, "big")


def check_msgpack(data: bytes) -> bool:
    """What is read packs to the same bytes, also with the small limit for strangers."""
    small = _small(data)
    try:
        value = unpack(data)
    except RemoteError:
        assert small is None, "the small limit let through what the large one refuses"
        return False
    assert pack(value) == data, "what was read is not what pack writes"
    assert small in (None, data), "the small limit changed what is read"
    return True


def _small(data: bytes) -> bytes | None:
    try:
        return pack(unpack(data, nodes_max=limits.HELLO_NODES_MAX))
    except RemoteError:
        return None


def check_message(kind: type, data: bytes) -> bool:
    """A message of this kind packs to the bytes it was read from, but for fields that a later
    version added at the ends."""
    try:
        message = decode_message(KIND[kind], data)
    except RemoteError:
        return False
    assert is_typed(message, kind), "a field is not of the type that its message says"
    packed = encode_message(message)
    if packed != data:
        assert is_shown_in(unpack(packed), unpack(data)), "a message packs to something else"
        assert decode_message(KIND[kind], packed) == message, "a message changed on its way"
    return True


def check_records(data: bytes) -> bool:
    """The changes of a delta make a set of records, the same again from a snapshot of it."""
    try:
        records = _records_of(data)
    except RemoteError:
        return False
    again = RecordSet().changed(records.puts(), ())
    assert again.records == records.records and again.size == records.size
    assert again.matches(records.roots()), "the same records have other roots"
    everything = [(scope, key) for scope, key, _ in records.puts()]
    assert records.changed((), everything).roots() == RecordSet().roots()
    return True


def _records_of(data: bytes) -> RecordSet:
    delta = decode_message(KIND[msg.Delta], data)
    assert isinstance(delta, msg.Delta)
    return RecordSet().changed(delta.puts, delta.deletes)


# --- seeds ---------------------------------------------------------------------------------------


def _msgpack_seeds() -> list[bytes]:
    deep: object = 1
    for _ in range(limits.DEPTH_MAX):
        deep = [deep]
    values = [None, True, -33, 2**64 - 1, 1.5, "é", b"\x00", [1, [2]], deep]
    values += [{1: "a", -1: "b", "a": 2}, {"a": {"b": [None]}}, [b"x" * 40, "y" * 40, 65_536]]
    return [pack(value) for value in values] + [b for kind in KIND for b in packed_messages(kind)]


def _msgpack_heavy() -> list[bytes]:
    """Bombs and the largest values: headers that reserve, many tiny parts, long parts, depth."""
    full = limits.NODES_MAX
    header = b"\xdd" + full.to_bytes(4, "big")
    return [
        *(b"\xdd" + n.to_bytes(4, "big") + bytes(n) for n in (full - 1, full, full + 1)),
        *(b"\xde" + n.to_bytes(2, "big") + _pairs(n) for n in (full // 2, full // 2 + 1)),
        *(header * 1023 + bytes(size - 1023 * 5) for size in (20_000, 60_000, 262_144)),
        b"\xdc\x0b\xb8" * 1023,
        b"\xdf\x00\x00\x27\x10" * 1023,
        b"\x91" * limits.DELTA_SIZE_MAX,
        b"\x81\x01" * (limits.DELTA_SIZE_MAX // 2),
        b"\xdd\x00\x0f\xff\xfb" + b"\x80" * 0xFFFFB,
        b"\xdc\x00\x10" + (b"\xdc\x03\xe8" + b"\x90" * 1000) * 16,
        BULK + bytes(limits.MESSAGE_SIZE_MAX - 5),
        b"\xdb" + (limits.DELTA_SIZE_MAX - 5).to_bytes(4, "big") + b"a" * (1 << 20),
        b"\xdb\x00\x0f\xff\xfb" + b"a" * 0xFFFFB,
        b"\xdb\x00\x0f\xff\xf8" + "€".encode() * (0xFFFF8 // 3),
        b"\x91" * 16 + b"\xdc\x4e\x10" + b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x01" * 19_984,
        pack({number << 40: number for number in range(9_999)}),
    ]


def _pairs(count: int) -> bytes:
    """Pairs of a map in canonical order."""
    return b"".join(
        (bytes([n]) if n < 128 else pack(n)) + b"\x00" for n in sorted(range(count), key=pack)
    )


def _heavy_messages(kind: type) -> list[bytes]:
    """The largest messages of a kind that are accepted, and one that is all bytes."""
    limit = size_max(KIND[kind])
    sizes = ((number, many) for many in HEAVY_MANY for number in (2**63 - 1, 1))
    made = (filled(kind, Fill(number, many, True, "ci/numa")) for number, many in sizes)
    packed = (encode_message(message) for message in made if message is not None)
    largest = next((one for one in packed if len(one) <= limit), b"")
    return [largest, bytes(limit), b"\x91" * limit, BULK + bytes(limit - len(BULK))]


def _delta_seeds() -> list[bytes]:
    keys = material.keys_of(material.CLIENT)
    keydoc, head = material.host(material.CLIENT).keydoc, material.head().sign(material.CODEC, keys)
    puts = ((0, "addr/0", pack({"a": 1})), (0, "stack/self", pack({"name": "n00"})))
    puts += ((1, "ci/numa", pack({"name": "numa"})), (5, "later/x", b"\x01"))
    return [
        encode_message(msg.Delta(head, None, puts, (), keydoc)),
        encode_message(msg.Delta(head, None, puts, ((1, "ci/old"), (0, "addr/9")), None)),
        encode_message(msg.Delta(head, ContentVersion(0, 1, 2), (), ((1, "ci/numa"),), None)),
    ]


def _full_deltas() -> list[bytes]:
    """As many records as an owner may have, and as many bytes."""
    [small, *_] = [decode_message(KIND[msg.Delta], one) for one in _delta_seeds()]
    assert isinstance(small, msg.Delta)
    many = tuple((1, f"ci/{number:06}", bytes(220)) for number in range(4096))
    large = tuple((1, f"ci/{number:06}", bytes(2048)) for number in range(500))
    same = tuple((1, "ci/same", bytes(200)) for _ in range(4096))
    return [encode_message(msg.Delta(small.head, None, p, (), None)) for p in (many, large, same)]


def parsers() -> Iterator[Parser]:
    """Those of this module; the kinds of messages are taken from the codec's own table."""
    yield Parser(
        "msgpack", check_msgpack, unpack, _msgpack_seeds, _msgpack_heavy, share=6, packed=True
    )
    for kind in KIND:
        yield Parser(
            f"message-{kind.__name__.lower()}",
            partial(check_message, kind),
            partial(decode_message, KIND[kind]),
            partial(packed_messages, kind),
            partial(_heavy_messages, kind),
            share=3 if kind in (msg.Delta, msg.Vector) else 1,
            packed=kind is not msg.Forward,
            size_max=8192 if kind is msg.Buckets else 2048,
        )
    yield Parser(
        "records", check_records, _records_of, _delta_seeds, _full_deltas, share=2, packed=True
    )
