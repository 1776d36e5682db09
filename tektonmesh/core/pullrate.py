"""How many chunks of one large body may be asked for at a time.

The one who pulls measures how long each part takes from question to arrival. What that is longer
than the shortest of late is waiting in queues, ours among them; so the number of parts on their way
grows while that wait is short and shrinks when it is long, and a token of a stream that shares the
link waits behind little (after LEDBAT, RFC 6817, which yields in the same way). Silence halves it.
"""

from __future__ import annotations

TARGET_S = 0.005
"""The wait that one body may cause: half a chunk at 50 Mbit/s. A guess between the 20 ms that a
token may lose and what scheduling on a busy machine adds anyhow."""

PARTS_MAX = 64
"""4 MiB on their way: 100 MB/s over 40 ms."""

BASE_S = 30.0
"""The shortest time is that of the last one to two such spans, since ways change."""


class PullRate:
    """The window of one body, in parts."""

    __slots__ = ("_base_s", "_before_s", "_begins", "_since", "window")

    def __init__(self, now: float) -> None:
        self.window = 2.0
        self._begins = True
        self._since = now
        self._base_s = self._before_s = float("inf")

    @property
    def parts(self) -> int:
        """How many may be on their way."""
        return int(self.window)

    def came(self, took_s: float, now: float) -> None:
        """A part arrived so long after it was asked for."""
        if now - self._since > BASE_S:
            self._since, self._before_s, self._base_s = now, self._base_s, took_s
        self._base_s = min(self._base_s, took_s)
        waited_s = took_s - min(self._base_s, self._before_s)
        if waited_s > TARGET_S:
            self._begins = False
        if self._begins:
            self.window += 1.0
        else:
            gain = max((TARGET_S - waited_s) / TARGET_S, -1.0)
            self.window += gain / self.window
        self.window = min(max(self.window, 1.0), float(PARTS_MAX))

    def silent(self) -> None:
        """Nothing came for long."""
        self._begins = False
        self.window = max(1.0, self.window / 2.0)
