"""Rounds: what one read causes is written once, when all of it has been dealt with.

A read of a busy connection brings dozens of messages, and each turn of the node on one of them
may queue bytes for the same few connections. A write for each costs both ends more than the
message. So writers ask to be called at the end of the round. It decides nothing but when: outside
a round at once, inside one when the outermost block ends, each writer once.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

ROUND_BYTES = 16_384
"""A writer with this much queued need not wait for the end: the other side can begin with it. One
TLS record, about a dozen messages of 1 KiB."""

Act = Callable[[], None]


class Rounds:
    """Use as `with rounds: ...`; blocks may lie inside one another."""

    def __init__(self) -> None:
        self._depth = 0
        self._due: dict[Act, None] = {}

    def at_end(self, act: Act) -> None:
        """Call `act` at the end of this round. It raises nothing."""
        if self._depth:
            self._due[act] = None
        else:
            act()

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if not self._depth and self._due:
            due, self._due = self._due, {}
            for act in due:
                act()
