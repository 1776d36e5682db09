"""Finding and mending what dissemination missed: fingerprints, vectors, wants.

Linked replicas compare 16 bytes now and then. Where they differ for longer than news take to
arrive, the two exchange what versions they hold, by bucket if there are many, and each asks the
other for what it lacks. A joining stack asks all its links at once, each for a part. How prints are
made is `core/fingerprints`; how owners are sent, `core/dissemination`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.effects import Send
from tektonmesh.core.fingerprints import BUCKETS, PRINT_SIZE
from tektonmesh.core.ids import show_id
from tektonmesh.core.intake import OWNERS_MAX
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Buckets, Refuses, Vector, WantOutlines
from tektonmesh.core.outlines import Outliner
from tektonmesh.core.replica import Applied, Change, Replica
from tektonmesh.core.soonest import Soonest
from tektonmesh.core.types import ContentVersion, LinkId, StackId, Version
from tektonmesh.core.unproven import Unproven
from tektonmesh.errors import RemoteError

VECTOR_MAX = 256
"""Up to here all versions are sent at once (20 KiB); above, the differing buckets only."""
CHUNK = 512
"""Entries of one `Vector`: some 40 KiB, so that control frames are never far behind."""
WINDOW = 64
"""Owners asked for on one link at a time; a guess: 2 MiB at 50 records of 700 bytes."""
LOOK_MAX = 256
"""Owners looked at when the window is filled, so that filling stays cheap with 10,000."""
TODO_MAX = 2 * OWNERS_MAX
"""Owners that one link may still be asked for: as many as it can be known to hold."""
REFUSES_MAX = 256
WANT_PATIENCE_S = 10.0
"""Without an answer for so long, the others are asked."""
TRIES_BEFORE_NOTICE = 2
REPAIR_PAUSE_MAX_S = 300.0
DOUBLINGS_MAX = 16
SETTLE_S = 0.5
"""Our print rides on a ping of its own this long after its last change."""
UNTOLD_S = 1.5
"""For so long after a change of ours a peer that agreed before is not called diverged: its print
comes `SETTLE_S` after its own change."""
TELL_STACKS_MAX = 12
"""Up to here a print that changed goes out by itself, so that a small mesh soon says that it has
converged. Beyond it the next ping has to do: of 32 daemons each sent six pings and pongs more for
every change anywhere, twice as many as keep the links."""
LATE_PARTS = 8.0
LATE_MIN_S = 1.0
"""Of a lease, the part after which a missing refresh is asked for again: four times before the
end. A guess; a lease of 300 s gives 38 s each."""
REPAIR_ANYWAY_S = 30.0
"""After so long, repair even if our own print never rests: sustained churn must not starve it."""


class _Link:
    """The state of one link. `differed` is our print when we first saw that theirs differs and
    `differed_at` when; both start over when our own print changes. `mine` and `refused` are the
    owners that we and that the peer evicted: they do not count on this link."""

    def __init__(self, stack_id: StackId) -> None:
        self.stack_id = stack_id
        self.mine: tuple[StackId, ...] = ()
        self.refused: tuple[StackId, ...] = ()
        self.todo: dict[StackId, tuple[Version, bytes]] = {}
        self.asked: dict[StackId, None] = {}
        self.theirs = b""
        self.agreed = self.agreed_once = False
        self.told = b""
        self.told_at = float("-inf")
        self.differed = b""
        self.differed_at = 0.0
        self.differs_since: float | None = None
        self.tries = 0
        self.next_try = 0.0
        self.vector_prints: dict[int, tuple[bytes, float]] = {}


class AntiEntropy:
    """Repair over all links of one node."""

    def __init__(self, env: Env, replica: Replica, dissemination: Dissemination) -> None:
        self.env = env
        self.replica = replica
        self.dissemination = dissemination
        self._relays = dissemination.relays
        self._links: dict[LinkId, _Link] = {}
        self._asking: dict[StackId, LinkId] = {}
        self._changed_at = env.now
        self._bucket_changed: dict[int, float] = {}
        self._late: dict[StackId, None] = {}
        self._halves = Soonest(env, "half-leases", replica.owners, self._half_instants, self._half)
        self.unproven = Unproven(env, self.left_out)
        self.outliner = Outliner(env, replica, self._ask_all)
        self._tellers: list[Callable[[LinkId], None]] = []
        dissemination.watch_answers(self._answered)

    def start(self) -> None:
        """Watch over the leases of the owners that the disk remembered."""
        self._halves.begin()

    def resume(self) -> None:
        """Go on where others are: nobody's half lease is over soon."""
        self._halves.begin(self.env.settings.refresh_min_s)

    def link_up(self, link: LinkId, stack_id: StackId, *, agreed: bool = False) -> None:
        """Say at once what we hold; the peer does the same. Unless the two are known to agree."""
        state = self._links[link] = _Link(stack_id)
        if agreed:
            self._agreed(link, state)
            state.theirs = state.told = self._print(state)
            state.told_at = self.env.now
            return
        self._tell_refused(link, state)
        if self._relays.is_relay(link):
            self._relays.tell_all(link)
        else:
            self._offer(link, reply=False)

    def link_down(self, link: LinkId) -> None:
        """What was asked of this link is asked of the others."""
        state = self._links.pop(link, None)
        if state is None:
            return
        self.env.deadlines.drop(("wants", link))
        self._give_back(state)
        self.outliner.link_down(link)
        self._ask_all()

    def converged(self) -> tuple[bool, list[StackId]]:
        """Whether every linked peer last said that it holds what we hold now, and who did not.
        News of the last moment do not count until there was time to compare."""
        links = [(link, s) for link, s in self._links.items() if not self._relays.is_silent(link)]
        others = {state.stack_id: None for _link, state in links if self._differs(state)}
        return not others, sorted(others)

    def _differs(self, state: _Link) -> bool:
        early = state.agreed and self.env.now - self._changed_at < UNTOLD_S
        return not early and state.theirs != self._print(state)

    def watch_prints(self, callback: Callable[[LinkId], None]) -> None:
        """Call `callback(link)` for every link that our print should go to before its next ping,
        a moment after the last change."""
        self._tellers.append(callback)

    def _tell_prints(self) -> None:
        """In a large mesh somebody always changes something: there the next ping has to do."""
        assert self.env.now >= self._changed_at, "prints are told after they changed"
        if self.replica.count() > TELL_STACKS_MAX:
            return
        for link, state in list(self._links.items()):
            if self._print(state) != state.told:
                for tell in self._tellers:
                    tell(link)

    # --- owners that are left out ----------------------------------------------------------------

    def leaving_out(self) -> tuple[StackId, ...]:
        """The owners of whom no peer is to tell us: evicted here, or no members that we know."""
        barred = dict.fromkeys([*self.replica.trust.evicted(), *self.unproven.left_out])
        return tuple(barred)[:REFUSES_MAX]

    def leaves_out(self, owner: StackId) -> bool:
        return self.replica.trust.refuses(owner) or owner in self.unproven.left_out

    def left_out(self) -> None:
        """Whom we leave out has changed: every peer leaves it out of what it tells us."""
        for link, state in self._links.items():
            if not self.replica.trust.refuses(state.stack_id):
                self._tell_refused(link, state)

    def _tell_refused(self, link: LinkId, state: _Link) -> None:
        """Over the bound, pairs that differ in the rest stay `not_converged`."""
        before, state.mine = state.mine, self.leaving_out()
        if state.mine != before:
            self.env.emit(Send(link, (Refuses(state.mine),)))

    def on_refuses(self, link: LinkId, message: Refuses) -> None:
        """Leave these owners out on this link. Raises RemoteError if they are too many."""
        if len(message.owners) > REFUSES_MAX:
            raise RemoteError("A peer refuses too many owners to say so.")
        state = self._links.get(link)
        if state is None:
            return
        state.refused = message.owners
        for owner in message.owners:
            state.todo.pop(owner, None)
        self.dissemination.leave_out(link, message.owners)

    def _print(self, state: _Link) -> bytes:
        return self.replica.fingerprint((*state.mine, *state.refused))

    def _bucket_prints(self, state: _Link) -> list[bytes]:
        return self.replica.bucket_prints((*state.mine, *state.refused))

    # --- prints ----------------------------------------------------------------------------------

    def fingerprint_for_ping(self, link: LinkId) -> bytes:
        """Our print, if one is due on this link: now and then, when it changed, and while the two
        differ; else nothing. The refreshes that wait for this link go along."""
        state = self._links.get(link)
        if state is None:
            return b""
        self.dissemination.refresh(link)
        if self._relays.is_silent(link):
            return b""
        own = self._print(state)
        waited = self.env.now - state.told_at >= self.env.settings.fingerprint_interval_s
        if not waited and own == state.told and state.theirs in (b"", own):
            return b""
        state.told, state.told_at = own, self.env.now
        return own

    def on_fingerprint(self, link: LinkId, theirs: bytes) -> None:
        """Compare. The first difference may be news on their way, so only a second look, with our
        own print at rest in between, starts a repair."""
        state = self._links.get(link)
        if state is None or len(theirs) != PRINT_SIZE or self._relays.is_silent(link):
            return
        own = self._print(state)
        state.theirs, state.agreed = theirs, theirs == own
        if theirs == own:
            self._agreed(link, state)
            return
        now = self.env.now
        if state.differs_since is None:
            state.differs_since = now
        if state.differed != own:
            state.differed, state.differed_at = own, now
        rested = now - state.differed_at >= self.env.settings.repair_delay_s
        long = now - state.differs_since >= REPAIR_ANYWAY_S
        if (rested or long) and now >= state.next_try:
            self._repair(link, state)

    def _agreed(self, link: LinkId, state: _Link) -> None:
        state.agreed_once = True
        self.dissemination.agreed(link)
        if state.tries > TRIES_BEFORE_NOTICE:
            self.env.notice("converged", stack=show_id(state.stack_id))
        state.differed, state.differs_since = b"", None
        state.tries, state.next_try = 0, self.env.now

    def _repair(self, link: LinkId, state: _Link) -> None:
        self.env.counts.repairs += 1
        state.tries += 1
        state.differs_since = self.env.now
        doublings = min(state.tries, DOUBLINGS_MAX)
        pause = min(self.env.settings.repair_delay_s * 2.0**doublings, REPAIR_PAUSE_MAX_S)
        state.next_try = self.env.after(self.env.jitter(pause))
        if state.tries == TRIES_BEFORE_NOTICE + 1:
            self.env.notice("not_converged", stack=show_id(state.stack_id))
        self._offer(link, reply=True)

    # --- vectors ---------------------------------------------------------------------------------

    def _offer(self, link: LinkId, *, reply: bool) -> None:
        if self.replica.count() > VECTOR_MAX:
            prints = b"".join(self._bucket_prints(self._links[link]))
            self.env.emit(Send(link, (Buckets(prints),)))
        else:
            self._send_vector(link, (), reply=reply)

    def on_buckets(self, link: LinkId, message: Buckets) -> None:
        """Send what we hold of the buckets that differ, and ask for theirs. Where ours changed a
        moment ago the difference may be news on their way."""
        theirs = message.prints
        state = self._links.get(link)
        if state is None or len(theirs) != BUCKETS * PRINT_SIZE:
            return
        rested = self.env.now - self.env.settings.repair_delay_s
        differing = tuple(
            bucket
            for bucket, own in enumerate(self._bucket_prints(state))
            if own != theirs[bucket * PRINT_SIZE : (bucket + 1) * PRINT_SIZE]
            and (not state.agreed_once or self._bucket_changed.get(bucket, 0.0) <= rested)
        )
        if differing:
            self._send_vector(link, differing, reply=True)

    def on_vector(self, link: LinkId, message: Vector) -> None:
        """Note what the peer holds, and ask for what we lack of it."""
        state = self._links.get(link)
        if state is None:
            return
        told = [e for e in message.entries if e.owner not in state.refused]
        proofs = [proof for e in told if (proof := self.replica.proof_for(e)) is not None]
        if proofs:
            self.env.emit(Send(link, tuple(proofs)))
        for entry in told:
            self.dissemination.learned(link, entry)
            room = entry.owner in state.todo or len(state.todo) < TODO_MAX
            if room and self._lacks(entry.owner, entry.version, entry.head_hash):
                state.todo[entry.owner] = entry.version, entry.head_hash
        self._ask(link, state)
        if message.reply and not message.more:
            self._send_vector(link, message.buckets, reply=False)

    def _send_vector(self, link: LinkId, buckets: tuple[int, ...], *, reply: bool) -> None:
        """Both ends may start at once: what was sent a moment ago and did not change since is not
        sent again. That an owner is missing says nothing, so an empty vector only asks."""
        if self._relays.is_silent(link):
            return
        state = self._links[link]
        chosen = self._unsaid(state, buckets or tuple(range(BUCKETS)))
        held = self.replica.entries(chosen) if chosen else []
        entries = [entry for entry in held if entry.owner not in state.refused]
        starts = range(0, len(entries), CHUNK) if entries or not reply else (0,)
        chunks = [tuple(entries[at : at + CHUNK]) for at in starts]
        last = len(chunks) - 1
        messages = [Vector(buckets, chunk, reply, at != last) for at, chunk in enumerate(chunks)]
        if messages:
            self.env.emit(Send(link, tuple(messages)))

    def _unsaid(self, state: _Link, buckets: tuple[int, ...]) -> tuple[int, ...]:
        prints, now = self._bucket_prints(state), self.env.now
        recent = now - self.env.settings.repair_delay_s
        unsaid = []
        for bucket in dict.fromkeys(buckets):
            said = state.vector_prints.get(bucket)
            if said is None or said[0] != prints[bucket] or said[1] <= recent:
                state.vector_prints[bucket] = (prints[bucket], now)
                unsaid.append(bucket)
        return tuple(unsaid)

    def _lacks(self, owner: StackId, version: Version, head_hash: bytes) -> bool:
        """Whether somebody who holds this has something for us."""
        held = self.replica.owners.get(owner)
        if held is None:
            return not self.replica.trust.refuses(owner)
        if version == held.version:
            return held.outlined or (not held.expired and head_hash != held.head_hash)
        return version > held.version

    def on_want_outlines(self, link: LinkId, message: WantOutlines) -> None:
        """Tell the peer who there is, before all that they say. Raises RemoteError if it asks for
        too many at once."""
        if link in self._links:
            left_out = self.dissemination.left_out(link)
            self.outliner.on_want(link, message, left_out)

    # --- wants -----------------------------------------------------------------------------------

    def _ask(self, link: LinkId, state: _Link) -> None:
        """Fill the window of this link with owners that nobody else is asked for, once there is an
        outline of everybody."""
        self.outliner.ask(link, state.todo)
        if self.outliner.waiting or len(state.asked) > WINDOW // 2:
            return
        wants: list[tuple[StackId, ContentVersion | None]] = []
        for owner in list(state.todo)[:LOOK_MAX]:
            if len(state.asked) >= WINDOW:
                break
            theirs = state.todo.pop(owner)
            known = self.dissemination.known(link, owner)
            if known is not None and known.version is not None:
                theirs = known.version, known.head_hash
            if not self._lacks(owner, *theirs):
                continue
            if owner in self._asking:
                state.todo[owner] = theirs  # to the end: asked for here if the other fails
                continue
            self._asking[owner] = link
            state.asked[owner] = None
            held = self.replica.owners.get(owner)
            wants.append((owner, None if held is None else held.base))
        if wants:
            self.dissemination.want(link, wants)
            self._be_patient(link)

    def _be_patient(self, link: LinkId) -> None:
        instant = self.env.after(WANT_PATIENCE_S)
        self.env.deadlines.set(("wants", link), instant, lambda: self._impatient(link))

    def _impatient(self, link: LinkId) -> None:
        """Nothing came for a while. What this link may still send is welcome, but from now on it
        is asked last: one that promises and never sends must not keep an owner from us."""
        state = self._links.pop(link)
        self._links[link] = state
        self._give_back(state)
        self._ask_all()

    def _give_back(self, state: _Link) -> None:
        for owner in state.asked:
            del self._asking[owner]
        state.asked = {}

    def _ask_all(self) -> None:
        for link, state in self._links.items():
            self._ask(link, state)

    def _answered(self, link: LinkId, owner: StackId, result: Applied) -> None:
        """A delta came, asked for or not. With NEED it was asked for again already."""
        if owner in self._late and result in (Applied.REFRESHED, Applied.APPLIED):
            # What the tree should have brought came only when asked for: mend the tree.
            del self._late[owner]
            if not self.dissemination.is_eager(link):
                self.dissemination.graft(link, [])
        if result is Applied.UNPROVEN:
            self.unproven.came(owner)
        if result is Applied.NEED:
            return
        asked_of = self._asking.pop(owner, None)
        if asked_of is None:
            return
        state = self._links[asked_of]
        del state.asked[owner]
        if state.asked:
            self._be_patient(asked_of)
        else:
            self.env.deadlines.drop(("wants", asked_of))
        self._ask(asked_of, state)

    # --- leases ----------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """Watch over the lease of what changed; unless it is a refresh, our print has changed."""
        owner = change.owner
        if change.kind != "refresh":
            self._changed_at = self._bucket_changed[owner[0]] = self.env.now
            self.env.deadlines.set("prints", self.env.after(SETTLE_S), self._tell_prints)
        if change.kind == "new":
            self.unproven.believe(owner)
        if change.kind == "forgotten":
            for state in self._links.values():
                state.todo.pop(owner, None)
        if change.kind in ("expired", "forgotten", "left"):
            self._late.pop(owner, None)
            self._halves.drop(owner)
        else:
            for instant, _owner in self._half_instants((owner,)):
                self._halves.lower(owner, instant)

    def _half_instants(self, owners: Iterable[StackId]) -> Iterator[tuple[float, StackId]]:
        """When half of each lease is gone."""
        held_of, me, now = self.replica.owners.get, self.env.me, self.env.now
        for owner in owners:
            held = held_of(owner)
            if held is not None and owner != me and not (held.expired or held.left):
                yield now + self.replica.lease_left_s(owner) - held.head.lease_s / 2.0, owner

    def _half(self, owner: StackId) -> float:
        """With half the lease gone a refresh is missing: ask two links, one may hold it back, and
        others until it comes. In a large mesh it shows that the tree of news passes us by, so the
        first of them becomes part of ours."""
        links = [link for link, state in self._links.items() if owner not in state.refused]
        first = self.env.chance.randrange(len(links)) if links else 0
        held = self.replica.owners[owner]
        grafts = not self.dissemination.has_skeleton
        if grafts and links:
            self._late[owner] = None
        for at, link in enumerate((links[first:] + links[:first])[:2]):
            ask = self.dissemination.graft if grafts and not at else self.dissemination.want
            ask(link, [(owner, held.base)])
        return self.env.after(max(LATE_MIN_S, held.head.lease_s / LATE_PARTS))
