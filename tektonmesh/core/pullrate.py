"""How much of one large body may be on its way at a time, and in parts of which size.

The one who pulls measures how long each part takes from question to arrival. What that is longer
than the shortest of late is waiting in queues, ours among them; so the window grows while that wait
is short and shrinks when it is long, and a token of a stream that shares the link waits behind
little (after LEDBAT, RFC 6817, which yields in the same way). Silence halves it. While the window
is small, parts are: whole chunks would come in lumps of 10 ms at 50 Mbit/s.
"""

from __future__ import annotations

from tektonmesh.core.large import CHUNK_SIZE

TARGET_S = 0.005
"""The wait that one body may cause: a third of a chunk at 50 Mbit/s. A guess between the 20 ms that
a token may lose and what scheduling on a busy machine adds anyhow."""

UNIT = 16 << 10
"""The smaller part: one frame of a link, and what a window grows by."""

WINDOW_MAX = 4 << 20
"""100 MB/s over 40 ms."""

WIDE = 16 * UNIT
NARROW = 8 * UNIT
"""Parts are whole chunks once the window is wide, until it is narrow again."""

BASE_S = 30.0
"""The shortest time is that of the last one to two such spans, since ways change."""


class _Shortest:
    """The shortest time that parts of one size took of late."""

    __slots__ = ("_before_s", "_now_s", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._now_s = self._before_s = float("inf")

    def waited_s(self, took_s: float, now: float) -> float:
        """By how much a part was slower than the quickest."""
        if now - self._since > BASE_S:
            self._since, self._before_s, self._now_s = now, self._now_s, took_s
        self._now_s = min(self._now_s, took_s)
        return took_s - min(self._now_s, self._before_s)


class PullRate:
    """The window of one body, in bytes."""

    __slots__ = ("_begins", "_shortest", "part", "window")

    def __init__(self, now: float) -> None:
        self.window = 2.0 * UNIT
        self.part = UNIT
        self._begins = True
        self._shortest = {UNIT: _Shortest(now), CHUNK_SIZE: _Shortest(now)}

    def came(self, part: int, took_s: float, now: float) -> None:
        """A part that was asked for as one of this size arrived so long after that."""
        assert took_s >= 0.0, "nothing comes before it was asked for"
        waited_s = self._shortest[part].waited_s(took_s, now)
        if waited_s > TARGET_S:
            self._begins = False
        if self._begins:
            self.window += part
        else:
            gain = max((TARGET_S - waited_s) / TARGET_S, -1.0)
            self.window += gain * UNIT * part / self.window
        self.window = min(max(self.window, float(UNIT)), float(WINDOW_MAX))
        self._choose()

    def silent(self) -> None:
        """Nothing came for long."""
        self._begins = False
        self.window = max(float(UNIT), self.window / 2.0)
        self._choose()

    def _choose(self) -> None:
        if self.window >= WIDE:
            self.part = CHUNK_SIZE
        elif self.window < NARROW:
            self.part = UNIT
