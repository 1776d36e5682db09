"""How far hosts are from one another when a world spans the globe.

Five regions of a public cloud; one-way delays are half the round trips between them as public
monitors show them, rounded to whole milliseconds. Good to some 10 %, which is all that comparing
protocols needs. Hosts are dealt out in turn, so that neighbours by number are never near.
"""

from __future__ import annotations

REGIONS = ("virginia", "oregon", "frankfurt", "singapore", "tokyo")
NEAR_S = 0.0005
"""Between two hosts of one region."""
_ONE_WAY_MS = (
    (0, 33, 45, 108, 75),
    (33, 0, 71, 82, 49),
    (45, 71, 0, 79, 113),
    (108, 82, 79, 0, 35),
    (75, 49, 113, 35, 0),
)


def region_of(index: int) -> str:
    """Where host number `index` stands."""
    return REGIONS[index % len(REGIONS)]


def one_way_s(source: int, target: int) -> float:
    """Seconds that a packet takes from one host to another, by their numbers."""
    count = len(REGIONS)
    return _ONE_WAY_MS[source % count][target % count] / 1000.0 + NEAR_S
