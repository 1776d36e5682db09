"""CIs that are for partners: their records go to each partner alone, sealed, and through nobody.

What is public is gossiped; what is for partners never enters a delta. Each partner gets one
snapshot of all that is shared with it, as a sealed envelope that relays cannot read, whenever that
changes, whenever the partner has started anew, and now and then in case one was lost. What comes
from others is held in memory only, for as long as its owner is in the registry. Who is a partner
for which CI is `core/policy`'s to decide; who may act on what it sees is asked again at every act.
"""

from __future__ import annotations

from typing import Any

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
from tektonmesh.core.types import StackId
from tektonmesh.errors import LocalError, RemoteError

SNAPSHOT_SIZE_MAX = 200 << 10
"""Bytes of records for one partner: what fits into one envelope with room to spare, some four
hundred CIs. What is beyond is left out, and people are told."""
SNAPSHOT_CIS_MAX = 4096
OWNERS_MAX = 256
"""Stacks of which we hold such records; each has chosen us by name."""
TRY_S = 600.0
AGAIN_S = 600.0
"""A guess: a lost snapshot is noticed late, since the partner cannot know what it lacks."""
PUSH = ("sharing", "push")
AGAIN = ("sharing", "again")

Records = dict[str, dict[str, Any]]


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
        self._replica = replica
        self._cis = cis
        self._rights = rights
        self._deliveries = deliveries
        self._told: dict[StackId, tuple[bytes, bytes]] = {}
        self._held: dict[StackId, tuple[int, Records]] = {}
        self._version = 0
        cis.watch(self._changed)
        rights.watch(lambda _stack_id: self._changed())
        forwarding.receive(Kind.SHARE, self._on_share)

    # --- what others share with us ---------------------------------------------------------------

    def of(self, owner: StackId) -> Records:
        """The records that this owner shares with this stack alone, by the key of the CI."""
        return self._held[owner][1] if owner in self._held else {}

    def record(self, owner: StackId, ci: str) -> dict[str, Any] | None:
        return self.of(owner).get(ci)

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
        room = source in self._held or len(self._held) < OWNERS_MAX
        if not self._rights.role_of(source) or not room:
            return ""
        if source not in self._held or version > self._held[source][0]:
            self._take(source, version, told[:SNAPSHOT_CIS_MAX])
        return ""

    def _take(self, source: StackId, version: int, told: list[Any]) -> None:
        before = self.of(source)
        records: Records = {}
        for value in told:
            name = value.get("name") if isinstance(value, dict) else None
            if isinstance(name, str) and NAME.fullmatch(key_of(name)):
                records[key_of(name)] = value
        self._held[source] = (version, records)
        label = self._deliveries.outcomes.address
        for ci in sorted(records.keys() - before.keys()):
            self.env.notice("ci_seen", ci=label(ci, source))
        for ci in sorted(before.keys() - records.keys()):
            self.env.notice("ci_gone", ci=label(ci, source))

    # --- what we share with others ---------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """A partner that started anew has nothing of us; one that is gone shares nothing."""
        if change.kind in ("expired", "forgotten", "left"):
            self._held.pop(change.owner, None)
            self._told.pop(change.owner, None)
        elif change.kind in ("new", "content") and change.owner != self.env.me:
            told = self._told.get(change.owner)
            if told is None or told[0] != self._run_of(change.owner):
                self._changed()

    def _again(self) -> None:
        self._told.clear()
        self._push()

    def _changed(self) -> None:
        if self._told or self._rights.partners():
            instant = self.env.after(self.env.settings.coalesce_s)
            self.env.deadlines.set_earlier(PUSH, instant, self._push)

    def _run_of(self, stack_id: StackId) -> bytes:
        held = self._replica.owners.get(stack_id)
        return b"" if held is None or held.expired else held.head.instance

    def _push(self) -> None:
        """Tell each partner what changed for it since it was told last."""
        named = dict.fromkeys([*self._rights.partners(), *self._told])
        for stack_id in named:
            run = self._run_of(stack_id)
            if not run or not self._rights.role_of(stack_id):
                self._told.pop(stack_id, None)
                continue
            packed = self.env.codec.pack(self._records_for(stack_id))
            told = self._told.get(stack_id)
            if told == (run, packed) or (told is None and packed == _NOTHING):
                continue
            self._told[stack_id] = (run, packed)
            self._send(stack_id, packed)
        if self._told:
            self.env.deadlines.set(AGAIN, self.env.after(self.env.jitter(AGAIN_S)), self._again)

    def _records_for(self, stack_id: StackId) -> list[dict[str, Any]]:
        records, size = [], 0
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
        body = {"v": self._version, "cis": self.env.codec.unpack(packed)}
        self._deliveries.posts.send(Kind.SHARE, stack_id, NO_ID, body, within_s=TRY_S)


_NOTHING = b"\x90"
"""An empty list, packed."""
