"""Telling every link what it does not know yet, with one place per owner in each queue.

News travel along a tree that grows out of what arrives first, after Plumtree (Leitão, Pereira and
Rodrigues, "Epidemic Broadcast Trees", 2007): links are eager until a second copy comes over them,
lazy ones get an announcement, and whoever is announced something that does not come grafts the link
that announced it. Up to four stacks every link is eager: the tree would save nothing.

A link's queue holds "this owner has news", never the news themselves; what is sent is put together
when it is sent, from the record set that the link is known or assumed to hold. So a slow link gets
fewer, larger deltas and no queue grows with the rate of change. What a link lacks for other reasons
is found by `core/antientropy`; which announcements are waited for is `core/grafts`; what may be
taken is for `core/replica`.
"""

from __future__ import annotations

from collections.abc import Callable

from tektonmesh.core.effects import Send
from tektonmesh.core.grafts import Grafts
from tektonmesh.core.head import Head, hash_head
from tektonmesh.core.held import Held
from tektonmesh.core.intake import beats
from tektonmesh.core.linknews import WANT_MAX, Asked, Known, LinkNews, contradicted, has
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import (
    Delta,
    Graft,
    Ihave,
    Message,
    News,
    Prune,
    RelayOutlines,
    VectorEntry,
    Want,
)
from tektonmesh.core.relaylinks import RelayLinks
from tektonmesh.core.replica import Applied, Change, Replica
from tektonmesh.core.skeleton import Skeleton
from tektonmesh.core.types import ContentVersion, LinkId, StackId
from tektonmesh.errors import RemoteError

IHAVE_MAX = 1024
"""Announcements in one message: 60 KiB of them."""
FLUSH_BYTES = 8 << 20
"""What one flush may put on a link's queue of 32 MiB; the rest follows after `FLUSH_PAUSE_S`."""
FLUSH_PAUSE_S = 0.2
"""40 MB/s at most; a guess, far above what signature checks at the other end allow."""
UNPROVEN_MAX = 256
DELTA_OVERHEAD = 1024
QUIET_S = 60.0
"""After so long without a change refreshes shape the tree, since nothing else does. A guess."""

WHOLE_MAX = 8192
"""Bytes of an owner that are sent at once to a link of which nothing is known; a guess."""


class Dissemination:
    """The queues of all links. `watch_answers` callbacks hear of every delta that came."""

    def __init__(self, env: Env, replica: Replica) -> None:
        self.env = env
        self.replica = replica
        self._links: dict[LinkId, LinkNews] = {}
        self._unproven: dict[StackId, LinkId] = {}
        self._changed_at = float("-inf")
        self._answer_watchers: list[Callable[[LinkId, StackId, Applied], None]] = []
        self.rtt_s: Callable[[LinkId], float] = _no_rtt
        """The round trip of a link in seconds; told by whoever measures it."""
        self.relays = RelayLinks(replica, self)
        self.skeleton = Skeleton(env)
        self.skeleton.passes_on = lambda stack: not self.relays.is_role(stack)
        self._grafts = Grafts(env, self._graft_for, lambda link: self.rtt_s(link))

    def watch_answers(self, callback: Callable[[LinkId, StackId, Applied], None]) -> None:
        self._answer_watchers.append(callback)

    def link_up(self, link: LinkId, stack_id: StackId) -> None:
        """News go to this link from now on; what came before is found by comparing vectors."""
        self._links[link] = LinkNews(stack_id)

    def link_down(self, link: LinkId) -> None:
        self._links.pop(link, None)
        self.relays.link_down(link)
        self._grafts.drop_link(link)
        for queue in ("flush", "refresh", "ihave"):
            self.env.deadlines.drop((queue, link))

    def offer(self, link: LinkId, owner: StackId) -> None:
        """Queue the news of an owner for this link, unless it has them."""
        state, held = self._links.get(link), self.replica.owners[owner]
        if state is not None and not has(state, held):
            self._queue(link, state, owner)

    def has_outline(self, link: LinkId, outline: Delta) -> None:
        """This came over the link."""
        state, head = self._links.get(link), self.replica.read_head(outline.head)
        if state is not None:
            digest = hash_head(outline.head.head)[:8]
            state.note(head.stack_id, Known(head.version, digest, None, outline.keydoc))

    def links(self) -> list[LinkId]:
        """All links that are up."""
        return list(self._links)

    def peer(self, link: LinkId) -> StackId | None:
        """The stack at the other end of a link; None for one that is not up."""
        state = self._links.get(link)
        return None if state is None else state.stack_id

    def known(self, link: LinkId, owner: StackId) -> Known | None:
        """What this link is known to hold of an owner."""
        state = self._links.get(link)
        return None if state is None else state.known.get(owner)

    def agreed(self, link: LinkId) -> None:
        """The peer holds all that we hold, however it came by it: what was noted is out of date."""
        state = self._links.get(link)
        if state is not None:
            state.agreed = True
            state.known.clear()

    def is_eager(self, link: LinkId) -> bool:
        """Whether news are sent to this link without being asked for."""
        state = self._links.get(link)
        return state is not None and (state.eager or self._floods())

    def queued(self) -> int:
        """Owners that wait in the queues of all links."""
        return sum(
            len(state.news) + len(state.refreshes) + len(state.told)
            for state in self._links.values()
        )

    def leave_out(self, link: LinkId, owners: tuple[StackId, ...]) -> None:
        """From now on this link is told of all owners but these: its peer evicted them."""
        state = self._links[link]
        state.left_out = dict.fromkeys(owners)
        for owner in owners:
            state.known.pop(owner, None)

    def left_out(self, link: LinkId) -> dict[StackId, None]:
        """The owners that the peer wants no news of."""
        state = self._links.get(link)
        return {} if state is None else state.left_out

    # --- what came -------------------------------------------------------------------------------

    def on_delta(self, link: LinkId, delta: Delta) -> None:
        """Take it, and pass on what was news. Raises RemoteError as `Replica.apply` does."""
        state = self._links.get(link)
        if state is None:
            return
        head = self.replica.read_head(delta.head)
        owner = head.stack_id
        before = state.known.get(owner)
        held = self.replica.owners.get(owner)
        double = held is not None and held.whole and held.signed == delta.head
        if before is not None or delta.base != head.content_version:
            keydoc = delta.keydoc or (before.keydoc if before is not None else None)
            digest = hash_head(delta.head.head)[:8]
            state.note(owner, Known(head.version, digest, head.content_version, keydoc))
        result = self.replica.apply(delta, link)
        self._after(link, state, head, delta, result)
        if owner in state.wanted:
            del state.wanted[owner]
        elif double and self._shapes_tree(head, delta):
            self._prune(link, state)
        for callback in self._answer_watchers:
            callback(link, owner, result)

    def _shapes_tree(self, head: Head, delta: Delta) -> bool:
        """Whether a second copy says that its link is the slower one. A refresh waits at every hop
        for a ping to ride with, so which copy of it is the second is chance: were its link pruned,
        the next change would have to graft it again."""
        changes = delta.base != head.content_version
        quiet = self.env.now - self._changed_at > QUIET_S
        return changes or (quiet and not self.has_skeleton)

    @property
    def has_skeleton(self) -> bool:
        """Whether refreshes go their own way (`core/skeleton`), and the tree of news is not to
        blame for one that is missing."""
        return self.replica.count() <= self.env.settings.skeleton_stacks_max

    def _after(
        self, link: LinkId, state: LinkNews, head: Head, delta: Delta, result: Applied
    ) -> None:
        owner = head.stack_id
        held = self.replica.owners.get(owner)
        if result is Applied.NEED:
            self.want(link, [(owner, None if held is None else held.base)])
        elif result is Applied.UNPROVEN and len(self._unproven) < UNPROVEN_MAX:
            self._unproven[owner] = link
        elif held is not None and held.whole and beats(held, head, delta.head):
            # The sender lacks what beats its own; that ends, since any two heads compare alike.
            self._queue(link, state, owner)
        if held is None:
            state.known.pop(owner, None)

    def on_want(self, link: LinkId, message: Want) -> None:
        """Queue what was asked for; owners that are not known here are passed over. Raises
        RemoteError if it asks for too many at once."""
        self._serve(link, message.owners)

    def on_graft(self, link: LinkId, message: Graft) -> None:
        """The peer lacks what we announced, so we are part of its tree from now on. Raises
        RemoteError as `on_want` does."""
        state = self._links.get(link)
        if state is not None:
            state.eager = True
        self._serve(link, message.owners)

    def on_prune(self, link: LinkId, _message: Prune) -> None:
        """The peer gets our news sooner from others: from now on it is told that there are some."""
        state = self._links.get(link)
        if state is not None:
            state.eager = False

    def on_ihave(self, link: LinkId, message: Ihave) -> None:
        """The peer holds these heads. What does not come by itself is asked for. Raises
        RemoteError if it announces too many at once."""
        if len(message.news) > IHAVE_MAX:
            raise RemoteError("A peer announces too much at once.")
        state = self._links.get(link)
        if state is None:
            return
        for news in message.news:
            state.note(news.owner, Known(news.version, news.head_hash, None, None))
            if self._lacks(news):
                self._grafts.announced(link, news)

    def _lacks(self, news: News) -> bool:
        held = self.replica.owners.get(news.owner)
        if held is None:
            return not self.replica.trust.refuses(news.owner)
        return news.version > held.version

    def _serve(self, link: LinkId, owners: tuple[Asked, ...]) -> None:
        if len(owners) > WANT_MAX:
            raise RemoteError("A want names too many owners.")
        state = self._links.get(link)
        if state is None:
            return
        for owner, have in owners:
            held = self.replica.owners.get(owner)
            if held is not None and held.whole:
                state.note(owner, Known(None, b"", have, None))
                self._queue(link, state, owner)

    def learned(self, link: LinkId, entry: VectorEntry) -> None:
        """The peer said what it holds of an owner. News sent since may have crossed that."""
        state = self._links.get(link)
        if state is None:
            return
        before = state.known.get(entry.owner)
        if before is None or before.version is None or entry.version >= before.version:
            content = ContentVersion(*entry.version[:2], entry.content_ver)
            keydoc = before.keydoc if before is not None else None
            state.note(entry.owner, Known(entry.version, entry.head_hash, content, keydoc))

    # --- the tree --------------------------------------------------------------------------------

    def _floods(self) -> bool:
        return self.replica.count() <= self.env.settings.flood_stacks_max

    def _prune(self, link: LinkId, state: LinkNews) -> None:
        """A second copy came over this link: news come sooner by another one. Both ends agree on
        what a link is, or one would go on to push what the other does not want."""
        if state.eager and not self._floods():
            state.eager = False
            self._emit(link, Prune())

    def graft(self, link: LinkId, owners: list[Asked]) -> None:
        """Make this link part of our tree, and ask for the news of these owners over it."""
        state = self._links.get(link)
        if state is not None:
            state.eager = True
            state.ask(owners)
            self._emit(link, Graft(tuple(owners)))

    def _graft_for(self, link: LinkId, owners: list[StackId]) -> None:
        held = self.replica.owners.get
        self.graft(link, [(o, None if (it := held(o)) is None else it.base) for o in owners])

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
        if held.outlined:
            if self.relays.is_relay_for(change.link) or self.relays.is_relay(change.link):
                self.relays.pass_on(owner)
            return
        self._grafts.came(owner, held.version)
        if change.kind == "refresh":
            self._refreshed(owner, held, change.link)
        else:
            self._changed_at = self.env.now
            self._changed(owner, held)
        if change.kind == "new":
            self._ask_unproven()

    def _changed(self, owner: StackId, held: Held) -> None:
        floods = self._floods()
        for link, state in self._links.items():
            if has(state, held):
                state.news.pop(owner, None)
                state.refreshes.pop(owner, None)
                state.told.pop(owner, None)
            elif (
                (state.eager or floods) and not _is_too_much(state, held)
            ) or self.relays.is_relay(link):
                self._queue(link, state, owner)
            else:
                self._queue_ihave(link, state, owner)

    def _refreshed(self, owner: StackId, held: Held, source: LinkId | None) -> None:
        """A refresh goes along one tree only: the skeleton, or in a large mesh that of news. Who is
        cut off from that misses some, and asks when half a lease is gone. If we are ourselves no
        part of the tree of news, our own is announced: whoever asks for it takes us in again."""
        everywhere, skeleton = self._floods(), self.skeleton if self.has_skeleton else None
        alone = owner == self.env.me and not any(state.eager for state in self._links.values())
        for link, state in self._links.items():
            if link == source or has(state, held):
                state.refreshes.pop(owner, None)
            elif owner in state.news:
                continue
            elif owner in state.told or (alone and not (everywhere or skeleton)):
                self._queue_ihave(link, state, owner)
            elif (
                everywhere
                or (skeleton.carries(state.stack_id) if skeleton else state.eager)
                or self.relays.is_relay(link)
            ):
                self._queue_refresh(link, state, owner)

    def _forget(self, owner: StackId) -> None:
        self._unproven.pop(owner, None)
        self._grafts.forget(owner)
        for state in self._links.values():
            for kept in (state.known, state.news, state.told, state.refreshes):
                kept.pop(owner, None)

    def _ask_unproven(self) -> None:
        """A newly known stack may be the one that vouches for those who had no proof."""
        asked, self._unproven = self._unproven, {}
        for owner, link in asked.items():
            if link in self._links:
                self.want(link, [(owner, None)])

    def want(self, link: LinkId, owners: list[Asked]) -> None:
        """Ask a link for the news of these owners, saying what is held of each."""
        state = self._links.get(link)
        if state is not None:
            state.ask(owners)
            self._emit(link, Want(tuple(owners)))

    def _emit(self, link: LinkId, message: Message) -> None:
        self.env.emit(Send(link, (message,)))

    # --- sending ---------------------------------------------------------------------------------

    def _queue(self, link: LinkId, state: LinkNews, owner: StackId) -> None:
        state.refreshes.pop(owner, None)
        state.told.pop(owner, None)
        state.news[owner] = None
        self._wait_to_flush(link, state)

    def _wait_to_flush(self, link: LinkId, state: LinkNews) -> None:
        """At the end of this turn, so that all that changes in it goes together."""
        instant = max(self.env.now, state.paused_until)
        self.env.deadlines.set_earlier(("flush", link), instant, lambda: self._flush(link))

    def _queue_refresh(self, link: LinkId, state: LinkNews, owner: StackId) -> None:
        """A head that only refreshes can wait for others: its lease is a hundred times longer."""
        state.refreshes[owner] = None
        instant = self.env.after(self.env.settings.ping_interval_s)
        self.env.deadlines.set_earlier(("refresh", link), instant, lambda: self.refresh(link))

    def refresh(self, link: LinkId) -> None:
        """Send the refreshes that wait, since a ping leaves for this link or the wait is over."""
        state = self._links.get(link)
        if state is not None and state.refreshes:
            self.env.deadlines.drop(("refresh", link))
            state.news |= state.refreshes
            state.refreshes = {}
            self._wait_to_flush(link, state)

    def _queue_ihave(self, link: LinkId, state: LinkNews, owner: StackId) -> None:
        state.refreshes.pop(owner, None)
        state.told[owner] = None
        instant = self.env.after(self.env.settings.ihave_delay_s)
        self.env.deadlines.set_earlier(("ihave", link), instant, lambda: self._announce(link))

    def _announce(self, link: LinkId) -> None:
        """Say what we hold and the peer may lack, as far as it was not said or sent meanwhile."""
        state = self._links[link]
        told, state.told = state.told, {}
        news: list[News] = []
        for owner in told:
            held = self.replica.owners.get(owner)
            if held is None or not held.whole or owner in state.left_out or has(state, held):
                continue
            news.append(News(owner, held.version, held.head_hash))
        for at in range(0, len(news), IHAVE_MAX):
            self._emit(link, Ihave(tuple(news[at : at + IHAVE_MAX])))

    def _flush(self, link: LinkId) -> None:
        """Send what is queued, small owners first: a large one must not starve the others."""
        state = self._links[link]
        owners = self.replica.owners
        queued = [owner for owner in state.news if owner in owners]
        if len(queued) > 1:
            queued.sort(key=lambda owner: owners[owner].record_set.size)
        state.news = {}
        messages: list[Delta | RelayOutlines] = []
        room = FLUSH_BYTES
        for owner in queued:
            held = owners[owner]
            told = held.whole or held.outlined
            if not told or owner in state.left_out or has(state, held):
                continue
            if room <= 0:
                state.news[owner] = None
                continue
            outline = self.relays.outline(link, held)
            if outline is not None:
                keys = held.signed_keydoc
                state.note(owner, Known(held.version, held.head_hash, None, keys))
                messages.append(outline)
                continue
            delta = self._delta(state, owner, held)
            messages.append(delta)
            room -= DELTA_OVERHEAD + sum(len(put[2]) for put in delta.puts)
        if messages:
            self.env.emit(Send(link, tuple(messages)))
        if state.news:
            state.paused_until = self.env.after(FLUSH_PAUSE_S)
            self._wait_to_flush(link, state)

    def _delta(self, state: LinkNews, owner: StackId, held: Held) -> Delta:
        """The news for a link, based on what it is known to hold, or assumed to."""
        known = state.known.get(owner)
        if known is not None and (known.content is not None or known.version is None):
            base = None if contradicted(known, held) else known.content
            with_keydoc = known.keydoc != held.signed_keydoc
        else:
            base = held.previous if state.agreed else None
            with_keydoc = base is None or (base != held.content_version and held.has_new_keys)
        if known is not None or base != held.content_version:
            now = Known(held.version, held.head_hash, held.content_version, held.signed_keydoc)
            state.note(owner, now)
        return self.replica.delta_for(owner, base, with_keydoc=with_keydoc)


def _is_too_much(state: LinkNews, held: Held) -> bool:
    """Whether it would have to be sent whole, and is large: a peer that has just joined is told of
    it, and takes names first (`core/outlines`)."""
    unknown = not state.agreed and held.head.stack_id not in state.known
    return unknown and held.record_set.size > WHOLE_MAX


def _no_rtt(_link: LinkId) -> float:
    return 0.0
