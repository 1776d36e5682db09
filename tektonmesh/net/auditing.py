"""The audit log of a running daemon: what goes in, where its end is kept, what a full disk means.

The end of the log is kept in the database and in the stack's own record, so that a cut shows. While
the disk refuses, the policy `audit_full` says whether acts of other stacks are refused as well (the
default: what cannot be proved later is not done) or go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tektonmesh.config import Config
from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.types import Identity, Saved
from tektonmesh.errors import StoreError
from tektonmesh.net import log
from tektonmesh.net.auditlog import AuditLog, End
from tektonmesh.net.notices import Notices
from tektonmesh.net.store import Store
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys

TABLE, END_KEY = "audit", b"end"
AUDITED = frozenset(
    {
        *("clock_alarm", "clock_agrees", "clock_memory_discarded", "clone_fenced"),
        *("audit_went_back", "self_contradicted", "stack_equivocated", "epoch_exhausted"),
        *("peer_pending", "peer_refused", "peer_struck", "store_failed", "store_recovered"),
        *("name_taken", "seal_refused", "ci_registered", "ci_deregistered"),
    }
)
"""Notices that are worth an entry, besides what the core says for the log alone."""


class Auditing:
    """The one place where entries are made."""

    def __init__(
        self,
        config: Config,
        identity: Identity,
        keys: Keys,
        *,
        saved: Saved,
        store: Store,
        notices: Notices,
    ) -> None:
        known = read_end(saved.get((TABLE, END_KEY)))
        self._log = AuditLog(config.home, identity.stack_id, keys, known)
        self._store = store
        self._notices = notices
        self._refuse = config.audit_full == "refuse"
        self._inject: Callable[[ev.Event], None] = lambda _event: None

    @property
    def end(self) -> End:
        return self._log.end

    def begin(self, inject: Callable[[ev.Event], None], **about: Any) -> None:
        """The daemon starts; `inject` hears where the log ends."""
        self._inject = inject
        self._log.add("daemon_started", **about)
        self._log.checkpoint()
        self._inject(ev.AuditState(*self._log.end, closed=False))

    def entry(self, effect: fx.Audit) -> None:
        """Hand of the drive."""
        self._log.take(effect.kind, effect.data)

    def rekey(self, keys: Keys, kind: str, **data: Any) -> None:
        """The keys of this stack change. That is the last thing that the old ones sign."""
        self._log.add(kind, **data)
        self._log.checkpoint()
        self._log.rekey(keys)

    def notice(self, effect: fx.Notice) -> None:
        """Hand of the drive: notices pass here on their way to people."""
        if effect.kind in AUDITED:
            self._log.add(effect.kind, **log.plain(effect.data))
        self._notices.take(effect)

    async def run(self) -> None:
        await self._log.run(self._written, self._trouble)

    def _written(self, end: End) -> None:
        self._store.queue([(TABLE, END_KEY, Codec().pack([end.number, end.hash]))])
        self._inject(ev.AuditState(*end, closed=False))

    def _trouble(self, problem: StoreError | None) -> None:
        if problem is None:
            self._notices.say("store_recovered")
        else:
            self._notices.say("store_failed", detail=problem.sentence())
        closed = problem is not None and self._refuse
        self._inject(ev.AuditState(*self._log.end, closed=closed))

    def close(self) -> None:
        """The last entry. A disk that refuses now is told by the next start."""
        self._log.add("daemon_stopped")
        try:
            self._log.close()
        except StoreError as error:
            self._notices.say("store_failed", detail=error.sentence())
            return
        end = self._log.end
        self._store.queue([(TABLE, END_KEY, Codec().pack([end.number, end.hash]))])


def read_end(packed: bytes | None) -> End | None:
    """The end of the log as the database remembers it."""
    row = Codec().unpack(packed) if packed else None
    return End(*row) if isinstance(row, list) and len(row) == 2 else None
