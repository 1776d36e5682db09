"""CIs that are for partners: their records go to each partner alone, sealed, and through nobody.

What is public is gossiped; what is for partners never enters a delta. Each partner gets one
snapshot of all that is shared with it, as a sealed envelope that relays cannot read, whenever that
changes, whenever the partner has started anew, and now and then in case one was lost. What it may
use goes along, where that is not plain (`core/usable`). What comes from others is held, on the disk
as well, for as long as its owner is in the registry. Who is a partner for which CI is
`core/policy`'s to decide; who may act on what it sees is asked again at every act.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from tektonmesh.core.ci import key_of
from tektonmesh.core.cis import Cis
from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.envelope import NO_ID, Envelope, Kind
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.machine import Env
from tektonmesh.core.names import NAME
from tektonmesh.core.policy import PARTNERS, Act
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.rights import Rights
from tektonmesh.core.types import Saved, StackId
from tektonmesh.core.usable import Usable, Uses, uses_of
from tektonmesh.errors import LocalError, RemoteError

SNAPSHOT_SIZE_MAX = 200 << 10
"""Bytes of records for one partner: what fits into one envelope with room to spare, some four
hundred CIs. What is beyond is left out, and people are told."""
SNAPSHOT_CIS_MAX = 4096
HELD_SIZE_MAX = 50 << 20
"""Bytes of all snapshots that are held here, as they came. A guess: 256 of the largest."""
BATCH = 64
"""Snapshots that are sealed in one turn: about 10 ms."""
TRY_S = 600.0
AGAIN_S = 600.0
"""A guess: a lost snapshot is noticed late, since the partner cannot know what it lacks."""
CONFIRM_S = 60.0
"""An owner that has been reachable for so long has told what it had to tell: within seconds."""
TABLE = "shared"
PUSH = ("sharing", "push")
AGAIN = ("sharing", "again")
LOOK = ("sharing", "look")
END = ("sharing", "end")

Records = dict[str, dict[str, Any]]


class Snapshot(NamedTuple):
    """What one stack told this one alone, in so many bytes."""

    version: int
    records: Records
    uses: Uses | None = None
    size: int = 0


class Sharing:
    """What is shared with each partner, and what partners share with this stack."""

    def __init__(
        self,
        env: Env,
        replica: Replica,
        cis: Cis,
        rights: Rights,
        deliveries: Deliveries,
        forwarding: Forwarding,
    ) -> None:
        self.env = env
        self.usable = Usable(env, replica, cis, rights)
        self._replica = replica
        self._cis = cis
        self._rights = rights
        self._deliveries = deliveries
        self._told: dict[StackId, tuple[bytes, bytes]] = {}
        self._held: dict[StackId, Snapshot] = {}
        self._unconfirmed: dict[StackId, bool] = {}
        """What is held from before the restart, and whether its owner was reachable at the last
        look."""
        self._reachable: Callable[[StackId], bool] = lambda _stack_id: False
        self._size = 0
        self._version = 0
        self._watchers: list[Callable[[StackId], None]] = []
        cis.watch(self._changed)
        rights.watch(lambda _stack_id: self._changed())
        forwarding.receive(Kind.SHARE, self._on_share)

    # --- after a restart -------------------------------------------------------------------------

    def load(self, saved: Saved, reachable: Callable[[StackId], bool]) -> None:
        """Hold again what was held before the restart, of owners that are known and admitted now.
        An owner that is `reachable` and does not say it again has nothing to say any more."""
        self._reachable = reachable
        for (table, source), packed in sorted(saved.items()):
            if table == TABLE:
                self._take_row(source, packed)
        self._look_later()

    def _take_row(self, source: StackId, packed: bytes) -> None:
        snapshot = self._snapshot_of(packed)
        known = source in self._replica.owners and self._rights.role_of(source)
        if snapshot is None or not known:
            self.env.save(TABLE, source, None)
            return
        self._held[source] = snapshot
        self._size += snapshot.size
        self._unconfirmed[source] = False

    def _snapshot_of(self, packed: bytes) -> Snapshot | None:
        """What a row of the disk holds; None if that is damaged."""
        try:
            version, told, uses = self.env.codec.unpack(packed)
        except (RemoteError, TypeError, ValueError):
            return None
        if not isinstance(version, int) or not isinstance(told, list):
            return None
        return Snapshot(version, _records_of(told), uses_of(uses), len(packed))

    def _look(self) -> None:
        """Let go of what was not said again by owners that had the time to."""
        for source, was_reachable in list(self._unconfirmed.items()):
            reachable = self._reachable(source)
            self._unconfirmed[source] = reachable
            if reachable and was_reachable:
                self._drop(source)
                for callback in self._watchers:
                    callback(source)
        self._look_later()

    def _look_later(self) -> None:
        if self._unconfirmed:
            self.env.deadlines.set(LOOK, self.env.after(CONFIRM_S), self._look)

    # --- what others share with us ---------------------------------------------------------------

    def of(self, owner: StackId) -> Records:
        """The records that this owner shares with this stack alone, by the key of the CI."""
        return self._held[owner].records if owner in self._held else {}

    def record(self, owner: StackId, ci: str) -> dict[str, Any] | None:
        return self.of(owner).get(ci)

    def uses(self, owner: StackId) -> Uses | None:
        """What this stack may use of that owner, by its word. None if it said nothing and all is
        plain: what is gossiped may be used."""
        held = self._held.get(owner)
        if held is not None and held.uses is not None:
            return held.uses
        return None if self._rights.is_own(owner) else Uses()

    def watch(self, callback: Callable[[StackId], None]) -> None:
        """`callback` runs when an owner said something else than before."""
        self._watchers.append(callback)

    def _on_share(self, envelope: Envelope) -> str:
        """A snapshot of a partner. What is older than the one that is held says nothing."""
        source = envelope.header.source
        try:
            body = self._deliveries.sealer.open(envelope)
        except LocalError:
            return ""  # sealed to an old prekey; it comes again
        except RemoteError as error:
            self._deliveries.sealer.refusals.note(source, error.detail)
            return ""
        version, told = body.get("v"), body.get("cis")
        if not isinstance(version, int) or not isinstance(told, list):
            return ""
        before, size = self._held.get(source), envelope.header.size
        room = self._size - (before.size if before is not None else 0) + size <= HELD_SIZE_MAX
        if not self._rights.role_of(source) or not room:
            return ""
        if before is None or version > before.version:
            told, uses = told[:SNAPSHOT_CIS_MAX], body.get("uses")
            self._take(source, Snapshot(version, _records_of(told), uses_of(uses), size))
            if before is None or before[1:3] != self._held[source][1:3]:
                self.env.save(TABLE, source, self.env.codec.pack([version, told, uses]))
        return ""

    def _take(self, source: StackId, snapshot: Snapshot) -> None:
        before, records = self.of(source), snapshot.records
        self._release(source)
        self._held[source] = snapshot
        self._size += snapshot.size
        for callback in self._watchers:
            callback(source)
        label = self._deliveries.outcomes.address
        for ci in sorted(records.keys() - before.keys()):
            self.env.notice("ci_seen", ci=label(ci, source))
        for ci in sorted(before.keys() - records.keys()):
            self.env.notice("ci_gone", ci=label(ci, source))

    def _drop(self, source: StackId) -> None:
        if source in self._held:
            self._release(source)
            self.env.save(TABLE, source, None)

    def _release(self, source: StackId) -> None:
        held = self._held.pop(source, None)
        self._unconfirmed.pop(source, None)
        self._size -= held.size if held is not None else 0
        assert self._size >= 0, "what is held was counted"

    # --- what we share with others ---------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """A partner that started anew has nothing of us; one that is gone shares nothing."""
        self.usable.on_change(change)
        if change.kind in ("expired", "forgotten", "left"):
            self._drop(change.owner)
            if change.kind == "forgotten":
                # Until then it may come back with what it was told, and has to hear that it is no
                # more.
                self._told.pop(change.owner, None)
        elif change.kind in ("new", "content") and change.owner != self.env.me:
            told = self._told.get(change.owner)
            if told is None or told[0] != self._run_of(change.owner):
                self._changed()

    def _again(self) -> None:
        """Say it all again, to those who were told something and are away as soon as they are
        back."""
        said = list(self._told.items())
        self._told = {one: (b"", packed) for one, (_run, packed) in said if packed != _NOTHING}
        self._push()

    def _changed(self) -> None:
        if self._told or self._rights.partners() or self.usable.audience():
            self._push_after(self.env.settings.coalesce_s)

    def _push_after(self, pause_s: float) -> None:
        self.env.deadlines.set_earlier(PUSH, self.env.after(pause_s), self._push)

    def _run_of(self, stack_id: StackId) -> bytes:
        held = self._replica.owners.get(stack_id)
        return b"" if held is None or held.expired else held.head.instance

    def _push(self) -> None:
        """Tell each stack what changed for it since it was told last, so many in one turn."""
        sent = 0
        for stack_id in self._named():
            run = self._run_of(stack_id)
            if not self._rights.role_of(stack_id):
                self._told.pop(stack_id, None)
                continue
            if not run:
                continue
            packed = self._packed_for(stack_id)
            told = self._told.get(stack_id)
            if told == (run, packed) or (told is None and packed == _NOTHING):
                continue
            if sent == BATCH:
                self._push_after(self.env.settings.coalesce_s)
                break
            self._told[stack_id] = (run, packed)
            self._send(stack_id, packed)
            sent += 1
        if self._told:
            self.env.deadlines.set(AGAIN, self.env.after(self.env.jitter(AGAIN_S)), self._again)
        end_s = self._rights.next_end_s()
        if end_s is not None:
            self.env.deadlines.set(END, self.env.after(end_s), self._changed)

    def _named(self) -> dict[StackId, None]:
        named = [*self._rights.partners(), *self.usable.audience(), *self._told]
        return {one: None for one in named if one != self.env.me}

    def _packed_for(self, stack_id: StackId) -> bytes:
        """What a stack is to be told now: records, and what it may use."""
        uses = self.usable.uses(stack_id)
        told = None if uses is None else uses.as_body()
        return self.env.codec.pack([self._records_for(stack_id, told), told])

    def _records_for(self, stack_id: StackId, uses: dict[str, Any] | None) -> list[dict[str, Any]]:
        records, size = [], len(self.env.codec.pack(uses))
        for ci in self._cis.all():
            if ci.share != PARTNERS:
                continue
            if not self._rights.check(stack_id, Act("discover", ci.key)).allowed:
                continue
            record = ci.record()
            size += len(self.env.codec.pack(record))
            if size > SNAPSHOT_SIZE_MAX:
                self.env.notice("ci_not_published", ci=ci.name, detail="Too much for one partner.")
                break
            records.append(record)
        return records

    def _send(self, stack_id: StackId, packed: bytes) -> None:
        """Versions are mesh time, so that they go on after a restart."""
        self._version = max(self._version + 1, self._deliveries.sealer.now_ms())
        records, uses = self.env.codec.unpack(packed)
        body = {"v": self._version, "cis": records} | ({} if uses is None else {"uses": uses})
        self._deliveries.posts.send(Kind.SHARE, stack_id, NO_ID, body, within_s=TRY_S)


def _records_of(told: list[Any]) -> Records:
    """The records in a snapshot; others wrote it."""
    records: Records = {}
    for value in told:
        name = value.get("name") if isinstance(value, dict) else None
        if isinstance(name, str) and NAME.fullmatch(key_of(name)):
            records[key_of(name)] = value
    return records


_NOTHING = b"\x92\x90\xc0"
"""No records and nothing of what may be used, packed."""
