"""What a link costs: a damped round trip, put into coarse steps that seldom change.

Every change of a cost is a signed head that travels to every stack, so this module decides when a
change is worth that. It leaves measuring to `neighbours` and adding costs up to `paths`.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf

HOP_MS = 2
"""Added to every link, so that of two equally fast ways the one with fewer relays wins."""

BUCKETS_MS = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200, 300, 450, 700, 1000, 2000)
"""Upper bounds; each is about half as large again as the one before. Slower links count as 2 s."""

MARGIN = 1.25
"""How far outside its bucket a round trip must be before it counts as another one (a guess)."""

SLACK_S = 0.003
"""And by how much at least: between near hosts a millisecond more is the scheduler, not the way.
Each change of a cost is news for everybody. A guess."""

STEADY_S = 10.0
PAUSE_S = 5.0


def cost_ms(rtt_s: float) -> int:
    """The cost in whole milliseconds: the upper bound of the bucket of the round trip plus 2."""
    at = bisect_left(BUCKETS_MS, rtt_s * 1000.0)
    return BUCKETS_MS[min(at, len(BUCKETS_MS) - 1)] + HOP_MS


class LinkCost:
    """The smoothed round trip of one link (SRTT of RFC 6298) and the cost derived from it.

    `ms` is the cost that others should see. It follows the first sample at once and later ones
    only after they lay clearly in other buckets for 10 s, and at most every 5 s.
    """

    __slots__ = ("_changed_at", "_outside_since", "measured", "ms", "srtt_s")

    def __init__(self) -> None:
        self.srtt_s = 0.0
        self.ms = cost_ms(0.0)
        self.measured = False
        self._outside_since: float | None = None
        self._changed_at = -inf

    def sample(self, rtt_s: float, now: float) -> bool:
        """Take one round trip in seconds; True when `ms` has changed."""
        assert rtt_s >= 0.0
        if not self.measured:
            self.measured = True
            self.srtt_s = rtt_s
            return self._change(now)
        self.srtt_s += (rtt_s - self.srtt_s) / 8.0
        if not self._outside(rtt_s):
            self._outside_since = None
            return False
        if self._outside_since is None:
            self._outside_since = now
        steady = now - self._outside_since >= STEADY_S
        return steady and now - self._changed_at >= PAUSE_S and self._change(now)

    def _outside(self, rtt_s: float) -> bool:
        """Whether the sample and the smoothed value both left the bucket of `ms`, on one side and
        by more than the margin. The smoothed value alone would keep one spike for a minute."""
        least, most = min(rtt_s, self.srtt_s), max(rtt_s, self.srtt_s)
        lowest, highest = max(0.0, least / MARGIN - SLACK_S), most * MARGIN + SLACK_S
        return cost_ms(lowest) > self.ms or cost_ms(highest) < self.ms

    def _change(self, now: float) -> bool:
        before, self.ms = self.ms, cost_ms(self.srtt_s)
        self._outside_since = None
        self._changed_at = now
        return self.ms != before
