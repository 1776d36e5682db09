"""Sixteen bytes that say whether two replicas hold the same.

The owners fall into 256 buckets by the first byte of their id. A bucket's print covers one fixed
entry per owner, the replica's print covers the buckets' prints, and only what changed is hashed
again. No clock and nothing that a refresh changes goes in, so prints settle while heads are
refreshed. Who compares them, and what follows, is `core/antientropy`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, MutableMapping

from tektonmesh.core.head import Head
from tektonmesh.core.layers import layer
from tektonmesh.core.types import StackId

BUCKETS = 256
PRINT_SIZE = 16
NO_PROOF = bytes(8)
_ENTRY = struct.Struct(">QQQB8s8s")


def entry_of(head: Head, proof: bytes = NO_PROOF) -> bytes:
    """What of an owner counts: key epoch, epoch, content version, status, a hash of the roots, and
    the digest (8 bytes) of the proof that it contradicted itself.

    The hash of the roots makes two heads of an equivocator differ, which share all the rest; the
    proof makes who knows of it differ from who does not, so that it is mended like data.
    """
    assert len(proof) == len(NO_PROOF), "struct would pad or cut it"
    roots = b"".join(bytes([scope]) + root for scope, root in sorted(head.roots.items()))
    digest = hashlib.blake2b(roots, digest_size=8).digest()
    return _ENTRY.pack(head.key_epoch, head.epoch, head.content_ver, head.status, digest, proof)


class Fingerprints:
    """The entries of all owners that are not expired, and the prints over them. They start with
    those of `base`, which never change again."""

    def __init__(self, base: Fingerprints | None = None) -> None:
        self._dirty: dict[int, None] = {}
        self._count: int = 0 if base is None else base._count
        if base is None:
            self._shared = False
            self._entries: list[MutableMapping[StackId, bytes]] = [{} for _ in range(BUCKETS)]
            self._prints = [_print(b"")] * BUCKETS
            self._total = _print(b"".join(self._prints))
        else:
            base._settle()
            self._shared = True
            self._entries, self._prints, self._total = base._entries, base._prints, base._total

    def set(self, owner: StackId, entry: bytes | None) -> None:
        """This owner counts with `entry` from now on; with None it does not count."""
        entries = self._entries[owner[0]]
        if entries.get(owner) == entry:
            return
        if self._shared:
            self._shared = False
            self._prints = list(self._prints)
            self._entries = [layer(bucket) for bucket in self._entries]
            entries = self._entries[owner[0]]
        self._count += (entry is not None) - (owner in entries)
        if entry is None:
            del entries[owner]
        else:
            entries[owner] = entry
        self._dirty[owner[0]] = None

    def __len__(self) -> int:
        return self._count

    def owners(self, buckets: tuple[int, ...]) -> list[StackId]:
        """The owners that count in these buckets (none named: in all), sorted within each."""
        chosen = buckets or range(BUCKETS)
        return [owner for bucket in chosen for owner in sorted(self._entries[bucket])]

    def prints(self, without: Iterable[StackId] = ()) -> list[bytes]:
        """The 256 prints of the buckets, as if these owners did not count."""
        self._settle()
        prints = list(self._prints)
        left_out = {owner: None for owner in without if owner in self._entries[owner[0]]}
        for bucket in sorted({owner[0]: None for owner in left_out}):
            entries = self._entries[bucket]
            prints[bucket] = _print_of({o: e for o, e in entries.items() if o not in left_out})
        return prints

    def total(self, without: Iterable[StackId] = ()) -> bytes:
        """The print of the whole replica, as if these owners did not count."""
        self._settle()
        return _print(b"".join(self.prints(without))) if without else self._total

    def _settle(self) -> None:
        if not self._dirty:
            return
        for bucket in self._dirty:
            self._prints[bucket] = _print_of(self._entries[bucket])
        self._dirty.clear()
        self._total = _print(b"".join(self._prints))


def _print_of(entries: MutableMapping[StackId, bytes]) -> bytes:
    return _print(b"".join([owner + entries[owner] for owner in sorted(entries)]))


def _print(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=PRINT_SIZE).digest()
