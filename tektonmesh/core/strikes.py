"""The memory of who broke the protocol: faults add up, fade, and hold a peer off for a while.

A fault closes its link at once; that alone would let a broken or hostile peer dial again for ever.
So each fault is a strike that halves in ten minutes, and three within some minutes hold the peer
off: its links are closed and it is not dialled, for a minute the first time, twice as long every
time it goes on after that. Nobody is held off for ever, and a restart forgets all.

An honest stack cannot be struck for what others wrote. Whatever it passes on it has itself put to
every check that raises RemoteError here, before it took it: these checks depend on the bytes alone,
never on a clock, on what else is held, on who was evicted or on settings. What does depend on them
(not fresh, no member, no room, a base that another set of records lies under) is answered in other
ways and is nobody's fault, and so is what a later version may allow (NoveltyError).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pow

from tektonmesh.core.ids import show_id
from tektonmesh.core.machine import Env
from tektonmesh.core.types import StackId

HALF_LIFE_S = 600.0
LIMIT = 2.5
"""Three faults within five minutes; a fault an hour never adds up to it."""
HOLD_S, HOLD_MAX_S = 60.0, 3600.0
FORGOTTEN = 0.25
"""Below this a peer has a clean slate: 36 minutes after the end of its last time off."""
STRUCK_MAX = 1024
"""Peers that are remembered. Only who was admitted can break the protocol on a link."""

HELD_OFF = "held_off"
"""The code that a link is closed with, or a handshake refused."""


@dataclass(slots=True)
class _Record:
    """`value` strikes as of `at`; held off until `until`, for the `times`-th time. While a peer is
    held off nothing fades: it could not do better."""

    value: float = 0.0
    at: float = 0.0
    until: float = 0.0
    times: int = 0


class Strikes:
    """The strikes of all peers."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._records: dict[StackId, _Record] = {}

    def __len__(self) -> int:
        """How many peers are remembered for a fault."""
        return len(self._records)

    def count(self, stack_id: StackId) -> float:
        """How many strikes a peer has now, faded ones in part."""
        record = self._records.get(stack_id)
        return 0.0 if record is None else self._value(record)

    def held_off_s(self, stack_id: StackId) -> float:
        """For how many seconds more no link with this peer is wanted; 0 if one is."""
        record = self._records.get(stack_id)
        return 0.0 if record is None else max(0.0, record.until - self._env.now)

    def strike(self, stack_id: StackId, reason: str) -> float:
        """A peer is at fault. Returns the seconds that it is held off for, 0 for none."""
        assert stack_id != self._env.me, "nobody strikes itself"
        record = self._record(stack_id)
        record.value, record.at = self._value(record) + 1.0, self._env.now
        off_s = self.held_off_s(stack_id)
        if record.value >= LIMIT and off_s == 0.0:
            off_s = min(HOLD_S * 2.0**record.times, HOLD_MAX_S)
            record.until = self._env.after(off_s)
            record.times = min(record.times + 1, 16)
        shown = {"strikes": round(record.value, 2), "held_off_s": round(off_s, 1)}
        self._env.notice("peer_struck", id=show_id(stack_id), reason=reason, **shown)
        return off_s

    def forgive(self, stack_id: StackId) -> None:
        """People have decided about this peer: it begins anew."""
        self._records.pop(stack_id, None)

    def _value(self, record: _Record) -> float:
        faded_s = max(0.0, self._env.now - max(record.at, record.until))
        return record.value * pow(0.5, faded_s / HALF_LIFE_S)

    def _record(self, stack_id: StackId) -> _Record:
        """The record of a peer, the newest of all. Over the bound the one that was struck longest
        ago goes."""
        faded = [one for one, record in self._records.items() if self._value(record) < FORGOTTEN]
        for one in faded:
            del self._records[one]
        record = self._records.pop(stack_id, _Record())
        self._records[stack_id] = record
        if len(self._records) > STRUCK_MAX:
            del self._records[next(iter(self._records))]
        return record
