"""Whom to dial, when, and how often again: this node's side of keeping the mesh connected.

Seeds are dialled for ever, lost peers until they are back, others while this node has fewer links
than it wants or a live stack has no path to us. This module decides from `addressbook`, replica
and neighbours; connecting is the shell's work and judging links is `neighbours`'
(docs/design/liveness.md).
"""

from __future__ import annotations

from functools import partial

from tektonmesh.core.addressbook import ADDRESSES_PER_STACK, AddressBook, Target, is_address
from tektonmesh.core.effects import Dial
from tektonmesh.core.events import DialFailed, LinkDown, LinkUp, PeerSeen
from tektonmesh.core.held import Held
from tektonmesh.core.machine import Env
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.overlay import Overlay
from tektonmesh.core.quotas import Buckets
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import Saved, StackId

PAUSES_S = ((60.0, 2.0), (3600.0, 5.0))
"""(age of the series of failures, longest pause between two dials within it); then `PAUSE_MAX_S`.
That two halves of a mesh find each other within 15 s of a heal depends on these."""

PAUSE_MAX_S = 30.0
PAUSE_FIRST_S = 0.25
GIVE_UP_S = 3600.0
"""A series this old ends for good unless it is a seed peer's or the stack is live."""

STAGGER_S = 0.25
"""Between the addresses of one stack (as RFC 8305 between address families)."""

AGAIN_S = 1.0
"""News of a peer brings its next dial forward, but not closer than this to the last one."""

OVERDUE_S = 1.0
"""A dial of which nothing was heard this long after its timeout may be made again; the outcome of
one whose link was closed as a double never comes."""

DIALS_MAX = 16
"""Dials under way at once that are not to seed peers: gossip must not make us flood others."""

DIALS_PER_S, DIALS_BURST = 2.0, 64.0
"""Dials to stacks that were never linked: whoever tells us of many members whose addresses refuse
at once must not make us dial as fast as they do. A guess; a join needs ten."""

LET_GO_S = 60.0
"""Whoever closed a link on purpose is not dialled for so long, unless no path leads to it."""

UPKEEP_S = 4.0
ADRIFT_MAX = 2
"""Live stacks without a path that are tried in one round of upkeep."""


NEARER_S = 60.0
"""How often a nearer stack is looked for: a link that moves is four signed heads for everybody."""
RESCUE_S = 90.0
"""How often one stack whose lease is over is tried: two halves that were apart for hours know each
other by nothing else."""


class Dialling:
    """The dials of one node. A target waits for its deadline, is being dialled, or rests."""

    def __init__(
        self, env: Env, replica: Replica, neighbours: Neighbours, trust: Trust, saved: Saved
    ) -> None:
        self._env = env
        self._replica = replica
        self._neighbours = neighbours
        self._trust = trust
        self._book = AddressBook(env, saved)
        self._under_way: dict[str, Target] = {}
        self._linked: dict[StackId, None] = {}
        self._lost: dict[StackId, None] = {}
        self._sought: dict[StackId, None] = {}
        self._let_go: dict[StackId, float] = {}
        self._stopped = False
        self._bucket = Buckets(DIALS_PER_S, DIALS_BURST)
        self._nearer_at = env.after(env.jitter(NEARER_S, 0.5))
        self._rescue_at = env.after(env.jitter(RESCUE_S, 0.3))
        self._overlay = Overlay(env, replica, neighbours, self._rests)
        neighbours.watch(self._neighbour_changed)

    # --- start and end ---------------------------------------------------------------------------

    def start(self) -> None:
        """Dial all seed peers and remembered peers at once."""
        for address in self._env.settings.seed_peers:
            target = self._book.add(address, None, seed_peer=True)
            if target is not None:
                self._dial(target)
        for stack_id, addresses in list(self._book.remembered.items()):
            self._lost[stack_id] = None
            # Whom our own people named is a seed peer to a stack that links with nobody else.
            named = self._env.settings.seeds_only and self._trust.is_approved(stack_id)
            for address in addresses:
                self._book.add(address, stack_id, seed_peer=named)
            self._dial_stack(stack_id)
        self._plan_upkeep()

    def resume(self) -> None:
        """Go on with links that are up."""
        self._plan_upkeep()

    def stop(self) -> None:
        """Dial nobody any more: this stack leaves."""
        self._stopped = True

    # --- what happened ---------------------------------------------------------------------------

    def on_seen(self, event: PeerSeen) -> None:
        """Somebody may listen somewhere: try at once if a link there is wanted."""
        seed_peer = event.source in ("seed_peer", "user")
        for at, address in enumerate(event.addresses[:ADDRESSES_PER_STACK]):
            target = self._book.add(address, event.stack_id, seed_peer=seed_peer)
            if target is not None:
                first_s = 0.0 if event.stack_id is None else self._courtesy_s(event.stack_id)
                self._hasten(target, first_s + at * STAGGER_S)

    def on_change(self, change: Change) -> None:
        """A new owner, or new addresses of a known one: one to dial, if links are missing."""
        owner = change.owner
        held = self._replica.owners.get(owner)
        told = change.kind == "new" or any(key.startswith("addr/") for key in change.keys)
        if held is None or not told or owner == self._env.me:
            return
        self._book.told_anew(owner)
        pursued = bool(self._book.of_stack(owner))
        if (pursued or self._missing() > 0) and self._learn(owner, held):
            self._dial_stack(owner, self._courtesy_s(owner))

    def on_link_up(self, event: LinkUp) -> None:
        """A peer was met (its link may be a second one that was closed again): note where."""
        if event.outbound:
            target = self._under_way.pop(event.address, None)
            if target is not None:
                target.met, target.good = event.stack_id, True
                self._rest(target)
        told = event.addresses[:ADDRESSES_PER_STACK]
        for address in told:
            self._book.add(address, event.stack_id)
        for target in self._book.anonymous():
            if target.address in told:
                target.met = event.stack_id
        good = [target.address for target in self._book.of_stack(event.stack_id)]
        self._book.remember(event.stack_id, tuple(good[:ADDRESSES_PER_STACK]))

    def on_link_down(self, _event: LinkDown) -> None:
        """One link less: see whether another peer should take its place."""
        self._fill()

    def on_failed(self, event: DialFailed) -> None:
        """A dial came to nothing; `event.code` says whether the address is still of use."""
        if event.code == "self":
            self._book.is_own(event.address)
        target = self._under_way.pop(event.address, None)
        if target is None:
            return
        self._env.deadlines.drop(_key(target))
        if not self._book.holds(target):
            return
        target.good = False
        if event.code == "wrong_identity" and target.expect is not None:
            self._expect_nobody(target)
        else:
            self._again(target)
        self._fill()

    def retry_now(self, stack_id: StackId) -> None:
        """The stack has just been admitted by hand: dial it whatever the degree. It may be one
        that so far was met at a seed peer's address only, so those are tried as well."""
        self._sought[stack_id] = None
        self._let_go.pop(stack_id, None)
        for target in [*self._book.of_stack(stack_id), *self._book.anonymous()]:
            self._hasten(target, 0.0)

    def _neighbour_changed(self, stack_id: StackId) -> None:
        if self._neighbours.link_to(stack_id) is not None:
            self._linked[stack_id] = None
            self._lost.pop(stack_id, None)
            for target in self._book.of_stack(stack_id):
                self._rest(target)
        elif stack_id in self._linked and self._neighbours.edge(stack_id) is None:
            # Closed on purpose by either end: dialled again, it would only be closed again.
            del self._linked[stack_id]
            if not self._has_left(stack_id):  # who left and comes back wants its links again
                self._let_go[stack_id] = self._env.after(LET_GO_S)
            self._fill()
        elif stack_id in self._linked:
            # Suspect counts as lost here: the redial starts before the verdict.
            del self._linked[stack_id]
            self._lost[stack_id] = None
            self._dial_stack(stack_id)
            self._fill()

    def _expect_nobody(self, target: Target) -> None:
        """Another stack lives at this address now; only a seed peer is tried for its own sake."""
        self._book.is_wrong(target)
        if target.seed_peer:
            stranger = self._book.add(target.address, None, seed_peer=True)
            assert stranger is not None, "a seed peer that was dialled can be dialled again"
            self._hasten(stranger, 0.0)

    # --- choosing --------------------------------------------------------------------------------

    def _wanted(self, target: Target) -> bool:
        """Whether this target should be dialled, now that its turn has come."""
        peer = target.peer
        if self._stopped or not self._book.holds(target):
            return False
        if peer is not None and (peer in self._linked or self._trust.refuses(peer)):
            return False
        if peer is not None and self._is_let_go(peer):
            return False
        if (target.seed_peer and self._needs_seeds(peer)) or peer in self._sought:
            return True
        if self._env.settings.seeds_only or (peer is not None and self._has_left(peer)):
            return False
        if peer in self._lost and not self._neighbours.topology.reachable(peer):
            return True
        return peer in self._pursued() or self._missing() > 0

    def _needs_seeds(self, peer: StackId | None) -> bool:
        """A node with links enough does not hold on to a seed peer that it reaches by others."""
        enough = not (self._overlay.small or self._env.settings.seeds_only) and self._missing() <= 0
        return peer is None or not enough or not self._neighbours.topology.reachable(peer)

    def _is_let_go(self, stack_id: StackId) -> bool:
        """Whether a link to it was closed on purpose of late, and others lead there."""
        until = self._let_go.get(stack_id)
        if until is None:
            return False
        if self._env.now >= until:
            del self._let_go[stack_id]
            return False
        return self._neighbours.topology.reachable(stack_id)

    def _has_left(self, stack_id: StackId) -> bool:
        held = self._replica.owners.get(stack_id)
        return held is not None and held.left

    def _missing(self) -> int:
        """How many more links are wanted beside the dials under way to others than seed peers."""
        return self._overlay.missing(len(self._linked), len(self._pursued()))

    def _pursued(self) -> dict[StackId | str, None]:
        """The stacks (or, of strangers, the addresses) being dialled that are no seed peers.
        Several addresses of one stack lead to one link."""
        under_way = self._under_way.values()
        return {target.peer or target.address: None for target in under_way if not target.seed_peer}

    def _fill(self) -> None:
        """Dial as many stacks that rest as links are missing."""
        missing = self._missing()
        if missing <= 0 or self._stopped or self._env.settings.seeds_only:
            return
        for stack_id in self._overlay.pick(missing):
            self._dial_stack(stack_id)

    def _rests(self, stack_id: StackId) -> bool:
        """Whether a stack could be dialled: neither linked, nor refused, nor waiting for a dial of
        its own, and not gone for good."""
        if stack_id in self._linked or self._trust.refuses(stack_id) or self._has_left(stack_id):
            return False
        return not any(map(self._is_planned, self._book.of_stack(stack_id)))

    def _courtesy_s(self, stack_id: StackId) -> float:
        """When two stacks hear of each other at once, the smaller id's dial would win anyway."""
        return 0.0 if self._env.me < stack_id else STAGGER_S

    def _learn(self, owner: StackId, held: Held) -> bool:
        """Put the addresses that an owner tells into the book; True if there are any."""
        told = [(held.value(key) or {}).get("at") for key in held.keys("addr")]
        addresses = tuple(address for address in told if is_address(address))
        self._book.keep_only(owner, addresses)
        for address in addresses:
            self._book.add(address, owner)
        return bool(addresses)

    # --- upkeep ----------------------------------------------------------------------------------

    def _plan_upkeep(self) -> None:
        instant = self._env.after(self._env.jitter(UPKEEP_S))
        self._env.deadlines.set("dialling", instant, self._upkeep)

    def _upkeep(self) -> None:
        """Every few seconds: fill up, let go of what is too much, and look for those whom no path
        leads to. Lost peers are tried each, others by lot, so that a cut mesh does not dial all
        across at once."""
        self._plan_upkeep()
        for target in self._book.anonymous():
            if target.seed_peer and not self._is_planned(target):
                self._plan(target, 0.0)
        self._fill()
        self._trim()
        reachable = self._neighbours.topology.reachable
        for stack_id in list(self._lost):
            if not reachable(stack_id) and self._rests(stack_id):
                self._dial_stack(stack_id)
        self._sought = {}
        if not (self._env.settings.seeds_only or self._stopped):
            self._seek()

    def _trim(self) -> None:
        """Close a link that neither end needs; never one to a seed peer of ours."""
        seeds = dict.fromkeys(t.met for t in self._book.anonymous() if t.seed_peer)
        if not self._env.settings.seeds_only:
            stack_id = self._overlay.excess(lambda stack: stack in seeds)
            if stack_id is not None:
                self._neighbours.close(stack_id, "excess", "Both ends have links enough.")

    def _seek(self) -> None:
        """Stacks that are dialled whatever the number of links: some of those adrift, a lost peer
        that others still show a path to, now and then one whose lease is over, and now and then
        one that is much nearer than our farthest."""
        adrift = [s for s in self._neighbours.topology.adrift() if s not in self._lost]
        chosen = self._pick([s for s in adrift if self._rests(s)], ADRIFT_MAX)
        # That a path leads to a lost peer is others' word: one that keeps up a dead link in its
        # records would have everybody wait for a stack that lost its disk and knows nobody.
        chosen += self._pick([s for s in self._lost if s not in adrift and self._rests(s)], 1)
        if self._env.now >= self._rescue_at:
            self._rescue_at = self._env.after(self._env.jitter(RESCUE_S, 0.3))
            chosen += self._pick([s for s in self._replica.expired() if self._rests(s)], 1)
        if self._env.now >= self._nearer_at:
            self._nearer_at = self._env.after(self._env.jitter(NEARER_S, 0.5))
            nearer = self._overlay.nearer()
            chosen += [nearer] if nearer is not None else []
        self._sought = dict.fromkeys(chosen)
        for stack_id in chosen:
            self._dial_stack(stack_id)

    def _pick(self, stacks: list[StackId], most: int) -> list[StackId]:
        chance = self._env.chance
        picked: list[StackId] = []
        while stacks and len(picked) < most:
            picked.append(stacks.pop(chance.randrange(len(stacks))))
        return picked

    # --- the timer of one target -----------------------------------------------------------------

    def _plan(self, target: Target, delay_s: float) -> None:
        """Dial after `delay_s`, or earlier if that is planned already."""
        act = partial(self._dial, target)
        self._env.deadlines.set_earlier(_key(target), self._env.after(delay_s), act)

    def _is_planned(self, target: Target) -> bool:
        return _key(target) in self._env.deadlines

    def _rest(self, target: Target) -> None:
        """Nothing more is to be done here, except to wait for a dial that is under way."""
        target.fresh_start()
        if self._under_way.get(target.address) is not target:
            self._env.deadlines.drop(_key(target))

    def _hasten(self, target: Target, delay_s: float) -> None:
        """There is news of this target: start its series anew, soon."""
        target.fresh_start()
        if self._under_way.get(target.address) is not target:
            wait_s = target.dialled_at + AGAIN_S - self._env.now
            self._plan(target, max(delay_s, wait_s))

    def _dial_stack(self, stack_id: StackId, first_s: float = 0.0) -> None:
        """Plan a dial of every address of a stack, the best one first."""
        held = self._replica.owners.get(stack_id)
        if held is not None and stack_id != self._env.me:
            self._learn(stack_id, held)
        for at, target in enumerate(self._book.of_stack(stack_id)):
            self._hasten(target, first_s + at * STAGGER_S)

    def _dial(self, target: Target) -> None:
        if not self._wanted(target):
            return
        held_off_s = 0.0 if target.peer is None else self._trust.strikes.held_off_s(target.peer)
        if held_off_s > 0.0:
            self._plan(target, held_off_s)
            return
        full = not target.seed_peer and len(self._under_way) >= DIALS_MAX
        if full or target.address in self._under_way:
            self._plan(target, self._env.jitter(AGAIN_S))
            return
        if not self._may_begin(target):
            self._again(target)
            return
        env = self._env
        target.dialled_at = env.now
        if target.since is None:
            target.since = env.now
        self._under_way[target.address] = target
        env.emit(Dial(target.address, target.expect))
        overdue = env.after(env.settings.dial_timeout_s + OVERDUE_S)
        env.deadlines.set(_key(target), overdue, partial(self._overdue, target))

    def _may_begin(self, target: Target) -> bool:
        """Whether the dials of late leave room for this one. Those that we know always have it."""
        known = target.seed_peer or target.peer in self._lost
        return known or self._bucket.take(b"", 1.0, self._env.now)

    def _overdue(self, target: Target) -> None:
        del self._under_way[target.address]
        self._again(target)

    def _again(self, target: Target) -> None:
        """Plan the next try of a failed target, or give it up."""
        if target.since is None:
            # News of it came while the dial was under way, and began the series anew.
            target.since = self._env.now
        age_s = self._env.now - target.since
        peer = target.peer
        hopeless = peer is None or not self._replica.live(peer)
        if age_s > GIVE_UP_S and hopeless and not target.seed_peer:
            self._book.remove(target)
            if peer is not None and not self._book.of_stack(peer):
                self._lost.pop(peer, None)
                self._book.forget(peer)
            return
        self._plan(target, self._pause_s(age_s, target.tries))
        target.tries += 1

    def _pause_s(self, age_s: float, tries: int) -> float:
        """Half to all of a pause that doubles from 0.25 s up to what the series' age allows."""
        longest = next((most for until, most in PAUSES_S if age_s < until), PAUSE_MAX_S)
        pause = min(longest, PAUSE_FIRST_S * 2.0 ** min(tries, 10))
        return pause * (0.5 + 0.5 * self._env.chance.random())


def _key(target: Target) -> tuple[str, str, StackId | None]:
    return ("dial", target.address, target.expect)
