"""A stack's key document: which operational and box key its root key stands behind.

This module fixes the packed form, what the root key signs, and the two proofs of membership (a MAC
by the mesh key, or vouchers of members). Whether a proof is enough is for `core/trust`; making and
keeping keys is for `wire/keys` and `net/identity`.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import field
from typing import Any

from tektonmesh.core.frozen import frozen
from tektonmesh.core.ids import stack_id_of
from tektonmesh.core.types import ID_SIZE, Codec, Crypto, SignedKeyDoc, StackId
from tektonmesh.errors import NoveltyError, RemoteError

KEYDOC_CONTEXT = b"tektonmesh/keydoc/1\0"
VOUCHER_CONTEXT = b"tektonmesh/voucher/1\0"
MEMBER_CONTEXT = b"tektonmesh/member/1\0"
FORMAT = 1
KEY_EPOCH_MAX = 2**32 - 1
DOC_SIZE_MAX = 1024
PROOF_SIZE_MAX = 2048
VOUCHERS_PER_PROOF_MAX = 4
"""Four of some 220 bytes fit `PROOF_SIZE_MAX`, and any one of them is enough."""
FIRST_PREV_HASH = bytes(32)
ROLES = ("member", "observer", "relay")

_GRACE = 7
_KNOWN = range(8)


@frozen
class KeyDoc:
    """What the root key signs. `key_epoch` counts rotations from 0; `prev_hash` is `hash_doc` of
    the document before (zeros in the first one); `grace` says that nobody has stolen the keys of
    that one, so that what they signed and sealed still counts for a while (`core/former`). `extra`
    holds keys of later versions."""

    root_pk: bytes
    stack_id: StackId
    key_epoch: int
    op_pk: bytes
    box_pk: bytes
    prev_hash: bytes = FIRST_PREV_HASH
    grace: bool = False
    extra: dict[int, Any] = field(default_factory=dict)

    def encode(self, codec: Codec) -> bytes:
        """The bytes that are signed. They travel and are stored as they are from then on."""
        shown = {
            0: FORMAT,
            1: self.stack_id,
            2: self.key_epoch,
            3: self.root_pk,
            4: self.op_pk,
            5: self.box_pk,
            6: self.prev_hash,
        }
        shown |= {_GRACE: True} if self.grace else {}
        return codec.pack(shown | {key: self.extra[key] for key in sorted(self.extra)})

    @classmethod
    def decode(cls, codec: Codec, packed: bytes) -> KeyDoc:
        """Read a document and check its form. Raises RemoteError, or NoveltyError if it is of a
        later version; verifies no signature."""
        if len(packed) > DOC_SIZE_MAX:
            raise RemoteError("The key document is over its size limit.")
        shown = int_map(codec.unpack(packed), "key document")
        check_format(shown.get(0), FORMAT, "key document")
        sized = [(1, ID_SIZE), (3, 32), (4, 32), (5, 32), (6, 32)]
        if not all(is_bytes(shown.get(key), size) for key, size in sized):
            raise RemoteError("The key document lacks a field or has one of a wrong size.")
        if not is_count(shown.get(2), KEY_EPOCH_MAX):
            raise RemoteError("The key document's epoch is not a number in range.")
        if shown.get(_GRACE, True) is not True:
            raise RemoteError("The key document says in a wrong way that it follows another.")
        extra = {key: value for key, value in shown.items() if key not in _KNOWN}
        fields = (shown[3], shown[1], shown[2], shown[4], shown[5], shown[6])
        return cls(*fields, grace=_GRACE in shown, extra=extra)


def check_format(told: Any, known: int, what: str) -> None:
    """Raises NoveltyError if something has a later format than the one that is known here, and
    RemoteError if it has none. True and 1.0 equal 1 in Python, but pack to other bytes, and another
    reader would not take the document for one of this format."""
    if type(told) is not int or told != known:
        later = type(told) is int and told > known
        kind = NoveltyError if later else RemoteError
        raise kind(f"The format of a {what} is none that this version can read.")


def int_map(value: Any, what: str) -> dict[int, Any]:
    """`value` if it is a map whose keys are whole numbers from 0. Raises RemoteError."""
    if not isinstance(value, dict) or not all(type(key) is int and key >= 0 for key in value):
        raise RemoteError(f"The {what} is not a map with numbers as keys.")
    return value


def is_bytes(value: Any, size: int) -> bool:
    return isinstance(value, bytes) and len(value) == size


def is_count(value: Any, most: int) -> bool:
    """Whether `value` is a whole number from 0 to `most` (True and False are none)."""
    return type(value) is int and 0 <= value <= most


def hash_doc(doc: bytes) -> bytes:
    """32 bytes that name a key document in a head and in the next document."""
    return hashlib.blake2b(doc, digest_size=32).digest()


def read_keydoc(codec: Codec, crypto: Crypto, signed: SignedKeyDoc) -> KeyDoc:
    """Decode and verify: the id belongs to the root key, and the root key signed the document.

    Says nothing about membership. Raises RemoteError.
    """
    keydoc = KeyDoc.decode(codec, signed.doc)
    verify_keydoc(crypto, keydoc, signed)
    return keydoc


def verify_keydoc(crypto: Crypto, keydoc: KeyDoc, signed: SignedKeyDoc) -> None:
    """The part of `read_keydoc` that costs; `keydoc` is `signed` decoded. Raises RemoteError."""
    if stack_id_of(keydoc.root_pk) != keydoc.stack_id:
        raise RemoteError("The key document's id does not belong to its root key.")
    if not crypto.verify(keydoc.root_pk, KEYDOC_CONTEXT, signed.doc, signed.sig):
        raise RemoteError("The key document is not signed by its root key.")


# --- proofs of membership ------------------------------------------------------------------------


def membership_mac(mesh_key: bytes, stack_id: StackId) -> bytes:
    """32 bytes that only a holder of the mesh key can make for this stack (HMAC-SHA256)."""
    return hmac.digest(mesh_key, MEMBER_CONTEXT + stack_id, "sha256")


def mac_proof(codec: Codec, mesh_key: bytes, stack_id: StackId) -> bytes:
    """The packed proof of a stack that knows the mesh secret."""
    return codec.pack({"mac": membership_mac(mesh_key, stack_id)})


@frozen
class Voucher:
    """A member's word that a stack belongs to the mesh, until `not_after_ms` of mesh time."""

    mesh_id: bytes
    stack_id: StackId
    role: str
    not_after_ms: int
    issuer: StackId

    def sign(self, codec: Codec, crypto: Crypto) -> bytes:
        """The voucher as it travels, signed by this node's operational key."""
        body = codec.pack(
            {0: self.mesh_id, 1: self.stack_id, 2: self.role, 3: self.not_after_ms, 4: self.issuer}
        )
        return codec.pack([body, crypto.sign(VOUCHER_CONTEXT, body)])


@frozen
class SignedVoucher:
    """A voucher that was read but not verified yet."""

    voucher: Voucher
    body: bytes
    sig: bytes

    def signed_by(self, crypto: Crypto, op_pk: bytes) -> bool:
        return crypto.verify(op_pk, VOUCHER_CONTEXT, self.body, self.sig)


def read_voucher(codec: Codec, packed: bytes) -> SignedVoucher:
    """Read a travelling voucher and check its form. Raises RemoteError, or NoveltyError if it is
    for a role of a later version."""
    pair = codec.unpack(packed)
    if not isinstance(pair, list) or len(pair) != 2 or not is_bytes(pair[1], 64):
        raise RemoteError("A voucher is not a pair of body and signature.")
    if not isinstance(pair[0], bytes):
        raise RemoteError("A voucher's body is not bytes.")
    shown = int_map(codec.unpack(pair[0]), "voucher")
    sized = is_bytes(shown.get(0), 8) and is_bytes(shown.get(1), ID_SIZE)
    if not sized or not is_bytes(shown.get(4), ID_SIZE) or not isinstance(shown.get(2), str):
        raise RemoteError("A voucher lacks a field or has one of a wrong form.")
    if shown[2] not in ROLES:
        raise NoveltyError("A voucher is for a role that is not known here.")
    if not is_count(shown.get(3), 2**48):
        raise RemoteError("A voucher's end is not an instant in range.")
    voucher = Voucher(shown[0], shown[1], shown[2], shown[3], shown[4])
    return SignedVoucher(voucher, pair[0], pair[1])


def read_proof(codec: Codec, proof: bytes) -> tuple[bytes, list[bytes]]:
    """A proof's parts: the MAC (or empty) and the packed vouchers. Raises RemoteError."""
    if not proof:
        return b"", []
    if len(proof) > PROOF_SIZE_MAX:
        raise RemoteError("The membership proof is over its size limit.")
    shown = codec.unpack(proof)
    if not isinstance(shown, dict):
        raise RemoteError("The membership proof is not a map.")
    mac, vouchers = shown.get("mac", b""), shown.get("vouchers", [])
    if not isinstance(mac, bytes) or not isinstance(vouchers, list):
        raise RemoteError("The membership proof has a part of a wrong form.")
    if len(vouchers) > VOUCHERS_PER_PROOF_MAX or not all(isinstance(v, bytes) for v in vouchers):
        raise RemoteError("The membership proof has vouchers of a wrong form or too many.")
    return mac, vouchers


def write_proof(codec: Codec, proof: bytes, vouchers: list[bytes]) -> bytes:
    """`proof` with these vouchers instead of its own. Only for one's own proof."""
    shown = codec.unpack(proof) if proof else {}
    return codec.pack(shown | {"vouchers": vouchers[:VOUCHERS_PER_PROOF_MAX]})
