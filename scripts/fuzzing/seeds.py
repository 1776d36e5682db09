"""Messages of every kind, made from the types of their fields alone.

Whatever `wire/codec` numbers gets its seeds here without being named: a kind that is added tomorrow
is fuzzed tomorrow. Types do not tell how long bytes must be, so lengths are tried until the codec
takes the message back.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import islice, product
from types import UnionType
from typing import Any

from tektonmesh.errors import MeshError
from tektonmesh.wire.codec import KIND, decode_message, encode_message

SIZES = (32, 64, 16, 8, 1, 4096, 0)
"""Ids, signatures, fingerprints, short ids, anything, bucket prints, nothing."""
TRIES_MAX = 20_000


@dataclass(frozen=True)
class Fill:
    """How a message is filled: `number` for integers, `many` items for arrays, `whole` for what
    may be missing, `word` for text."""

    number: int
    many: int
    whole: bool
    word: str


FILLS = (
    Fill(1, 1, True, "unreachable"),
    Fill(0, 0, False, ""),
    Fill(2**63 - 1, 0, True, "ci/numa"),
    Fill(255, 3, True, "addr/0"),
    Fill(2, 40, False, "é"),
)


@cache
def messages(kind: type) -> tuple[Any, ...]:
    """Values of this kind of message that the codec takes, each in its own way."""
    made = [filled(kind, fill) for fill in FILLS]
    return tuple(message for message in made if message is not None)


def filled(kind: type, fill: Fill) -> Any:
    """The message of this kind that is filled so; None if the codec does not take it."""
    message = _Maker(fill, iter(_fitting_sizes(kind)).__next__).make(kind)
    return message if _survives(message) else None


def packed_messages(kind: type) -> list[bytes]:
    """The packed forms of `messages`, without doubles."""
    return list(dict.fromkeys(encode_message(message) for message in messages(kind)))


@cache
def _fitting_sizes(kind: type) -> tuple[int, ...]:
    """The first lengths of the fields of bytes with which a message survives its packed form."""
    slots = _Maker(FILLS[0], lambda: 0)
    slots.make(kind)
    for sizes in islice(product(SIZES, repeat=slots.asked), TRIES_MAX):
        if _survives(_Maker(FILLS[0], iter(sizes).__next__).make(kind)):
            return sizes
    raise AssertionError(f"no {kind.__name__} can be made of its fields' types; see SIZES")


def _survives(message: Any) -> bool:
    try:
        return decode_message(KIND[type(message)], encode_message(message)) == message
    except MeshError:
        return False


class _Maker:
    """Makes one value. `size` is asked for the length of each field of bytes, in the same order
    whatever the fill; items of one array share theirs."""

    def __init__(self, fill: Fill, size: Callable[[], int]) -> None:
        self._fill = fill
        self._size = size
        self.asked = 0

    def make(self, kind: Any) -> Any:
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if origin is tuple:
            return self._array(inner)
        if origin in (UnionType, typing.Union):
            [own] = [one for one in inner if one is not type(None)]
            made = self.make(own)
            return made if self._fill.whole else None
        if is_dataclass(kind) or issubclass(kind, tuple):
            return kind(*[self.make(one) for one in _types(kind)])
        return self._leaf(kind)

    def _array(self, inner: tuple[Any, ...]) -> tuple[Any, ...]:
        if inner[-1] is not Ellipsis:
            return tuple([self.make(one) for one in inner])
        item = self.make(inner[0])
        return (item,) * self._fill.many

    def _leaf(self, kind: type) -> Any:
        fill = self._fill
        if kind is bytes:
            self.asked += 1
            size = self._size()
            return bytes(at % 251 for at in range(size))
        if kind is bool:
            return fill.whole
        if kind is str:
            return fill.word
        if issubclass(kind, Enum):
            return next(iter(kind))
        assert kind is int, f"no value is known for {kind}"
        return fill.number


def is_typed(value: Any, kind: Any) -> bool:
    """Whether a value is of this type through and through; True is no integer here."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if type(value) is not tuple or (inner[-1] is not Ellipsis and len(value) != len(inner)):
            return False
        kinds = inner if inner[-1] is not Ellipsis else inner[:1] * len(value)
        return all(map(is_typed, value, kinds))
    if origin in (UnionType, typing.Union):
        return any(is_typed(value, one) for one in inner)
    if type(value) is not kind:
        return False
    if is_dataclass(kind):
        held = [getattr(value, one.name) for one in fields(kind)]
        return all(map(is_typed, held, _types(kind)))
    return not issubclass(kind, tuple) or all(map(is_typed, value, _types(kind)))


@cache
def _types(kind: Any) -> tuple[Any, ...]:
    """The types of a value's fields, in order."""
    hints = typing.get_type_hints(kind)
    names = [one.name for one in fields(kind)] if is_dataclass(kind) else list(hints)
    return tuple(hints[name] for name in names)
