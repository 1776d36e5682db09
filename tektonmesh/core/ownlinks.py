"""The own `link/*` records: what this stack signs about its edges, and nothing else.

This module keeps the records in line with what `neighbours` tells it and decides which change is
urgent. Whether a link is up is decided there; when a head goes out is decided by `owner`.
"""

from __future__ import annotations

from collections.abc import Callable

from tektonmesh.core.ids import show_id
from tektonmesh.core.owner import Owner
from tektonmesh.core.types import StackId, short_id
from tektonmesh.errors import LocalError

UP = "up"
SUSPECT = "suspect"


def link_key(stack_id: StackId) -> str:
    """The key of the record about the edge to `stack_id`. The value names the full id."""
    return f"link/{short_id(stack_id).hex()}"


class OwnLinks:
    """One record for each neighbour: (cost in ms, "up" or "suspect")."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._held: dict[StackId, tuple[int, str]] = {}
        self._without_room: dict[StackId, None] = {}
        self._watchers: list[Callable[[StackId], None]] = []

    def watch(self, callback: Callable[[StackId], None]) -> None:
        self._watchers.append(callback)

    def get(self, stack_id: StackId) -> tuple[int, str] | None:
        return self._held.get(stack_id)

    def key_taken(self, stack_id: StackId) -> bool:
        """Short ids can be ground out; two neighbours must not share one record."""
        key = link_key(stack_id)
        return any(link_key(peer) == key and peer != stack_id for peer in self._held)

    def set(self, stack_id: StackId, wanted: tuple[int, str] | None) -> None:
        """Publish, change or (with None) withdraw the record of one edge. Watchers are told in any
        case, since the link behind an unchanged record may be another one. Without room for the
        record the link stays, and nobody routes over it."""
        before = self._held.get(stack_id)
        if wanted is None:
            self._without_room.pop(stack_id, None)
            if before is not None:
                del self._held[stack_id]
                self._owner.delete(link_key(stack_id), urgent=True)
        elif wanted != before:
            self._put(stack_id, wanted, before)
        for watcher in self._watchers:
            watcher(stack_id)

    def _put(
        self, stack_id: StackId, wanted: tuple[int, str], before: tuple[int, str] | None
    ) -> None:
        cost, state = wanted
        assert cost > 0 and state in (UP, SUSPECT)
        # A changed cost may wait its turn, a changed state may not: it moves traffic.
        urgent = before is None or before[1] != state
        key, value = link_key(stack_id), {"peer": stack_id, "cost": cost, "state": state}
        try:
            self._owner.put(key, value, urgent=urgent)
        except LocalError as error:
            if before is not None:  # a stale record would say what is not true any more
                del self._held[stack_id]
                self._owner.delete(key, urgent=True)
            if stack_id not in self._without_room:
                self._without_room[stack_id] = None
                stack = show_id(stack_id)
                self._owner.env.notice("link_not_published", stack=stack, detail=error.detail)
            return
        self._without_room.pop(stack_id, None)
        self._held[stack_id] = wanted
