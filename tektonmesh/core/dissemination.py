"""Telling every link what it does not know yet: flooding, with one place per owner in each queue.

A link's queue holds "this owner has news", never the news themselves; what is sent is put together
when it is sent, from the record set that the link is known to hold. So a slow link gets fewer,
larger deltas and no queue grows with the rate of change. What a link lacks for other reasons is
found by `core/antientropy`; what may be taken is for `core/replica`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tektonmesh.core.effects import Send
from tektonmesh.core.head import Head, hash_head
from tektonmesh.core.held import Held
from tektonmesh.core.intake import OWNERS_MAX, beats
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Delta, VectorEntry, Want
from tektonmesh.core.replica import Applied, Change, Replica
from tektonmesh.core.types import ContentVersion, LinkId, SignedKeyDoc, StackId, Version
from tektonmesh.errors import RemoteError

WANT_MAX = 4096
FLUSH_BYTES = 8 << 20
"""What one flush may put on a link's queue of 32 MiB; the rest follows after `FLUSH_PAUSE_S`."""
FLUSH_PAUSE_S = 0.2
"""40 MB/s at most; a guess, far above what signature checks at the other end allow."""
UNPROVEN_MAX = 256
DELTA_OVERHEAD = 1024

Asked = tuple[StackId, ContentVersion | None]


class Known(NamedTuple):
    """What a link is known to hold of an owner, from what was last sent on it or came from it.
    `version` is None if only the record set is known; `keydoc` None if it may lack the newest."""

    version: Version | None
    head_hash: bytes
    content: ContentVersion | None
    keydoc: SignedKeyDoc | None


class _Link:
    """`news` and `refreshes` are the queue: owners, in the order they changed. Until
    `paused_until` the link digests the last flush. Of the owners `left_out` the peer wants no
    news."""

    def __init__(self) -> None:
        self.known: dict[StackId, Known] = {}
        self.news: dict[StackId, None] = {}
        self.refreshes: dict[StackId, None] = {}
        self.left_out: dict[StackId, None] = {}
        self.paused_until = 0.0


class Dissemination:
    """The queues of all links. `watch_answers` callbacks hear of every delta that came."""

    def __init__(self, env: Env, replica: Replica) -> None:
        self.env = env
        self.replica = replica
        self._links: dict[LinkId, _Link] = {}
        self._unproven: dict[StackId, LinkId] = {}
        self._answer_watchers: list[Callable[[LinkId, StackId, Applied], None]] = []

    def watch_answers(self, callback: Callable[[LinkId, StackId, Applied], None]) -> None:
        self._answer_watchers.append(callback)

    def link_up(self, link: LinkId, stack_id: StackId) -> None:
        """News go to this link from now on; what came before is found by comparing vectors."""
        self._links[link] = _Link()

    def link_down(self, link: LinkId) -> None:
        self._links.pop(link, None)
        self.env.deadlines.drop(("flush", link))
        self.env.deadlines.drop(("refresh", link))

    def known(self, link: LinkId, owner: StackId) -> Known | None:
        """What this link is known to hold of an owner."""
        state = self._links.get(link)
        return None if state is None else state.known.get(owner)

    def leave_out(self, link: LinkId, owners: tuple[StackId, ...]) -> None:
        """From now on this link is told of all owners but these: its peer evicted them."""
        state = self._links[link]
        state.left_out = dict.fromkeys(owners)
        for owner in owners:
            state.known.pop(owner, None)

    # --- what came -------------------------------------------------------------------------------

    def on_delta(self, link: LinkId, delta: Delta) -> None:
        """Take it, and pass on what was news. Raises RemoteError as `Replica.apply` does."""
        state = self._links.get(link)
        if state is None:
            return
        head = self.replica.read_head(delta.head)
        owner = head.stack_id
        before = state.known.get(owner)
        keydoc = delta.keydoc or (before.keydoc if before is not None else None)
        digest = hash_head(delta.head.head)[:8]
        state.known[owner] = Known(head.version, digest, head.content_version, keydoc)
        result = self.replica.apply(delta, link)
        self._after(link, state, head, delta, result)
        for callback in self._answer_watchers:
            callback(link, owner, result)

    def _after(self, link: LinkId, state: _Link, head: Head, delta: Delta, result: Applied) -> None:
        owner = head.stack_id
        held = self.replica.owners.get(owner)
        if result is Applied.NEED:
            self.want(link, [(owner, None if held is None else held.base)])
        elif result is Applied.UNPROVEN and len(self._unproven) < UNPROVEN_MAX:
            self._unproven[owner] = link
        elif held is not None and not held.expired and beats(held, head, delta.head):
            # The sender lacks what beats its own; that ends, since any two heads compare alike.
            self._queue(link, state, owner)
        if held is None:
            state.known.pop(owner, None)

    def on_want(self, link: LinkId, message: Want) -> None:
        """Queue what was asked for; owners that are not known here are passed over. Raises
        RemoteError if it asks for too many at once."""
        if len(message.owners) > WANT_MAX:
            raise RemoteError("A want names too many owners.")
        state = self._links.get(link)
        if state is None:
            return
        for owner, have in message.owners:
            held = self.replica.owners.get(owner)
            if held is not None and not held.expired:
                state.known[owner] = Known(None, b"", have, None)
                self._queue(link, state, owner)

    def learned(self, link: LinkId, entry: VectorEntry) -> None:
        """The peer said what it holds of an owner. News sent since may have crossed that."""
        state = self._links.get(link)
        if state is None or (entry.owner not in state.known and len(state.known) >= 2 * OWNERS_MAX):
            return
        before = state.known.get(entry.owner)
        if before is None or before.version is None or entry.version >= before.version:
            content = ContentVersion(*entry.version[:2], entry.content_ver)
            keydoc = before.keydoc if before is not None else None
            state.known[entry.owner] = Known(entry.version, entry.head_hash, content, keydoc)

    # --- what changed ----------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Queue the news of an owner for every link that does not have them."""
        owner = change.owner
        if change.kind == "flagged":
            return
        if change.kind in ("expired", "forgotten"):
            self._forget(owner)
            return
        held = self.replica.owners[owner]
        for link, state in self._links.items():
            if _has(state, held):
                state.news.pop(owner, None)
                state.refreshes.pop(owner, None)
            elif change.kind == "refresh" and owner not in state.news:
                self._queue_refresh(link, state, owner)
            else:
                self._queue(link, state, owner)
        if change.kind == "new":
            self._ask_unproven()

    def _forget(self, owner: StackId) -> None:
        self._unproven.pop(owner, None)
        for state in self._links.values():
            state.known.pop(owner, None)
            state.news.pop(owner, None)
            state.refreshes.pop(owner, None)

    def _ask_unproven(self) -> None:
        """A newly known stack may be the one that vouches for those who had no proof."""
        asked, self._unproven = self._unproven, {}
        for owner, link in asked.items():
            if link in self._links:
                self.want(link, [(owner, None)])

    def want(self, link: LinkId, owners: list[Asked]) -> None:
        """Ask a link for the news of these owners, saying what is held of each."""
        self.env.emit(Send(link, (Want(tuple(owners)),)))

    # --- sending ---------------------------------------------------------------------------------

    def _queue(self, link: LinkId, state: _Link, owner: StackId) -> None:
        state.refreshes.pop(owner, None)
        state.news[owner] = None
        self._wait_to_flush(link, state)

    def _wait_to_flush(self, link: LinkId, state: _Link) -> None:
        """At the end of this turn, so that all that changes in it goes together."""
        instant = max(self.env.now, state.paused_until)
        self.env.deadlines.set_earlier(("flush", link), instant, lambda: self._flush(link))

    def _queue_refresh(self, link: LinkId, state: _Link, owner: StackId) -> None:
        """A head that only refreshes can wait for others: its lease is a hundred times longer."""
        state.refreshes[owner] = None
        instant = self.env.after(self.env.settings.ping_interval_s)
        self.env.deadlines.set_earlier(("refresh", link), instant, lambda: self._refresh(link))

    def _refresh(self, link: LinkId) -> None:
        state = self._links[link]
        state.news |= state.refreshes
        state.refreshes = {}
        self._wait_to_flush(link, state)

    def _flush(self, link: LinkId) -> None:
        """Send what is queued, small owners first: a large one must not starve the others."""
        state = self._links[link]
        owners = self.replica.owners
        queued = [owner for owner in state.news if owner in owners]
        queued.sort(key=lambda owner: owners[owner].record_set.size)
        state.news = {}
        messages: list[Delta] = []
        room = FLUSH_BYTES
        for owner in queued:
            held = owners[owner]
            if held.expired or owner in state.left_out or _has(state, held):
                continue
            if room <= 0:
                state.news[owner] = None
                continue
            messages.append(self._delta(state, owner, held))
            room -= DELTA_OVERHEAD + sum(len(put[2]) for put in messages[-1].puts)
        if messages:
            self.env.emit(Send(link, tuple(messages)))
        if state.news:
            state.paused_until = self.env.after(FLUSH_PAUSE_S)
            self._wait_to_flush(link, state)

    def _delta(self, state: _Link, owner: StackId, held: Held) -> Delta:
        known = state.known.get(owner)
        base = None if known is None or _contradicted(known, held) else known.content
        with_keydoc = known is None or known.keydoc != held.signed_keydoc
        state.known[owner] = Known(
            held.version, held.head_hash, held.content_version, held.signed_keydoc
        )
        return self.replica.delta_for(owner, base, with_keydoc=with_keydoc)


def _contradicted(known: Known, held: Held) -> bool:
    """Whether the link holds another head of the version we hold, and so other records."""
    return known.version == held.version and known.head_hash != held.head_hash


def _has(state: _Link, held: Held) -> bool:
    known = state.known.get(held.head.stack_id)
    return known is not None and known[:2] == (held.version, held.head_hash)
