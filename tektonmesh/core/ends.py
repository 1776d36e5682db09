"""When messages end: how much time one has left, and waiting for the ends of many.

Within one run the monotonic clock tells exactly. A message of an earlier run has only the mesh time
of its end, and the clock of this machine may be wrong just after a start: it ends by that clock
only when mesh time is not in doubt, and in any case after its whole time has passed again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime

DEAD_MAX = 256
"""Ends of messages that are over, besides as many as are waited for."""

LEFT_MIN_S = 60.0
"""What a message of an earlier run has at least, as far as others are told, before it ends."""


class Span:
    """The time of one message: until `end_ms` of mesh time, `ttl_s` in all. `again` says that it is
    of an earlier run."""

    __slots__ = ("_again", "_hard_end", "end_ms")

    def __init__(self, env: Env, end_ms: int, ttl_s: float, *, again: bool = False) -> None:
        self.end_ms = end_ms
        self._hard_end = env.after(ttl_s)
        self._again = again

    def left_s(self, env: Env, clock: MeshTime) -> float:
        """How much is left for others to work with; at least something while it has not ended."""
        left_s = self._hard_end - env.now
        if self._again:
            left_s = min(left_s, max(self._soft_s(clock), LEFT_MIN_S))
        return max(left_s, 0.001)

    def wait_s(self, env: Env, clock: MeshTime) -> float:
        """How long to wait until asking again whether it has ended; 0 when it has."""
        left_s = self._hard_end - env.now
        if left_s <= 0.0 or not self._again:
            return max(left_s, 0.0)
        soft_s = self._soft_s(clock)
        return min(left_s, soft_s if soft_s > 0.0 else clock.doubt_s)

    def _soft_s(self, clock: MeshTime) -> float:
        return (self.end_ms - clock.now_ms()) / 1000.0


class Ends:
    """Waits for the ends of many behind one deadline. `span_of` gives the time of what a key names,
    None when it is over already; `ended` is called once for each that ends."""

    def __init__(
        self,
        env: Env,
        clock: MeshTime,
        name: str,
        span_of: Callable[[bytes], Span | None],
        ended: Callable[[bytes], None],
    ) -> None:
        self.env = env
        self._clock = clock
        self._deadline = ("ends", name)
        self._span_of = span_of
        self._ended = ended
        self._heap: list[tuple[float, bytes]] = []

    def add(self, key: bytes, span: Span, alive: int) -> None:
        """Wait for the end of `key`; `alive` is how many are waited for in all."""
        if len(self._heap) > 2 * alive + DEAD_MAX:
            self._heap = [entry for entry in self._heap if self._span_of(entry[1]) is not None]
            heapq.heapify(self._heap)
        wait_s = span.wait_s(self.env, self._clock)
        heapq.heappush(self._heap, (self.env.after(wait_s), key))
        if self._heap[0][1] == key:
            self._show()

    def _show(self) -> None:
        if self._heap:
            self.env.deadlines.set(self._deadline, self._heap[0][0], self._turn)

    def _turn(self) -> None:
        now = self.env.now
        while self._heap and self._heap[0][0] <= now:
            key = heapq.heappop(self._heap)[1]
            span = self._span_of(key)
            if span is None:
                continue
            wait_s = span.wait_s(self.env, self._clock)
            if wait_s > 0.0:
                heapq.heappush(self._heap, (now + max(wait_s, 0.001), key))
            else:
                self._ended(key)
        self._show()
