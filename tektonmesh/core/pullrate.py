"""How much of one large body may be on its way at a time, and in parts of which size.

The one who pulls measures how long each part takes from question to arrival. What that is longer
than the shortest of late is waiting in queues, ours among them; so the window grows while that wait
is short and shrinks when it is long (quickly when it is very long), and a token of a stream that
shares the link waits behind little. Thus LEDBAT yields (RFC 6817). Silence halves it. While the
window is small, parts are: whole chunks would come in lumps of 10 ms at 50 Mbit/s.
"""

from __future__ import annotations

from collections import deque

from tektonmesh.core.large import CHUNK_SIZE

TARGET_S = 0.005
"""The wait that one body may cause: a third of a chunk at 50 Mbit/s. A guess between the 20 ms that
a token may lose and what scheduling on a busy machine adds anyhow."""

UNIT = 16 << 10
"""The smaller part: one frame of a link, and what a window grows by."""

WINDOW_MIN, WINDOW_MAX = 4 * UNIT, 4 << 20
"""10 ms at 50 Mbit/s (less would starve where scheduling alone takes that long), and 100 MB/s over
40 ms."""

LATEST = 8
"""The shortest of so many is what a part waits now: a pause of one process is not a queue."""

WIDE = 16 * UNIT
NARROW = 8 * UNIT
"""Parts are whole chunks once the window is wide, until it is narrow again."""

BASE_S = 30.0
"""The shortest time is that of the last one to two such spans, since ways change."""


class _Shortest:
    """The shortest time that parts of one size took of late, and just now."""

    __slots__ = ("_before_s", "_latest", "_now_s", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._latest: deque[float] = deque(maxlen=LATEST)
        self._now_s = self._before_s = float("inf")

    @property
    def least_s(self) -> float:
        return min(self._now_s, self._before_s)

    def waited_s(self, took_s: float, now: float, at_most_s: float) -> float:
        """By how much parts are slower now than the quickest was, or than they should be."""
        self._latest.append(took_s)
        if now - self._since > BASE_S:
            self._since, self._before_s, self._now_s = now, self._now_s, took_s
        self._now_s = min(self._now_s, took_s)
        return min(self._latest) - min(self.least_s, at_most_s)


class PullRate:
    """The window of one body, in bytes."""

    __slots__ = ("_begins", "_shortest", "part", "window")

    def __init__(self, now: float) -> None:
        self.window = float(WINDOW_MIN)
        self.part = UNIT
        self._begins = True
        self._shortest = {UNIT: _Shortest(now), CHUNK_SIZE: _Shortest(now)}

    def came(self, part: int, took_s: float, now: float) -> None:
        """A part that was asked for as one of this size arrived so long after that."""
        assert took_s >= 0.0, "nothing comes before it was asked for"
        # Four quarters take as long as a chunk at the most: a first chunk may have waited, too.
        at_most_s = self._shortest[UNIT].least_s * (part // UNIT)
        waited_s = self._shortest[part].waited_s(took_s, now, at_most_s)
        if self._begins and waited_s > TARGET_S:
            self._begins = False
            self.window /= 2.0  # it doubled once too often
        elif self._begins:
            self.window += part
        elif waited_s > 2.0 * TARGET_S:
            self.window -= part / 4.0
        else:
            gain = (TARGET_S - waited_s) / TARGET_S
            self.window += gain * UNIT * part / self.window
        self.window = min(max(self.window, float(WINDOW_MIN)), float(WINDOW_MAX))
        self._choose()

    def silent(self) -> None:
        """Nothing came for long."""
        self._begins = False
        self.window = max(float(WINDOW_MIN), self.window / 2.0)
        self._choose()

    def _choose(self) -> None:
        if self.window >= WIDE:
            self.part = CHUNK_SIZE
        elif self.window < NARROW:
            self.part = UNIT
