"""Carries what must arrive to other stacks until these confirm it by their own sealed word.

What is carried (`Freight`) is a durable message or the answer to one. The word of a relay counts
for nothing here: a copy is repeated, with its attempt raised, growing pauses and avoiding the
inside of the way that the last one took, and at once when that way breaks or a way opens. What
waits for one stack waits in order and at most a window of it is on its way, so that ten thousand
messages for a stack that is away cost one timer, and its return cannot flood it. How long a thing
is worth carrying is its owner's to say (`outbox`, `inbox`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from tektonmesh.core.attempts import Attempt, Attempts
from tektonmesh.core.envelope import NO_ID, Kind
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.machine import Env
from tektonmesh.core.releases import is_certain
from tektonmesh.core.sealing import Body, Copy, Sealer
from tektonmesh.core.types import StackId
from tektonmesh.core.wheel import Waiting, Wheel
from tektonmesh.errors import DeliveryError, LocalError

PAUSE_MAX_S = 10.0
BLOCKED_FIRST_S = 0.1
BLOCKED_MAX_S = 30.0
"""A stack to which nothing leads is tried again so often, besides at every sign of it: the way to
one that is back may be usable a moment after it is known. Guesses."""

ATTEMPT_MASK = 0xFFFF
ATTEMPT_AGAIN = 0x100
"""What was carried before a restart begins at a drawn attempt from here on, since relays that saw
an (attempt, msg_id) of late give a second one back."""


class Freight(Waiting, ABC):
    """One thing to be carried. `msg_id` is that of its envelopes, `number` counts copies, `begun`
    is when the first left; `flying` are those of which nothing was heard, and `doubt` says that one
    may have got through unseen."""

    __slots__ = (
        "attempt",
        "attempts",
        "avoid",
        "begun",
        "doubt",
        "flying",
        "number",
        "path",
        "pause_s",
        "stack",
    )

    def __init__(self, stack: StackId) -> None:
        super().__init__()
        self.stack = stack
        self.attempt = 0
        self.attempts = Attempts()
        self.avoid = b""
        self.number = 0
        self.flying = 0
        self.doubt = False
        self.begun = 0.0
        self.pause_s = 0.0
        self.path: tuple[StackId, ...] = ()

    @property
    @abstractmethod
    def kind(self) -> Kind: ...

    @property
    @abstractmethod
    def msg_id(self) -> bytes: ...

    @property
    def reply_to(self) -> bytes:
        return NO_ID

    @property
    @abstractmethod
    def size(self) -> int:
        """About what it occupies on the way."""

    @abstractmethod
    def body(self, now: float) -> Body:
        """What is sealed; made anew for each copy."""

    @abstractmethod
    def ttl_s(self, now: float) -> float: ...

    def left(self) -> None:
        """The first copy of this run is on its way."""

    def impossible(self, code: str, detail: str) -> None:
        """It can never be sent; it is not carried any more."""


class Standing(NamedTuple):
    """Where a thing is: "open", "queue" with `ahead` others before it, or "" when nobody carries
    it. While the road is `blocked` nothing leads there; `next_at` is when another copy leaves."""

    place: str
    ahead: int
    blocked: bool
    next_at: float | None


class _Road:
    """All that is to go to one stack: `open` is under way, `queue` waits. While `blocked_s` is not
    zero nothing leads there."""

    __slots__ = ("blocked_s", "bytes", "open", "queue", "round_s", "spread_s")

    def __init__(self) -> None:
        self.round_s = self.spread_s = 0.0
        self.open: dict[Freight, None] = {}
        self.bytes = 0
        self.queue: OrderedDict[Freight, None] = OrderedDict()
        self.blocked_s = 0.0

    def heard(self, sample_s: float) -> None:
        """A confirmation came so long after the first copy (Jacobson, 1988; counted from the
        first copy, it is never too short, as Karn's rule would have it)."""
        if not self.round_s:
            self.round_s, self.spread_s = sample_s, sample_s / 2.0
            return
        self.spread_s += (abs(sample_s - self.round_s) - self.spread_s) / 4.0
        self.round_s += (sample_s - self.round_s) / 8.0

    @property
    def patience_s(self) -> float:
        """How long a confirmation may take: a stack that is busy answers late, and more copies
        would only make it later."""
        return min(self.round_s + 4.0 * self.spread_s, PAUSE_MAX_S)


class Courier:
    """Everything that one node carries."""

    def __init__(self, env: Env, graph: Graph, forwarding: Forwarding, sealer: Sealer) -> None:
        self.env = env
        self._graph = graph
        self._forwarding = forwarding
        self._sealer = sealer
        self._roads: dict[StackId, _Road] = {}
        self._wheel: Wheel[Freight] = Wheel(env, "courier", self._due)

    def __len__(self) -> int:
        return sum(len(road.open) + len(road.queue) for road in self._roads.values())

    # --- what owners ask -------------------------------------------------------------------------

    def carry(self, freight: Freight, *, again: bool = False) -> None:
        """Bring it there until `drop`. With `again` it was carried before a restart."""
        if again:
            freight.attempt = ATTEMPT_AGAIN + self.env.chance.randrange(ATTEMPT_MASK // 2)
            freight.doubt = True
        road = self._roads.setdefault(freight.stack, _Road())
        road.queue[freight] = None
        self._pump(freight.stack, road)

    def arrived(self, freight: Freight) -> None:
        """The other stack has confirmed it."""
        road = self._roads.get(freight.stack)
        if road is not None and freight in road.open and freight.number:
            road.heard(self.env.now - freight.begun)
        self.drop(freight)

    def drop(self, freight: Freight) -> None:
        """It is there, or worth nothing any more. What follows it may go; nothing happens if it
        was not carried."""
        road = self._roads.get(freight.stack)
        if road is None:
            return
        if freight in road.open:
            self._wheel.disarm(freight)
            del road.open[freight]
            road.bytes -= freight.size
            assert road.bytes >= 0, "freight leaves its road once"
        road.queue.pop(freight, None)
        if road.open or road.queue:
            self._pump(freight.stack, road)
        else:
            del self._roads[freight.stack]
            self.env.deadlines.drop(("road", freight.stack))

    def is_blocked(self, stack: StackId) -> bool:
        """Whether something waits for a stack to which nothing leads."""
        road = self._roads.get(stack)
        return road is not None and bool(road.blocked_s)

    def standing(self, freight: Freight) -> Standing:
        """For people: whether it is under way, waits, or is not carried (any more)."""
        road = self._roads.get(freight.stack)
        if road is None or not (freight in road.open or freight in road.queue):
            return Standing("", 0, blocked=False, next_at=None)
        blocked = bool(road.blocked_s)
        if freight in road.open:
            return Standing("open", 0, blocked, None if blocked else freight.wake)
        return Standing("queue", list(road.queue).index(freight) + len(road.open), blocked, None)

    def postpone(self, freight: Freight, pause_s: float) -> None:
        """The other stack has no room for it now."""
        road = self._roads.get(freight.stack)
        if road is not None and freight in road.open:
            freight.pause_s = max(freight.pause_s, pause_s)
            self._arm(freight)

    def now(self, freight: Freight) -> None:
        """Send another copy at once, as after a new key was learned."""
        road = self._roads.get(freight.stack)
        if road is not None and freight in road.open:
            self._transmit(freight, road)

    # --- what changes outside --------------------------------------------------------------------

    def graph_changed(self) -> None:
        """Ways broke or opened."""
        for stack, road in list(self._roads.items()):
            self._stir(stack, road)

    def on_owner(self, stack: StackId) -> None:
        """There is news of this stack: it may be back, with new keys."""
        road = self._roads.get(stack)
        if road is not None and road.blocked_s:
            self._stir(stack, road)

    def _stir(self, stack: StackId, road: _Road) -> None:
        if not self._graph.reachable(stack):
            return
        if road.blocked_s:
            self._unblock(stack, road)
            return
        for freight in list(road.open):
            if not self._is_whole(freight.path):
                freight.path = ()
                freight.pause_s = self._first_pause_s(stack, road)
                self._transmit(freight, road)

    def _is_whole(self, path: tuple[StackId, ...]) -> bool:
        return all(there in self._graph.edges(here) for here, there in pairwise(path))

    # --- sending ---------------------------------------------------------------------------------

    def _pump(self, stack: StackId, road: _Road) -> None:
        while road.queue and not road.blocked_s and self._has_room(road):
            freight, _ = road.queue.popitem(last=False)
            freight.pause_s = self._first_pause_s(stack, road)
            road.open[freight] = None
            road.bytes += freight.size
            self._transmit(freight, road)

    def _has_room(self, road: _Road) -> bool:
        """Whether the next may go. A single one always fits, so that none is too large."""
        settings = self.env.settings
        fits = road.bytes + next(iter(road.queue)).size <= settings.window_bytes
        return not road.open or (fits and len(road.open) < settings.window_messages)

    def _first_pause_s(self, stack: StackId, road: _Road) -> float:
        path_s = 8.0 * self._forwarding.round_trip_s(stack)
        return max(self.env.settings.receipt_wait_s, path_s, road.patience_s)

    def _transmit(self, freight: Freight, road: _Road, avoid: bytes = b"") -> None:
        """One copy; if nobody can take it, the road is blocked."""
        try:
            sent = self._graph.reachable(freight.stack) and self._send(freight, avoid)
        except DeliveryError:
            sent = False  # the keys of a stack that has just come back follow with its records
        except LocalError as error:  # it cannot be packed, or is too large on its way
            self._remove(freight, road)
            freight.impossible(error.code.name, error.detail)
            return
        if sent:
            freight.path = tuple(self._forwarding.path(freight.stack, avoid))
            freight.attempts.newest[-1].path = freight.path
            self._arm(freight)
        elif avoid:
            self._transmit(freight, road)
        else:
            self._block(freight.stack, road)

    def _send(self, freight: Freight, avoid: bytes) -> bool:
        now = self.env.now
        envelope = self._sealer.seal(
            freight.kind,
            freight.stack,
            freight.body(now),
            ttl_s=freight.ttl_s(now),
            reply_to=freight.reply_to,
            copy=Copy(freight.msg_id, freight.attempt & ATTEMPT_MASK, avoid),
        )
        attempt = Attempt(now, (), avoid)
        if not self._forwarding.send(envelope, partial(self._came_back, freight, attempt)):
            return False
        freight.attempts.add(attempt)
        freight.attempt += 1
        freight.number += 1
        freight.flying += 1
        if freight.number == 1:
            freight.begun = now
            freight.left()
        return True

    def _remove(self, freight: Freight, road: _Road) -> None:
        del road.open[freight]
        road.bytes -= freight.size
        self._wheel.disarm(freight)

    def _came_back(self, freight: Freight, attempt: Attempt, code: str) -> None:
        """The hop-by-hop fate of one copy. "settled" is a relay's word; only the other stack's own
        counts, and the timer asks for it."""
        attempt.ended(code, self.env.now)
        freight.flying -= 1
        assert freight.flying >= 0, "each copy comes back once"
        freight.doubt = freight.doubt or code == "settled" or not is_certain(code)
        road = self._roads.get(freight.stack)
        over = road is None or freight not in road.open
        if road is None or over or code == "settled" or freight.flying:
            return
        if attempt.avoid:
            freight.avoid = b""
            self._transmit(freight, road)  # rather the old way again than none
        elif code == "no_path":
            self._block(freight.stack, road)

    # --- time ------------------------------------------------------------------------------------

    def _arm(self, freight: Freight) -> None:
        self._wheel.arm(freight, self.env.after(self.env.jitter(freight.pause_s)))
        freight.pause_s = min(2.0 * freight.pause_s, PAUSE_MAX_S)

    def _due(self, freight: Freight) -> None:
        road = self._roads[freight.stack]
        if road.blocked_s:
            return  # all of the road is sent again when it opens
        freight.avoid = self._forwarding.detour(freight.stack, freight.avoid)
        self._transmit(freight, road, freight.avoid)

    def _block(self, stack: StackId, road: _Road) -> None:
        if not road.blocked_s:
            road.blocked_s = BLOCKED_FIRST_S
            self._wait_blocked(stack, road)

    def _wait_blocked(self, stack: StackId, road: _Road) -> None:
        instant = self.env.after(self.env.jitter(road.blocked_s))
        self.env.deadlines.set(("road", stack), instant, partial(self._try_blocked, stack, road))

    def _try_blocked(self, stack: StackId, road: _Road) -> None:
        """Nothing was heard of a way; try one, in case nothing will be."""
        longer_s = min(2.0 * road.blocked_s, BLOCKED_MAX_S)
        if self._graph.reachable(stack):
            self._unblock(stack, road)
        if self._roads.get(stack) is road and road.blocked_s:
            road.blocked_s = longer_s
            self._wait_blocked(stack, road)

    def _unblock(self, stack: StackId, road: _Road) -> None:
        """A way may lead there: all that was under way goes again, then what waits."""
        road.blocked_s = 0.0
        self.env.deadlines.drop(("road", stack))
        for freight in list(road.open):
            if road.blocked_s:
                return
            if freight in road.open:
                freight.pause_s = self._first_pause_s(stack, road)
                self._transmit(freight, road)
        self._pump(stack, road)
