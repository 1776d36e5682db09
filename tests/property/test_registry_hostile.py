"""Whatever bytes come over a link, the registry machines raise RemoteError or nothing, and show of
an owner only what it signed (the registry's invariants 1, 7 and 10)."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tektonmesh.core.keydoc import Voucher, write_proof
from tektonmesh.core.messages import Buckets, Delta, Proof, Vector, VectorEntry, Vouch, Want
from tektonmesh.core.types import ContentVersion, SignedHead, SignedKeyDoc, Version
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import KIND, Codec, decode_message, encode_message, pack
from tests.support import MESH_ID, Author, Member, seed_bytes, sign_keydoc

CALM = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
LINK = 1


def started(**more: Any) -> Member:
    member = Member("a", **more).start()
    member.link(LINK, seed_bytes("peer"))
    return member


def try_out(member: Member, message: Any) -> None:
    try:
        member.receive(LINK, message)
    except RemoteError:
        pass  # its link closes
    member.wait(1.0)


def told() -> tuple[list[Delta], list[dict[str, bytes]]]:
    """Three deltas of one owner, and the records after each."""
    author = Author()
    values: list[dict[str, Any]] = [{"ci/numa": {"v": 1}}, {"ci/x": {}}, {"ci/numa": {"v": 2}}]
    deltas, stores = [], []
    for value in values:
        deltas.append(author.delta(value))
        stores.append(dict(author.records.records))
    return deltas, stores


@CALM
@given(
    which=st.integers(0, 2),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), min_size=1, max_size=3),
    cut=st.sampled_from([0, 0, 0, 1, 40]),
)
def test_damaged_deltas_show_nothing_that_was_not_signed(
    which: int, flips: list[tuple[float, int]], cut: int
) -> None:
    deltas, stores = told()
    member = started()
    for delta in deltas[:which]:
        member.receive(LINK, delta)
    packed = bytearray(encode_message(deltas[which]))
    for part, mask in flips:
        packed[int(part * len(packed))] ^= mask
    try:
        message = decode_message(KIND[Delta], bytes(packed[: len(packed) - cut]))
    except RemoteError:
        return
    try_out(member, message)
    for owner, held in member.replica.owners.items():
        if owner != member.id:
            assert owner == Author().id and dict(held.records) in stores


small = st.integers(-1, 20) | st.sampled_from([2**48, 2**63 - 1])
junk = st.recursive(
    st.none() | st.booleans() | small | st.binary(max_size=70) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.integers(0, 15), inner),
    max_leaves=20,
)
packed_junk = junk.map(pack) | st.binary(max_size=60)
owners = st.sampled_from([seed_bytes("x"), seed_bytes("y"), Author().id, Author(1).id])
versions = st.builds(ContentVersion, small, small, small)
keydocs = st.none() | st.builds(
    SignedKeyDoc,
    packed_junk | st.just(Author().keydoc.doc),
    st.just(bytes(64)) | st.just(Author().keydoc.sig),
    packed_junk,
)
texts = st.sampled_from(["ci/numa", "addr/0", "x", "", "CI/x", "mood/x"])
messages = st.one_of(
    st.builds(
        Delta,
        st.builds(SignedHead, packed_junk | st.just(Author().sign().head), st.just(bytes(64))),
        st.none() | versions,
        st.lists(st.tuples(small, texts, packed_junk), max_size=4).map(tuple),
        st.lists(st.tuples(small, texts), max_size=4).map(tuple),
        keydocs,
    ),
    st.builds(Want, st.lists(st.tuples(owners, st.none() | versions), max_size=5).map(tuple)),
    st.builds(
        Vector,
        st.lists(st.integers(0, 255), max_size=5).map(tuple),
        st.lists(
            st.builds(
                VectorEntry,
                owners,
                st.builds(Version, small, small, small),
                small,
                small,
                st.binary(min_size=8, max_size=8),
                st.sampled_from([b"", bytes(8)]),
            ),
            max_size=5,
        ).map(tuple),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(Buckets, st.just(bytes(4096)) | st.binary(max_size=20)),
    st.builds(
        Proof,
        st.lists(
            st.builds(SignedHead, packed_junk | st.just(Author().sign().head), st.just(bytes(64))),
            max_size=3,
        ).map(tuple),
        st.lists(keydocs.filter(bool), max_size=3).map(tuple),
    ),
    st.builds(Vouch, packed_junk),
)


@CALM
@given(heard=st.lists(messages, min_size=1, max_size=8), secret=st.booleans())
def test_nothing_a_peer_says_raises_anything_but_remote_error(
    heard: list[Any], secret: bool
) -> None:
    member = started() if secret else started(mesh_key=None)
    author = Author(7)
    member.trust.admit(author.id)
    member.receive(LINK, author.delta({"ci/numa": {}}))
    own = member.replica.owners[member.id].signed
    for message in heard:
        try_out(member, message)
    assert sorted(member.replica.owners) == sorted([member.id, author.id])
    assert member.replica.owners[member.id].signed == own


@CALM
@given(fields=st.dictionaries(st.integers(0, 16), junk, max_size=6))
def test_heads_with_odd_fields_that_are_signed_well_do_no_harm(fields: dict[int, Any]) -> None:
    """An owner of the mesh may sign whatever it likes; only its own place can suffer."""
    codec = Codec()
    author = Author()
    author.delta({"ci/numa": {}})
    shown = codec.unpack(author.sign().head) | fields
    packed = pack({key: shown[key] for key in sorted(shown)})
    signed = SignedHead(packed, author.keys.sign(b"tektonmesh/head/1\0", packed))
    member = started()
    other = Author(7)
    member.receive(LINK, other.delta({"ci/x": {}}))
    try_out(member, Delta(signed, None, author.records.puts(), (), author.keydoc))
    member.wait(1000.0)
    assert {member.id, other.id} <= set(member.replica.owners)
    assert set(member.replica.owners) <= {member.id, other.id, author.id}


@CALM
@given(value=junk, key=st.sampled_from(["ci/numa", "stack/self", "link/00", "mood/x"]))
def test_records_with_odd_values_quarantine_their_owner_at_most(value: Any, key: str) -> None:
    author, member = Author(), started()
    member.receive(LINK, author.delta({key: pack(value)[:2048]}))
    held = member.replica.owners[author.id]
    read = held.value(key)
    assert read is None or read == value
    assert held.quarantined == (read is None)


@CALM
@given(role=st.sampled_from(["member", "king", ""]), end=small, mesh=st.booleans())
def test_vouchers_of_any_kind_do_no_harm(role: str, end: int, mesh: bool) -> None:
    issuer, subject = Author(2, mesh_key=None), Author(3, mesh_key=None)
    said = Voucher(MESH_ID if mesh else bytes(8), subject.id, role, end, issuer.id)
    proof = write_proof(Codec(), b"", [said.sign(Codec(), issuer.keys)])
    subject.keydoc = sign_keydoc(subject.keys, proof=proof)
    member = started(mesh_key=None, allowed_ids=(issuer.id,))
    member.receive(LINK, issuer.delta({}))
    try_out(member, subject.delta({"ci/x": {}}))
    assert member.replica.has(subject.id) == (role == "member" and mesh and end == 2**48)
