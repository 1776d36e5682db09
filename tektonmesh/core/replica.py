"""The replica: for every owner the newest head that may be kept, with exactly its records.

An owner's news are taken whole or not at all, so a reader always sees one snapshot of it. What
may be taken is checked in `core/intake`, how owners end is `core/leases`; whom to tell is
`core/dissemination`, what is missing `core/antientropy`, who is believed to be a member
`core/trust`, what time it is `core/meshtime`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tektonmesh.core import shelf
from tektonmesh.core.effects import Save
from tektonmesh.core.fingerprints import Fingerprints, entry_of
from tektonmesh.core.head import Head
from tektonmesh.core.held import Held
from tektonmesh.core.ids import show_id
from tektonmesh.core.intake import OWNERS_MAX, Applied, Intake, Passed
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.leases import Leases
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import Delta, VectorEntry
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
    "forgotten" or "flagged" (it equivocated); `keys` are the records that changed, sorted."""

    owner: StackId
    kind: str
    keys: tuple[str, ...]


class Replica:
    """Owners by id. `watch` callbacks hear of every change after it was made; `watch_own` of heads
    of this stack that came back from others, signed by our key."""

    def __init__(self, env: Env, trust: Trust, clock: MeshTime, saved: Saved) -> None:
        self.env = env
        self.trust = trust
        self.clock = clock
        self.owners: dict[StackId, Held] = shelf.read_owners(env, trust, saved)
        self._watchers: list[Callable[[Change], None]] = []
        self._own_watchers: list[Callable[[Head], None]] = []
        self._prints = Fingerprints()
        self._leases = Leases(env, clock, self.owners, saved, self._ended)
        self._intake = Intake(env, trust, clock, self.owners, self._leases)
        self._last_read: tuple[bytes, Head] | None = None
        for owner, held in self.owners.items():
            self._prints.set(owner, None if held.expired else entry_of(held.head))

    def watch(self, callback: Callable[[Change], None]) -> None:
        self._watchers.append(callback)

    def watch_own(self, callback: Callable[[Head], None]) -> None:
        self._own_watchers.append(callback)

    # --- reading ---------------------------------------------------------------------------------

    def has(self, owner: StackId) -> bool:
        """Whether anything is known of this owner, expired or not."""
        return owner in self.owners

    def live(self, owner: StackId) -> bool:
        """Whether its lease runs and it neither left nor contradicted itself."""
        held = self.owners.get(owner)
        return held is not None and not (held.expired or held.left or held.equivocated)

    def lease_left_s(self, owner: StackId) -> float:
        """Seconds until the lease of a known owner runs out if it stays silent; 0 if it did."""
        return self._leases.left_s(self.owners[owner])

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
            )
            for held in found
        ]

    def read_head(self, signed: SignedHead) -> Head:
        """The head, decoded and checked for form only. Raises RemoteError."""
        if self._last_read is None or self._last_read[0] != signed.head:
            self._last_read = (signed.head, Head.decode(self.env.codec, signed.head))
        return self._last_read[1]

    # --- taking ----------------------------------------------------------------------------------

    def apply(self, delta: Delta, link: LinkId) -> Applied:
        """Take the news of an owner that came over `link`, or say why not. Raises RemoteError,
        with no record changed, if the delta breaks the protocol (`Intake.check`)."""
        head = self.read_head(delta.head)
        if head.stack_id == self.env.me:
            return self._apply_own(head, delta.head)
        found = self._intake.check(head, delta)
        if isinstance(found, Passed):
            return self._store(found)
        if found is Applied.CONTRADICTED:
            self._flag(self.owners[head.stack_id])
        return found

    def _apply_own(self, head: Head, signed: SignedHead) -> Applied:
        """A head of ours comes back: of now, of before a restart, or of a clone of this stack."""
        own = self.owners.get(self.env.me)
        known = own is not None and own.signed == signed
        if not known and self._intake.own_head(head, signed):
            for callback in self._own_watchers:
                callback(head)
        return Applied.STALE

    def _store(self, passed: Passed) -> Applied:
        owner = passed.head.stack_id
        before = self.owners.get(owner)
        if before is None or before.expired:
            return self._store_new(passed, before)
        held, old, rows = before, before.record_set, []
        if held.signed_keydoc != passed.keys[1]:
            held.take_keys(passed.keys)
            rows.append(shelf.keydoc_row(self.env, held))
        changed = held.take(passed.head, passed.signed, passed.records, self.env.now)
        fell = passed.flagged and not held.equivocated
        held.equivocated = passed.flagged
        rows.append(shelf.head_row(self.env, held))
        rows.extend(shelf.record_rows(owner, old, held.record_set, changed or ()))
        self.env.emit(Save(tuple(rows), None))
        self._keep(held, _kind(held, changed), changed or ())
        if fell:
            self._say_flagged(owner)
        return Applied.REFRESHED if changed is None else Applied.APPLIED

    def _store_new(self, passed: Passed, expired: Held | None) -> Applied:
        owner = passed.head.stack_id
        if expired is None and len(self.owners) >= OWNERS_MAX:
            self._leases.make_room()
        held = Held(
            self.env.codec, passed.head, passed.signed, passed.keys, passed.records, self.env.now
        )
        self.owners[owner] = held
        old = RecordSet() if expired is None else expired.record_set
        differ = differing(old, held.record_set)
        rows = shelf.record_rows(owner, old, held.record_set, differ)
        both = shelf.keydoc_row(self.env, held), shelf.head_row(self.env, held)
        self.env.emit(Save((*both, *rows), None))
        self._keep(held, "new", tuple(sorted(held.records)))
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
            self._keep(held, "new", tuple(sorted(records.records)))
        else:
            held.take_keys(keys)
            changed = held.take(head, signed, records, self.env.now)
            self._keep(held, _kind(held, changed), changed or ())

    def _keep(self, held: Held, kind: str, keys: tuple[str, ...]) -> None:
        owner = held.head.stack_id
        self._prints.set(owner, entry_of(held.head))
        self._leases.wait(owner)
        self._say(Change(owner, kind, keys))

    def _flag(self, held: Held) -> None:
        """Ours stays, and is not live any more."""
        if not held.equivocated:
            held.equivocated = True
            self.env.emit(Save((shelf.head_row(self.env, held),), None))
            self._say_flagged(held.head.stack_id)

    def _say_flagged(self, owner: StackId) -> None:
        self.env.notice("stack_equivocated", id=show_id(owner))
        self._say(Change(owner, "flagged", ()))

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


def _kind(held: Held, changed: tuple[str, ...] | None) -> str:
    if changed is None:
        return "refresh"
    return "left" if held.left else "content"
