"""What was tried to bring messages to their stacks: for people who ask (`explain`), nothing else.

Whoever sends copies of something (`copies`, `courier`) notes each here, and what became of it hop
by hop; of those that ended the newest are kept for a while. Nothing here decides anything, and all
of it ends with the process.
"""

from __future__ import annotations

from collections.abc import Iterator

from tektonmesh.core.types import StackId

TRIES_KEPT = 16
"""The newest copies of one message. It is repeated for as long as it lives; the first ones say no
more than the last."""
PAST_MAX = 1024
"""Messages that ended, some 500 bytes each."""

UNDER_WAY = ""
"""The fate of a copy of which nothing was heard yet."""


class Attempt:
    """One copy: when it left and which way it was meant to take, past the relays `avoid` (packed
    short ids); `fate` is the word of the hops, and when it came."""

    __slots__ = ("at", "avoid", "fate", "fate_at", "path")

    def __init__(self, at: float, path: tuple[StackId, ...], avoid: bytes) -> None:
        self.at = at
        self.path = path
        self.avoid = avoid
        self.fate = UNDER_WAY
        self.fate_at = 0.0

    def ended(self, fate: str, at: float) -> None:
        """ "settled", or the code with which it came back."""
        assert fate != UNDER_WAY and at >= self.at, "time never goes back"
        self.fate, self.fate_at = fate, at


class Attempts:
    """The copies of one message, oldest first. `trace` is the way that one of them took, by the
    sealed word of the destination: packed, with how long each stack had it."""

    __slots__ = ("newest", "trace")

    def __init__(self) -> None:
        self.newest: list[Attempt] = []
        self.trace = b""

    def __iter__(self) -> Iterator[Attempt]:
        return iter(self.newest)

    def add(self, attempt: Attempt) -> None:
        self.newest.append(attempt)
        if len(self.newest) > TRIES_KEPT:
            del self.newest[0]


class Past:
    """The attempts of messages that ended, by id. Whoever is pushed out ended first."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Attempts] = {}

    def get(self, msg_id: bytes) -> Attempts | None:
        return self._kept.get(msg_id)

    def keep(self, msg_id: bytes, attempts: Attempts) -> None:
        self._kept[msg_id] = attempts
        if len(self._kept) > PAST_MAX:
            del self._kept[next(iter(self._kept))]
