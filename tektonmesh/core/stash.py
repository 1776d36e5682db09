"""The blobs that this node holds, within a quota: what is kept, and what goes when room is needed.

A blob is held for somebody: for this stack (one of its records refers to it, or it was put in a
moment ago), for another live owner whose record refers to it, or for nobody. Each owner can hold
so much only. Room is made from what is held for nobody, then from what is held for others, the
least recently used first; what this stack holds for itself never goes. What is to be fetched is
for `core/blobs`, who refers to what for `core/references`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from hashlib import blake2b
from itertools import islice
from math import inf

from tektonmesh.core.machine import Env
from tektonmesh.core.messages import BLOB_SIZE_MAX
from tektonmesh.core.references import HASH_SIZE, Blob, References
from tektonmesh.core.types import Saved, StackId

TABLE = "blob"
OVERHEAD = 512
"""What a blob costs besides its bytes, about; it bounds how many there can be."""
GRACE_S = 60.0
"""Who puts a blob in publishes its record within this time."""
KEEP_S = 3600.0
"""How long a blob is kept that nobody refers to: an owner may be back by then, and the CIs of this
stack after its restart. A guess."""
AGE = ("blob", "age")


class Rank(IntEnum):
    """For whom a blob is held; a lower rank goes first."""

    NOBODY = 0
    OTHERS = 1
    US = 2


class _Kept:
    """One blob. It counts towards the quota of `owner`, None if it is held for nobody."""

    __slots__ = ("data", "grace", "owner", "rank", "used")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.owner: StackId | None = None
        self.rank = Rank.NOBODY
        self.used = self.grace = -inf

    @property
    def cost(self) -> int:
        return len(self.data) + OVERHEAD


def hash_blob(data: bytes) -> Blob:
    return blake2b(data, digest_size=HASH_SIZE).digest()


class Stash:
    """Blobs by their hash. `dropped` is told of each that was let go."""

    def __init__(self, env: Env, references: References, dropped: Callable[[Blob], None]) -> None:
        self._env = env
        self._references = references
        self._dropped = dropped
        self._kept: dict[Blob, _Kept] = {}
        self._ranks: dict[Rank, dict[Blob, None]] = {rank: {} for rank in Rank}
        """The blobs of each rank, the least recently used first."""
        self._sizes = dict.fromkeys(Rank, 0)
        self._of_owner: dict[StackId, int] = {}
        self._graced: dict[Blob, None] = {}

    def read_back(self, saved: Saved) -> None:
        """Hold what the disk remembers. Rows that are damaged, or over a quota that was lowered,
        are deleted."""
        for (table, blob), data in saved.items():
            if table == TABLE:
                self._read_row(blob, data)

    def _read_row(self, blob: Blob, data: bytes) -> None:
        whole = 0 < len(data) <= BLOB_SIZE_MAX and hash_blob(data) == blob
        if whole and self._make_room(len(data) + OVERHEAD, Rank.NOBODY):
            self._insert(blob, _Kept(data))
        else:
            self._env.save(TABLE, blob, None)

    # --- reading ---------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, blob: Blob) -> bool:
        return blob in self._kept

    @property
    def size(self) -> int:
        """What counts towards the quota, in bytes."""
        return sum(self._sizes.values())

    def rank(self, blob: Blob) -> Rank | None:
        """For whom a blob is held; None if it is not."""
        kept = self._kept.get(blob)
        return None if kept is None else kept.rank

    def get(self, blob: Blob) -> bytes | None:
        """The bytes, which are used by this; None if they are not held."""
        kept = self._kept.get(blob)
        if kept is None:
            return None
        self._take_out(blob, kept)
        self._insert(blob, kept)
        return kept.data

    def has_room(self, blob: Blob, *, asked: bool) -> bool:
        """Whether a blob that is not held would be kept if it came: for an owner that refers to
        it or, if a neighbour `asked` for it, for nobody."""
        owner = self._owner_of(blob, None)
        if owner is None and not asked:
            return False
        spoken_for = self._sizes[Rank.US]
        if owner != self._env.me:
            spoken_for += self._sizes[Rank.OTHERS]
        cost = self._references.size_max(blob) + OVERHEAD
        return spoken_for + cost <= self._env.settings.blob_bytes

    # --- changing --------------------------------------------------------------------------------

    def put(self, blob: Blob, data: bytes, *, ours: bool = False, wanted: bool = False) -> bool:
        """Hold a blob from now on; False if there is no room for it. `ours` was put in here.
        For what somebody here `wanted`, blobs of others go; for what nobody did, they do not, or
        what is fetched ahead would push itself out for ever."""
        assert hash_blob(data) == blob, "only what was verified is held"
        kept = self._kept.get(blob)
        if kept is None:
            owner = self._env.me if ours else self._owner_of(blob, len(data))
            for_us = owner == self._env.me or (wanted and owner is not None)
            if not self._make_room(len(data) + OVERHEAD, Rank.OTHERS if for_us else Rank.NOBODY):
                return False
            self._env.save(TABLE, blob, data)
            self._insert(blob, kept := _Kept(data))
        if ours:
            kept.grace = self._env.after(GRACE_S)
            self._graced.pop(blob, None)
            self._graced[blob] = None
            self.review(blob)
        return True

    def review(self, blob: Blob) -> None:
        """Who refers to this blob has changed; harmless if it is not held."""
        kept = self._kept.get(blob)
        if kept is not None:
            self._take_out(blob, kept)
            self._insert(blob, kept)

    def _owner_of(self, blob: Blob, length: int | None) -> StackId | None:
        """Whom a blob of this true length would be held for: ourselves, else the first owner that
        refers to it and has room in its own quota. None as length: whatever each claims."""
        owners = self._references.to(blob)
        me, most = self._env.me, self._env.settings.blob_owner_bytes
        if me in owners and length in (None, owners[me]):
            return me
        for owner, claimed in owners.items():
            room = self._of_owner.get(owner, 0) + claimed + OVERHEAD <= most
            if room and owner != me and length in (None, claimed):
                return owner
        return None

    def _insert(self, blob: Blob, kept: _Kept) -> None:
        kept.used = self._env.now
        kept.owner = self._owner_of(blob, len(kept.data))
        if kept.grace > self._env.now:
            kept.owner = self._env.me
        others = Rank.NOBODY if kept.owner is None else Rank.OTHERS
        kept.rank = Rank.US if kept.owner == self._env.me else others
        self._kept[blob] = kept
        self._ranks[kept.rank][blob] = None
        self._sizes[kept.rank] += kept.cost
        if kept.owner is not None:
            self._of_owner[kept.owner] = self._of_owner.get(kept.owner, 0) + kept.cost
        self._watch_age()

    def _take_out(self, blob: Blob, kept: _Kept) -> None:
        del self._kept[blob], self._ranks[kept.rank][blob]
        self._sizes[kept.rank] -= kept.cost
        if kept.owner is not None:
            self._of_owner[kept.owner] -= kept.cost
            if not self._of_owner[kept.owner]:
                del self._of_owner[kept.owner]

    def _make_room(self, cost: int, goes: Rank) -> bool:
        """Let blobs of up to this rank go until `cost` fits; if it never would, none goes."""
        assert goes < Rank.US, "what we hold for ourselves never goes"
        most = self._env.settings.blob_bytes
        if cost + sum(size for rank, size in self._sizes.items() if rank > goes) > most:
            return False
        while self.size + cost > most:
            self._drop(next(iter(self._ranks[Rank.NOBODY] or self._ranks[Rank.OTHERS])))
        return True

    def _drop(self, blob: Blob) -> None:
        self._take_out(blob, self._kept[blob])
        self._env.save(TABLE, blob, None)
        self._dropped(blob)

    # --- age -------------------------------------------------------------------------------------

    def _watch_age(self) -> None:
        ends = [self._kept[blob].grace for blob in islice(self._graced, 1)]
        ends += [self._kept[blob].used + KEEP_S for blob in islice(self._ranks[Rank.NOBODY], 1)]
        if ends:
            self._env.deadlines.set(AGE, min(ends), self._grow_old)
        else:
            self._env.deadlines.drop(AGE)

    def _grow_old(self) -> None:
        """The grace of what was put in ends, and so does the life of what is held for nobody."""
        now = self._env.now
        for blob in [it for it in self._graced if self._kept[it].grace <= now]:
            del self._graced[blob]
            self.review(blob)
        for blob in [it for it in self._ranks[Rank.NOBODY] if self._kept[it].used + KEEP_S <= now]:
            self._drop(blob)
        self._watch_age()
