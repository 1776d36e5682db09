"""Messages that are sent with a key so that sending them again does no harm.

It decides what a repetition is (same sender, target and key within ten minutes), and that it is
answered with what became of the first: its reply, or a failure that may have reached the CI. What
certainly did not reach it is forgotten, so that trying again tries again. Kept in memory only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tektonmesh.errors import LocalError, MeshError

KEEP_S = 600.0
ENTRIES_MAX = 4096
BYTES_MAX = 32 << 20
"""Of kept replies; the oldest go first, as if their time were over."""

Key = tuple[str, str, str]
Result = dict[str, Any]
Heard = Callable[[Result | None, MeshError | None], None]
Done = Callable[[Result], None]
Failed = Callable[[MeshError], None]
Begin = Callable[[Done, Failed], Callable[[], None]]


@dataclass(slots=True, eq=False)
class _First:
    """The first message with a key: under way while `ends` is None, then with its outcome."""

    print: bytes
    ends: float | None = None
    size: int = 0
    result: Result | None = None
    error: MeshError | None = None
    waiting: dict[int, Heard] = field(default_factory=dict)


class Repeats:
    """What was sent with keys lately; `now` is a clock in seconds that never goes back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._firsts: dict[Key, _First] = {}
        self._bytes = 0
        self._tickets = 0

    def __len__(self) -> int:
        return len(self._firsts)

    def once(
        self, key: Key, print: bytes, begin: Begin, done: Done, failed: Failed
    ) -> Callable[[], None]:
        """Send by `begin` if this is the first message with the key; else wait for what becomes of
        the first. `done` or `failed` is called once, possibly before this returns, unless what is
        returned was called to give the message up.

        Raises LocalError: `conflict` if the key was used for another message (`print` differs),
        `busy` if too many messages with keys are under way.
        """

        def heard(result: Result | None, error: MeshError | None) -> None:
            if result is not None:
                done(result)
            elif error is not None:
                failed(error)

        follow = self._follow(key, print, heard)
        if follow is not None:
            return follow

        def first_done(result: Result) -> None:
            size = len(result.get("body", "")) + len(result.get("body_b64", ""))
            self._end(key, result, None, size)
            done(result)

        def first_failed(error: MeshError) -> None:
            self._end(key, None, error, 0)
            failed(error)

        stop = begin(first_done, first_failed)

        def give_up() -> None:
            stop()
            self._forget(key)

        return give_up

    def _follow(self, key: Key, print: bytes, heard: Heard) -> Callable[[], None] | None:
        """None if this is the first with its key."""
        self._tidy()
        first = self._firsts.get(key)
        if first is None:
            self._make_room()
            self._firsts[key] = _First(print)
            return None
        if first.print != print:
            raise LocalError(
                "This Idempotency-Key was used for another message to this target.",
                code="conflict",
                hint="Use a new key for a new message.",
                data={"field": "idempotency_key"},
            )
        if first.ends is not None:
            heard(first.result, first.error)
            return lambda: None
        self._tickets += 1
        ticket = self._tickets
        first.waiting[ticket] = heard
        return lambda: _drop(first, ticket)

    def _end(self, key: Key, result: Result | None, error: MeshError | None, size: int) -> None:
        """The first message has its outcome; `size` is about how many bytes keeping it costs."""
        first = self._firsts.pop(key)
        first.result, first.error, first.size = result, error, size
        first.ends = self._now() + KEEP_S
        if error is None or getattr(error, "outcome", "released") == "indeterminate":
            # At the end of the order, which is therefore that of the ends.
            self._firsts[key] = first
            self._bytes += size
        self._tell(first)

    def _forget(self, key: Key) -> None:
        """The first caller gave its message up; whoever waits with it hears of it."""
        first = self._firsts.get(key)
        if first is not None and first.ends is None:
            del self._firsts[key]
            first.error = LocalError(
                "The first call with this key was cancelled.", code="cancelled"
            )
            self._tell(first)

    def _tell(self, first: _First) -> None:
        waiting, first.waiting = first.waiting, {}
        for heard in waiting.values():
            heard(first.result, first.error)

    def _tidy(self) -> None:
        """Forget what is over. Those under way stand among the others and have no end yet."""
        now = self._now()
        for key, first in list(self._firsts.items()):
            if first.ends is None:
                continue
            if first.ends > now and self._bytes <= BYTES_MAX:
                break
            self._remove(key)

    def _make_room(self) -> None:
        if len(self._firsts) < ENTRIES_MAX:
            return
        for key, first in self._firsts.items():
            if first.ends is not None:
                self._remove(key)
                return
        raise LocalError("Too many messages with an Idempotency-Key are under way.", code="busy")

    def _remove(self, key: Key) -> None:
        self._bytes -= self._firsts.pop(key).size


def _drop(first: _First, ticket: int) -> None:
    first.waiting.pop(ticket, None)
