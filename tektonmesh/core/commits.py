"""Rows that must be durable before the next step, what follows, and a disk that refuses.

The core says what is to be written and what shall happen then; the shell commits in groups and
tells by `Saved`. While the disk takes no writes nothing new may be promised: whoever waits for a
commit is told that it failed, and its rows are taken back, which the shell's queue makes true even
if room comes at that very moment (a row that is put and deleted before a commit is deleted).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tektonmesh.core.effects import Save
from tektonmesh.core.machine import Env
from tektonmesh.errors import StoreError

Row = tuple[str, bytes, bytes | None]

FIRST_TICKET = 1 << 32
"""Tickets below are `owner`'s."""

RETRY_AFTER_S = 30.0
"""What a refused caller is told; the shell tries a full disk again at least so often."""


class _Waiting(NamedTuple):
    rows: tuple[Row, ...]
    then: Callable[[], None]
    failed: Callable[[], None] | None


class Commits:
    """The commits of one node that something waits for."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.refusing = False
        self._last = FIRST_TICKET
        self._waiting: dict[int, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def save(
        self,
        rows: tuple[Row, ...],
        then: Callable[[], None],
        failed: Callable[[], None] | None = None,
    ) -> None:
        """Write `rows` in one transaction; `then` once they are durable. With `failed`, rows that
        the disk refuses are taken back and that is called instead; without, they wait for room."""
        self._last += 1
        self._waiting[self._last] = _Waiting(rows, then, failed)
        self.env.emit(Save(rows, self._last))

    def check(self) -> None:
        """Raises StoreError while the disk takes no writes."""
        if self.refusing:
            raise refusal()

    def saved(self, ticket: int) -> None:
        """The rows of `ticket` are durable."""
        waiting = self._waiting.pop(ticket, None)
        if waiting is not None:
            waiting.then()

    def trouble(self, refusing: bool) -> None:
        """The disk refuses writes from now on, or takes them again."""
        self.refusing = refusing
        if not refusing:
            return
        for ticket, waiting in list(self._waiting.items()):
            if waiting.failed is not None:
                del self._waiting[ticket]
                undo = tuple((table, key, None) for table, key, _value in waiting.rows)
                self.env.emit(Save(undo, None))
                waiting.failed()


def refusal() -> StoreError:
    """What a caller is told while the disk takes no writes."""
    return StoreError(
        "The disk takes no writes; nothing was accepted.",
        hint="Is it full?",
        data={"retry_after_s": RETRY_AFTER_S},
    )
