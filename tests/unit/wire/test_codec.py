"""Canonical msgpack, and the packed form of every message."""

from __future__ import annotations

import tracemalloc
from enum import IntEnum, StrEnum
from typing import Any

import msgpack
import pytest

from tektonmesh.core import messages as msg
from tektonmesh.core.types import ContentVersion, SignedHead, SignedKeyDoc, Version
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.wire import limits
from tektonmesh.wire.codec import (
    KIND,
    Codec,
    decode_message,
    encode_message,
    pack,
    size_max,
    unpack,
)

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    127,
    128,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    "",
    "numa",
    "é",
    b"",
    b"\x00" * 300,
    [],
    [1, [2, [3]]],
    {},
    {"a": 1, "b": {"c": [None, True]}, "é": b"x"},
    {1: "a", -1: "b", "a": 2},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_packed_unpacks_to_the_same_value(value: Any) -> None:
    assert unpack(pack(value)) == value


def test_the_order_in_which_a_map_was_built_does_not_show() -> None:
    assert pack({"b": 1, "a": {2: 0, 1: 0}}) == pack({"a": {1: 0, 2: 0}, "b": 1})


def test_map_keys_are_sorted_as_packed() -> None:
    packed = pack({"b": 0, "aa": 0, 5: 0, -1: 0})
    assert packed == b"\x84\x05\x00\xa1b\x00\xa2aa\x00\xff\x00"


def test_tuples_and_enumerations_are_packed_as_what_they_stand_for() -> None:
    class Number(IntEnum):
        ONE = 1

    class Word(StrEnum):
        UP = "up"

    value = (Number.ONE, Word.UP, Version(1, 2, 3), {Number.ONE: Word.UP, Word.UP: 0})
    assert unpack(pack(value)) == [1, "up", [1, 2, 3], {1: "up", "up": 0}]


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**64,
        -(2**63) - 1,
        Ellipsis,
        {1, 2},
        bytearray(b"x"),
        {b"key": 1},
        {None: 1},
        {True: 1},
        {1.5: 1},
        {2**64: 1},
        "\ud800",
        {"\ud800": 1},
        [0] * (limits.NODES_MAX + 1),
        [[0] * (limits.NODES_MAX // 2)] * 2,
        dict.fromkeys(range(limits.NODES_MAX // 2 + 1)),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_what_has_no_canonical_form_is_not_packed(value: Any) -> None:
    with pytest.raises(LocalError):
        pack(value)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_packed_up_to_the_limit_and_no_further() -> None:
    assert unpack(pack(nested(limits.DEPTH_MAX))) == nested(limits.DEPTH_MAX)
    with pytest.raises(LocalError, match="deep"):
        pack(nested(limits.DEPTH_MAX + 1))


@pytest.mark.parametrize(
    "value",
    [
        [0] * limits.NODES_MAX,
        dict.fromkeys(range(limits.NODES_MAX // 2)),
        {"a": [0] * (limits.NODES_MAX - 2)},
    ],
    ids=["array", "map", "array in a map"],
)
def test_the_most_parts_that_are_packed_are_the_most_that_are_read(value: Any) -> None:
    assert unpack(pack(value)) == value


MAPS = b"\xdc\x4e\x20" + b"\x80" * 20_000
NOT_CANONICAL = {
    "nothing": b"",
    "cut": b"\x92\x01",
    "trailing bytes": b"\x01\x02",
    "doubled key": b"\x82\xa1a\x01\xa1a\x02",
    "keys out of order": b"\x82\xa1b\x01\xa1a\x02",
    "number longer than needed": b"\xcd\x00\x01",
    "text longer than needed": b"\xd9\x01a",
    "array longer than needed": b"\xdc\x00\x01\x01",
    "key longer than needed": b"\x81\xcc\x01\x01",
    "short float": b"\xca\x00\x00\x00\x00",
    "nan": b"\xcb\x7f\xf8" + bytes(6),
    "infinity in a map": b"\x81\xa1a\xcb\x7f\xf0" + bytes(6),
    "extension": b"\xd4\x05a",
    "timestamp": b"\xd6\xff" + bytes(4),
    "timestamp in an array": b"\x91" + msgpack.packb(msgpack.Timestamp(2**40, 5)),
    "bytes as key": b"\x81\xc4\x01a\x01",
    "nil as key": b"\x81\xc0\x01",
    "boolean as key": b"\x81\xc3\x01",
    "float as key": b"\x81\xcb" + bytes(8) + b"\x01",
    "array as key": b"\x81\x91\x01\x01",
    "map as key": b"\x81\x80\x01",
    "text that is not UTF-8": b"\xa1\xff",
    "half a surrogate pair": b"\xa3\xed\xa0\x80",
    "the byte that means nothing": b"\xc1",
    "17 deep": b"\x91" * 17 + b"\x01",
    "a million deep": b"\x91" * 1_000_000,
    "17 deep in maps": b"\x81\x01" * 17 + b"\x01",
    "2**32 - 1 items in 5 bytes": b"\xdd\xff\xff\xff\xff",
    "2**32 - 1 pairs in 5 bytes": b"\xdf\xff\xff\xff\xff",
    "2**32 - 1 characters in 5 bytes": b"\xdb\xff\xff\xff\xff",
    "a mebibyte of empty maps": b"\xdd\x00\x0f\xff\xfb" + b"\x80" * 0xFFFFB,
    "a mebibyte of empty maps in arrays": b"\xdc\x00\x32" + MAPS * 50,
}


@pytest.mark.parametrize("data", NOT_CANONICAL.values(), ids=NOT_CANONICAL.keys())
@pytest.mark.hostile("not-canonical")
def test_what_pack_would_not_have_written_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        unpack(data)


@pytest.mark.hostile("bombs")
def test_headers_that_promise_more_than_there_is_reserve_no_room_for_it() -> None:
    """1,023 nested arrays of 20,000 items each, of which there is none: 160 MB if believed."""
    bomb = b"\xdd" + limits.NODES_MAX.to_bytes(4, "big")
    tracemalloc.start()
    try:
        with pytest.raises(RemoteError):
            unpack(bomb * 1023 + bytes(limits.NODES_MAX))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


def test_a_caller_may_allow_fewer_values() -> None:
    assert unpack(pack([1, 2, 3]), nodes_max=3) == [1, 2, 3]
    with pytest.raises(RemoteError):
        unpack(pack([1, [2], 3]), nodes_max=3)


def test_the_codec_of_the_core_is_these_functions() -> None:
    assert Codec().unpack(Codec().pack({"a": 1})) == {"a": 1}


# --- messages ------------------------------------------------------------------------------------

ID = bytes(range(32))
SIG = b"s" * 64
HEAD = SignedHead(b"head", SIG)
KEYDOC = SignedKeyDoc(b"doc", SIG, b"proof")
MESSAGES: list[msg.Message] = [
    msg.Ping(1, 1_750_000_000_000, b"f" * 16),
    msg.Ping(2**63 - 1, -5, b""),
    msg.Pong(1, 2),
    msg.Probe(1, ID),
    msg.ProbeAnswer(1, ID, -1),
    msg.Bye("busy", "The peer does not take what is sent to it."),
    msg.Vouch(b"voucher"),
    msg.Delta(HEAD, None, (), (), None),
    msg.Delta(
        HEAD,
        ContentVersion(1, 2, 3),
        ((0, "addr/0", b"a"), (1, "ci/numa", b"b")),
        ((1, "ci/old"),),
        KEYDOC,
    ),
    msg.Want(((ID, None), (ID[::-1], ContentVersion(0, 1, 2)))),
    msg.Vector((0, 255), (msg.VectorEntry(ID, Version(1, 2, 3), 4, 2, b"h" * 8),), True, False),
    msg.Vector((), (msg.VectorEntry(ID, Version(1, 2, 3), 4, 2, b"h" * 8, b"p" * 8),), True, False),
    msg.Proof((HEAD, HEAD), (SignedKeyDoc(b"doc", SIG, b""),)),
    msg.Proof((), (SignedKeyDoc(b"doc", SIG, b""), SignedKeyDoc(b"doc2", SIG, b""))),
    msg.Buckets(b"p" * 4096),
    msg.Refuses((ID, ID[::-1])),
    msg.Ihave((msg.News(ID, Version(1, 2, 3), b"h" * 8),)),
    msg.WantOutlines((ID, ID[::-1])),
    msg.Outlines((), False),
    msg.Outlines((msg.Delta(HEAD, None, ((0, "addr/0", b"a"),), (), KEYDOC),), True),
    msg.RelayOutlines((msg.Delta(HEAD, None, ((0, "addr/0", b"a"),), (), KEYDOC),), True),
    msg.Graft(((ID, None), (ID[::-1], ContentVersion(0, 1, 2)))),
    msg.Prune(),
    msg.Forward(1, b"envelope"),
    msg.HopAck(7),
    msg.LinkCredit(1 << 20),
    msg.Settled((1, 2, 3)),
    msg.Released(9, "unreachable", (b"12345678",)),
    msg.Spread((5, 9), (b"head one", b"head two"), b"what both share"),
    msg.Fetch(ID, 65_536, 1_048_576),
    msg.Piece(ID, 0, 5, b"bytes"),
    msg.Piece(ID, 0, 1_048_576, b"b" * msg.PIECE_SIZE),
    msg.Lacking(ID),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_every_message_survives_its_packed_form(message: msg.Message) -> None:
    assert decode_message(KIND[type(message)], encode_message(message)) == message


def test_every_kind_of_message_has_a_number_of_its_own_and_a_class() -> None:
    assert set(KIND) == set(msg.SEND_CLASS) == {type(message) for message in MESSAGES}
    assert len(set(KIND.values())) == len(KIND)
    assert all(16 <= number <= 255 for number in KIND.values())


def test_the_numbers_of_messages_never_change() -> None:
    assert [KIND[kind] for kind in (msg.Ping, msg.Delta, msg.Forward)] == [16, 32, 48]
    assert [KIND[kind] for kind in (msg.Fetch, msg.Piece, msg.Lacking)] == [64, 65, 66]
    assert encode_message(msg.Forward(258, b"x")) == bytes.fromhex("000000000000010278")
    assert encode_message(msg.Pong(1, 2)) == bytes.fromhex("920102")


@pytest.mark.parametrize("kind", [0, 1, 4, 15, 99, 255])
@pytest.mark.hostile("unknown-kinds")
def test_an_unknown_kind_is_skipped(kind: int) -> None:
    assert decode_message(kind, b"whatever") is None


def test_fields_behind_the_known_ones_are_ignored() -> None:
    assert decode_message(KIND[msg.Pong], pack([1, 2, "later"])) == msg.Pong(1, 2)


def test_only_a_delta_may_be_a_mebibyte_and_a_proof_is_small() -> None:
    assert size_max(KIND[msg.Delta]) == 1_048_576
    assert size_max(KIND[msg.Proof]) == 8192
    others = [kind for make, kind in KIND.items() if make not in (msg.Delta, msg.Proof)]
    assert {size_max(kind) for kind in others} == {262_144}


MALFORMED: list[tuple[type, Any]] = [
    (msg.Pong, {"nonce": 1}),
    (msg.Pong, [1]),
    (msg.Pong, ["1", 2]),
    (msg.Pong, [True, 2]),
    (msg.Pong, [-1, 2]),
    (msg.Pong, [2**63, 2]),
    (msg.Ping, [1, 2, b"short"]),
    (msg.Ping, [1, 2, "text"]),
    (msg.Probe, [1, ID[:31]]),
    (msg.Bye, ["code", b"bytes"]),
    (msg.Bye, ["code", "x" * 1025]),
    (msg.Vouch, [None]),
    (msg.Delta, [[b"head", SIG[:63]], None, [], [], None]),
    (msg.Delta, [[b"head", SIG], [1, 2], [], [], None]),
    (msg.Delta, [[b"head", SIG], None, {}, [], None]),
    (msg.Delta, [[b"head", SIG], None, [[0, "key"]], [], None]),
    (msg.Delta, [[b"head", SIG], None, [], [], [b"doc"]]),
    (msg.Want, [[[ID, 5]]]),
    (msg.Vector, [[256], [], True, False]),
    (msg.Vector, [[], [[ID, 1, 2, 3, 4, 5]], True, False]),
    (msg.Vector, [[], [[ID, 1, 2, 3, 4, 5, b"h" * 8, b""]], True, False]),
    (msg.Vector, [[], [ID], True, False]),
    (msg.Vector, [[], [], 1, False]),
    (msg.Proof, [[b"head"], [[b"doc", SIG]]]),
    (msg.Proof, [[[b"head", SIG]], [[b"doc"]]]),
    (msg.Buckets, [b"p" * 4095]),
    (msg.Refuses, [[ID[:31]]]),
    (msg.Settled, [7]),
    (msg.Spread, [[1], [1], b""]),
    (msg.Released, [1, "code", [b"1234567"]]),
    (msg.Fetch, [ID[:31], 0, 5]),
    (msg.Fetch, [ID, -1, 5]),
    (msg.Fetch, [ID, 0, 1_048_577]),
    (msg.Piece, [ID, 0, 1_048_577, b"bytes"]),
    (msg.Piece, [ID, 0, 5, "bytes"]),
    (msg.Lacking, [ID + b"x"]),
]


@pytest.mark.parametrize(("kind", "fields"), MALFORMED, ids=lambda it: repr(it)[:40])
def test_a_field_of_a_wrong_form_is_the_peers_fault(kind: type, fields: Any) -> None:
    with pytest.raises(RemoteError):
        decode_message(KIND[kind], pack(fields))


@pytest.mark.parametrize("size", [0, 7, 8])
def test_a_forward_without_an_envelope_is_refused(size: int) -> None:
    with pytest.raises(RemoteError, match="empty"):
        decode_message(KIND[msg.Forward], bytes(size))
