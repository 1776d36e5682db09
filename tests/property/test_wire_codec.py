"""Canonical msgpack over values and bytes that nobody thought of."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import KIND, decode_message, pack, unpack

KEYS = st.text(max_size=8) | st.integers(-(2**63), 2**64 - 1)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


@given(VALUES)
def test_every_value_comes_back_and_has_one_encoding(value: Any) -> None:
    packed = pack(value)
    assert unpack(packed) == value
    assert pack(unpack(packed)) == packed


@given(VALUES, st.data())
def test_a_changed_byte_is_refused_or_is_another_canonical_document(
    value: Any, data: st.DataObject
) -> None:
    packed = bytearray(pack(value))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= data.draw(st.integers(1, 255))
    check(bytes(packed))


@given(st.binary(max_size=200))
def test_any_bytes_are_canonical_or_refused(data: bytes) -> None:
    check(data)


@given(VALUES)
def test_what_plain_msgpack_writes_is_read_alike_or_refused(value: Any) -> None:
    check(msgpack.packb(value))


@given(st.sampled_from(sorted(KIND.values())), VALUES)
def test_any_value_as_a_message_is_a_message_or_refused(kind: int, value: Any) -> None:
    try:
        message = decode_message(kind, pack(value))
    except RemoteError:
        return
    assert KIND[type(message)] == kind


def check(data: bytes) -> None:
    try:
        value = unpack(data)
    except RemoteError:
        return
    assert pack(value) == data
