"""This stack as an owner: its records, when their news are published, and under which version.

Machines `put` and `delete` records; the owner gathers the changes of a moment, signs one head over
the result and hands it to the replica, from where it spreads. It keeps its versions from ever
going back: across restarts by an epoch that is durable before it is used, after a lost disk or
beside a clone by outbidding, and as a last resort it falls silent.
"""

from __future__ import annotations

from functools import partial
from math import ceil, inf
from typing import Any

from tektonmesh.core.effects import Answer, Save
from tektonmesh.core.equivocation import Evidence
from tektonmesh.core.events import TakeKeys
from tektonmesh.core.head import EPOCH_MAX, LEASE_MAX_S, MINOR_VERSION, Head
from tektonmesh.core.held import Held
from tektonmesh.core.keydoc import KeyDoc, hash_doc
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.pace import Pace
from tektonmesh.core.record import (
    RECORDS_MAX,
    SET_SIZE_MAX,
    VALUE_SIZE_MAX,
    RecordSet,
    is_key,
    kind_of,
    size_of,
)
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import SCOPE_OF_KIND, Saved, Status, Version
from tektonmesh.errors import LocalError, RemoteError

FIRST_PUBLISH_WAIT_S = 1.0
"""How long the first publish waits for the clock and the memory of a peer, if one is expected."""
DISPUTE_WAIT_S = 4.0
"""How long it waits on for a second peer if the first one's time is far from ours; a guess."""
REFRESH_OWNERS = 10
"""Seconds between refreshes grow with the owners: N/10, so that a replica sees ten a second."""
CI_KINDS = ("ci", "catalog")
CI_RECORDS_MAX = RECORDS_MAX - 256
CI_SIZE_MAX = SET_SIZE_MAX - (64 << 10)
"""What `ci/*` and `catalog/*` may take: however many CIs there are, the stack can still say where
it is and to whom it is linked."""
LEAVE_FLUSH_S = 0.3
"""Time for the shell to put the last head on the wire."""
START_SIZE = 6
"""Bytes of the start (mesh time in ms) before the random part of the instance in our heads: of two
runs with one key, everybody can tell which one started later."""
FOREIGN_MAX = 64
"""Other runs that are remembered; each takes our key to make."""

ANSWER_PAUSE_S, ANSWER_PAUSE_MAX_S = 1.0, 300.0
"""Between two answers to proofs against us; it doubles while they go on, so that a stack that does
contradict itself again and again does not send the mesh one epoch after another. A guess."""

EPOCH_LOTS = 1000
"""Two machines with one key and one disk that start, or hear of one another, in the same
millisecond would both take the same epoch, and contradict each other under it. A guess."""

FIRST, PUBLISH, REFRESH = ("own", "first"), ("own", "publish"), ("own", "refresh")
ANSWER = ("own", "answer")


class Owner:
    """The one writer of this stack's records."""

    def __init__(self, env: Env, replica: Replica, clock: MeshTime, saved: Saved) -> None:
        self.env = env
        self.replica = replica
        self.clock = clock
        self.minor = MINOR_VERSION
        self._pace = Pace(env)
        self._epoch_saved = _saved_epoch(env, saved)
        self._expects_peers = bool(env.settings.seed_peers) or any(
            table == "address" for table, _ in saved
        )
        self._epoch = self._ver = self._content_ver = 0
        self._ticket = 0
        self._durable = self._waited = self._fenced = False
        self._status = Status.UP
        self._started_ms = 0
        self._instance = b""
        self._answered_at = -inf
        self._answer_pause_s = ANSWER_PAUSE_S
        self._foreign: dict[bytes, None] = {}
        self._records = RecordSet()
        self._wanted: dict[str, bytes] = {}
        self._wanted_size = 0
        self._ci_size = self._ci_count = 0
        self._touched: dict[str, None] = {}
        self.audit_end: tuple[int, bytes] | None = None
        """Where the audit log ends; it rides along with the next sign of life."""
        replica.watch_own(self._seen)
        replica.watch_accused(self._accused)
        replica.trust.watch(self._proof_changed)
        clock.watch(self._heard_peer)
        clock.watch_steps(self._stepped)

    @property
    def published(self) -> bool:
        """Whether anything was published since the start."""
        return self._ver > 0

    @property
    def fenced(self) -> bool:
        """Whether it fell silent for good: a clone runs with our keys, or no epoch is left."""
        return self._fenced

    # --- start -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Collect what this stack says of itself and make the epoch durable; the first publish
        follows when it is."""
        self._started_ms = self.clock.now_ms()
        self._instance = _instance(self._started_ms, self.env.identity.instance)
        self._raise_epoch(0)
        self._publish_self()
        wait_s = FIRST_PUBLISH_WAIT_S if self._expects_peers else 0.0
        self.env.deadlines.set(FIRST, self.env.after(wait_s), self._wait_over)

    def resume(self, held: Held) -> None:
        """Go on after what is held of this stack, signed by this very instance."""
        head = held.head
        assert head.instance.endswith(self.env.identity.instance), "instances share no epoch"
        self._instance = head.instance
        self._epoch = self._epoch_saved = head.epoch
        self._ver, self._content_ver, self._status = head.ver, head.content_ver, head.status
        self._records, self._wanted = held.record_set, dict(held.records)
        self._wanted_size = held.record_set.size
        mine = [size_of(key, held.records[key]) for kind in CI_KINDS for key in held.keys(kind)]
        self._ci_count, self._ci_size = len(mine), sum(mine)
        self._durable = self._waited = True
        about = held.value("stack/self") or {}
        self._started_ms = about.get("since", 0) * 1000
        self.clock.note_signed(head.hlc)
        since_s = (self.clock.now_ms() - head.hlc) / 1000.0
        again = self.env.after(max(0.0, self._refresh_s() - since_s))
        self.env.deadlines.set(REFRESH, again, self._refresh)

    def _raise_epoch(self, above: int) -> None:
        """A higher epoch than all of ours and than `above`, made durable. Publishing rests until
        `saved` comes with its ticket."""
        lot = self.env.chance.randrange(EPOCH_LOTS)
        least = max(self._epoch_saved + 1, self.clock.now_ms(), above + 1)
        assert least <= EPOCH_MAX
        self._epoch = min(least + lot, EPOCH_MAX)
        self._epoch_saved = self._epoch
        self._durable = False
        self._ticket += 1
        row = ("meta", b"epoch", self.env.codec.pack(self._epoch))
        self.env.emit(Save((row,), self._ticket))

    def saved(self, ticket: int) -> None:
        """The rows of `ticket` are durable; only the newest ticket counts."""
        if ticket == self._ticket and not self._durable:
            self._durable = True
            self._ver = self._content_ver = 0
            self._try_first()

    def _wait_over(self) -> None:
        """What is signed under a wrong clock is refused by all, and cannot be taken back."""
        if self.clock.disputed:
            again = self.env.after(DISPUTE_WAIT_S)
            self.env.deadlines.set(FIRST, again, self._stop_waiting)
        else:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        self._waited = True
        self.clock.stop_waiting()
        self._try_first()

    def _heard_peer(self) -> None:
        """A peer told its time. If it fits ours, or is the second one: nothing more to wait
        for."""
        if not self._waited and self.clock.confirmed:
            self.env.deadlines.drop(FIRST)
            self._stop_waiting()

    def _try_first(self) -> None:
        left = self._status == Status.LEFT
        if self._waited and self._may_publish() and not self.published and not left:
            self._publish()

    def _publish_self(self) -> None:
        settings, identity = self.env.settings, self.env.identity
        key_id, public = self.env.crypto.prekey()
        about: dict[str, Any] = {
            "name": identity.name,
            "mesh": identity.mesh,
            "version": str(settings.extra.get("version", "")),
            "box": {"id": key_id, "pk": public},
            "relay": settings.relay,
            "since": self._started_ms // 1000,
            "specialties": list(settings.extra.get("specialties", ())),
        }
        if settings.park_bytes:
            about["park"] = True
        if self.audit_end is not None:
            number, digest = self.audit_end
            about["audit"] = {"n": number, "h": digest}
        self.put("stack/self", about)
        for at, address in enumerate(settings.listen):
            self.put(f"addr/{at}", {"at": address})

    # --- records ---------------------------------------------------------------------------------

    def get(self, key: str) -> dict[str, Any] | None:
        """A record as it was last put, published or not yet."""
        packed = self._wanted.get(key)
        if packed is None:
            return None
        value: dict[str, Any] = self.env.codec.unpack(packed)
        return value

    def put(self, key: str, value: dict[str, Any], *, urgent: bool = False) -> None:
        """Say this from now on. Urgent news go at once, past the limit on publishing. Raises
        LocalError if the record is over its quota, or if there would be too many; `ci/*` leave a
        reserve for the others."""
        assert is_key(key) and kind_of(key) in SCOPE_OF_KIND, key
        packed = self.env.codec.pack(value)
        before = self._wanted.get(key)
        if before == packed:
            return
        if len(packed) > VALUE_SIZE_MAX:
            raise LocalError(
                f"The record {key} has {len(packed)} bytes; at most {VALUE_SIZE_MAX} fit.",
                code="too_large",
                hint="Shorten the description or the lists of capabilities.",
            )
        added = int(before is None)
        grown = size_of(key, packed) - (0 if before is None else size_of(key, before))
        if not self._has_room(key, added, grown):
            raise LocalError("This stack has no room for more records.", code="busy")
        self._wanted[key] = packed
        self._count(key, added, grown)
        self._touch(key, urgent=urgent)

    def _has_room(self, key: str, added: int, grown: int) -> bool:
        if len(self._wanted) + added > RECORDS_MAX or self._wanted_size + grown > SET_SIZE_MAX:
            return False
        within = self._ci_count + added <= CI_RECORDS_MAX and self._ci_size + grown <= CI_SIZE_MAX
        return within or kind_of(key) not in CI_KINDS

    def _count(self, key: str, added: int, grown: int) -> None:
        self._wanted_size += grown
        if kind_of(key) in CI_KINDS:
            self._ci_count += added
            self._ci_size += grown

    def delete(self, key: str, *, urgent: bool = False) -> None:
        """Do not say this any more; harmless if it was not said."""
        before = self._wanted.pop(key, None)
        if before is not None:
            self._count(key, -1, -size_of(key, before))
            self._touch(key, urgent=urgent)

    def _touch(self, key: str, *, urgent: bool) -> None:
        self._touched[key] = None
        self._schedule(urgent=urgent)

    # --- publishing ------------------------------------------------------------------------------

    def _may_publish(self) -> bool:
        return self._durable and not self._fenced

    def _schedule(self, *, urgent: bool) -> None:
        if not self.published or not self._may_publish() or self._status == Status.LEFT:
            return
        if urgent:
            self.env.deadlines.set(PUBLISH, self.env.now, self._publish)
        elif PUBLISH not in self.env.deadlines:
            instant = self.env.after(self.env.settings.coalesce_s)
            self.env.deadlines.set(PUBLISH, instant, self._publish_if_room)

    def _publish_if_room(self) -> None:
        if not self._changes():
            return  # what changed was changed back
        wait_s = self._pace.take()
        if wait_s > 0.0:
            self.env.deadlines.set(PUBLISH, self.env.after(wait_s), self._publish_if_room)
        else:
            self._publish()

    def _changes(self) -> list[str]:
        said = self._records.records
        return sorted(key for key in self._touched if self._wanted.get(key) != said.get(key))

    def _publish(self) -> None:
        """Sign a head over the records of now and hand it to the replica."""
        assert self._may_publish(), "an epoch that is not durable could be used twice"
        self.env.deadlines.drop(PUBLISH)
        changes = self._changes()
        self._touched = {}
        if changes or not self.published:
            self._content_ver += 1
        self._ver += 1
        wanted = self._wanted
        puts = [(_scope(key), key, wanted[key]) for key in changes if key in wanted]
        deletes = [(_scope(key), key) for key in changes if key not in wanted]
        self._sign(self._records.changed(puts, deletes) if changes else self._records)

    def _sign(self, records: RecordSet) -> None:
        self._records = records
        keydoc = self.replica.trust.own_keydoc()
        identity, hlc = self.env.identity, self.clock.now_ms()
        refresh_s = self._refresh_s()
        head = Head(
            mesh_id=identity.mesh_id,
            stack_id=self.env.me,
            key_epoch=KeyDoc.decode(self.env.codec, keydoc.doc).key_epoch,
            epoch=self._epoch,
            ver=self._ver,
            content_ver=self._content_ver,
            hlc=hlc,
            lease_s=self._lease_s(refresh_s),
            status=self._status,
            instance=self._instance,
            roots=records.roots(),
            keydoc_hash=hash_doc(keydoc.doc),
            minor=self.minor,
        )
        signed = head.sign(self.env.codec, self.env.crypto)
        self.clock.note_signed(hlc)
        self.replica.adopt_own(head, signed, records, keydoc)
        if self._status != Status.LEFT:
            again = self.env.after(self.env.jitter(refresh_s))
            self.env.deadlines.set(REFRESH, again, self._refresh)

    def _refresh_s(self) -> float:
        settings = self.env.settings
        by_size = self.replica.count() / REFRESH_OWNERS
        return max(settings.refresh_min_s, min(settings.refresh_max_s, by_size))

    def _lease_s(self, refresh_s: float) -> int:
        if self._status == Status.LEFT:
            return LEASE_MAX_S
        return min(LEASE_MAX_S, ceil(self.env.settings.lease_s or 3.0 * refresh_s))

    def _refresh(self) -> None:
        """Renew the lease; a new prekey of the day rides along."""
        self._publish_self()
        self._publish()

    def _stepped(self) -> None:
        """Our lease has run out everywhere while the clock stood still: say at once that we are
        here."""
        if self.published and self._may_publish() and self._status != Status.LEFT:
            self.env.deadlines.set(REFRESH, self.env.now, self._refresh)

    def _proof_changed(self) -> None:
        """Others can judge us better now, so they must get the key document anew."""
        if self.published and self._may_publish() and self._status != Status.LEFT:
            self._content_ver += 1
            self.env.deadlines.set(PUBLISH, self.env.now, self._publish)

    def take_keys(self, event: TakeKeys) -> dict[str, Any]:
        """The keys of this stack are new: say so at once, under the next key epoch, which is above
        all that a clone or a thief can sign. That ends the silence of a fence as well."""
        result = self.replica.trust.take_keys(event.keydoc, event.crypto)
        if self._fenced:
            self._fenced, self._epoch_saved = False, 0
            self._raise_epoch(0)
        elif self.published and self._durable and self._status != Status.LEFT:
            self._publish_self()
            self._content_ver += 1
            self._publish()
        return result

    # --- leaving ---------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        """Whether it has said that it is about to leave."""
        return self._status == Status.DRAINING

    def drain(self) -> None:
        """Say at once that this stack is about to leave, so that others pass it by. It counts as a
        change, since a refresh would travel more slowly."""
        if self._status != Status.UP:
            return
        self._status = Status.DRAINING
        if self.published and self._may_publish():
            self._content_ver += 1
            self._publish()

    def leave(self, ticket: int) -> None:
        """Publish `left` and answer `ticket` when the shell had time to send it. The answer says
        whether there was anything to take back."""
        published = self.published and self._may_publish()
        if self._status != Status.LEFT:
            self._status = Status.LEFT
            self._rest()
            for key in [key for key in self._wanted if key != "stack/self"]:
                self.delete(key)
            if published:
                self._publish()
        instant = self.env.after(LEAVE_FLUSH_S if published else 0.0)
        answer = Answer(ticket, {"left": published})
        self.env.deadlines.set(("left", ticket), instant, lambda: self.env.emit(answer))

    # --- our own heads from elsewhere ------------------------------------------------------------

    def _seen(self, head: Head) -> None:
        """A head with our signature that is not our newest: of before a restart, of before a lost
        disk, or of a clone that runs with our keys. Whoever is seen is outbid; one that outbids us
        in turn lives, and then the newest start stays."""
        if self._fenced or head.version[1:] < (self._epoch, self._ver):
            return
        if head.instance == self._instance:
            # A copy of this very run, as of a machine that was resumed twice: tell the two apart.
            self._instance = _instance(self.clock.now_ms(), self.env.chance.randbytes(8))
            self._answer_in_time(head.version)
        elif self._is_newer_clone(head):
            self._fence(head)
        else:
            self._foreign[head.instance] = None
            if len(self._foreign) > FOREIGN_MAX:
                del self._foreign[next(iter(self._foreign))]
            self.outbid(head.version)

    def _is_newer_clone(self, head: Head) -> bool:
        """Whether it was outbid before and speaks again, and started later than we did. Instances
        begin with the start, so of two clones exactly one is the newer."""
        again = head.instance in self._foreign and head.hlc > self._started_ms
        return again and head.instance > self._instance

    def _accused(self, evidence: Evidence) -> None:
        """Others can prove that our key signed two things at once: a machine that was resumed from
        a copy, or a clone. Nobody routes to us until we are above that; two key documents of one
        epoch can only be outdone by a new key epoch, which is for people."""
        if self._fenced or (evidence.version.epoch < self._epoch and not evidence.about_keys):
            return
        self.env.notice("self_contradicted", keys=evidence.about_keys)
        if not evidence.about_keys:
            self._answer_in_time(evidence.version)

    def _answer_in_time(self, version: Version) -> None:
        """Outbid what a twin of this very run signs. One that goes on would else have both publish
        everything anew without end."""
        instant = max(self.env.now, self._answered_at + self._answer_pause_s)
        self.env.deadlines.set_earlier(ANSWER, instant, partial(self._answer, version))

    def _answer(self, version: Version) -> None:
        if self._fenced or version.epoch < self._epoch:
            return  # something else has raised the epoch meanwhile, or nothing may
        calm = self.env.now - self._answered_at > 2.0 * ANSWER_PAUSE_MAX_S
        doubled_s = min(2.0 * self._answer_pause_s, ANSWER_PAUSE_MAX_S)
        self._answer_pause_s = ANSWER_PAUSE_S if calm else doubled_s
        self._answered_at = self.env.now
        self.outbid(version)

    def outbid(self, version: Version) -> None:
        """Publish everything anew under a higher epoch than that of `version`."""
        if max(version.epoch, self._epoch_saved) >= EPOCH_MAX:
            self._fenced = True
            self._rest()
            self.env.notice("epoch_exhausted", epoch=version.epoch)
        elif self._status != Status.LEFT:
            self._rest()
            self._raise_epoch(version.epoch)

    def _fence(self, head: Head) -> None:
        """The clone started later and lives: two would outbid each other for ever."""
        self._fenced = True
        self._rest()
        self.env.notice("clone_fenced", instance=head.instance.hex(), epoch=head.epoch)

    def _rest(self) -> None:
        self.env.deadlines.drop(PUBLISH)
        self.env.deadlines.drop(REFRESH)


def _instance(start_ms: int, random: bytes) -> bytes:
    return start_ms.to_bytes(START_SIZE, "big") + random[:16]


def _scope(key: str) -> int:
    return SCOPE_OF_KIND[kind_of(key)]


def _saved_epoch(env: Env, saved: Saved) -> int:
    """The epoch of the last start. A damaged row counts as none: the clock and the peers give a
    higher one."""
    try:
        value = env.codec.unpack(saved.get(("meta", b"epoch"), b"\x00"))
    except RemoteError:
        return 0
    return value if type(value) is int and 0 <= value < EPOCH_MAX else 0
