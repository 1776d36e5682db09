"""The end-to-end seal: only the stack that published the prekey can read a body, and it knows
which stack sealed it.

`sealed = version(1) | ephemeral(32) | nonce(12) | ChaCha20-Poly1305 ciphertext`. The key is
HKDF(DH(ephemeral, prekey) | DH(static, prekey)) bound to all four public keys: the first secret
makes old bodies unreadable once the prekey is gone, the second names the sender (a one-pass
variant of X3DH and of Noise X). Both sides cache the key, so X25519 is paid once per sender hour
and prekey. Which prekeys exist and when they change is left to `wire/keys` and `net/identity`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base

from tektonmesh.core.types import SealKey
from tektonmesh.errors import RemoteError
from tektonmesh.wire import limits

SEAL_VERSION = 1
NONCE_SIZE = 12
TAG_SIZE = 16
KEY_SIZE = 32
SEAL_OVERHEAD = 1 + 32 + NONCE_SIZE + TAG_SIZE
"""How much longer a sealed body is than the body."""

_CONTEXT = b"tektonmesh-seal-v1\0"
_LOCK_CONTEXT = b"tektonmesh-lock-v1\0"
_NOT_SEALED_SO = "The body was not sealed so by that sender for this stack."


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """32 bytes by HKDF (RFC 5869) with HMAC-SHA256; one block of output is all we need."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def agree(private: bytes, public: bytes) -> bytes:
    """X25519 (RFC 7748). Raises RemoteError for a point of small order, whose result is zero."""
    try:
        shared: bytes = crypto_scalarmult(private, public)
    except RuntimeError:
        raise RemoteError("An X25519 key of the peer is of small order.") from None
    return shared


class _Cache:
    """The newest few AEAD keys; what was not used for longest goes first."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._held: OrderedDict[bytes, ChaCha20Poly1305] = OrderedDict()

    def get(self, name: bytes) -> ChaCha20Poly1305 | None:
        found = self._held.get(name)
        if found is not None:
            self._held.move_to_end(name)
        return found

    def put(self, name: bytes, key: ChaCha20Poly1305) -> None:
        self._held[name] = key
        while len(self._held) > self._size_max:
            self._held.popitem(last=False)

    def clear(self) -> None:
        self._held.clear()


class Sealer:
    """The sender's side: one ephemeral key at a time, replaced by `renew` (hourly)."""

    def __init__(self, static_private: bytes, randbytes: Callable[[int], bytes]) -> None:
        self._static_private = static_private
        self._static = crypto_scalarmult_base(static_private)
        self._randbytes = randbytes
        self._keys = _Cache(limits.SENDER_KEYS_MAX)
        self.renew()

    def renew(self) -> None:
        """Take a fresh ephemeral key and forget all keys made with the old one."""
        self._ephemeral_private = self._randbytes(32)
        self._ephemeral: bytes = crypto_scalarmult_base(self._ephemeral_private)
        self._prefix = bytes([SEAL_VERSION]) + self._ephemeral
        self._keys.clear()

    def seal(self, to: SealKey, aad: bytes, plaintext: bytes) -> bytes:
        """Raises RemoteError if the recipient published a key of small order."""
        name = to.prekey + to.static
        aead = self._keys.get(name)
        if aead is None:
            aead = _derive(
                agree(self._ephemeral_private, to.prekey) + agree(self._static_private, to.prekey),
                self._ephemeral + self._static + to.static + to.prekey,
            )
            self._keys.put(name, aead)
        nonce = self._randbytes(NONCE_SIZE)
        return b"".join((self._prefix, nonce, aead.encrypt(nonce, plaintext, aad)))


class Opener:
    """The receiver's side. A key is cached only once it opened something, so that forgeries
    cannot push out the keys in use."""

    def __init__(self, *statics: bytes) -> None:
        """Public static keys of the receiver: that of now, then those that senders may still know
        it by."""
        self._statics = statics
        self._keys = _Cache(limits.RECEIVER_KEYS_MAX)

    def forget(self) -> None:
        """Derive all keys anew: prekeys that some of them came from are gone."""
        self._keys.clear()

    def open(
        self, prekey_private: bytes, key_id: bytes, *, sender: bytes, aad: bytes, sealed: bytes
    ) -> bytes:
        """The plaintext. Raises RemoteError for whatever `sender` did not seal so."""
        if len(sealed) < SEAL_OVERHEAD or sealed[0] != SEAL_VERSION:
            raise RemoteError("The sealed body is cut or of an unknown version.")
        ephemeral, secrets = sealed[1:33], b""
        for static in self._statics:
            name = b"".join((static, ephemeral, sender, key_id))
            aead = self._keys.get(name)
            known = aead is not None
            if aead is None:
                if not secrets:
                    secrets = agree(prekey_private, ephemeral) + agree(prekey_private, sender)
                prekey = crypto_scalarmult_base(prekey_private)
                aead = _derive(secrets, b"".join((ephemeral, sender, static, prekey)))
            try:
                plaintext = aead.decrypt(sealed[33:45], sealed[45:], aad)
            except InvalidTag:
                continue
            if not known:
                self._keys.put(name, aead)
            return plaintext
        raise RemoteError(_NOT_SEALED_SO)


def lock(key: bytes, plaintext: bytes) -> bytes:
    """ChaCha20-Poly1305 with a key that is used once, so the nonce may be constant."""
    return ChaCha20Poly1305(key).encrypt(bytes(NONCE_SIZE), plaintext, _LOCK_CONTEXT)


def unlock(key: bytes, locked: bytes) -> bytes:
    """What `lock` was given. Raises RemoteError for anything else, a key of a wrong size too."""
    if len(key) != KEY_SIZE or len(locked) < TAG_SIZE:
        raise RemoteError("The shared body or its key is cut short.")
    try:
        return ChaCha20Poly1305(key).decrypt(bytes(NONCE_SIZE), locked, _LOCK_CONTEXT)
    except InvalidTag:
        raise RemoteError("The shared body was not locked with that key.") from None


def _derive(secrets: bytes, publics: bytes) -> ChaCha20Poly1305:
    salt = hashlib.sha256(_CONTEXT).digest()
    return ChaCha20Poly1305(hkdf_sha256(secrets, salt, _CONTEXT + publics))
