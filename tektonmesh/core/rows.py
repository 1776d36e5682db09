"""Rows of the message queues: a few packed words, then a body as it is.

Bodies are most of what is written, so they are not packed a second time. What the words mean is
decided by the tables' owners (`sent`, `outbox`, `inbox`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tektonmesh.core.machine import Env
from tektonmesh.core.types import Saved
from tektonmesh.errors import RemoteError

_LENGTH = 4


def pack_row(env: Env, words: list[Any], body: bytes = b"") -> bytes:
    """`words` have no maps in them."""
    packed = env.codec.pack_flat(words)
    return b"".join((len(packed).to_bytes(_LENGTH), packed, body))


def unpack_row(env: Env, row: bytes) -> tuple[list[Any], bytes]:
    """Words and body. Raises RemoteError for what no `pack_row` wrote."""
    length = int.from_bytes(row[:_LENGTH])
    words = env.codec.unpack(row[_LENGTH : _LENGTH + length])
    if not isinstance(words, list):
        raise RemoteError("The words of a row are no list.")
    return words, row[_LENGTH + length :]


def read_rows(env: Env, saved: Saved, table: str) -> Iterator[tuple[bytes, list[Any], bytes]]:
    """(key, words, body) of each row of a table, by key. One that cannot be read (of another
    version of this program) is deleted and told."""
    for name, key in sorted(place for place in saved if place[0] == table):
        try:
            words, body = unpack_row(env, saved[name, key])
        except RemoteError:
            drop_row(env, table, key)
        else:
            yield key, words, body


def drop_row(env: Env, table: str, key: bytes) -> None:
    """Delete a row that means nothing to this program."""
    env.save(table, key, None)
    env.notice("message_row_dropped", table=table, key=key.hex())
