"""How owners end: expired when their lease ran out, forgotten long after, never resurrected.

An expired owner keeps its head, so that nothing older of it is taken; a forgotten one leaves a
version floor behind. Both are a second wall: heads older than that are no longer fresh anyway
(`core/meshtime`). Mesh time decides, and while it is in doubt nobody ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tektonmesh.core import shelf
from tektonmesh.core.effects import Save
from tektonmesh.core.held import Held
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.shelf import Row
from tektonmesh.core.types import Saved, StackId, Version

FLOORS_MAX = 65_536
ALARM_PAUSE_S = 60.0
"""How long to wait before asking again whether an owner may end while the clock is in doubt."""
NO_FLOOR = Version(0, 0, 0)


class Leases:
    """Waits for the end of every owner but ourselves. `ended` is called with the owner, "expired"
    or "forgotten", and the keys of the records that went."""

    def __init__(
        self,
        env: Env,
        clock: MeshTime,
        owners: dict[StackId, Held],
        saved: Saved,
        ended: Callable[[StackId, str, tuple[str, ...]], None],
    ) -> None:
        self.env = env
        self.clock = clock
        self.owners = owners
        self._ended = ended
        self._floors = shelf.read_floors(env, saved)
        self._expired: dict[StackId, None] = {}
        for owner, held in owners.items():
            if held.expired:
                self._expired[owner] = None
            self.wait(owner)

    def floor(self, owner: StackId) -> Version:
        """The version below which nothing of a forgotten owner is taken."""
        return self._floors.get(owner, (NO_FLOOR, 0))[0]

    def left_s(self, held: Held) -> float:
        """Seconds until the lease runs out if the owner stays silent; 0 if it did."""
        end_ms = held.head.hlc + held.head.lease_s * 1000
        return 0.0 if held.expired else max(0.0, (end_ms - self.clock.now_ms()) / 1000.0)

    # --- waiting ---------------------------------------------------------------------------------

    def wait(self, owner: StackId) -> None:
        """Wait (anew) for the end of an owner. Our own lease runs as long as we do."""
        if owner == self.env.me:
            return
        if not self.owners[owner].expired:
            self._expired.pop(owner, None)
        delay_s = (self._end_ms(owner) - self.clock.now_ms()) / 1000.0
        self._set(owner, max(0.0, delay_s) + 0.001)

    def _set(self, owner: StackId, delay_s: float) -> None:
        self.env.deadlines.set(("lease", owner), self.env.after(delay_s), lambda: self._due(owner))

    def _end_ms(self, owner: StackId) -> int:
        """When (mesh time) the owner expires, or, if it did, when it is forgotten."""
        held = self.owners[owner]
        if not held.expired:
            return self.clock.end_ms(held.head.hlc, held.head.lease_s)
        settings = self.env.settings
        keep_s = settings.left_keep_s if held.left else settings.forget_s
        return held.head.hlc + int(keep_s * 1000)

    def _due(self, owner: StackId) -> None:
        """Mesh time may have been slewed since the deadline was set, or be in doubt."""
        if self.clock.alarm:
            self._set(owner, ALARM_PAUSE_S)
        elif self._end_ms(owner) >= self.clock.now_ms():
            self.wait(owner)
        elif self.owners[owner].expired:
            self.forget(owner)
        else:
            self._expire(owner)

    def _expire(self, owner: StackId) -> None:
        held = self.owners[owner]
        old = held.record_set
        gone = held.wither()
        self._expired[owner] = None
        self._save(
            shelf.head_row(self.env, held), *shelf.record_rows(owner, old, held.record_set, gone)
        )
        self.wait(owner)
        self._ended(owner, "expired", gone)

    # --- forgetting ------------------------------------------------------------------------------

    def can_make_room(self) -> bool:
        return bool(self._expired)

    def make_room(self) -> None:
        """Forget the owner that expired first."""
        self.forget(next(iter(self._expired)))

    def forget(self, owner: StackId) -> None:
        """Keep nothing of a known owner but its version."""
        held = self.owners.pop(owner)
        self._expired.pop(owner, None)
        self.env.deadlines.drop(("lease", owner))
        floor = (held.version, held.head.hlc)
        self._floors[owner] = floor
        self._save(
            *shelf.owner_gone_rows(owner, held.record_set),
            shelf.floor_row(self.env, owner, floor),
            *self._old_floors(),
        )
        self._ended(owner, "forgotten", tuple(sorted(held.records)))

    def _old_floors(self) -> Iterable[Row]:
        """Drop the floors that outlived `forget_s`, and the first ones over the bound."""
        end_ms = self.clock.now_ms() - int(2000 * self.env.settings.forget_s)
        excess = len(self._floors) - FLOORS_MAX
        old = [
            owner
            for at, (owner, (_, hlc)) in enumerate(self._floors.items())
            if at < excess or hlc < end_ms
        ]
        for owner in old:
            del self._floors[owner]
        return [("floor", owner, None) for owner in old]

    def _save(self, *rows: Row) -> None:
        self.env.emit(Save(rows, None))
