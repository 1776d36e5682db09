"""What proves that an owner said two things at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core.equivocation import (
    Evidence,
    contradict,
    level_of,
    proof_of_heads,
    proof_of_keydocs,
    read_evidence,
    verify_evidence,
)
from tektonmesh.core.head import HEAD_SIZE_MAX
from tektonmesh.core.keydoc import DOC_SIZE_MAX, KeyDoc
from tektonmesh.core.messages import Proof
from tektonmesh.core.record import EMPTY_ROOT
from tektonmesh.core.types import SignedHead, SignedKeyDoc, Version
from tektonmesh.errors import RemoteError
from tektonmesh.wire import limits
from tektonmesh.wire.codec import KIND, Codec, decode_message, encode_message
from tests.support import MESH_ID, Author

CODEC = Codec()
OTHER_ROOTS = {0: bytes(32), 1: bytes(32)}


def twins(**more: Any) -> Proof:
    author = Author()
    author.delta({"ci/numa": {}})
    return proof_of_heads(author.sign(), author.sign(instance=b"twin", **more), author.keydoc)


def checked(proof: Proof) -> Evidence:
    """What a stranger makes of a proof that came over the wire."""
    author = Author(7)
    read = decode_message(KIND[Proof], encode_message(proof))
    assert read == proof
    evidence = read_evidence(CODEC, MESH_ID, proof)
    verify_evidence(CODEC, author.keys, evidence)
    return evidence


def refused(proof: Proof, why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        checked(proof)


# --- what is one ---------------------------------------------------------------------------------


def test_two_heads_of_one_version_are_a_proof() -> None:
    author = Author()
    evidence = checked(twins())
    assert evidence.owner == author.id and not evidence.about_keys
    assert evidence.version == Version(0, 5, 1)
    assert evidence.level == level_of(author.head())


def test_two_heads_of_one_content_version_over_other_records_are_a_proof() -> None:
    evidence = checked(twins(ver=9, roots=OTHER_ROOTS))
    assert evidence.version == Version(0, 5, 9)


def test_two_key_documents_of_one_key_epoch_are_a_proof() -> None:
    one, two = Author(), Author().rotate(0, 30)
    evidence = checked(proof_of_keydocs(one.keydoc, two.keydoc))
    assert evidence.owner == one.id and evidence.about_keys
    assert evidence.version == Version(0, 0, 0)


def test_a_proof_is_the_same_whoever_makes_it_from_whichever_side() -> None:
    author = Author()
    one, two = author.sign(), author.sign(instance=b"twin")
    with_mac, bare = author.keydoc, replace(author.keydoc, proof=b"")
    assert proof_of_heads(one, two, with_mac) == proof_of_heads(two, one, bare)
    other = Author().rotate(0, 30).keydoc
    assert proof_of_keydocs(with_mac, other) == proof_of_keydocs(other, bare)


def test_a_proof_of_ordinary_heads_is_below_a_kibibyte_and_the_largest_fits_its_limit() -> None:
    assert len(encode_message(twins())) < 1024
    longest = SignedHead(bytes(HEAD_SIZE_MAX), bytes(64))
    keydoc = SignedKeyDoc(bytes(DOC_SIZE_MAX), bytes(64), b"")
    largest = Proof((longest, longest), (keydoc, keydoc))
    assert len(encode_message(largest)) <= limits.PROOF_SIZE_MAX


# --- what is none --------------------------------------------------------------------------------


def test_an_honest_owner_contradicts_itself_nowhere() -> None:
    author = Author()
    heads = []
    for values in ({"ci/a": {}}, {}, {"ci/b": {}}, {}):
        author.delta(values)
        heads.append(author.head())
    author.epoch += 1
    author.ver = author.content_ver = 1
    heads.append(author.head())
    pairs = [(one, two) for one in heads for two in heads if one is not two]
    assert not any(contradict(one, two) for one, two in pairs)


def test_an_empty_scope_may_be_named_or_not_and_restricted_ones_do_not_count() -> None:
    author = Author()
    author.delta({"ci/a": {}})
    named = author.head(ver=2)
    unnamed = {scope: root for scope, root in named.roots.items() if root != EMPTY_ROOT}
    assert unnamed != named.roots
    assert not contradict(named, author.head(ver=3, roots=unnamed | {16: bytes(32)}))


def test_nothing_is_proven_by_parts_that_are_too_few_or_too_many() -> None:
    good = twins()
    for heads, keydocs in ((0, 1), (1, 1), (2, 0), (1, 0), (0, 0)):
        refused(Proof(good.heads[:heads], good.keydocs[:keydocs]), "neither")
    refused(Proof((*good.heads, good.heads[0]), good.keydocs), "neither")
    refused(Proof(good.heads, good.keydocs * 2), "neither")


def test_the_order_is_part_of_the_form() -> None:
    good = twins()
    refused(Proof(good.heads[::-1], good.keydocs), "out of order")
    refused(Proof((good.heads[0], good.heads[0]), good.keydocs), "same")
    keys = proof_of_keydocs(Author().keydoc, Author().rotate(0, 30).keydoc)
    refused(Proof((), keys.keydocs[::-1]), "out of order")
    refused(Proof((), (keys.keydocs[0], keys.keydocs[0])), "same")


def test_heads_that_an_honest_owner_says_prove_nothing() -> None:
    refused(twins(ver=9), "contradict")
    refused(twins(epoch=6), "contradict")


def test_parts_of_others_prove_nothing() -> None:
    good, other = twins(), Author(3)
    refused(twins(mesh_id=bytes(8)), "belong")
    refused(twins(keydoc_hash=bytes(32)), "belong")
    refused(twins(key_epoch=1), "belong")
    refused(twins(stack_id=other.id), "belong")
    bare = SignedKeyDoc(other.keydoc.doc, other.keydoc.sig, b"")
    refused(Proof(good.heads, (bare,)), "belong")
    refused(proof_of_keydocs(other.keydoc, Author().keydoc), "belong")
    refused(proof_of_keydocs(Author().keydoc, Author().rotate(1, 30).keydoc), "belong")


def test_every_signature_counts() -> None:
    good, unsigned = twins(), bytes(64)
    for at in (0, 1):
        heads = list(good.heads)
        heads[at] = SignedHead(heads[at].head, unsigned)
        refused(Proof(tuple(heads), good.keydocs), "signed by its owner")
    refused(Proof(good.heads, (replace(good.keydocs[0], sig=unsigned),)), "root key")
    keys = proof_of_keydocs(Author().keydoc, Author().rotate(0, 30).keydoc)
    for at in (0, 1):
        keydocs = list(keys.keydocs)
        keydocs[at] = replace(keydocs[at], sig=unsigned)
        refused(Proof((), tuple(keydocs)), "root key")


def test_nobody_is_accused_by_heads_under_a_key_of_anothers_making() -> None:
    author, thief = Author(), Author(3)
    keydoc = KeyDoc.decode(CODEC, author.keydoc.doc)
    forged = replace(keydoc, op_pk=thief.keys.op_public).encode(CODEC)
    author.keydoc = SignedKeyDoc(forged, author.keydoc.sig, b"")
    author.keys = thief.keys
    one, two = author.sign(), author.sign(instance=b"twin")
    refused(proof_of_heads(one, two, author.keydoc), "root key")


# --- which one counts ----------------------------------------------------------------------------


def test_the_digest_covers_what_was_signed_and_not_the_signatures() -> None:
    good = twins()
    resigned = SignedHead(good.heads[0].head, bytes(64))
    other = Proof((resigned, good.heads[1]), good.keydocs)
    read = [read_evidence(CODEC, MESH_ID, proof) for proof in (good, other)]
    assert read[0].digest == read[1].digest
    assert checked(twins(lease_s=301)).digest != read[0].digest


def test_of_proofs_of_one_level_the_smaller_digest_counts_and_a_higher_level_before_all() -> None:
    on_one_level = [checked(twins(lease_s=lease_s)) for lease_s in range(301, 308)]
    smallest = min(on_one_level, key=lambda evidence: evidence.digest)
    assert all(smallest.beats(other) for other in on_one_level if other is not smallest)
    assert not any(other.beats(smallest) for other in on_one_level)
    assert smallest.beats(None)
    author = Author(epoch=6)
    later = checked(proof_of_heads(author.sign(), author.sign(instance=b"twin"), author.keydoc))
    keys = checked(proof_of_keydocs(Author().keydoc, Author().rotate(0, 30).keydoc))
    assert later.beats(smallest) and not smallest.beats(later)
    assert keys.beats(later) and not later.beats(keys)


def test_a_newer_epoch_outdoes_heads_and_only_a_newer_key_epoch_outdoes_key_documents() -> None:
    author = Author()
    heads = checked(twins())
    keys = checked(proof_of_keydocs(author.keydoc, Author().rotate(0, 30).keydoc))
    assert level_of(author.head(ver=10**6)) <= heads.level
    assert level_of(author.head(epoch=6)) > heads.level
    assert level_of(author.head(epoch=10**6)) < keys.level
    assert level_of(author.head(key_epoch=1)) > keys.level
