"""What a node counts of its registry: heads, bodies, messages, repairs, and how late news come.

Plain numbers that only grow, raised where the thing happens and read by the doors; nothing is
decided by them. The shares and figures that people see are worked out when they are asked for.
"""

from __future__ import annotations

from bisect import bisect_left
from math import ceil
from typing import Any

from tektonmesh.core.messages import Forward, HopAck, LinkCredit, Message, Released, Settled, Spread

OUTCOMES = (
    "applied",
    "refreshed",
    "stale",
    "need",
    "refused",
    "unproven",
    "contradicted",
    "doubted",
    "broken",
)
"""What becomes of a head that came: the words of `core/intake.Applied`, and "broken" where it broke
the protocol."""

UNCOUNTED = dict.fromkeys((Forward, HopAck, LinkCredit, Settled, Released, Spread))
"""What envelopes travel in, which nothing else is sent with: counting would cost each of them
several per cent of its way through a node."""

LATENCY_BOUNDS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""From one hop on one machine to what only a repair brings."""


class Histogram:
    """Counts per upper bound in seconds; `sum_s` and `count` as Prometheus wants them."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0

    def add(self, value_s: float) -> None:
        self.counts[bisect_left(self.bounds, value_s)] += 1
        self.sum_s += value_s

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """`(upper bound, how many at or under it)`, ending with +Inf."""
        rows: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows

    def under_s(self, part: float) -> float | None:
        """The smallest bound that at least this part of the values is at or under; None without
        values, infinity when it is over the last bound."""
        assert 0.0 < part <= 1.0
        wanted = ceil(part * self.count)
        if not wanted:
            return None
        total = 0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            total += count
            if total >= wanted:
                return bound
        return float("inf")


class Counts:
    """The numbers of one node since its start. `heads` has what became of the heads that came;
    `received` and `sent` are messages between nodes by their class, `UNCOUNTED` ones aside."""

    __slots__ = (
        "apply_latency",
        "body_bytes_in",
        "heads",
        "heads_in",
        "received",
        "repairs",
        "sent",
        "strikes",
    )

    def __init__(self) -> None:
        self.heads_in = 0
        self.heads = dict.fromkeys(OUTCOMES, 0)
        self.body_bytes_in = 0
        self.repairs = 0
        self.strikes = 0
        self.received: dict[type, int] = {}
        self.sent: dict[type, int] = {}
        self.apply_latency = Histogram(LATENCY_BOUNDS_S)

    def count_sent(self, messages: tuple[Message, ...]) -> None:
        """These messages go out on a link."""
        sent = self.sent
        for message in messages:
            kind = type(message)
            sent[kind] = sent.get(kind, 0) + 1

    def count_received(self, kind: type) -> None:
        """A message of this class is dealt with."""
        self.received[kind] = self.received.get(kind, 0) + 1

    @property
    def redundancy(self) -> float | None:
        """Heads that were no news for each one that was; None before the first news."""
        useful = self.heads["applied"] + self.heads["refreshed"]
        return round(self.heads["stale"] / useful, 3) if useful else None

    def shown(self) -> dict[str, Any]:
        """All numbers as `status` shows them. Of the latencies, the bounds that half and 99 of
        100 are under (null without any, or over the last bound)."""
        sent = _by_name(self.sent)
        latency = self.apply_latency
        return {
            "heads_in": self.heads_in,
            **{f"heads_{outcome}": count for outcome, count in self.heads.items()},
            "heads_out": sent.get("Delta", 0),
            "body_bytes_in": self.body_bytes_in,
            "redundancy": self.redundancy,
            "apply_latency_ms": {
                "count": latency.count,
                "p50": _ms(latency.under_s(0.5)),
                "p99": _ms(latency.under_s(0.99)),
            },
            "repairs": self.repairs,
            "strikes": self.strikes,
            "messages_in": _by_name(self.received),
            "messages_out": sent,
        }


def _by_name(counts: dict[type, int]) -> dict[str, int]:
    return {kind.__name__: counts[kind] for kind in sorted(counts, key=lambda kind: kind.__name__)}


def _ms(value_s: float | None) -> float | None:
    return None if value_s is None or value_s == float("inf") else round(value_s * 1000.0, 3)
