"""Bodies made as long as many others, so that their size says little to relays (`padding`).

A size is rounded up to the next bucket: at least 256 bytes, and above that so that only the first
few bits of a size remain, which adds at most 12 % (Padmé; Nikitin et al., "Reducing Metadata
Leakage from Encrypted Files and Communication with PURBs", PETS 2019). The filling is a field that
nobody reads, so a stack need not know whether its peer pads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LEAST = 256
NAMES = ("_", "__", "___", "____")
"""Of the filling. A length field of its own grows with what it counts, so that some sizes cannot
be met with a name of one letter."""


def bucket(size: int, size_max: int) -> int:
    """What a body of `size` bytes is filled up to; never less than that, and over `size_max` only
    if the body is."""
    if size >= size_max:
        return size
    assert size > 0, "a packed map has a byte at least"
    exponent = size.bit_length() - 1
    step = 1 << max(exponent - exponent.bit_length(), 0)
    return min(max(LEAST, -(-size // step) * step), size_max)


def pack_padded(pack: Callable[[Any], bytes], body: dict[str, Any], size_max: int) -> bytes:
    """The packed body with its filling. Raises what `pack` raises."""
    empty = len(pack(body | {NAMES[0]: b""}))
    if empty > size_max:
        return pack(body)
    wanted = bucket(empty, size_max)
    found = b""
    for name in NAMES:
        size = wanted - empty - len(name) + len(NAMES[0])
        size -= 0 if size < 1 << 8 else 1 if size <= 1 << 16 else 3
        found = pack(body | {name: bytes(max(size, 0))})
        if len(found) == wanted:
            break
    return found
