"""The keys that a stack had before its present ones, for as long as what they made is on its way.

Keys change while messages travel: what was sealed or signed with the old ones a moment ago comes
after the news of the new ones. A key document that says so (`grace`) lets the keys of the one it
follows count for that, never for a head or a handshake, until everything made with them has ended.
Keys that were revoked get no grace: whoever stole them could else go on.
"""

from __future__ import annotations

from tektonmesh.core.keydoc import KeyDoc, hash_doc
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.types import Saved, StackId
from tektonmesh.errors import RemoteError

TABLE = "former"
GRACE_MS = 8 * 86_400_000
"""A message lives seven days at most; a day more for clocks and for what is parked."""


class Former:
    """The key documents that were followed by the present ones, of all stacks."""

    def __init__(self, env: Env, clock: MeshTime, saved: Saved) -> None:
        self.env = env
        self._clock = clock
        self._held: dict[StackId, tuple[KeyDoc, int]] = {}
        for (table, stack_id), packed in saved.items():
            if table == TABLE:
                self._take_row(stack_id, packed)

    def __len__(self) -> int:
        return len(self._held)

    def note(self, before: KeyDoc, after: KeyDoc) -> None:
        """A stack has the document `after` now, and had `before`; both were verified."""
        assert before.stack_id == after.stack_id
        if before.key_epoch >= after.key_epoch:
            return
        if not self._follows(after, before):
            self.forget(after.stack_id)
            return
        until_ms = self._clock.now_ms() + GRACE_MS
        self._held[after.stack_id] = (before, until_ms)
        row = [before.encode(self.env.codec), until_ms]
        self.env.save(TABLE, after.stack_id, self.env.codec.pack(row))

    def of(self, keydoc: KeyDoc) -> KeyDoc | None:
        """The document before this one, if its keys still count beside it."""
        held = self._held.get(keydoc.stack_id)
        if held is None or self._clock.now_ms() >= held[1]:
            return None
        return held[0] if self._follows(keydoc, held[0]) else None

    def forget(self, stack_id: StackId) -> None:
        """Nothing that old keys of this stack made counts any more."""
        if self._held.pop(stack_id, None) is not None:
            self.env.save(TABLE, stack_id, None)

    def _follows(self, after: KeyDoc, before: KeyDoc) -> bool:
        """Whether `after` is the very next document and lets the keys of `before` count. Its hash
        in what the root key signed is proof enough of the old one."""
        if not after.grace or after.key_epoch != before.key_epoch + 1:
            return False
        return after.prev_hash == hash_doc(before.encode(self.env.codec))

    def _take_row(self, stack_id: StackId, packed: bytes) -> None:
        """A damaged row grants nothing."""
        try:
            row = self.env.codec.unpack(packed)
            if not isinstance(row, list) or [type(item) for item in row] != [bytes, int]:
                raise RemoteError("The row of former keys is damaged.")
            self._held[stack_id] = (KeyDoc.decode(self.env.codec, row[0]), row[1])
        except RemoteError:
            self.env.save(TABLE, stack_id, None)
