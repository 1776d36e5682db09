"""What other stacks' tools were when they were first seen here, so that none changes unseen.

A tool is pinned by the hash of its definition when it first appears (trust on first use). When that
changes it is blocked, in lists and calls alike, until somebody here has looked at the difference
and approved. Definitions are kept in a small database of their own in the home.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tektonmesh.mcp.base import Base
from tektonmesh.mcp.catalogue import Item, canonical, definition_hash

PINS_MAX = 50_000


class Pin(NamedTuple):
    """What is pinned: of which stack (its id as people write it), CI, kind and name."""

    stack_id: str
    ci: str
    kind: str
    name: str


class Pins:
    """All pins, in memory by hash; definitions stay on the disk. Calls that touch the disk
    (`open`, `flush`, `definition`) are for a worker thread."""

    def __init__(self, home: Path) -> None:
        self._base = Base(home)
        self._hashes: dict[Pin, str] = {}
        self._waiting: dict[Pin, tuple[str, Item]] = {}

    def open(self) -> None:
        """Read what is pinned. Raises StoreError if the file is damaged."""
        with self._base as base:
            rows = base.execute("select stack, ci, kind, name, hash from pin").fetchall()
        self._hashes = {Pin(*row[:4]): row[4] for row in rows}

    def fits(self, pin: Pin, item: Item) -> bool:
        """Whether an item is as it was pinned; one that was not is pinned now."""
        found = self._hashes.get(pin)
        now = definition_hash(item)
        if found is None and len(self._hashes) < PINS_MAX:
            self._set(pin, now, item)
            return True
        return found == now

    def approve(self, pin: Pin, item: Item) -> None:
        """The item is right as it is now."""
        self._set(pin, definition_hash(item), item)

    def _set(self, pin: Pin, digest: str, item: Item) -> None:
        self._hashes[pin] = digest
        self._waiting[pin] = (digest, item)

    @property
    def unsaved(self) -> bool:
        return bool(self._waiting)

    def flush(self) -> None:
        """Write what is new."""
        waiting, self._waiting = self._waiting, {}
        rows = [(*pin, digest, canonical(item).decode()) for pin, (digest, item) in waiting.items()]
        self._write(rows)

    def _write(self, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._base as base:
            base.executemany("insert or replace into pin values (?, ?, ?, ?, ?, ?)", rows)

    def definition(self, pin: Pin) -> Item | None:
        """The definition as it was pinned, for the difference."""
        if pin in self._waiting:
            return self._waiting[pin][1]
        with self._base as base:
            row = base.execute(
                "select definition from pin where stack=? and ci=? and kind=? and name=?", pin
            ).fetchone()
        found: Item | None = None if row is None else json.loads(row[0])
        return found
