"""The replica: for every owner the newest head that may be kept, with exactly its records.

An owner's news are taken whole or not at all, so a reader always sees one snapshot of it. What
may be taken is checked in `core/intake`, how owners end is `core/leases`; whom to tell is
`core/dissemination`, what is missing `core/antientropy`, who is believed to be a member
`core/trust`, what time it is `core/meshtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field

from tektonmesh.core import shelf
from tektonmesh.core.effects import Save
from tektonmesh.core.equivocation import Evidence, level_of, read_evidence, verify_evidence
from tektonmesh.core.fingerprints import Fingerprints, entry_of
from tektonmesh.core.head import Head
from tektonmesh.core.held import Held, own_held
from tektonmesh.core.ids import show_id
from tektonmesh.core.intake import OWNERS_MAX, Applied, Intake, Passed
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.layers import layer
from tektonmesh.core.leases import Leases
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import Delta, Proof, VectorEntry
from tektonmesh.core.record import RecordSet, differing
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import (
    ContentVersion,
    LinkId,
    Saved,
    SignedHead,
    SignedKeyDoc,
    StackId,
)

__all__ = ["Applied", "Change", "Held", "Replica"]


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to an owner. `kind` is "new", "content", "refresh", "left", "expired",
    "forgotten" or "flagged" (a proof that it equivocated is held from now on, the first one or a
    smaller one); `keys` are the records that changed, sorted. `link` brought it (None: this stack
    made it or found it out), which does not tell two changes apart."""

    owner: StackId
    kind: str
    keys: tuple[str, ...]
    link: LinkId | None = field(default=None, compare=False)


class Replica:
    """Owners by id. `watch` callbacks hear of every change after it was made; `watch_own` of heads
    of this stack that came back from others, signed by our key; `watch_accused` of proofs against
    this stack itself. With a `base` it starts with what that one holds, and shares it."""

    def __init__(
        self,
        env: Env,
        trust: Trust,
        clock: MeshTime,
        saved: Saved,
        base: Replica | None = None,
    ) -> None:
        self.env = env
        self.trust = trust
        self.clock = clock
        self.owners: MutableMapping[StackId, Held] = (
            shelf.read_owners(env, trust, saved) if base is None else layer(base.owners)
        )
        self._watchers: list[Callable[[Change], None]] = []
        self._own_watchers: list[Callable[[Head], None]] = []
        self._prints: Fingerprints = Fingerprints(None if base is None else base._prints)
        leases: Leases | None = None if base is None else base._leases
        self._leases: Leases = Leases(env, clock, self.owners, saved, self._ended, leases)
        self._intake = Intake(
            env, trust, clock, owners=self.owners, leases=self._leases, accuse=self.take_proof
        )
        self._accused_watchers: list[Callable[[Evidence], None]] = []
        if base is None:
            for owner, held in self.owners.items():
                self._prints.set(owner, _entry(held))

    def watch(self, callback: Callable[[Change], None]) -> None:
        self._watchers.append(callback)

    def watch_own(self, callback: Callable[[Head], None]) -> None:
        self._own_watchers.append(callback)

    def watch_accused(self, callback: Callable[[Evidence], None]) -> None:
        self._accused_watchers.append(callback)

    # --- reading ---------------------------------------------------------------------------------

    def has(self, owner: StackId) -> bool:
        """Whether anything is known of this owner, expired or not."""
        return owner in self.owners

    def key_epoch_of(self, owner: StackId) -> int:
        """The newest key epoch that is known of an owner; 0 if nothing is."""
        held = self.owners.get(owner)
        return 0 if held is None else held.keydoc.key_epoch

    def live(self, owner: StackId) -> bool:
        """Whether its lease runs and it neither left nor contradicted itself."""
        held = self.owners.get(owner)
        return held is not None and not (held.expired or held.left or held.equivocated)

    def expired(self) -> list[StackId]:
        """The owners whose lease ran out, and who did not leave."""
        return [owner for owner in self._leases.expired if not self.owners[owner].left]

    def lease_left_s(self, owner: StackId) -> float:
        """Seconds until the lease of a known owner runs out if it stays silent; 0 if it did."""
        return self._leases.left_s(self.owners[owner])

    def age_s(self, held: Held) -> float:
        """Seconds of mesh time since its head was signed; 0 for one signed ahead of our time."""
        return max(0.0, (self.clock.now_ms() - held.head.hlc) / 1000.0)

    def delta_for(self, owner: StackId, base: ContentVersion | None, *, with_keydoc: bool) -> Delta:
        """The news of an owner that is known and not expired, for somebody who holds `base`."""
        return self.owners[owner].delta(base, with_keydoc=with_keydoc)

    def fingerprint(self, without: Iterable[StackId] = ()) -> bytes:
        """16 bytes that are equal in two replicas with the same unexpired owners and records; the
        owners `without` do not count."""
        return self._prints.total(without)

    def bucket_prints(self, without: Iterable[StackId] = ()) -> list[bytes]:
        """The 256 prints that `fingerprint` is made of, by the first byte of the owner's id."""
        return self._prints.prints(without)

    def count(self) -> int:
        """How many owners are not expired."""
        return len(self._prints)

    def entries(self, buckets: tuple[int, ...]) -> list[VectorEntry]:
        """The unexpired owners of these buckets (none named: all), as the peers compare them."""
        found = [self.owners[owner] for owner in self._prints.owners(buckets)]
        return [
            VectorEntry(
                held.head.stack_id,
                held.version,
                held.head.content_ver,
                int(held.head.status),
                held.head_hash,
                held.proof.digest if held.proof is not None else b"",
            )
            for held in found
        ]

    def proof_for(self, entry: VectorEntry) -> Proof | None:
        """What a peer lacks that says this of an owner: our proof against it, unless it holds the
        same."""
        held = self.owners.get(entry.owner)
        if held is None or held.proof is None or held.proof.digest == entry.proof:
            return None
        return held.proof.proof

    def read_head(self, signed: SignedHead) -> Head:
        """The head, decoded and checked for form only. Raises RemoteError."""
        return self.env.heads.read(self.env.codec, signed.head)

    # --- taking ----------------------------------------------------------------------------------

    def apply(self, delta: Delta, link: LinkId) -> Applied:
        """Take the news of an owner that came over `link`, or say why not. Raises RemoteError,
        with no record changed, if the delta breaks the protocol (`Intake.check`)."""
        counts = self.env.counts
        counts.heads_in += 1
        counts.body_bytes_in += sum(len(key) + len(value) for _, key, value in delta.puts)
        outcome = "broken"
        try:
            result = self._take(delta, link)
            outcome = result.value
        finally:
            counts.heads[outcome] += 1
        return result

    def _take(self, delta: Delta, link: LinkId) -> Applied:
        head = self.read_head(delta.head)
        if head.stack_id == self.env.me:
            return self._apply_own(head, delta.head)
        found = self._intake.check(head, delta)
        if isinstance(found, Passed):
            return self._store(found, link)
        if found is Applied.DOUBTED:
            own_held(self.owners, head.stack_id).doubted = True
            return Applied.NEED
        return found

    def take_outline(self, outline: Delta, link: LinkId) -> Applied:
        """Hold the outline of an owner of whom no more is known (`core/outlines`). It is not saved
        and not counted in the print: the owner is missing until it comes whole. Raises RemoteError
        as `apply` does."""
        head = self.read_head(outline.head)
        before = self.owners.get(head.stack_id)
        if head.stack_id == self.env.me or (before is not None and _is_more(before, outline)):
            return Applied.STALE
        found = self._intake.check(head, outline, outline=True)
        if not isinstance(found, Passed):
            return found
        if before is None and len(self.owners) >= OWNERS_MAX:
            self._leases.make_room()
        records = found.records
        held = Held(self.env.codec, head, found.signed, found.keys, records, self.env.now)
        held.outlined = True
        self.owners[head.stack_id] = held
        kind, keys = "new", tuple(sorted(records.records))
        if before is not None and before.outlined:
            self.trust.former.note(before.keydoc, held.keydoc)
            held.proof = before.proof
            self._outdo_proof(held)
            keys = differing(before.record_set, records)
            same = not keys and head.status == before.head.status
            kind = _kind(held, None if same else keys)
        self._keep(held, kind, keys, link)
        return Applied.APPLIED

    def _apply_own(self, head: Head, signed: SignedHead) -> Applied:
        """A head of ours comes back: of now, of before a restart, or of a clone of this stack."""
        own = self.owners.get(self.env.me)
        known = own is not None and own.signed.head == signed.head
        if not known and self._intake.own_head(head, signed):
            for callback in self._own_watchers:
                callback(head)
        return Applied.STALE

    def _store(self, passed: Passed, link: LinkId) -> Applied:
        owner = passed.head.stack_id
        before = self.owners.get(owner)
        if before is None or before.expired or before.outlined:
            return self._store_new(passed, before, link)
        held, old, rows = own_held(self.owners, owner), before.record_set, []
        fresh_keys = held.signed_keydoc != passed.keys[1]
        if fresh_keys:
            self.trust.former.note(held.keydoc, passed.keys[0])
            held.take_keys(passed.keys)
            rows.append(shelf.keydoc_row(self.env, held))
        changed = held.take(passed.head, passed.signed, passed.records, self.env.now)
        held.has_new_keys = fresh_keys or (held.has_new_keys and changed is None)
        if self._outdo_proof(held):
            rows.append(shelf.proof_row(self.env, held))
        rows.append(shelf.head_row(self.env, held))
        rows.extend(shelf.record_rows(owner, old, held.record_set, changed or ()))
        self.env.emit(Save(tuple(rows), None))
        self._keep(held, _kind(held, changed), changed or (), link)
        if changed is None:
            return Applied.REFRESHED
        # What is new here may be old elsewhere; what changed under our eyes was signed just now.
        self.env.counts.apply_latency.add(self.age_s(held))
        return Applied.APPLIED

    def _store_new(self, passed: Passed, before: Held | None, link: LinkId) -> Applied:
        """Of what an owner `before` left behind when it expired something is on disk; of an outline
        nothing is."""
        owner = passed.head.stack_id
        if before is None and len(self.owners) >= OWNERS_MAX:
            self._leases.make_room()
        held = Held(
            self.env.codec, passed.head, passed.signed, passed.keys, passed.records, self.env.now
        )
        self.owners[owner] = held
        if before is not None:
            self.trust.former.note(before.keydoc, held.keydoc)
        old = before.record_set if before is not None and before.expired else RecordSet()
        differ = differing(old, held.record_set)
        rows = list(shelf.record_rows(owner, old, held.record_set, differ))
        held.proof = None if before is None else before.proof
        if self._outdo_proof(held):
            rows.append(shelf.proof_row(self.env, held))
        both = shelf.keydoc_row(self.env, held), shelf.head_row(self.env, held)
        self.env.emit(Save((*both, *rows), None))
        self._keep(held, "new", tuple(sorted(held.records)), link)
        return Applied.APPLIED

    def adopt_own(
        self, head: Head, signed: SignedHead, records: RecordSet, signed_keydoc: SignedKeyDoc
    ) -> None:
        """This stack's own news, made by `core/owner`. They need no disk: after a start they are
        put together anew, under a higher epoch."""
        assert head.stack_id == self.env.me and records.matches(head.roots)
        keys = KeyDoc.decode(self.env.codec, signed_keydoc.doc), signed_keydoc
        held = self.owners.get(self.env.me)
        if held is None:
            held = Held(self.env.codec, head, signed, keys, records, self.env.now)
            self.owners[self.env.me] = held
            self._keep(held, "new", tuple(sorted(records.records)), None)
        else:
            held = own_held(self.owners, self.env.me)
            fresh_keys = held.signed_keydoc != signed_keydoc
            if fresh_keys:
                held.take_keys(keys)
            changed = held.take(head, signed, records, self.env.now)
            held.has_new_keys = fresh_keys or (held.has_new_keys and changed is None)
            self._outdo_proof(held)
            self._keep(held, _kind(held, changed), changed or (), None)

    def _outdo_proof(self, held: Held) -> bool:
        """A head above the level of the proof clears its owner; whether it did."""
        if held.proof is None or held.proof.level >= level_of(held.head):
            return False
        held.proof = None
        return True

    def _keep(self, held: Held, kind: str, keys: tuple[str, ...], link: LinkId | None) -> None:
        owner = held.head.stack_id
        if kind != "refresh":
            self._prints.set(owner, _entry(held))
        self._leases.wait(owner)
        self._say(Change(owner, kind, keys, link))

    def take_proof(self, proof: Proof) -> None:
        """Somebody proves that an owner said two things at once: it is not live any more until it
        has outdone that. Ignored if the owner is not held, has outdone it, or is proven guilty by
        a smaller one. Raises RemoteError if it proves nothing."""
        evidence = read_evidence(self.env.codec, self.env.identity.mesh_id, proof)
        held = self.owners.get(evidence.owner)
        if held is None or evidence.level < level_of(held.head) or not evidence.beats(held.proof):
            return
        verify_evidence(self.env.codec, self.env.crypto, evidence)
        self._flag(own_held(self.owners, evidence.owner), evidence)

    def _flag(self, held: Held, evidence: Evidence) -> None:
        assert evidence.owner == held.head.stack_id and evidence.level >= level_of(held.head)
        owner, fell = evidence.owner, not held.equivocated
        held.proof = evidence
        self._prints.set(owner, _entry(held))
        if owner != self.env.me:
            self.env.emit(Save((shelf.proof_row(self.env, held),), None))
            if fell:
                name = (held.value("stack/self") or {}).get("name")
                shown = name if isinstance(name, str) else ""
                self.env.notice("stack_equivocated", id=show_id(owner), name=shown)
        self._say(Change(owner, "flagged", ()))
        for callback in self._accused_watchers if owner == self.env.me else ():
            callback(evidence)

    def _say(self, change: Change) -> None:
        for callback in self._watchers:
            callback(change)

    # --- the end of owners -----------------------------------------------------------------------

    def drop(self, owner: StackId) -> None:
        """Forget an owner except for its version, below which nothing of it is taken again.
        Harmless if nothing is known of it."""
        assert owner != self.env.me, "a stack does not forget itself"
        if owner in self.owners:
            self._leases.forget(owner)

    def _ended(self, owner: StackId, kind: str, keys: tuple[str, ...]) -> None:
        self._prints.set(owner, None)
        if kind == "forgotten":
            self.trust.release(owner)
        self._say(Change(owner, kind, keys))


def _entry(held: Held) -> bytes | None:
    """What of an owner counts in the fingerprint; nothing once it has expired, or before it is held
    whole."""
    return None if not held.whole else entry_of(held.head, held.proof_digest)


def _is_more(held: Held, outline: Delta) -> bool:
    """Whether an outline says nothing beside what is held."""
    return held.whole or held.signed.head == outline.head.head


def _kind(held: Held, changed: tuple[str, ...] | None) -> str:
    if changed is None:
        return "refresh"
    return "left" if held.left else "content"
