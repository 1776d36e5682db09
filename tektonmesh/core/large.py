"""Large bodies: what names one, and how it is cut into parts that can be checked.

A body that no envelope could hold lies in a file at its origin and travels as its name, its size
and one hash: that of its sums, which are the hashes of its chunks. The destination asks for the
sums, then for the chunks, checks each against them, and has the body in a file of its own when
all are there. Nothing here decides; `offers` and `pulls` are the two ends, the shell keeps files.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

CHUNK_SIZE = 64 << 10
"""As the parts of blobs: four frames of a link, 10 ms of one of 50 Mbit/s."""

SUM_SIZE = 32
_PERSON_CHUNK, _PERSON_SUMS = b"tektonmesh/chunk", b"tektonmesh/sums"

SIZE_MAX = 1 << 40


class Large(NamedTuple):
    """One large body. `name` is that of its file on this stack, random or made of what only its two
    ends know of; `root` is the hash of its sums."""

    name: str
    size: int
    root: bytes


def sum_of(chunk: bytes) -> bytes:
    """The hash of one chunk."""
    return blake2b(chunk, digest_size=SUM_SIZE, person=_PERSON_CHUNK).digest()


def root_of(size: int, sums: bytes) -> bytes:
    """The hash of the sums of a body of so many bytes."""
    said = size.to_bytes(8) + sums
    return blake2b(said, digest_size=SUM_SIZE, person=_PERSON_SUMS).digest()


def chunks_of(size: int) -> int:
    """How many chunks a body has; all but the last are full."""
    return -(-size // CHUNK_SIZE)


def sums_size(size: int) -> int:
    return chunks_of(size) * SUM_SIZE


def part_size(size: int, offset: int, part: int = CHUNK_SIZE) -> int:
    """The length of what was asked for as a part of `part` bytes at `offset`; behind the body lie
    its sums, cut likewise. 0 if none begins there."""
    end, at = (size, offset) if offset < size else (sums_size(size), offset - size)
    if offset < 0 or at >= end or part <= 0 or CHUNK_SIZE % part or at % part:
        return 0
    return min(part, end - at)


def name_at(source: bytes, msg_id: bytes) -> str:
    """The name of a body that comes from another stack: the same after a restart."""
    return blake2b(source + msg_id, digest_size=16).hexdigest() + ".in"


def words_of(large: Large | None) -> list[Any]:
    """As a row keeps it; nothing for a body that is not large."""
    return [] if large is None else list(large)


def large_of(words: list[Any]) -> Large | None:
    """What `words_of` wrote; None for anything else."""
    if len(words) != 3:
        return None
    name, size, root = words
    sound = isinstance(name, str) and isinstance(size, int) and isinstance(root, bytes)
    return Large(name, size, root) if sound else None
