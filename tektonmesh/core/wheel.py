"""Many waits behind one deadline: cheap to arm, free to abandon.

A daemon has thousands of messages in flight, each with an instant at which something must be done
about it, and nearly all of them end before it comes. One heap entry each would leave a minute's
worth of dead entries in `Deadlines`. The wheel keeps them in slots of a few milliseconds
(Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987) and shows one deadline, that of
the first slot with something in it: a process that wakes for nothing has paid a round of its loop.
It decides only when something wakes, up to one slot late and never early; what is done then is its
user's.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

from tektonmesh.core.machine import Env

NOT_ARMED = -1


class Waiting:
    """What can lie on a wheel. `wake` is the instant it asked for."""

    __slots__ = ("slot", "wake")

    def __init__(self) -> None:
        self.wake = 0.0
        self.slot = NOT_ARMED


W = TypeVar("W", bound=Waiting)


class Wheel(Generic[W]):
    """Wakes each item once at (or within a slot after) its instant."""

    def __init__(
        self, env: Env, name: str, due: Callable[[W], None], *, slot_s: float = 0.01
    ) -> None:
        self.env = env
        self._key = ("wheel", name)
        self._due = due
        self._slot_s = slot_s
        self._slots: dict[int, dict[W, None]] = {}
        self._order: list[int] = []

    def arm(self, item: W, instant: float) -> None:
        """Wake `item` at `instant`, instead of whenever it was to wake before."""
        assert instant == instant, "an instant is never NaN"
        item.wake = instant
        # The first slot that surfaces after `instant`, whatever the rounding.
        slot = int(instant / self._slot_s) + 1
        if item.slot != NOT_ARMED:
            if item.slot <= slot:
                return  # it surfaces there first and is moved on then
            self.disarm(item)
        item.slot = slot
        held = self._slots.get(slot)
        if held is not None:
            held[item] = None
            return
        self._slots[slot] = {item: None}
        heapq.heappush(self._order, slot)
        if self._order[0] == slot:
            self.env.deadlines.set(self._key, slot * self._slot_s, self._turn)

    def disarm(self, item: W) -> None:
        """Never wake `item`."""
        slot = item.slot
        if slot != NOT_ARMED:
            item.slot = NOT_ARMED
            held = self._slots[slot]
            del held[item]
            if not held and self._order[0] == slot:
                self._show_first()

    def _turn(self) -> None:
        now = self.env.now
        while self._order and self._order[0] * self._slot_s <= now:
            held = self._slots[self._order[0]]
            # What is done for one item may disarm others of this slot.
            while held:
                self._surface(next(iter(held)), now)
            self._show_first()

    def _surface(self, item: W, now: float) -> None:
        self.disarm(item)
        if item.wake > now:
            self.arm(item, item.wake)
        else:
            self._due(item)

    def _show_first(self) -> None:
        """Let go of the slots in front that are empty; the deadline is that of the next."""
        order, slots = self._order, self._slots
        while order and not slots[order[0]]:
            del slots[heapq.heappop(order)]
        if order:
            self.env.deadlines.set(self._key, order[0] * self._slot_s, self._turn)
        else:
            self.env.deadlines.drop(self._key)
