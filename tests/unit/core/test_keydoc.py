from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import keydoc as kd
from tektonmesh.core.keydoc import KeyDoc, Voucher
from tektonmesh.core.types import SignedKeyDoc
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import Codec, pack
from tests.support import MESH_ID, MESH_KEY, make_keys, sign_keydoc

CODEC = Codec()
KEYS, IDENTITY = make_keys(1)
OTHER_KEYS, OTHER = make_keys(2)
DOC = KeyDoc(KEYS.root_public, KEYS.stack_id, 3, KEYS.op_public, KEYS.box_public)


def fields(**changes: Any) -> bytes:
    """The packed document with some fields replaced; None removes one."""
    shown = CODEC.unpack(DOC.encode(CODEC))
    shown |= {int(key[1:]): value for key, value in changes.items()}
    return pack({key: value for key, value in shown.items() if value is not None})


def test_a_document_survives_packing() -> None:
    assert KeyDoc.decode(CODEC, DOC.encode(CODEC)) == DOC


def test_keys_of_later_versions_are_carried() -> None:
    read = KeyDoc.decode(CODEC, fields(_9="later"))
    assert read.extra == {9: "later"}
    assert read.encode(CODEC) == fields(_9="later")


def test_a_signed_document_is_read() -> None:
    assert kd.read_keydoc(CODEC, KEYS, IDENTITY.keydoc).op_pk == KEYS.op_public


@pytest.mark.parametrize(
    "packed",
    [
        b"\xc1",
        pack([1, 2]),
        pack({"0": 1}),
        pack({-1: 1}),
        fields(_0=2),
        fields(_0=True),
        fields(_0=1.0),
        fields(_1=bytes(31)),
        fields(_3=None),
        fields(_2=-1),
        fields(_2=True),
        fields(_2=2**32),
        fields(_9=bytes(1100)),
    ],
)
def test_a_malformed_document_is_refused(packed: bytes) -> None:
    with pytest.raises(RemoteError):
        KeyDoc.decode(CODEC, packed)


def test_an_id_of_another_root_key_is_refused() -> None:
    doc = KeyDoc(KEYS.root_public, OTHER.stack_id, 0, KEYS.op_public, KEYS.box_public)
    packed = doc.encode(CODEC)
    signed = SignedKeyDoc(packed, KEYS.sign_root(kd.KEYDOC_CONTEXT, packed), b"")
    with pytest.raises(RemoteError, match="root key"):
        kd.read_keydoc(CODEC, KEYS, signed)


def test_a_signature_of_another_key_is_refused() -> None:
    stolen = SignedKeyDoc(
        IDENTITY.keydoc.doc, OTHER_KEYS.sign_root(kd.KEYDOC_CONTEXT, IDENTITY.keydoc.doc), b""
    )
    with pytest.raises(RemoteError, match="signed"):
        kd.read_keydoc(CODEC, KEYS, stolen)


def test_the_hash_covers_the_document_and_not_the_proof() -> None:
    assert kd.hash_doc(sign_keydoc(KEYS, proof=b"x").doc) == kd.hash_doc(IDENTITY.keydoc.doc)


def test_a_mac_is_bound_to_key_and_stack() -> None:
    macs = {
        kd.membership_mac(key, stack)
        for key in (MESH_KEY, bytes(32))
        for stack in (KEYS.stack_id, OTHER.stack_id)
    }
    assert len(macs) == 4


def test_a_proof_shows_its_parts() -> None:
    proof = kd.mac_proof(CODEC, MESH_KEY, KEYS.stack_id)
    both = kd.write_proof(CODEC, proof, [b"v1", b"v2"])
    assert kd.read_proof(CODEC, both) == (
        kd.membership_mac(MESH_KEY, KEYS.stack_id),
        [b"v1", b"v2"],
    )
    assert kd.read_proof(CODEC, kd.write_proof(CODEC, b"", [b"v"] * 9)) == (b"", [b"v"] * 4)
    assert kd.read_proof(CODEC, b"") == (b"", [])


@pytest.mark.parametrize(
    "proof",
    [
        b"\xc1",
        pack([1]),
        pack({"mac": 1}),
        pack({"vouchers": 1}),
        pack({"vouchers": [1]}),
        pack({"vouchers": [b""] * 5}),
        pack({"mac": bytes(3000)}),
    ],
)
def test_a_malformed_proof_is_refused(proof: bytes) -> None:
    with pytest.raises(RemoteError):
        kd.read_proof(CODEC, proof)


def test_a_voucher_is_read_and_verified() -> None:
    voucher = Voucher(MESH_ID, OTHER.stack_id, "member", 77, KEYS.stack_id)
    signed = kd.read_voucher(CODEC, voucher.sign(CODEC, KEYS))
    assert signed.voucher == voucher
    assert signed.signed_by(OTHER_KEYS, KEYS.op_public)
    assert not signed.signed_by(OTHER_KEYS, OTHER_KEYS.op_public)


def voucher_of(**changes: Any) -> bytes:
    shown = {0: MESH_ID, 1: OTHER.stack_id, 2: "member", 3: 77, 4: KEYS.stack_id}
    shown |= {int(key[1:]): value for key, value in changes.items()}
    return pack([pack(shown), bytes(64)])


@pytest.mark.parametrize(
    "packed",
    [
        b"\xc1",
        pack({}),
        pack([b""]),
        pack([b"", bytes(63)]),
        pack(["", bytes(64)]),
        pack([pack([]), bytes(64)]),
        voucher_of(_0=b"short"),
        voucher_of(_1=b"short"),
        voucher_of(_2="king"),
        voucher_of(_3=-1),
        voucher_of(_4=b"short"),
    ],
)
def test_a_malformed_voucher_is_refused(packed: bytes) -> None:
    with pytest.raises(RemoteError):
        kd.read_voucher(CODEC, packed)
