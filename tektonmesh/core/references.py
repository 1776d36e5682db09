"""Which live owner refers to which blob, as their records say it.

A record of kind `catalog` with `{"hash": 32 bytes, "length": n}` refers to a blob. Records of
others are a stranger's input: what makes no sense is passed over, and so is what one owner says
beyond a bound. What follows for the blobs is for `core/blobs`.
"""

from __future__ import annotations

from tektonmesh.core.held import Held
from tektonmesh.core.messages import BLOB_SIZE_MAX
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import StackId

HASH_SIZE = 32
KIND = "catalog"
PER_OWNER_MAX = 256
"""References of one other owner that count, by the order of their keys: what it refers to beyond
that is neither kept nor fetched ahead, but can be asked for. Our own all count."""

Blob = bytes
"""The id of a blob: the BLAKE2b-256 of its bytes."""


class References:
    """All references, by owner and by blob, each with the length that the owner claims."""

    def __init__(self, replica: Replica, me: StackId) -> None:
        self._replica = replica
        self._me = me
        self._of_owner: dict[StackId, dict[Blob, int]] = {}
        self._to: dict[Blob, dict[StackId, int]] = {}
        for owner in replica.owners:
            if replica.live(owner):
                self._read(owner)

    def to(self, blob: Blob) -> dict[StackId, int]:
        """The owners that refer to a blob, and the length each claims. Not to be changed."""
        return self._to.get(blob, {})

    def of(self, owner: StackId) -> dict[Blob, int]:
        """What an owner refers to. Not to be changed."""
        return self._of_owner.get(owner, {})

    def blobs(self) -> list[Blob]:
        """Everything that is referred to."""
        return list(self._to)

    def size_max(self, blob: Blob) -> int:
        """The length that is to be expected at most. Any one claim may be false."""
        return max(self.to(blob).values(), default=BLOB_SIZE_MAX)

    def on_change(self, change: Change) -> tuple[list[Blob], list[Blob]]:
        """Follow an owner's news: the blobs that it refers to no more (or with another length),
        and those that it newly refers to."""
        owner = change.owner
        if not self._replica.live(owner):
            return list(self._drop(owner)), []
        about = any(key.startswith(f"{KIND}/") for key in change.keys)
        if owner in self._of_owner and not about:
            return [], []
        before = self._drop(owner)
        after = self._read(owner)
        gone = [blob for blob, length in before.items() if after.get(blob) != length]
        return gone, [blob for blob, length in after.items() if before.get(blob) != length]

    def _read(self, owner: StackId) -> dict[Blob, int]:
        held = self._replica.owners[owner]
        keys = held.keys(KIND)
        counted = keys if owner == self._me else keys[:PER_OWNER_MAX]
        read = [_reference(held, key) for key in counted]
        # Reading may show that one record is no record: then none of them counts.
        found = {} if held.quarantined else dict(it for it in read if it is not None)
        self._of_owner[owner] = found
        for blob, length in found.items():
            self._to.setdefault(blob, {})[owner] = length
        return found

    def _drop(self, owner: StackId) -> dict[Blob, int]:
        before = self._of_owner.pop(owner, {})
        for blob in before:
            owners = self._to[blob]
            del owners[owner]
            if not owners:
                del self._to[blob]
        return before


def _reference(held: Held, key: str) -> tuple[Blob, int] | None:
    value = held.value(key) or {}
    blob, length = value.get("hash"), value.get("length")
    if not isinstance(blob, bytes) or len(blob) != HASH_SIZE or type(length) is not int:
        return None
    return (blob, length) if 0 < length <= BLOB_SIZE_MAX else None
