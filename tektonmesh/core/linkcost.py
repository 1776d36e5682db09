"""What a link costs: the least round trip of late, put into coarse steps that seldom change.

Every change of a cost is a signed head that travels to every stack, so this module decides when a
change is worth that. It leaves measuring to `neighbours` and adding costs up to `paths`.

What delays a sample on a busy host, its scheduler and its queues, only ever adds. So the least of
half a minute is the way itself, as in BBR's estimate of the propagation delay (Cardwell et al.,
"BBR: Congestion-Based Congestion Control", 2016); the mean of sixteen daemons on two cores would
have each of them sign six heads a minute for ever.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from math import inf

from tektonmesh.core.machine import Env
from tektonmesh.core.types import StackId

HOP_MS = 2
"""Added to every link, so that of two equally fast ways the one with fewer relays wins."""

BUCKETS_MS = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 135, 200, 300, 450, 700, 1000, 2000)
"""Upper bounds; each is about half as large again as the one before. Slower links count as 2 s."""

MARGIN = 1.25
"""How far outside its bucket a round trip must be before it counts as another one (a guess)."""

SLACK_S = 0.003
"""And by how much at least: between near hosts a millisecond more is the scheduler, not the way.
Each change of a cost is news for everybody. A guess."""

WINDOW_S = 30.0
"""Of how long the least counts, some ten pings: so much later is a slower link dearer."""

PATIENCE_MAX_S = 5.0
"""A peer that keeps its answers back is not waited for without end. A guess."""

PAUSE_S = 10.0
"""The least time between two changes. A link that became faster is cheaper within it."""

COSTS_PAUSE_S = 20.0
"""The least time between two tellings of later costs. A guess; with 10 s for each link by itself
45 daemons on two cores were never done."""


def cost_ms(rtt_s: float) -> int:
    """The cost in whole milliseconds: the upper bound of the bucket of the round trip plus 2."""
    at = bisect_left(BUCKETS_MS, rtt_s * 1000.0)
    return BUCKETS_MS[min(at, len(BUCKETS_MS) - 1)] + HOP_MS


class LinkCost:
    """The smoothed round trip of one link and its variation (SRTT and RTTVAR of RFC 6298, section
    2), which timers go by, and the cost.

    `ms` is the cost that others should see. It follows the first sample at once, and later ones
    when the least of half a minute lies clearly in another bucket, at most every 10 s.
    """

    __slots__ = ("_changed_at", "_least", "_variation_s", "measured", "ms", "srtt_s")

    def __init__(self) -> None:
        self.srtt_s = self._variation_s = 0.0
        self.ms = cost_ms(0.0)
        self.measured = False
        self._least: deque[tuple[float, float]] = deque()
        self._changed_at = -inf

    @property
    def patience_s(self) -> float:
        """How long an answer may take: four round trips, or the retransmission timeout where round
        trips vary more. Where a quarter of all packets is lost, TCP falls silent for seconds."""
        varying_s = self.srtt_s + 4.0 * self._variation_s
        return min(max(4.0 * self.srtt_s, varying_s), PATIENCE_MAX_S)

    def sample(self, rtt_s: float, now: float) -> bool:
        """Take one round trip in seconds; True when `ms` has changed."""
        assert rtt_s >= 0.0
        least_s = self._least_of_late(rtt_s, now)
        if not self.measured:
            self.measured = True
            self.srtt_s, self._variation_s = rtt_s, rtt_s / 2.0
            return self._change(least_s, now)
        self._variation_s += (abs(rtt_s - self.srtt_s) - self._variation_s) / 4.0
        self.srtt_s += (rtt_s - self.srtt_s) / 8.0
        if now - self._changed_at < PAUSE_S or not self._outside(least_s):
            return False
        return self._change(least_s, now)

    def _least_of_late(self, rtt_s: float, now: float) -> float:
        """`_least` holds (when, how long) of those samples that no later one undercuts."""
        least = self._least
        while least and least[-1][1] >= rtt_s:
            least.pop()
        least.append((now, rtt_s))
        while least[0][0] < now - WINDOW_S:
            least.popleft()
        return least[0][1]

    def _outside(self, rtt_s: float) -> bool:
        """Whether a round trip left the bucket of `ms` by more than the margin."""
        lowest, highest = max(0.0, rtt_s / MARGIN - SLACK_S), rtt_s * MARGIN + SLACK_S
        return cost_ms(lowest) > self.ms or cost_ms(highest) < self.ms

    def _change(self, rtt_s: float, now: float) -> bool:
        before, self.ms = self.ms, cost_ms(rtt_s)
        self._changed_at = now
        return self.ms != before


class CostNews:
    """When the later costs of all links of one node are told: together. Each head is work for
    everybody, and where that work makes round trips longer, costs would change without end.
    `stacks()` are the stacks with links, `publish(stack)` brings a record in line."""

    def __init__(
        self,
        env: Env,
        stacks: Callable[[], list[StackId]],
        publish: Callable[[StackId], None],
    ) -> None:
        self._env = env
        self._stacks = stacks
        self._publish = publish
        self._told_at = -inf

    def changed(self) -> None:
        """A cost that was told has changed."""
        due = max(self._told_at + COSTS_PAUSE_S, self._env.now)
        self._env.deadlines.set_earlier(("costs",), due, self._tell)

    def _tell(self) -> None:
        self._told_at = self._env.now
        for stack in self._stacks():
            self._publish(stack)
