"""One stack's keys: what it signs with, and what others seal to.

The root key signs key documents and nothing else, the operational key signs the rest, the box key
and the prekeys are X25519. Ed25519 is libsodium's alone: OpenSSL accepts public keys of small
order, with which one signature fits any message, and two verifiers that differ could split the
replicas. Files, and when a prekey is replaced, are left to `net/identity`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from nacl.bindings import (
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from tektonmesh.core.ids import stack_id_of
from tektonmesh.core.types import SealKey, StackId
from tektonmesh.errors import LocalError
from tektonmesh.wire import limits
from tektonmesh.wire.seal import Opener, Sealer, hkdf_sha256, lock, unlock

SEED_SIZE = 32
SIGNATURE_SIZE = 64
KEY_ID_SIZE = 8
MESH_ID_SIZE = 8
_KEY_ID_CONTEXT = b"tektonmesh-prekey-id-v1\0"
_MESH_ID_CONTEXT = b"tektonmesh-mesh-id-v1\0"
_MESH_KEY_CONTEXT = b"tektonmesh-mesh-key-v1\0"


def verify(public: bytes, context: bytes, data: bytes, sig: bytes) -> bool:
    """Whether `sig` is the Ed25519 signature of `public` over `context + data`. False for
    malformed and small-order keys and for malleated signatures alike."""
    if len(public) != 32 or len(sig) != SIGNATURE_SIZE:
        return False
    try:
        crypto_sign_open(b"".join((sig, context, data)), public)
    except BadSignatureError:
        return False
    return True


def prekey_id(public: bytes) -> bytes:
    """The 8 bytes by which a sealed body names the prekey it was sealed to."""
    return hashlib.sha256(_KEY_ID_CONTEXT + public).digest()[:KEY_ID_SIZE]


class Keys:
    """`core.types.Crypto` over the private keys of one stack."""

    def __init__(
        self,
        root: bytes,
        op: bytes,
        box: bytes,
        prekeys: Sequence[bytes],
        *,
        randbytes: Callable[[int], bytes],
        root_away: bool = False,
    ) -> None:
        """All keys are 32-byte seeds; `prekeys` oldest first, at least one. With `root_away`,
        `root` is the public root key: the private one is kept elsewhere."""
        assert all(len(seed) == SEED_SIZE for seed in (root, op, box, *prekeys))
        assert prekeys, "a stack that nobody can seal to is of no use"
        self.root_public, self._root = (root, b"") if root_away else crypto_sign_seed_keypair(root)
        self.op_public, self._op = crypto_sign_seed_keypair(op)
        self._vouching = self._op
        self.box_public: bytes = crypto_scalarmult_base(box)
        self._sealer = self._own_sealer = Sealer(box, randbytes)
        self._opener = Opener(self.box_public)
        self._prekeys: dict[bytes, bytes] = {}
        self._current = (b"", b"")
        for seed in prekeys:
            self.add_prekey(seed)

    @classmethod
    def from_seeds(
        cls,
        root: bytes,
        op: bytes,
        box: bytes,
        *prekeys: bytes,
        randbytes: Callable[[int], bytes],
    ) -> Keys:
        """Keys that depend on nothing but these seeds; `randbytes` gives ephemerals and nonces."""
        return cls(root, op, box, prekeys, randbytes=randbytes)

    @property
    def has_root(self) -> bool:
        """Whether the private root key is here."""
        return bool(self._root)

    @property
    def stack_id(self) -> StackId:
        return stack_id_of(self.root_public)

    # --- signatures ------------------------------------------------------------------------------

    def sign(self, context: bytes, data: bytes) -> bytes:
        """Ed25519 by the operational key over `context + data`."""
        return _sign(self._op, context + data)

    def vouch(self, context: bytes, data: bytes) -> bytes:
        """As `sign`; after `follow` still by the operational key before this one."""
        return _sign(self._vouching, context + data)

    def sign_root(self, context: bytes, data: bytes) -> bytes:
        """Ed25519 by the root key: for key documents only."""
        assert self._root, "without the root key nothing is signed by it"
        return _sign(self._root, context + data)

    def verify(self, public: bytes, context: bytes, data: bytes, sig: bytes) -> bool:
        return verify(public, context, data, sig)

    # --- one set of keys after another -----------------------------------------------------------

    def also_known_by(self, former_boxes: Sequence[bytes]) -> None:
        """Open what is sealed to this stack under these public box keys of earlier key epochs,
        too: others may not have heard of the present one."""
        self._opener = Opener(self.box_public, *former_boxes)

    def follow(self, before: Keys) -> None:
        """Until `settle`, seal and vouch with the keys before these: the news of these may come to
        others after what is said now, and they know those."""
        self._sealer, self._vouching = before._own_sealer, before._op

    def settle(self) -> None:
        """Everybody has had time to hear of these keys. The ones before are forgotten."""
        self._sealer, self._vouching = self._own_sealer, self._op

    def forget_root(self) -> None:
        """The root key is kept elsewhere from now on."""
        self._root = b""

    # --- seal ------------------------------------------------------------------------------------

    def prekey(self) -> tuple[bytes, bytes]:
        """`(key_id, public)` of the newest prekey."""
        return self._current

    def set_prekeys(self, seeds: Sequence[bytes]) -> None:
        """Hold these and no others, oldest first, and publish the last one. What was derived from
        others is forgotten with them."""
        assert seeds, "a stack that nobody can seal to is of no use"
        self._prekeys.clear()
        self._opener.forget()
        for seed in seeds:
            self.add_prekey(seed)

    def add_prekey(self, seed: bytes) -> bytes:
        """Publish this one from now on; returns its id. The oldest beyond the limit are
        forgotten, and what was sealed to them can no longer be opened."""
        public = crypto_scalarmult_base(seed)
        key_id = prekey_id(public)
        self._prekeys.pop(key_id, None)
        self._prekeys[key_id] = seed
        self._current = (key_id, public)
        while len(self._prekeys) > limits.PREKEYS_MAX:
            del self._prekeys[next(iter(self._prekeys))]
        return key_id

    def renew_ephemeral(self) -> None:
        """Called hourly: earlier bodies can then not be read with what this process holds."""
        self._sealer.renew()

    def seal(self, to: SealKey, aad: bytes, plaintext: bytes) -> bytes:
        return self._sealer.seal(to, aad, plaintext)

    def lock(self, key: bytes, plaintext: bytes) -> bytes:
        return lock(key, plaintext)

    def unlock(self, key: bytes, locked: bytes) -> bytes:
        return unlock(key, locked)

    def open(self, sender_static: bytes, key_id: bytes, aad: bytes, sealed: bytes) -> bytes:
        prekey = self._prekeys.get(key_id)
        if prekey is None:
            raise LocalError("The body is sealed to a prekey this stack lacks.", code="not_found")
        return self._opener.open(prekey, key_id, sender=sender_static, aad=aad, sealed=sealed)


def _sign(secret: bytes, data: bytes) -> bytes:
    signed: bytes = crypto_sign(data, secret)
    return signed[:SIGNATURE_SIZE]


# --- the mesh ------------------------------------------------------------------------------------


def mesh_id_of(mesh: str) -> bytes:
    """8 bytes that name a mesh in heads and HELLOs."""
    return hashlib.sha256(_MESH_ID_CONTEXT + mesh.encode()).digest()[:MESH_ID_SIZE]


def mesh_key_of(secret: str, mesh: str) -> bytes:
    """The HMAC key for one line of a mesh secret. The mesh name is the salt, so that one secret in
    two meshes gives two keys. The line is long by rule; no slow derivation is needed."""
    return hkdf_sha256(secret.encode(), mesh.encode(), _MESH_KEY_CONTEXT)
