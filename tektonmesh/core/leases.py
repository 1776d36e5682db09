"""How owners end: expired when their lease ran out, forgotten long after, never resurrected.

An expired owner keeps its head, so that nothing older of it is taken; a forgotten one leaves a
version floor behind. Both are a second wall: heads older than that are no longer fresh anyway
(`core/meshtime`). Mesh time decides, and while it is in doubt nobody ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from math import inf

from tektonmesh.core import shelf
from tektonmesh.core.effects import Save
from tektonmesh.core.held import Held, own_held
from tektonmesh.core.layers import layer
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.shelf import Row
from tektonmesh.core.soonest import Soonest
from tektonmesh.core.types import Saved, StackId, Version

FLOORS_MAX = 65_536
RESYNC_S = 60.0
"""After the clock stepped forward, as after a suspend, whoever is alive has so long to be heard of
again before leases that ran out meanwhile end. A guess: links are back within some seconds."""
NO_FLOOR = Version(0, 0, 0)


class Leases:
    """Waits for the end of every owner but ourselves. `expired` are those whose lease is over, the
    first one first. `ended` is called with the owner, "expired" or "forgotten", and the keys of the
    records that went."""

    def __init__(
        self,
        env: Env,
        clock: MeshTime,
        owners: MutableMapping[StackId, Held],
        saved: Saved,
        ended: Callable[[StackId, str, tuple[str, ...]], None],
        base: Leases | None = None,
    ) -> None:
        self.env = env
        self.clock = clock
        self.owners = owners
        self._ended = ended
        self._floors: MutableMapping[StackId, tuple[Version, int]] = layer(
            None if base is None else base._floors
        )
        self._floors.update(shelf.read_floors(env, saved))
        self.expired: MutableMapping[StackId, None] = layer(None if base is None else base.expired)
        self._not_before = 0.0
        clock.watch_steps(self._stepped)
        self._soonest = Soonest(env, "leases", owners, self._instants, self._due)
        if base is None:
            self.expired.update({owner: None for owner, held in owners.items() if held.expired})
            self._soonest.begin()
        else:
            ahead_s = (base.clock.now_ms() - clock.now_ms()) / 1000.0
            self._soonest.begin(base._soonest.bound_s + ahead_s)

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
        if owner in self.expired and not self.owners[owner].expired:
            del self.expired[owner]
        for instant, _owner in self._instants((owner,)):
            self._soonest.lower(owner, max(instant, self.env.after(0.001)))

    def _stepped(self) -> None:
        """Mesh time stepped after a sleep: the news of meanwhile have their time to come."""
        self._not_before = self.env.after(RESYNC_S)
        self._soonest.begin()

    def _instants(self, owners: Iterable[StackId]) -> Iterator[tuple[float, StackId]]:
        """When each ends, if mesh time runs as fast as this clock until then."""
        now, now_ms = self.env.now, self.clock.now_ms()
        for owner in owners:
            held = self.owners.get(owner)
            if held is not None and owner != self.env.me:
                instant = now + (self._end_ms(held) + 1 - now_ms) / 1000.0
                yield max(instant, self._not_before), owner

    def _end_ms(self, held: Held) -> int:
        """When (mesh time) the owner expires, or, if it did, when it is forgotten."""
        if not held.expired:
            return self.clock.end_ms(held.head.hlc, held.head.lease_s)
        settings = self.env.settings
        keep_s = settings.left_keep_s if held.left else settings.forget_s
        return held.head.hlc + int(keep_s * 1000)

    def _due(self, owner: StackId) -> float:
        """An owner ends; while mesh time is in doubt that is asked again later."""
        doubt_s = self.clock.doubt_s
        if doubt_s > 0.0:
            return self.env.after(doubt_s)
        if self.owners[owner].expired:
            self.forget(owner)
            return inf
        self._expire(owner)
        return self.env.after(0.001)

    def _expire(self, owner: StackId) -> None:
        held = own_held(self.owners, owner)
        old = held.record_set
        gone = held.wither()
        self.expired[owner] = None
        self._save(
            shelf.head_row(self.env, held), *shelf.record_rows(owner, old, held.record_set, gone)
        )
        self._ended(owner, "expired", gone)

    # --- forgetting ------------------------------------------------------------------------------

    def can_make_room(self) -> bool:
        return bool(self.expired)

    def make_room(self) -> None:
        """Forget the owner that expired first."""
        self.forget(next(iter(self.expired)))

    def forget(self, owner: StackId) -> None:
        """Keep nothing of a known owner but its version."""
        held = self.owners.pop(owner)
        self.expired.pop(owner, None)
        self._soonest.drop(owner)
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
