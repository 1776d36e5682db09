"""The memory of who broke the protocol: five faults within ten minutes hold a peer off for a while.

A fault closes its link at once; that alone would let a broken or hostile peer dial again for ever.
So each fault is a strike, which counts for ten minutes, and the fifth that counts holds the peer
off: its links are closed and it is not dialled, for a minute the first time, twice as long every
time it goes on after that. Nobody is held off for ever, and a restart forgets all.

An honest stack cannot be struck for what others wrote. Whatever it passes on it has itself put to
every check that raises RemoteError here, before it took it: these checks depend on the bytes alone,
never on a clock, on what else is held, on who was evicted or on settings. What does depend on them
(not fresh, no member, no room, a base that another set of records lies under) is answered in other
ways and is nobody's fault, and so is what a later version may allow (NoveltyError).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tektonmesh.core.ids import show_id
from tektonmesh.core.machine import Env
from tektonmesh.core.types import StackId

WINDOW_S = 600.0
"""So long a strike counts."""
LIMIT = 5
HOLD_S, HOLD_MAX_S = 60.0, 3600.0
FORGOTTEN_S = 3600.0
"""After an hour without a strike a peer has a clean slate: the next time off is a minute again."""
STRUCK_MAX = 1024
"""Peers that are remembered. Only who was admitted can break the protocol on a link."""

HELD_OFF = "held_off"
"""The code that a link is closed with, or a handshake refused."""


@dataclass(slots=True)
class _Record:
    """When the last few strikes were, oldest first; held off until `until`, for the `times`-th
    time."""

    at: list[float] = field(default_factory=list)
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

    def count(self, stack_id: StackId) -> int:
        """How many strikes of a peer count now."""
        record = self._records.get(stack_id)
        return 0 if record is None else self._count(record)

    def held_off_s(self, stack_id: StackId) -> float:
        """For how many seconds more no link with this peer is wanted; 0 if one is."""
        record = self._records.get(stack_id)
        return 0.0 if record is None else max(0.0, record.until - self._env.now)

    def strike(self, stack_id: StackId, reason: str) -> float:
        """A peer is at fault. Returns the seconds that it is held off for, 0 for none."""
        assert stack_id != self._env.me, "nobody strikes itself"
        record = self._record(stack_id)
        record.at = [*record.at, self._env.now][-LIMIT:]
        counted, off_s = self._count(record), self.held_off_s(stack_id)
        if counted >= LIMIT and off_s == 0.0:
            off_s = min(HOLD_S * 2.0**record.times, HOLD_MAX_S)
            record.until = self._env.after(off_s)
            record.times = min(record.times + 1, 16)
            # While it is held off nothing grows old: it could not do better meanwhile.
            record.at = [instant + off_s for instant in record.at]
        shown = {"strikes": counted, "held_off_s": round(off_s, 1)}
        self._env.notice("peer_struck", id=show_id(stack_id), reason=reason, **shown)
        return off_s

    def forgive(self, stack_id: StackId) -> None:
        """People have decided about this peer: it begins anew."""
        self._records.pop(stack_id, None)

    def _count(self, record: _Record) -> int:
        return sum(1 for instant in record.at if self._env.now - instant < WINDOW_S)

    def _record(self, stack_id: StackId) -> _Record:
        """The record of a peer, the newest of all. Over the bound the one that was struck longest
        ago goes."""
        records, now = self._records, self._env.now
        for one in [one for one, held in records.items() if now - held.at[-1] >= FORGOTTEN_S]:
            del records[one]
        record = records.pop(stack_id, None) or _Record()
        records[stack_id] = record
        if len(records) > STRUCK_MAX:
            del records[next(iter(records))]
        return record
