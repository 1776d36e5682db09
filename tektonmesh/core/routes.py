"""The next lane for an envelope: remembered for flows that go smoothly, searched for the others.

`paths` orders the next hops of this node; here it is decided which of them an envelope with a past
may still take. Nothing is sent here.
"""

from __future__ import annotations

from tektonmesh.core.envelope import (
    DESTINATION,
    ENTRIES_MAX,
    FLOW,
    SOURCE,
    TRACE_AT,
    Mutable,
    read_trace,
    shorts_of,
)
from tektonmesh.core.lanes import Kept, Lane
from tektonmesh.core.paths import Paths
from tektonmesh.core.types import SHORT_ID_SIZE, LinkId, StackId, short_id

FLOWS_MAX = 65_536
"""Routes remembered, about 20 MB at worst; over it the memory starts anew."""


class Routes:
    """Chooses among `lanes`, the links that forwarding has at this moment."""

    def __init__(self, me: StackId, paths: Paths, lanes: dict[LinkId, Lane]) -> None:
        self._me = me
        self._paths = paths
        self._lanes = lanes
        self.flows: dict[bytes, Lane] = {}

    def clear(self) -> None:
        """Forget what is remembered: the graph or the state of a lane has changed."""
        self.flows.clear()

    def knows(self, data: bytes) -> bool:
        """Whether envelopes of this source and destination have passed since the last change."""
        return data[FLOW] in self.flows

    def path(self, destination: StackId, avoid: bytes = b"") -> list[StackId]:
        """The way that an own envelope takes as this node sees it, both ends included; empty
        without one. `avoid` is the envelope's avoid list."""
        lane = None if avoid else self.flows.get(self._me + destination)
        via = lane.stack_id if lane is not None else None
        return self._paths.path(destination, via=via, exclude=shorts_of(avoid))

    def detour(self, destination: StackId, avoid: bytes) -> bytes:
        """What a copy should avoid of which the last one, with `avoid`, was not heard of: also the
        inside of the way that one took. Empty when no other way is left: then all may be tried
        again."""
        inside = [short_id(stack) for stack in self.path(destination, avoid)[1:-1]]
        longer = avoid + b"".join(inside)
        if not inside or len(longer) > ENTRIES_MAX * SHORT_ID_SIZE:
            return b""
        hops = self._paths.candidates(destination, exclude=shorts_of(longer))
        return longer if hops else b""

    def choose(self, kept: Kept, mutable: Mutable) -> Lane | None:
        """The remembered route of this flow if the envelope has no past that forbids it; else
        a search."""
        data = kept.data
        if not kept.tried and not mutable.n_avoid:
            lane = self.flows.get(data[FLOW]) or self._route(data)
            if lane is None:
                return None
            if lane.short not in data[TRACE_AT : mutable.trace_end]:
                return lane
        return self.search(kept, mutable)

    def _route(self, data: bytes) -> Lane | None:
        """The best lane for a flow; flows spread over equally good ones and stay there, so that
        a flow keeps its order."""
        own = data[SOURCE] == self._me
        hops = self._paths.candidates(data[DESTINATION], exclude=(), own=own)
        usable = [hop for hop in hops if hop.link in self._lanes]
        usable = [hop for hop in usable if not self._lanes[hop.link].silent] or usable
        if not usable:
            return None
        equal = [hop for hop in usable if hop.cost == usable[0].cost]
        flow = data[FLOW]
        chosen = equal[(flow[0] ^ flow[1] ^ flow[32] ^ flow[33]) % len(equal)]
        if len(self.flows) >= FLOWS_MAX:
            self.flows.clear()
        lane = self.flows[flow] = self._lanes[chosen.link]
        return lane

    def search(self, kept: Kept, mutable: Mutable) -> Lane | None:
        """The best lane that leads to none of the stacks the envelope visited, avoids, or was
        released from here; silent lanes last. The destination itself is never shut out: that its
        direct link is silent says nothing of the ways round."""
        data = kept.data
        destination: StackId = data[DESTINATION]
        assert len(kept.tried) % SHORT_ID_SIZE == 0
        trace = read_trace(data[TRACE_AT : mutable.trace_end])
        avoid = shorts_of(data[mutable.trace_end : mutable.body_at])
        tried = shorts_of(kept.tried)
        past = [hop.short for hop in trace] + avoid + tried
        exclude = [short for short in past if short != short_id(destination)]
        shut = exclude + tried
        silent: Lane | None = None
        own = data[SOURCE] == self._me
        for hop in self._paths.candidates(destination, exclude=exclude, own=own):
            lane = self._lanes.get(hop.link)
            if lane is None or lane.short in shut:
                continue
            if not lane.silent:
                return lane
            silent = silent or lane
        return silent
