"""What this stack passes on for others: for whom, and how much for each origin.

The consent (`relay` in the settings and in the own record) is checked here as well as by whoever
chooses a way: a record may be on its way. An origin has two token buckets, for messages and for
bytes; stacks of one's own mesh secret have no limit unless the settings say so. What is over it
goes back to the hop before with the code `quota`, which tries another way. Control (receipts,
refusals, cancels, credit) is never held back: it ends things.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tektonmesh.core.envelope import (
    CLASS_AT,
    DESTINATION,
    ENTRIES_MAX,
    RELAY_SIZE_MAX,
    SOURCE,
    TTL,
    Mutable,
)
from tektonmesh.core.ids import show_id
from tektonmesh.core.machine import Env
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.quotas import ROUNDING, Buckets
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import StackId

BURST_S = 4.0
"""An origin may send this many seconds' worth at once, as at a destination (`arrivals`)."""
BYTES_LEAST = float(1 << 20)
"""The least burst in bytes: four of the largest envelopes."""
KNOWN_MAX = 1024
"""Origins remembered; whoever was not heard of for longest is judged anew."""
SAID_S = 60.0
"""Of one origin people hear at most this often."""

Value = TypeVar("Value")
_Limit = tuple[Buckets, Buckets] | None


class Relaying:
    """The consent of one node and the quotas of its origins. `refused` counts what was given back
    by code, `over` what was over its quota by origin."""

    def __init__(self, env: Env, replica: Replica, neighbours: Neighbours) -> None:
        self.env = env
        self.refused: dict[str, int] = {}
        self.over: dict[StackId, int] = {}
        self.is_own: Callable[[StackId], bool] = lambda _stack: True
        """Whether a stack is one of our own; told by `rights`."""
        self._replica = replica
        self._neighbours = neighbours
        settings = env.settings
        self._own = _limit(settings.relay_per_s, settings.relay_bytes_per_s)
        self._foreign = _limit(settings.foreign_relay_per_s, settings.foreign_relay_bytes_per_s)
        self._limits: dict[StackId, _Limit] = {}
        self._said: dict[StackId, float] = {}

    def graph_changed(self) -> None:
        """A stack may have become known as one of our own."""
        self._limits.clear()

    def consents(self, data: bytes) -> bool:
        """This stack's own word on relaying, for the two ends of a packed envelope."""
        relay = self.env.settings.relay
        source, destination = data[SOURCE], data[DESTINATION]
        if relay == "peers":
            link_to = self._neighbours.link_to
            return link_to(source) is not None or link_to(destination) is not None
        return relay == "members" and self._replica.has(source)

    def affords(self, data: bytes) -> bool:
        """Take a packed envelope off what its origin may send through here; False, with nothing
        taken, if that is used up."""
        source = data[SOURCE]
        if source in self._limits:
            limit = self._limits[source]
        else:
            limit = self._judge(source)
        if limit is None or not data[CLASS_AT]:
            return True
        messages, sizes = limit
        size, now = float(len(data)), self.env.now
        if messages.tokens(source, now) < 1.0 - ROUNDING or sizes.tokens(source, now) < size:
            return False
        messages.charge(source, 1.0, now)
        sizes.charge(source, size, now)
        return True

    def refuse(self, code: str, source: StackId) -> None:
        """Note that an envelope was given back."""
        self.refused[code] = self.refused.get(code, 0) + 1
        if code == "quota":
            _bound(self.over, source)
            self.over[source] = self.over.pop(source, 0) + 1
            self._say(source)

    def _say(self, source: StackId) -> None:
        now = self.env.now
        if self._said.get(source, -SAID_S) + SAID_S <= now:
            _bound(self._said, source)
            self._said[source] = now
            self.env.notice("relay_over_quota", stack=show_id(source))

    def _judge(self, source: StackId) -> _Limit:
        _bound(self._limits, source)
        limit = self._limits[source] = self._own if self.is_own(source) else self._foreign
        return limit


def _limit(messages_per_s: float, bytes_per_s: float) -> _Limit:
    """The buckets for these rates; 0 is no limit of that kind."""
    if not (messages_per_s or bytes_per_s):
        return None
    messages, size = messages_per_s or 1e9, float(bytes_per_s or 1e15)
    return (
        Buckets(messages, max(1.0, BURST_S * messages)),
        Buckets(size, max(BYTES_LEAST, BURST_S * size)),
    )


def _bound(known: dict[StackId, Value], key: StackId) -> None:
    """Make room for one more."""
    if key not in known and len(known) >= KNOWN_MAX:
        del known[next(iter(known))]


def spent(data: bytes, mutable: Mutable, transit_ms: int) -> str:
    """Why an envelope goes no farther, whoever has it: hops, tries, size or time are used up; empty
    if they are not. `transit_ms` is what it took over the link that it came on."""
    if mutable.hops_left < 1 or mutable.n_trace >= ENTRIES_MAX:
        return "hops"
    if mutable.tries_left < 1:
        return "tries"
    if len(data) > RELAY_SIZE_MAX:
        return "too_large"
    return "expired" if mutable.age_ms + transit_ms >= int.from_bytes(data[TTL]) else ""
