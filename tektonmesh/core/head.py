"""The head: an owner's signed commitment to its complete record set at one version.

This module fixes the packed form and checks it. Which head beats which, and whether one is fresh,
is for `core/replica` and `core/meshtime`. The bytes that were signed travel and are stored as they
are: a head is never packed a second time, so keys of later versions survive old nodes.
"""

from __future__ import annotations

import hashlib
from dataclasses import field
from typing import Any

from tektonmesh.core.frozen import frozen
from tektonmesh.core.keydoc import KEY_EPOCH_MAX, check_format, int_map, is_bytes, is_count
from tektonmesh.core.types import (
    ID_SIZE,
    Codec,
    ContentVersion,
    Crypto,
    SignedHead,
    StackId,
    Status,
    Version,
)
from tektonmesh.errors import NoveltyError, RemoteError

HEAD_CONTEXT = b"tektonmesh/head/1\0"
FORMAT = 1
HEAD_SIZE_MAX = 2048
EPOCH_MAX = 2**48 - 1
"""Milliseconds since 1970 fit for 8,900 years."""
VER_MAX = 2**63 - 1
LEASE_MAX_S = 900
"""A longer lease is read as this: a dead stack is gone in bounded time."""
SCOPES_MAX = 32
INSTANCE_SIZE_MAX = 32
MINOR_VERSION = 1

_KNOWN = range(15)
_RANGES = (
    (3, KEY_EPOCH_MAX),
    (4, EPOCH_MAX),
    (5, VER_MAX),
    (6, VER_MAX),
    (7, EPOCH_MAX),
    (8, 2**31),
    (9, max(Status)),
    (12, VER_MAX),
    (13, 2**31),
)


@frozen
class Head:
    """One version of one owner. `hlc` is the mesh time of signing in ms; `lease_s` how long it
    holds; `roots` has one 32-byte root for each scope; `instance` is random per start;
    `keydoc_hash` names the key document whose operational key signs. `extra` holds keys of later
    versions."""

    mesh_id: bytes
    stack_id: StackId
    key_epoch: int
    epoch: int
    ver: int
    content_ver: int
    hlc: int
    lease_s: int
    status: Status
    instance: bytes
    roots: dict[int, bytes]
    keydoc_hash: bytes
    caps: int = 0
    minor: int = MINOR_VERSION
    extra: dict[int, Any] = field(default_factory=dict)

    @property
    def version(self) -> Version:
        return Version(self.key_epoch, self.epoch, self.ver)

    @property
    def content_version(self) -> ContentVersion:
        return ContentVersion(self.key_epoch, self.epoch, self.content_ver)

    def encode(self, codec: Codec) -> bytes:
        """The bytes that are signed."""
        shown = {
            0: FORMAT,
            1: self.mesh_id,
            2: self.stack_id,
            3: self.key_epoch,
            4: self.epoch,
            5: self.ver,
            6: self.content_ver,
            7: self.hlc,
            8: self.lease_s,
            9: int(self.status),
            10: self.instance,
            11: {scope: self.roots[scope] for scope in sorted(self.roots)},
            12: self.caps,
            13: self.minor,
            14: self.keydoc_hash,
        }
        return codec.pack(shown | {key: self.extra[key] for key in sorted(self.extra)})

    @classmethod
    def decode(cls, codec: Codec, packed: bytes) -> Head:
        """Read a head and check its form. Raises RemoteError, or NoveltyError if it is of a later
        version and this one can make nothing of it; verifies no signature."""
        if len(packed) > HEAD_SIZE_MAX:
            raise RemoteError("A head is over its size limit.")
        shown = int_map(codec.unpack(packed), "head")
        check_format(shown.get(0), FORMAT, "head")
        try:
            _check_fields(shown)
        except RemoteError as error:
            raise fault(shown.get(13), error.detail) from None
        return cls(
            mesh_id=shown[1],
            stack_id=shown[2],
            key_epoch=shown[3],
            epoch=shown[4],
            ver=shown[5],
            content_ver=shown[6],
            hlc=shown[7],
            lease_s=shown[8],
            status=Status(shown[9]),
            instance=shown[10],
            roots=shown[11],
            keydoc_hash=shown[14],
            caps=shown[12],
            minor=shown[13],
            extra={key: value for key, value in shown.items() if key not in _KNOWN},
        )

    def sign(self, codec: Codec, crypto: Crypto) -> SignedHead:
        """The head as it travels, signed by this node's operational key."""
        packed = self.encode(codec)
        return SignedHead(packed, crypto.sign(HEAD_CONTEXT, packed))


HEADS_KEPT = 1024
"""Decoded heads that a node remembers: a megabyte. One head arrives over several links."""


class Heads:
    """Heads that were decoded lately, by their packed bytes. Worlds share one among all nodes."""

    def __init__(self, most: int = HEADS_KEPT) -> None:
        self._most = most
        self._known: dict[bytes, Head] = {}

    def read(self, codec: Codec, packed: bytes) -> Head:
        """As `Head.decode`."""
        head = self._known.get(packed)
        if head is None:
            head = Head.decode(codec, packed)
            if len(self._known) >= self._most:
                self._known.clear()
            self._known[packed] = head
        return head


def fault(minor: Any, detail: str) -> RemoteError:
    """What is wrong with a head, or with its records: a fault of who sent it, unless it says that
    it is of a later version, which may allow more. An honest stack of that version passes it on."""
    later = type(minor) is int and minor > MINOR_VERSION
    return NoveltyError(detail) if later else RemoteError(detail)


def _check_fields(shown: dict[int, Any]) -> None:
    sized = [(1, 8), (2, ID_SIZE), (14, 32)]
    if not all(is_bytes(shown.get(key), size) for key, size in sized):
        raise RemoteError("A head lacks an id or has one of a wrong size.")
    if not all(is_count(shown.get(key), most) for key, most in _RANGES):
        raise RemoteError("A head has a number that is missing or out of range.")
    if shown[9] == Status.LEFT and shown[8] < LEASE_MAX_S:
        raise RemoteError("A head that leaves must carry the longest lease.")
    instance = shown.get(10)
    if not isinstance(instance, bytes) or not 0 < len(instance) <= INSTANCE_SIZE_MAX:
        raise RemoteError("A head's instance is of a wrong form.")
    roots = int_map(shown.get(11), "roots field")
    if len(roots) > SCOPES_MAX or not all(scope < 256 for scope in roots):
        raise RemoteError("A head has too many scopes, or one out of range.")
    if not all(is_bytes(root, 32) for root in roots.values()):
        raise RemoteError("A head has a root of a wrong size.")


def signed_by(crypto: Crypto, op_pk: bytes, signed: SignedHead) -> bool:
    """Whether the operational key `op_pk` signed this head."""
    return crypto.verify(op_pk, HEAD_CONTEXT, signed.head, signed.sig)


def hash_head(packed: bytes) -> bytes:
    """32 bytes; of two heads with one version the one with the smaller hash wins everywhere."""
    return hashlib.blake2b(packed, digest_size=32).digest()
