"""What a replica holds of one owner: the newest head, the records it commits to, and enough of
the past to tell others only what changed. Which head is taken is for `core/replica`."""

from __future__ import annotations

from collections import deque
from collections.abc import MutableMapping
from typing import Any

from tektonmesh.core.equivocation import Evidence
from tektonmesh.core.fingerprints import NO_PROOF
from tektonmesh.core.head import Head, hash_head
from tektonmesh.core.keydoc import KeyDoc, hash_doc
from tektonmesh.core.layers import Layered
from tektonmesh.core.messages import Delta
from tektonmesh.core.record import (
    SET_SIZE_MAX,
    Delete,
    RecordSet,
    differing,
    kind_of,
    size_of,
)
from tektonmesh.core.types import (
    Codec,
    ContentVersion,
    SignedHead,
    SignedKeyDoc,
    StackId,
    Status,
    Version,
)
from tektonmesh.errors import RemoteError

HISTORY_STEPS_MAX = 32
"""Content versions whose changes are remembered; whoever holds an older one gets a snapshot."""
HISTORY_KEYS_MAX = 1024
DELTA_CHANGES_MAX = 2048
"""A delta with more changes, or with larger ones than the quota of a whole owner, is sent as a
snapshot: that always fits on a link."""
KEPT_KINDS = ("stack", "addr")
"""What stays of an expired owner, for people and for dialling."""


class Held:
    """One owner. `heard` is the instant its newest head came; `expired` means that its lease ran
    out; `outlined` that only its topology records are held yet; `proof` shows that it said two
    things at once; `doubted` means that a change did not fit our records, so that only a snapshot
    will do; `quarantined` that a record of it cannot be read, so that none is shown."""

    __slots__ = (
        "_codec",
        "_history",
        "_values",
        "doubted",
        "expired",
        "has_new_keys",
        "head",
        "head_hash",
        "heard",
        "keydoc",
        "keydoc_hash",
        "outlined",
        "previous",
        "proof",
        "quarantined",
        "record_set",
        "signed",
        "signed_keydoc",
    )

    def __init__(
        self,
        codec: Codec,
        head: Head,
        signed: SignedHead,
        keys: tuple[KeyDoc, SignedKeyDoc],
        records: RecordSet,
        now: float,
    ) -> None:
        self._codec = codec
        # Ten thousand owners of which most never change: what is empty takes no memory.
        self._history: deque[tuple[ContentVersion, tuple[Delete, ...]]] | None = None
        self._values: dict[str, dict[str, Any]] | None = None
        self.record_set = records
        self.previous: ContentVersion | None = None
        """What a peer that held the same as we do held before the newest head."""
        self.has_new_keys = True
        """Whether the key document or its proof came with the present content version."""
        self.proof: Evidence | None = None
        self.expired = self.quarantined = self.doubted = self.outlined = False
        self.take_keys(keys)
        self._take_head(head, signed, now)

    # --- reading ---------------------------------------------------------------------------------

    @property
    def records(self) -> dict[str, bytes]:
        """Key to packed value, of all scopes."""
        return self.record_set.records

    @property
    def version(self) -> Version:
        return self.head.version

    @property
    def content_version(self) -> ContentVersion:
        return self.head.content_version

    @property
    def equivocated(self) -> bool:
        """Whether it said two things at once, on the level of its newest head or a later one."""
        return self.proof is not None

    @property
    def proof_digest(self) -> bytes:
        """8 bytes that name the proof, zeros without one."""
        return NO_PROOF if self.proof is None else self.proof.digest

    @property
    def base(self) -> ContentVersion | None:
        """The content version that changes may be based on; None if only a snapshot will do."""
        fits = self.whole and not (self.equivocated or self.doubted)
        return self.content_version if fits else None

    @property
    def whole(self) -> bool:
        """Whether all records are held that the head commits to."""
        return not (self.expired or self.outlined)

    @property
    def left(self) -> bool:
        return self.head.status == Status.LEFT

    def value(self, key: str) -> dict[str, Any] | None:
        """A record, decoded (do not change it); None if there is none or it cannot be read."""
        packed = self.records.get(key)
        if packed is None or self.quarantined:
            return None
        known = None if self._values is None else self._values.get(key)
        return self._decode(key, packed) if known is None else known

    def _decode(self, key: str, packed: bytes) -> dict[str, Any] | None:
        try:
            value = self._codec.unpack(packed)
        except RemoteError:
            value = None
        if not isinstance(value, dict):
            self.quarantined = True
            return None
        if self._values is None:
            self._values = {}
        self._values[key] = value
        return value

    def keys(self, kind: str) -> list[str]:
        """The keys of one kind, sorted."""
        if self.quarantined:
            return []
        return sorted(key for key in self.records if kind_of(key) == kind)

    # --- changing --------------------------------------------------------------------------------

    def copy(self) -> Held:
        """The same owner, to be changed without changing this one. Heads, records and decoded
        values are shared: nobody changes those."""
        new = Held.__new__(Held)
        for name in Held.__slots__:
            setattr(new, name, getattr(self, name))
        new._history = None if self._history is None else self._history.copy()
        new._values = None if self._values is None else self._values.copy()
        return new

    def take_keys(self, keys: tuple[KeyDoc, SignedKeyDoc]) -> None:
        """Hold this key document from now on."""
        self.keydoc, self.signed_keydoc = keys
        self.keydoc_hash = hash_doc(self.signed_keydoc.doc)

    def take(
        self, head: Head, signed: SignedHead, records: RecordSet, now: float
    ) -> tuple[str, ...] | None:
        """Hold this head and its records from now on. Returns the keys that changed, sorted, or
        None if it only refreshes what was held."""
        before = self.base
        changed: tuple[str, ...] | None = None if head.status == self.head.status else ()
        if before != head.content_version or records is not self.record_set:
            base = None if before == head.content_version else before
            changed = self._take_records(records, base)
        self.previous = before
        self._take_head(head, signed, now)
        return changed

    def _take_head(self, head: Head, signed: SignedHead, now: float) -> None:
        self.head, self.signed, self.heard = head, signed, now
        self.head_hash = hash_head(signed.head)[:8]

    def _take_records(self, records: RecordSet, base: ContentVersion | None) -> tuple[str, ...]:
        """`base` is the content version held so far, if changes can be told from it."""
        old, self.record_set = self.record_set, records
        keys = differing(old, records)
        if base is None:
            self._history = None
        else:
            self._remember(base, old, keys)
        if self._values is not None:
            for key in keys:
                self._values.pop(key, None)
        self.quarantined = self.quarantined and not keys
        self.doubted = self.outlined = False
        return keys

    def _remember(self, base: ContentVersion, old: RecordSet, keys: tuple[str, ...]) -> None:
        changed = tuple((old.scope_of(key) if key in old.records else -1, key) for key in keys)
        history = self._history = deque() if self._history is None else self._history
        history.append((base, changed))
        held = sum(len(step) for _, step in history)
        while history and (len(history) > HISTORY_STEPS_MAX or held > HISTORY_KEYS_MAX):
            held -= len(history.popleft()[1])

    def wither(self) -> tuple[str, ...]:
        """The lease ran out: keep only what people and dialling still need. Returns the keys that
        are gone."""
        assert not self.expired
        self.expired = True
        gone = tuple(sorted(key for key in self.records if kind_of(key) not in KEPT_KINDS))
        dropped = [(self.record_set.scope_of(key), key) for key in gone]
        self._take_records(self.record_set.changed((), dropped), None)
        return gone

    # --- telling others --------------------------------------------------------------------------

    def delta(self, base: ContentVersion | None, *, with_keydoc: bool) -> Delta:
        """The news for somebody who holds `base`: the changes if they are known here, else a
        snapshot."""
        assert self.whole, "these records do not match the head"
        keydoc = self.signed_keydoc if with_keydoc else None
        changes = self._since(base)
        here = self.record_set
        if changes is None or len(changes) > DELTA_CHANGES_MAX or not self._fits(changes):
            return Delta(self.signed, None, here.puts(), (), keydoc)
        puts = here.puts(sorted({key for _, key in changes if key in here.records}))
        deletes = [
            (scope, key)
            for scope, key in changes
            if scope >= 0 and (key not in here.records or here.scope_of(key) != scope)
        ]
        return Delta(self.signed, base, puts, tuple(sorted(deletes)), keydoc)

    def _fits(self, changes: list[Delete]) -> bool:
        """Many deletions beside a full set of records would be over what a link takes."""
        records = self.records
        return sum(size_of(key, records.get(key, b"")) for _, key in changes) <= SET_SIZE_MAX

    def _since(self, base: ContentVersion | None) -> list[Delete] | None:
        """What changed after `base`, without doubles; None if that is not known."""
        if base is None or self.base is None:
            return None
        if base == self.content_version:
            return []
        changes: dict[Delete, None] = {}
        found = False
        for before, step in self._history or ():
            found = found or before == base
            if found:
                changes |= dict.fromkeys(step)
        return list(changes) if found else None


def own_held(owners: MutableMapping[StackId, Held], owner: StackId) -> Held:
    """What is held of a known owner, to be changed in place: a copy if it is shared with others."""
    held = owners[owner]
    if isinstance(owners, Layered) and not owners.own(owner):
        held = owners[owner] = held.copy()
    return held
