"""What a handler has said of a reply that resumes, for both clients.

The daemon says up to where a reply is on its disk; what is beyond that is kept here. When the
daemon was away and gives the message again, the same handler goes on: what the daemon lacks is said
once more, and nothing else. Pure: the clients decide how lines travel and who waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tektonmesh.api import dialect
from tektonmesh.errors import MeshError

HELD_MAX = 4 << 20
"""Bytes that a handler may be ahead of its daemon; it waits then."""

AWAY_S = 60.0
"""A handler whose message does not come again within this is cancelled."""

REMEMBERED = 64
"""Replies that were said to the end, of which the daemon may not have all."""

Delivery = int | str


class Said:
    """One reply. `delivery` is how the daemon calls it now; None while the daemon is away."""

    def __init__(self) -> None:
        self.delivery: Delivery | None = None
        self.end = 0
        self._parts: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._last: Callable[[Delivery], bytes] | None = None

    @property
    def is_over(self) -> bool:
        """Whether the handler has said all."""
        return self._last is not None

    @property
    def is_full(self) -> bool:
        return self._size > HELD_MAX

    def say(self, data: str | bytes) -> bytes:
        """Add to the reply; the line to write, empty while the daemon is away."""
        part = data.encode(errors="replace") if isinstance(data, str) else data
        if not part:
            return b""
        self._parts.append((self.end, part))
        self._size += len(part)
        self.end += len(part)
        return self._line(self.end - len(part), part)

    def finish(self, answer: str | bytes | None) -> bytes:
        """The handler says this last; the line to write, empty while the daemon is away."""
        return self._end(partial(dialect.answer_line, body=answer, offset=self.end))

    def fail(self, error: BaseException) -> bytes:
        """The handler has failed; the line to write."""
        return self._end(partial(dialect.failure_line, error=error))

    def _end(self, last: Callable[[Delivery], bytes]) -> bytes:
        self._last = last
        return last(self.delivery) if self.delivery is not None else b""

    def kept(self, offset: int) -> None:
        """Everything before `offset` is on the daemon's disk."""
        while self._parts and self._parts[0][0] + len(self._parts[0][1]) <= offset:
            self._size -= len(self._parts.popleft()[1])

    def attach(self, delivery: Delivery, reply_from: int) -> bytes:
        """The daemon gives the message (again), and has everything before `reply_from`; the lines
        that it lacks."""
        self.delivery = delivery
        self.kept(reply_from)
        first = self._parts[0][0] if self._parts else self.end
        if first > reply_from:
            error = MeshError("A part of the reply is not here any more.", code="ci_failed")
            return dialect.failure_line(delivery, error)
        lines = [self._line(offset, part) for offset, part in self._parts]
        return b"".join(lines) + (self._last(delivery) if self._last is not None else b"")

    def _line(self, offset: int, part: bytes) -> bytes:
        if self.delivery is None:
            return b""
        return dialect.chunk_line(self.delivery, part, offset)


def name_of(message: Mapping[str, Any]) -> str | None:
    """What a message whose reply resumes is known by, whichever delivery it is; None for others."""
    params = message.get("params") or {}
    if params.get("reply_from") is None:
        return None
    return f"{params.get('id')} {str(params.get('to')).lower()}"
