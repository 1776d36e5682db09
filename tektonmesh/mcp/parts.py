"""What owners told this stack alone of what their CIs offer, so that a restart forgets none of it.

Each part is kept as it came, with the digest for which it was asked. Whether it still holds is
decided by whoever reads it (`federation`): by what the owner says that this stack may use, and by
the policy here. It decides how much is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tektonmesh.core.ids import parse_id, show_id
from tektonmesh.core.types import StackId
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.mcp.base import Base

Place = tuple[StackId, str]
"""A CI elsewhere: its owner, and its key."""
OWNER_SIZE_MAX = 8 << 20
SIZE_MAX = 64 << 20
"""Bytes as they came, of one owner and of all. Guesses: what ten CIs with hundreds of tools each
offer is half a megabyte."""


class Part(NamedTuple):
    digest: bytes
    data: bytes


class Parts:
    """All parts, in memory and on the disk. `open` and `flush` are for a worker thread."""

    def __init__(self, home: Path) -> None:
        self._base = Base(home)
        self._held: dict[Place, Part] = {}
        self._waiting: dict[Place, Part | None] = {}

    def open(self) -> None:
        """Read what is kept. Raises StoreError if the file is damaged."""
        with self._base as base:
            rows = base.execute("select stack, ci, digest, data from part").fetchall()
        for stack, ci, digest, data in rows:
            try:
                self._held[parse_id(stack), ci] = Part(digest, data)
            except LocalError:
                continue  # no id of ours: somebody else wrote it

    def get(self, place: Place) -> Part | None:
        return self._held.get(place)

    def places(self) -> list[Place]:
        return list(self._held)

    def put(self, place: Place, part: Part) -> None:
        """Keep this one from now on. Raises RemoteError if its owner has told too much."""
        others = {one: len(held.data) for one, held in self._held.items() if one != place}
        of_owner = sum(size for (owner, _ci), size in others.items() if owner == place[0])
        if len(part.data) > min(OWNER_SIZE_MAX - of_owner, SIZE_MAX - sum(others.values())):
            raise RemoteError("What this owner offers is more than is kept of one.")
        self._held[place] = self._waiting[place] = part

    def drop(self, place: Place) -> bool:
        """Forget it; whether there was one."""
        if self._held.pop(place, None) is None:
            return False
        self._waiting[place] = None
        return True

    @property
    def unsaved(self) -> bool:
        return bool(self._waiting)

    def flush(self) -> None:
        """Write what is new."""
        waiting, self._waiting = self._waiting, {}
        with self._base as base:
            for (owner, ci), part in waiting.items():
                key = (show_id(owner), ci)
                if part is None:
                    base.execute("delete from part where stack=? and ci=?", key)
                else:
                    base.execute("insert or replace into part values (?, ?, ?, ?)", (*key, *part))
