"""One heap of named deadlines for a whole node; it shows the earliest and nothing else.

A machine names what it waits for with a key. Setting the same key again moves it, so a late or
doubled timer cannot exist. Entries that were moved or dropped stay in the heap until they surface
or outnumber the live ones (lazy deletion), which keeps setting and cancelling at O(log n).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from math import inf

DEAD_MAX = 256
"""Dead entries in the heap, besides as many as there are live ones. A message sets and drops
deadlines a minute ahead; without a limit they would be the largest thing in the process."""


class Deadlines:
    """Named instants with what to do when they come."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Hashable]] = []
        self._live: dict[Hashable, tuple[float, int, Callable[[], None]]] = {}
        self._seq = 0

    def set(self, key: Hashable, instant: float, act: Callable[[], None]) -> None:
        """Run `act` at `instant`; replaces whatever `key` was waiting for."""
        assert instant == instant, "a deadline is never NaN"
        self._seq += 1
        self._live[key] = (instant, self._seq, act)
        heapq.heappush(self._heap, (instant, self._seq, key))
        if len(self._heap) > 2 * len(self._live) + DEAD_MAX:
            self._heap = [(held[0], held[1], key) for key, held in self._live.items()]
            heapq.heapify(self._heap)

    def set_earlier(self, key: Hashable, instant: float, act: Callable[[], None]) -> None:
        """As `set`, but keeps the instant already set under `key` if that is earlier."""
        held = self._live.get(key)
        if held is None or instant < held[0]:
            self.set(key, instant, act)

    def drop(self, key: Hashable) -> None:
        """Forget `key`; harmless if it is not set."""
        self._live.pop(key, None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._live

    def __len__(self) -> int:
        return len(self._live)

    def earliest(self) -> float:
        """The instant of the next deadline; infinity when there is none."""
        while self._heap:
            instant, seq, key = self._heap[0]
            held = self._live.get(key)
            if held is not None and held[1] == seq:
                return instant
            heapq.heappop(self._heap)
        return inf

    def run_due(self, now: float) -> None:
        """Run all that is due, earliest first, ties in the order they were set. What these acts
        set anew for an instant that is already due runs in the next turn, so this always ends."""
        last = self._seq
        while self._heap and self._heap[0][0] <= now:
            _instant, seq, key = self._heap[0]
            held = self._live.get(key)
            if held is None or held[1] != seq:
                heapq.heappop(self._heap)
                continue
            if seq > last:
                return
            heapq.heappop(self._heap)
            del self._live[key]
            held[2]()
