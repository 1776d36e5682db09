"""What a parser under test is: its name, what is run on one input, and where inputs come from.

A check returns whether the input was accepted. It lets nothing out but a broken promise: any
exception that leaves it is a finding, and so is an assertion in it that does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[bytes], bool]
Parse = Callable[[bytes], object]


@dataclass(frozen=True)
class Parser:
    """`parse` is the parser alone, without what `check` adds to it; its time is what counts.
    `seeds` are accepted inputs to begin with, `heavy` the largest and worst that the limits allow.
    `share` is this parser's part of all inputs, relative to the others'. `packed` says that
    inputs are msgpack, `text` that they are text, so that they can be changed as such.
    `size_max` bounds what mutation makes, in bytes; heavy inputs may be longer."""

    name: str
    check: Check
    parse: Parse
    seeds: Callable[[], list[bytes]]
    heavy: Callable[[], list[bytes]] = list
    share: float = 1.0
    packed: bool = False
    text: bool = False
    size_max: int = 2048


def is_shown_in(shown: object, given: object) -> bool:
    """Whether `given` is `shown` with, at most, more fields at the ends of its arrays: what a
    later version may add and this one ignores."""
    if type(shown) is list and type(given) is list:
        pairs = zip(shown, given, strict=False)
        return len(given) >= len(shown) and all(is_shown_in(one, other) for one, other in pairs)
    return type(shown) is type(given) and shown == given
