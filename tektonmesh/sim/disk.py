"""A disk of one host: rows become durable after a latency, and a crash loses those that are not.

It keeps the same (table, key) -> value map that the real store gives back at start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tektonmesh.core.effects import Save
from tektonmesh.core.types import Saved
from tektonmesh.sim.files import Files


@dataclass(slots=True, eq=False)
class Write:
    """One accepted transaction; compared by identity."""

    save: Save


class Disk:
    """Rows in the order they were written; what is durable is always a prefix of that order."""

    def __init__(self) -> None:
        self.rows: Saved = {}
        self.writes = 0
        self.slow_s = 0.0
        """What every write takes longer than it should."""
        self.losses = 0
        """How often all of it was lost."""
        self.applied: Callable[[Save], None] = lambda _save: None
        """Told of each transaction that became durable."""
        self.files = Files()
        self._pending: list[Write] = []

    def write(self, save: Save) -> Write:
        """Accept a transaction; hand the result to `sync` once its latency is over."""
        entry = Write(save)
        self._pending.append(entry)
        return entry

    def sync(self, entry: Write) -> list[int]:
        """Make everything up to `entry` durable. Returns the tickets that wait for it; none if
        a crash was faster."""
        if entry not in self._pending:
            return []
        tickets: list[int] = []
        while self._pending:
            first = self._pending.pop(0)
            self._apply(first.save)
            if first.save.ticket is not None:
                tickets.append(first.save.ticket)
            if first is entry:
                break
        return tickets

    def crash(self) -> None:
        """Lose what is not durable."""
        self._pending.clear()
        self.files.crash()

    def flush(self) -> None:
        """A clean stop: everything accepted becomes durable."""
        for entry in self._pending:
            self._apply(entry.save)
        self._pending.clear()

    def wipe(self) -> None:
        """Lose everything; the keys are kept elsewhere."""
        self._pending.clear()
        self.rows, self.files = {}, Files()
        self.losses += 1

    def _apply(self, save: Save) -> None:
        self.writes += 1
        for table, key, value in save.rows:
            if value is None:
                self.rows.pop((table, key), None)
            else:
                self.rows[(table, key)] = value
        self.applied(save)
