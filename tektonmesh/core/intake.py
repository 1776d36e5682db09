"""What of a delta may be taken: all checks that stand between a link and the replica.

The order is fixed, the cheap ones first: size, quota, admission, newer, fresh, signature, root.
Nothing here changes a record; what passes is stored by `core/replica`.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from enum import Enum

from tektonmesh.core import equivocation
from tektonmesh.core.frozen import frozen
from tektonmesh.core.head import Head, fault, hash_head, signed_by
from tektonmesh.core.held import Held
from tektonmesh.core.keydoc import KeyDoc, hash_doc
from tektonmesh.core.leases import Leases
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import Delta, Proof
from tektonmesh.core.record import RECORDS_MAX, SET_SIZE_MAX, RecordSet
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import SignedHead, SignedKeyDoc, StackId
from tektonmesh.errors import PolicyError, RemoteError

OWNERS_MAX = 16_384


class Applied(Enum):
    """What became of a delta.

    APPLIED and REFRESHED: taken. STALE: not newer, or not fresh. NEED: ask again, with `Held.base`
    (or nothing) as what we have. REFUSED: evicted, or no room. UNPROVEN: nothing says yet that the
    owner is a member. CONTRADICTED: it said two things at once, and ours stays. DOUBTED: as NEED,
    and no change fits our records any more; only between `Intake` and `Replica`.
    """

    APPLIED = "applied"
    REFRESHED = "refreshed"
    STALE = "stale"
    NEED = "need"
    REFUSED = "refused"
    UNPROVEN = "unproven"
    CONTRADICTED = "contradicted"
    DOUBTED = "doubted"


@frozen
class Passed:
    """A delta that passed all checks."""

    head: Head
    signed: SignedHead
    keys: tuple[KeyDoc, SignedKeyDoc]
    records: RecordSet


class Intake:
    """The checks, against what is held now. `accuse` is called with the proof of every
    contradiction that a well signed head makes with the one that is held."""

    def __init__(
        self,
        env: Env,
        trust: Trust,
        clock: MeshTime,
        *,
        owners: MutableMapping[StackId, Held],
        leases: Leases,
        accuse: Callable[[Proof], None],
    ) -> None:
        self.env = env
        self.trust = trust
        self.clock = clock
        self.owners = owners
        self.leases = leases
        self._accuse = accuse

    def check(self, head: Head, delta: Delta, *, outline: bool = False) -> Passed | Applied:
        """`head` is the delta's, decoded; an `outline` has the topology records only. Raises
        RemoteError if the delta is malformed, wrongly signed, or does not give the records that
        its head commits to: each of that could be seen by whoever sent it, who must have looked.
        Raises NoveltyError instead where the head is of a later version, of which we do not know
        what it allows."""
        self._check_size(head, delta)
        held = self.owners.get(head.stack_id)
        if not self._has_room(held) or self.trust.refuses(head.stack_id):
            return Applied.REFUSED
        if not self._is_news(head, delta.head, held):
            return Applied.STALE
        if not self.clock.fresh(head.hlc, head.lease_s):
            return Applied.STALE
        try:
            keys = self._keys_for(head, delta.keydoc, held)
        except PolicyError:
            return Applied.UNPROVEN
        if keys is None:
            return Applied.NEED
        if not signed_by(self.env.crypto, keys[0].op_pk, delta.head):
            raise RemoteError("A head is not signed by its owner.")
        if held is not None and held.signed.head != delta.head.head:
            proof = _contradiction(head, delta.head, keys[1], held)
            if proof is not None:
                self._accuse(proof)
            if beats(held, head, delta.head):
                return Applied.CONTRADICTED
        if outline:
            return self._check_outline(head, delta, keys)
        return self._check_records(head, delta, keys, held)

    def own_head(self, head: Head, signed: SignedHead) -> bool:
        """Whether a head of our own id is one that we signed with the keys of now. Raises
        RemoteError if it claims to be and is not."""
        keydoc = self.env.identity.keydoc
        if hash_doc(keydoc.doc) != head.keydoc_hash:
            return False
        op_pk = KeyDoc.decode(self.env.codec, keydoc.doc).op_pk
        if not signed_by(self.env.crypto, op_pk, signed):
            raise RemoteError("A head bears our id and not our signature.")
        return True

    def _check_size(self, head: Head, delta: Delta) -> None:
        if head.mesh_id != self.env.identity.mesh_id:
            raise RemoteError("A head belongs to another mesh.")
        if len(delta.puts) > RECORDS_MAX or len(delta.deletes) > RECORDS_MAX:
            raise fault(head.minor, "A delta has more changes than an owner may have records.")
        if sum(len(key) + len(value) for _, key, value in delta.puts) > SET_SIZE_MAX:
            raise fault(head.minor, "A delta is over the size quota of an owner.")
        if any(one >= two for one, two in zip(delta.puts, delta.puts[1:], strict=False)):
            raise RemoteError("The records of a delta are doubled or out of order.")

    def _has_room(self, held: Held | None) -> bool:
        """A known owner always has room; a new one may push out the longest expired."""
        return held is not None or len(self.owners) < OWNERS_MAX or self.leases.can_make_room()

    def _is_news(self, head: Head, signed: SignedHead, held: Held | None) -> bool:
        """Whether this head beats what is held, or is the first to contradict it (which must be
        seen too)."""
        if held is None:
            return head.version >= self.leases.floor(head.stack_id)
        if signed.head == held.signed.head:
            # Whoever has the key can sign one head in many ways; that says nothing new.
            return held.outlined
        if not beats(held, head, signed):
            return True
        return not held.equivocated and _contradicts(head, signed, held)

    def _keys_for(
        self, head: Head, signed: SignedKeyDoc | None, held: Held | None
    ) -> tuple[KeyDoc, SignedKeyDoc] | None:
        """The key document this head is signed under; None if it must be asked for. Raises
        PolicyError if its stack is no member."""
        known = None
        if held is not None and held.keydoc_hash == head.keydoc_hash:
            known = held.keydoc, held.signed_keydoc
        keys = known if signed is None else self._told_keys(head, signed, known)
        if keys is not None and not _belongs(head, keys[0]):
            raise RemoteError("A head and its key document do not belong together.")
        return keys

    def _told_keys(
        self, head: Head, signed: SignedKeyDoc, known: tuple[KeyDoc, SignedKeyDoc] | None
    ) -> tuple[KeyDoc, SignedKeyDoc]:
        if hash_doc(signed.doc) != head.keydoc_hash:
            raise RemoteError("A head names another key document than the one it came with.")
        if known is not None and known[1] == signed:
            return known
        try:
            return self.trust.accept(signed), signed
        except PolicyError:
            if known is None:
                raise
            return known  # a proof that says nothing to us must not undo the one that did

    def _check_records(
        self,
        head: Head,
        delta: Delta,
        keys: tuple[KeyDoc, SignedKeyDoc],
        held: Held | None,
    ) -> Passed | Applied:
        if delta.base is not None and (held is None or held.base != delta.base):
            return Applied.NEED
        try:
            records = self._records_for(delta, held)
            if not _is_checked(head, records, held) and not records.matches(head.roots):
                raise RemoteError("The records of a delta do not match the root in its head.")
        except RemoteError as error:
            if delta.base is not None:
                return Applied.DOUBTED  # ours may be an equivocator's other set: nobody is struck
            raise fault(head.minor, error.detail) from None
        if held is not None and _is_same(head, records, held):
            records = held.record_set
        return Passed(head, delta.head, keys, records)

    @staticmethod
    def _check_outline(head: Head, delta: Delta, keys: tuple[KeyDoc, SignedKeyDoc]) -> Passed:
        try:
            records = RecordSet().changed(delta.puts, delta.deletes)
        except RemoteError as error:
            raise fault(head.minor, error.detail) from None
        if not records.outlines(head.roots):
            raise RemoteError("The records of an outline do not match the root in its head.")
        return Passed(head, delta.head, keys, records)

    def _records_for(self, delta: Delta, held: Held | None) -> RecordSet:
        """The records that the delta leads to. Raises RemoteError if they break a rule."""
        if delta.base is None or held is None:
            return RecordSet().changed(delta.puts, delta.deletes)
        if not delta.puts and not delta.deletes:
            return held.record_set
        return held.record_set.changed(delta.puts, delta.deletes)


def _rank(head: Head, signed: SignedHead) -> tuple[int, int, int, int, int]:
    """Any two heads of an owner compare the same way everywhere, so replicas are a semilattice
    and the order of arrival does not matter. A smaller hash decides where an owner said two
    things at once."""
    doc = int.from_bytes(head.keydoc_hash, "big")
    packed = int.from_bytes(hash_head(signed.head), "big")
    return head.key_epoch, -doc, head.epoch, head.ver, -packed


def beats(held: Held, head: Head, signed: SignedHead) -> bool:
    """Whether what is held is to be kept rather than this head."""
    return _rank(held.head, held.signed) > _rank(head, signed)


def _belongs(head: Head, keydoc: KeyDoc) -> bool:
    return (keydoc.stack_id, keydoc.key_epoch) == (head.stack_id, head.key_epoch)


def _contradicts(head: Head, signed: SignedHead, held: Held) -> bool:
    """Whether the owner said two things at once: two key documents of one key epoch, or two heads
    of one version. After a lease ran out it may speak anew."""
    if held.expired or head.key_epoch != held.head.key_epoch:
        return False
    same_version = head.version == held.version and signed.head != held.signed.head
    return same_version or head.keydoc_hash != held.head.keydoc_hash


def _contradiction(
    head: Head, signed: SignedHead, keydoc: SignedKeyDoc, held: Held
) -> Proof | None:
    """The proof that this well signed head and the one that is held make, if they contradict each
    other and no proof of that is held."""
    assert signed.head != held.signed.head, "what is held is no news"
    if held.equivocated or held.expired or head.key_epoch != held.head.key_epoch:
        return None
    if head.keydoc_hash != held.keydoc_hash:
        return equivocation.proof_of_keydocs(held.signed_keydoc, keydoc)
    if equivocation.contradict(head, held.head):
        return equivocation.proof_of_heads(held.signed, signed, keydoc)
    return None


def _is_checked(head: Head, records: RecordSet, held: Held | None) -> bool:
    """Whether these records were compared with these roots before, as at every refresh."""
    return held is not None and records is held.record_set and head.roots == held.head.roots


def _is_same(head: Head, records: RecordSet, held: Held) -> bool:
    """Whether a snapshot only says again what is held."""
    return held.base == head.content_version and records.records == held.records
