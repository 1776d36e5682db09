"""The own `link/*` records: what this stack signs about its edges, and nothing else.

This module keeps the records in line with what `neighbours` tells it and decides which change is
urgent, and which is not worth telling because the link comes and goes (`core/damping`): such a link
is shown as a dear one, which others take when nothing else leads there. Whether a link is up is
decided there; when a head goes out is decided by `owner`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tektonmesh.core.damping import Damping
from tektonmesh.core.ids import show_id
from tektonmesh.core.owner import Owner
from tektonmesh.core.types import StackId, short_id
from tektonmesh.errors import LocalError

UP = "up"
SUSPECT = "suspect"
DAMPED_MS = 10_000
"""The cost of a link that comes and goes: the most that a record may say, so that any other way is
better. Shown as suspect it would cut off whoever has no other link, for longer than it is down."""

ROUNDING_S = 0.01
"""More than floats may round away: at the end of its rest a link must be found rested."""


def link_key(stack_id: StackId) -> str:
    """The key of the record about the edge to `stack_id`. The value names the full id."""
    return f"link/{short_id(stack_id).hex()}"


Edge = tuple[int, str]
"""Cost in ms, "up" or "suspect"."""


class OwnLinks:
    """One record for each neighbour. `_held` is what is so, `_shown` what the record says: that of
    a damped link gets no better until the link has rested. `connected(stack)` says whether a way
    leads to a stack."""

    def __init__(self, owner: Owner, connected: Callable[[StackId], bool]) -> None:
        self._owner = owner
        self._connected = connected
        self._env = owner.env
        self._damping = Damping(owner.env)
        self._held: dict[StackId, Edge] = {}
        self._shown: dict[StackId, Edge] = {}
        self._without_room: dict[StackId, None] = {}
        self._watchers: list[Callable[[StackId], None]] = []

    def watch(self, callback: Callable[[StackId], None]) -> None:
        self._watchers.append(callback)

    def get(self, stack_id: StackId) -> Edge | None:
        """The edge as it is; what the mesh is told may be worse."""
        return self._held.get(stack_id)

    def key_taken(self, stack_id: StackId) -> bool:
        """Short ids can be ground out; two neighbours must not share one record."""
        key = link_key(stack_id)
        return any(link_key(peer) == key and peer != stack_id for peer in self._held)

    def set(self, stack_id: StackId, wanted: Edge | None) -> None:
        """Publish, change or (with None) withdraw the record of one edge. Watchers are told in any
        case, since the link behind an unchanged record may be another one. Without room for the
        record the link stays, and nobody routes over it."""
        before = self._held.get(stack_id)
        if wanted is None:
            self._held.pop(stack_id, None)
            self._without_room.pop(stack_id, None)
        else:
            assert wanted[0] > 0 and wanted[1] in (UP, SUSPECT)
            self._held[stack_id] = wanted
        if _is_up(before) and not _is_up(wanted):
            self._damping.lost(stack_id)
        self._show(stack_id)
        for watcher in self._watchers:
            watcher(stack_id)

    def _show(self, stack_id: StackId) -> None:
        """Bring the record in line with the edge, as far as the edge may be believed."""
        held, shown = self._held.get(stack_id), self._shown.get(stack_id)
        wanted, rest_s = held, self._damping.rest_s(stack_id)
        if rest_s > 0.0:
            wanted = _damped(held, shown)
            look = partial(self._show, stack_id)
            instant = self._env.after(rest_s + ROUNDING_S)
            self._env.deadlines.set(("flap", stack_id), instant, look)
        if wanted == shown:
            return
        if wanted is None:
            del self._shown[stack_id]
            self._owner.delete(link_key(stack_id), urgent=True)
        else:
            self._put(stack_id, wanted, shown)

    def _put(self, stack_id: StackId, wanted: Edge, before: Edge | None) -> None:
        cost, state = wanted
        # A changed state moves traffic, and a link to where no way led joins what was apart. A cost
        # may wait its turn, and so may one more link: where all start at once, each head for one
        # would be work for everybody.
        urgent = not self._connected(stack_id) if before is None else before[1] != state
        key, value = link_key(stack_id), {"peer": stack_id, "cost": cost, "state": state}
        try:
            self._owner.put(key, value, urgent=urgent)
        except LocalError as error:
            if before is not None:  # a stale record would say what is not true any more
                del self._shown[stack_id]
                self._owner.delete(key, urgent=True)
            del self._held[stack_id]
            if stack_id not in self._without_room:
                self._without_room[stack_id] = None
                stack = show_id(stack_id)
                self._env.notice("link_not_published", stack=stack, detail=error.detail)
            return
        self._without_room.pop(stack_id, None)
        self._shown[stack_id] = wanted


def _damped(held: Edge | None, shown: Edge | None) -> Edge | None:
    """What is told of a link that comes and goes: not that it is back after it was withdrawn, and
    not each time that it is away for a moment."""
    if held is None or shown is None:
        return None
    dear = DAMPED_MS, UP
    return dear if _is_up(held) or shown == dear else (shown[0], SUSPECT)


def _is_up(edge: Edge | None) -> bool:
    return edge is not None and edge[1] == UP
