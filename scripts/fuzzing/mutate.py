"""Changing inputs with an eye to their structure. Depends on nothing but the chance handed in.

Half of the changes are to bytes: flipped bits, splices of two inputs, edge numbers written over a
length, pieces doubled or cut out. Inputs that are msgpack are changed as trees as well, also within
bytes that hold msgpack themselves (a head in a delta, a body in a voucher), and packed again, so
that they get past the check of the form and on to that of the meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack

EDGES = (0, 1, 2, 3, 15, 16, 31, 32, 64, 127, 128, 255, 256, 1024, 4096, 16_367, 16_368, 16_369)
EDGES += (32_767, 32_768, 65_535, 65_536, 262_144, 262_145, 1_048_576, 1_048_577)
EDGES += (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48 - 1, 2**48, 2**63 - 1, 2**63, 2**64 - 1)
LEAVES: tuple[Any, ...] = (None, True, False, 0.0, -0.0, 1.0, 1e308, "", "a", "é", b"", [], {}, -1)
LEAVES += (-32, -33, -(2**31), -(2**63), bytes(8), bytes(16), bytes(32), bytes(64), "\x00")
LEAVES += ("x" * 63, "x" * 64, "x" * 1025, {0: 1}, {"mac": b""}, [[]], "127.0.0.1:7700", *EDGES)
_PIECES = """
80 81 8f 90 91 9f a0 a1 bf c0 c1 c2 c3 c400 c4ff c50100 c600010000 c700ff c800ffff c9ffffffff
ca7fc00000 cb7ff0000000000000 cb7ff8000000000000 cb8000000000000000 cc80 cd0100 ce00010000
cf0000000100000000 cfffffffffffffffff d0e0 d1ff7f d38000000000000000 d6ff00000000
d7ff0000000000000000 d9ff da0100 dbffffffff dc0010 dcffff ddffffffff de0010 deffff dfffffffff
e0 ff 0a 0d0a 00
"""
PIECES = tuple(bytes.fromhex(piece) for piece in _PIECES.split())
WORDS = tuple(
    word.encode()
    for word in (
        *('"', "\\", "{", "}", "[", "]", ":", ",", " ", "null", "true", "-", "e", "."),
        *("NaN", "Infinity", "-Infinity", "1e999", "-0", "0.0", "1E400", "99999999999999999999"),
        *('"id":', '"method":', '"params":', '"result":', '"error":', '"jsonrpc":"2.0"'),
        *('"message":', "\\ud800", "\\udfff", "\\u0000", "\\n", "{}", "[[", '{"":', "\ufeff"),
        *("\u2028", "::", "[::1]:0", ":65535", ":65536", "%", "@", "~", "/", "127.0.0.1"),
        *("0x7f.1", "::ffff:127.0.0.1", "http://", "http+unix://%2f", "localhost", "１"),
    )
)
NESTED_MIN = 2
"""Bytes shorter than this are not looked into."""


class Mutator:
    """Changes inputs of one form. `others` are the inputs that pieces are taken from."""

    def __init__(self, rng: Random, *, packed: bool, text: bool, size_max: int) -> None:
        self._rng = rng
        self._packed = packed
        self._pieces = (*PIECES, *WORDS) if text else PIECES
        self._size_max = size_max

    def mutate(self, data: bytes, others: Sequence[bytes]) -> bytes:
        """`data` with one to four changes."""
        rng = self._rng
        for _ in range(1 + rng.randrange(4)):
            tree = self._packed and rng.random() < 0.5
            changed = self._change_tree(data) if tree else None
            data = self._change_bytes(data, others) if changed is None else changed
        return data[: self._size_max]

    # --- bytes -----------------------------------------------------------------------------------

    def _change_bytes(self, data: bytes, others: Sequence[bytes]) -> bytes:
        rng = self._rng
        if not data:
            return rng.choice(self._pieces)
        at = rng.randrange(len(data))
        end = min(len(data), at + 1 + rng.randrange(1 << rng.randrange(8)))
        way = rng.randrange(8)
        if way == 0:
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        if way == 1:
            return data[:at] + rng.randbytes(end - at) + data[end:]
        if way == 2:
            return data[:at] + data[end:]
        if way == 3:
            return data[:end] + data[at:end] + data[end:]
        if way == 4:
            number = self._number()
            return data[:at] + number + data[at + len(number) :]
        if way == 5:
            return data[:at] + rng.choice(self._pieces) + data[at:]
        if way == 6:
            piece = rng.choice(self._pieces)
            return data[:at] + piece + data[at + len(piece) :]
        return self._splice(data, rng.choice(others) if others else data, at)

    def _number(self) -> bytes:
        rng = self._rng
        form, size = rng.choice((("B", 8), (">H", 16), (">I", 32), (">Q", 64)))
        number = rng.choice(EDGES) + rng.randrange(-1, 2)
        return struct.pack(form, number % (1 << size))

    def _splice(self, data: bytes, other: bytes, at: int) -> bytes:
        if not other:
            return data[:at]
        start = self._rng.randrange(len(other))
        end = start + 1 + self._rng.randrange(len(other) - start)
        return data[:at] + other[start:end] + data[at:]

    # --- trees -----------------------------------------------------------------------------------

    def _change_tree(self, data: bytes) -> bytes | None:
        """None if `data` is no msgpack."""
        value = _loosely_unpacked(data)
        if value is None:
            return None
        try:
            return _packed_again(self._changed(value[0]))
        except (ValueError, TypeError, OverflowError):
            return None

    def _changed(self, value: Any) -> Any:
        """`value` with one change somewhere in it."""
        rng = self._rng
        if isinstance(value, (list, dict)) and value and rng.random() < 0.85:
            return self._changed_within(value)
        if isinstance(value, bytes) and len(value) >= NESTED_MIN and rng.random() < 0.7:
            inner = _loosely_unpacked(value)
            if inner is not None and isinstance(inner[0], (list, dict)):
                return _packed_again(self._changed(inner[0]))
        return self._other(value)

    def _changed_within(self, value: Any) -> Any:
        rng = self._rng
        items: list[Any] = list(value.items()) if isinstance(value, dict) else list(value)
        at = rng.randrange(len(items))
        way = rng.randrange(10)
        if way == 0:
            del items[at]
        elif way == 1:
            items.insert(at, items[rng.randrange(len(items))])
        elif way == 2:
            items += items[: 1 + rng.randrange(4)]
        elif isinstance(value, dict):
            key, item = items[at]
            again = (self._other(key), item) if way == 3 else (key, self._changed(item))
            items[at] = again
        else:
            items[at] = self._changed(items[at])
        return _as_map(items) if isinstance(value, dict) else items

    def _other(self, value: Any) -> Any:
        """Something in place of a leaf."""
        rng = self._rng
        if rng.random() < 0.5:
            if type(value) is int:
                return value + rng.randrange(-2, 3) if rng.random() < 0.5 else rng.choice(EDGES)
            if isinstance(value, bytes):
                return self._change_bytes(value, (value,))
            if isinstance(value, str):
                return self._change_bytes(value.encode(), ()).decode("utf-8", "ignore")
        return rng.choice(LEAVES)


def _loosely_unpacked(data: bytes) -> tuple[Any] | None:
    try:
        value = msgpack.unpackb(data, strict_map_key=False, max_array_len=4096, max_map_len=4096)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
    return (value,)


def _as_map(items: list[Any]) -> dict[Any, Any]:
    return {key: item for key, item in items if isinstance(key, (int, str, bytes, float))}


def _packed_again(value: Any) -> bytes:
    """Packed with maps in canonical order where their keys can be ordered at all."""
    packed: bytes = msgpack.packb(_in_order(value), use_bin_type=True)
    return packed


def _in_order(value: Any) -> Any:
    if isinstance(value, list):
        return [_in_order(item) for item in value]
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: msgpack.packb(key, use_bin_type=True))
        return {key: _in_order(value[key]) for key in keys}
    return value
