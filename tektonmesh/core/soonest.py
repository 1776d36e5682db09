"""The next of many instants, without a deadline for each of them.

A node awaits something of every owner (the end of its lease), and most of these instants move to
later long before they come. Only the soonest few are listed; of all others one bound is known that
none of them is before. When the bound comes, all owners are looked at and the soonest few listed
anew. An instant that moved to later costs nothing, one that moved to earlier is listed at once.
What an instant means is for whoever awaits it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from math import inf

from tektonmesh.core.machine import Env
from tektonmesh.core.types import StackId

LISTED = 64
"""Owners listed by one look at all of them: a guess. With 10,000 owners a look takes some 10 ms,
and if half of them end within five minutes there are 80 of them."""

Instants = Callable[[Iterable[StackId]], Iterable[tuple[float, StackId]]]
"""Of these owners, those that something is awaited of, with the instant as it is now."""


class Soonest:
    """Calls `due(owner)` when the instant of an owner has come, the earliest first, ties in the
    order of `owners`. `due` returns when to call again if that instant has not moved by then;
    infinity for never. Nothing happens before `begin`."""

    def __init__(
        self,
        env: Env,
        key: str,
        owners: Iterable[StackId],
        instants: Instants,
        due: Callable[[StackId], float],
    ) -> None:
        self._env = env
        self._key = key
        self._owners = owners
        self._instants = instants
        self._due = due
        self._heap: list[tuple[float, int, StackId]] = []
        self._listed: dict[StackId, float] = {}
        self._again: dict[StackId, float] = {}
        self._bound = inf
        self._seq = 0

    @property
    def bound_s(self) -> float:
        """For so many seconds nothing comes, even if nothing moves to later."""
        return min(self._first(), self._bound) - self._env.now

    def begin(self, bound_s: float | None = None) -> None:
        """Await what is there; with `bound_s`, look at it in so many seconds only."""
        if bound_s is None:
            self._look()
        else:
            self._bound = self._env.after(max(0.0, bound_s))
        self._schedule()

    def lower(self, owner: StackId, instant: float) -> None:
        """The owner is new, or its instant may have moved to earlier."""
        self._again.pop(owner, None)
        if instant < self._listed.get(owner, self._bound):
            self._list(owner, instant)
            self._shorten()
            self._schedule()

    def drop(self, owner: StackId) -> None:
        """Await nothing of this owner; harmless if nothing was awaited."""
        self._again.pop(owner, None)
        if self._listed.pop(owner, None) is not None:
            self._schedule()

    # --- the list --------------------------------------------------------------------------------

    def _list(self, owner: StackId, instant: float) -> None:
        self._seq += 1
        self._listed[owner] = instant
        heapq.heappush(self._heap, (instant, self._seq, owner))

    def _first(self) -> float:
        """The earliest listed instant; those that were moved or dropped surface here."""
        while self._heap:
            instant, _seq, owner = self._heap[0]
            if self._listed.get(owner) == instant:
                return instant
            heapq.heappop(self._heap)
        return inf

    def _shorten(self) -> None:
        """Keep the soonest, so that neither many new owners nor dead entries fill the list."""
        if len(self._heap) <= 2 * LISTED:
            return
        live = sorted(entry for entry in self._heap if self._listed.get(entry[2]) == entry[0])
        self._heap = live[:LISTED]
        self._listed = {owner: instant for instant, _seq, owner in self._heap}
        if len(live) > LISTED:
            self._bound = self._heap[-1][0]

    def _look(self) -> None:
        """List the soonest of all."""
        again, now = self._again, self._env.now
        late: dict[StackId, float] = {}
        waiting = []
        for instant, owner in self._instants(self._owners):
            if owner in again and instant <= now:
                late[owner] = instant = again[owner]
            waiting.append((instant, owner))
        self._again = late
        soonest = heapq.nsmallest(LISTED, waiting, key=lambda entry: entry[0])
        self._bound = soonest[-1][0] if len(waiting) > LISTED else inf
        self._heap, self._listed = [], {}
        for instant, owner in soonest:
            if instant < inf:
                self._list(owner, instant)

    # --- what comes ------------------------------------------------------------------------------

    def _schedule(self) -> None:
        instant = min(self._first(), self._bound)
        if instant == inf:
            self._env.deadlines.drop(self._key)
        else:
            self._env.deadlines.set(self._key, max(instant, self._env.now), self._run)

    def _run(self) -> None:
        """Deal with all that has come."""
        now = self._env.now
        while min(first := self._first(), self._bound) <= now:
            if first > now:
                self._look()
                continue
            _instant, _seq, owner = heapq.heappop(self._heap)
            del self._listed[owner]
            self._come(owner)
        self._shorten()
        self._schedule()

    def _come(self, owner: StackId) -> None:
        """A listed instant has come; the owner's own may have moved to later since."""
        now = self._env.now
        instant = self._instant(owner)
        again = self._again.pop(owner, now)
        if instant <= now and again <= now:
            again = self._due(owner)
            assert again > now, "what has come is over, or it would come for ever"
            instant = self._instant(owner)
        if instant <= now:
            instant = self._again[owner] = again
        if instant < self._bound:
            self._list(owner, instant)

    def _instant(self, owner: StackId) -> float:
        return next((instant for instant, _owner in self._instants((owner,))), inf)
