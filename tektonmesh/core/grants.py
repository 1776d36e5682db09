"""How much each link may bring: credit by absolute offsets, with room set aside before it is given.

The receiver of a link says up to which byte of envelopes the other end may send. What it has given
and what the node holds together stay within 64 MiB, so whatever an honest neighbour sends finds
room; a link that brings more breaks the protocol (`forwarding`). When there is no room each link
still gets a little: what then cannot be held is released, and two nodes that are both full never
wait for one another. Envelopes of the control class need no credit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tektonmesh.core.lanes import Lane
from tektonmesh.core.messages import LinkCredit
from tektonmesh.core.types import LinkId

GIVEN_MAX = 64 << 20
"""Bytes that all links together may bring, and those that are held."""

GIVEN_LEAST = 64 << 10
"""A link gets this much whatever is held. An envelope may begin within it and end beyond."""


class Grants:
    """The credit that one node gives on its `lanes`; `held` counts the bytes that it holds."""

    def __init__(self, lanes: Mapping[LinkId, Lane], held: Callable[[], int]) -> None:
        self._lanes = lanes
        self._held = held

    @property
    def given(self) -> int:
        """Bytes that may still come."""
        return sum(max(0, lane.granted - lane.received) for lane in self._lanes.values())

    def more(self, lane: Lane) -> LinkCredit | None:
        """What to tell the other end, once it has used up half of what a link gets: as much as is
        worth being on its way (`Lane.window`), while there is room."""
        left = lane.granted - lane.received
        if 2 * left > lane.window:
            return None
        room = GIVEN_MAX - self._held() - self.given
        more = max(min(lane.window - left, room), GIVEN_LEAST - left)
        if more <= 0:
            return None
        lane.granted += more
        return LinkCredit(lane.granted)
