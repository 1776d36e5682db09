"""Copies of one multicast as one message, as long as they go the same way.

The copies for the members of a team share the locked body; only heads and sealed keys differ. When
several leave on one link in one turn they are joined (`Spread`), and the next hop takes them apart
again (`core/spreading`) and treats each as if it had come alone. So the body crosses each link
once and splits where the paths part, while acknowledgement, repetition and refusal stay those of
single envelopes.
"""

from __future__ import annotations

from tektonmesh.core.envelope import (
    CLASS_AT,
    KIND_AT,
    SIZE_MAX,
    Kind,
    read_mutable,
    shared_at,
)
from tektonmesh.core.messages import Forward, Message, Spread

SHARED = int(Kind.SHARED)

COPIES_MAX = 64
"""As many as a team has members."""

COPY_OVERHEAD = 16
"""What a copy takes in the message besides its own bytes, at most."""


def join(messages: list[Message]) -> list[Message]:
    """The same messages, neighbours that share their last part as one. Their order is kept, since
    a link counts envelopes in the order in which it sends them."""
    joined: list[Message] = []
    run: list[Forward] = []
    shared, size = b"", 0
    for message in messages:
        part = _shared_of(message)
        if not isinstance(message, Forward) or not part:
            joined += _closed(run, shared)
            run = []
            joined.append(message)
            continue
        own = len(message.envelope) - len(part) + COPY_OVERHEAD
        fits = len(run) < COPIES_MAX and size + own <= SIZE_MAX
        same = run and part == shared and _class_of(message) == _class_of(run[0])
        if not (same and fits):
            joined += _closed(run, shared)
            run, shared, size = [], part, len(part)
        run.append(message)
        size += own
    return joined + _closed(run, shared)


def _shared_of(message: Message) -> bytes:
    if type(message) is not Forward or message.envelope[KIND_AT] != SHARED:
        return b""
    data = message.envelope
    return data[shared_at(data, read_mutable(data)) :]


def _class_of(message: Forward) -> int:
    return message.envelope[CLASS_AT]


def _closed(run: list[Forward], shared: bytes) -> list[Message]:
    if len(run) < 2:
        return list(run)
    seqs = tuple(message.seq for message in run)
    heads = tuple(message.envelope[: len(message.envelope) - len(shared)] for message in run)
    return [Spread(seqs, heads, shared)]
