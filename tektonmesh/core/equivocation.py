"""Proof that an owner said two things at once, in a form that anybody can check.

Two heads of one version, or two heads of one content version over other records, both signed under
one key document; or two key documents of one key epoch. This module decides what is such a proof,
which of several counts and up to when. What follows for the owner is for `core/replica`, how
proofs spread is for `core/proofs` and `core/antientropy`.

Of all proofs the highest level counts, of one level the smallest digest: any two compare alike
everywhere, so the proofs of an owner are a semilattice as its heads are.
"""

from __future__ import annotations

import hashlib

from tektonmesh.core.frozen import frozen
from tektonmesh.core.head import Head, hash_head, signed_by
from tektonmesh.core.keydoc import KeyDoc, hash_doc, verify_keydoc
from tektonmesh.core.messages import Proof
from tektonmesh.core.record import EMPTY_ROOT, SCOPE_RESTRICTED
from tektonmesh.core.types import Codec, Crypto, SignedHead, SignedKeyDoc, StackId, Version
from tektonmesh.errors import RemoteError

DIGEST_SIZE = 8

Level = tuple[int, int, int]
"""What must be outdone to be believed again: key epoch, key document (the smaller hash is the
higher), epoch. Between key documents it is the key epoch alone."""


def level_of(head: Head) -> Level:
    """The level that a head stands on: a proof below it does not count any more."""
    return head.key_epoch, -int.from_bytes(head.keydoc_hash, "big"), head.epoch


@frozen
class Evidence:
    """A proof that was read. `digest` names it in prints and vectors; `version` is the newest that
    it shows, with epoch and `ver` 0 if it is about key documents."""

    proof: Proof
    owner: StackId
    level: Level
    digest: bytes
    version: Version

    @property
    def about_keys(self) -> bool:
        return not self.proof.heads

    def beats(self, other: Evidence | None) -> bool:
        """Whether this proof counts rather than the other one."""
        return other is None or (self.level, other.digest) > (other.level, self.digest)


# --- making --------------------------------------------------------------------------------------


def proof_of_heads(one: SignedHead, two: SignedHead, keydoc: SignedKeyDoc) -> Proof:
    """The proof by two contradicting heads under this key document."""
    first, second = sorted((one, two), key=lambda signed: hash_head(signed.head))
    return Proof((first, second), (_bare(keydoc),))


def proof_of_keydocs(one: SignedKeyDoc, two: SignedKeyDoc) -> Proof:
    """The proof by two key documents of one key epoch."""
    first, second = sorted((one, two), key=lambda signed: hash_doc(signed.doc))
    return Proof((), (_bare(first), _bare(second)))


def _bare(keydoc: SignedKeyDoc) -> SignedKeyDoc:
    """Without its proof of membership: who holds the owner has judged that already."""
    return SignedKeyDoc(keydoc.doc, keydoc.sig, b"")


def contradict(one: Head, two: Head) -> bool:
    """Whether no honest owner says both: one version twice, or other records under one content
    version. The heads are known to differ and to be under one key document."""
    if one.version == two.version:
        return True
    return one.content_version == two.content_version and _commons(one) != _commons(two)


def _commons(head: Head) -> dict[int, bytes]:
    """The roots of the common scopes; an empty scope may be named or not."""
    return {
        scope: root
        for scope, root in head.roots.items()
        if scope < SCOPE_RESTRICTED and root != EMPTY_ROOT
    }


# --- reading -------------------------------------------------------------------------------------


def read_evidence(codec: Codec, mesh_id: bytes, proof: Proof) -> Evidence:
    """Everything but the signatures. Raises RemoteError if this proves nothing, or is not in the
    one form that a proof has."""
    if len(proof.heads) == 2 and len(proof.keydocs) == 1:
        return _read_heads(codec, mesh_id, proof)
    if not proof.heads and len(proof.keydocs) == 2:
        return _read_keydocs(codec, proof)
    raise RemoteError("A proof has neither two heads and a key document nor two key documents.")


def _read_heads(codec: Codec, mesh_id: bytes, proof: Proof) -> Evidence:
    first, second = proof.heads
    one, two = Head.decode(codec, first.head), Head.decode(codec, second.head)
    keydoc = KeyDoc.decode(codec, proof.keydocs[0].doc)
    doc_hash = hash_doc(proof.keydocs[0].doc)
    for head in (one, two):
        theirs = (head.stack_id, head.key_epoch) == (keydoc.stack_id, keydoc.key_epoch)
        if not theirs or head.keydoc_hash != doc_hash or head.mesh_id != mesh_id:
            raise RemoteError("The parts of a proof do not belong together.")
    if not hash_head(first.head) < hash_head(second.head):
        raise RemoteError("The heads of a proof are the same or out of order.")
    if not contradict(one, two):
        raise RemoteError("The heads of a proof do not contradict each other.")
    digest = _digest(first.head, second.head, proof.keydocs[0].doc)
    return Evidence(proof, one.stack_id, level_of(one), digest, max(one.version, two.version))


def _read_keydocs(codec: Codec, proof: Proof) -> Evidence:
    first, second = proof.keydocs
    one, two = KeyDoc.decode(codec, first.doc), KeyDoc.decode(codec, second.doc)
    if (one.stack_id, one.key_epoch) != (two.stack_id, two.key_epoch):
        raise RemoteError("The parts of a proof do not belong together.")
    if not hash_doc(first.doc) < hash_doc(second.doc):
        raise RemoteError("The key documents of a proof are the same or out of order.")
    # Above every head of this key epoch: these end in a hash with a minus before it.
    level = one.key_epoch, 1, 0
    digest = _digest(first.doc, second.doc)
    return Evidence(proof, one.stack_id, level, digest, Version(one.key_epoch, 0, 0))


def _digest(*parts: bytes) -> bytes:
    """Over what was signed and not over the signatures, of which one key can make many."""
    sized = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.blake2b(sized, digest_size=DIGEST_SIZE).digest()


def verify_evidence(codec: Codec, crypto: Crypto, evidence: Evidence) -> None:
    """The part that costs, of what was read. Raises RemoteError if a signature is not the
    owner's."""
    keydocs = [KeyDoc.decode(codec, signed.doc) for signed in evidence.proof.keydocs]
    for keydoc, signed in zip(keydocs, evidence.proof.keydocs, strict=True):
        verify_keydoc(crypto, keydoc, signed)
    for head in evidence.proof.heads:
        if not signed_by(crypto, keydocs[0].op_pk, head):
            raise RemoteError("A head of a proof is not signed by its owner.")
