"""The link graph: who is joined to whom, and so who is up, unreachable, deregistered or left.

Every stack signs its own links only; this module counts an edge when both of its ends sign it and
derives every stack's state from that, so nobody can publish another's death. At this node's own
edges its own eyes count instead of records. Choosing a way is left to `paths`; judging the own
links to `neighbours` (docs/design/paths.md).
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from tektonmesh.core.forest import Forest
from tektonmesh.core.ids import show_id
from tektonmesh.core.layers import keep, layer, own_dict
from tektonmesh.core.machine import Env
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.ownlinks import SUSPECT, UP, link_key
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import ID_SIZE, StackId, StackState, Status

SETTLE_S = 0.05
"""Watchers hear of changes in groups of this length; whoever asks gets the answer of the moment."""

COST_MAX_MS = 10_000

DRAINING_MS = 100_000
"""Added for passing through a stack that is about to leave: more than any real path costs."""

_STATE_NOTICES = {
    StackState.UP: "stack_up",
    StackState.UNREACHABLE: "stack_unreachable",
    StackState.DEREGISTERED: "stack_deregistered",
    StackState.LEFT: "stack_left",
}
_PRESENT = (StackState.UP, StackState.UNREACHABLE)

Claim = tuple[int, str]
"""What one end says of an edge: its cost in ms and the state of the link."""

Seen = tuple[int, bool, Status, bool]
"""What an owner was at its last change: its place in the order of first sight, whether it is live,
the status in its head, and whether its lease ran out."""


def read_claim(key: str, value: dict[str, Any] | None) -> tuple[StackId, Claim] | None:
    """A link record as (peer, claim); None when it makes no sense. Records of others are input
    from strangers: a cost may be absurd and a key may belong to another peer."""
    if value is None:
        return None
    peer, cost = value.get("peer"), value.get("cost")
    if not isinstance(peer, bytes) or len(peer) != ID_SIZE or key != link_key(peer):
        return None
    if type(cost) is not int:
        return None
    state = UP if value.get("state") == UP else SUSPECT
    return peer, (min(max(cost, 1), COST_MAX_MS), state)


class Graph:
    """The two-sided graph of all live owners.

    Edges, and who is connected with us, follow every change at once and cost what it changes.
    `generation` rises and transitions are told when somebody asks after a change, and 50 ms after
    it at the latest, when watchers are told.
    """

    def __init__(
        self, env: Env, replica: Replica, neighbours: Neighbours, base: Graph | None = None
    ) -> None:
        self._env = env
        self._replica = replica
        self._neighbours = neighbours
        self._claims: MutableMapping[StackId, dict[StackId, Claim]] = layer(
            None if base is None else base._claims
        )
        self._consent: MutableMapping[StackId, str] = layer(None if base is None else base._consent)
        self._seen: MutableMapping[StackId, Seen] = layer(None if base is None else base._seen)
        self._named: MutableMapping[StackId, str] = layer(None if base is None else base._named)
        self._edges: MutableMapping[StackId, dict[StackId, int]] = layer(
            None if base is None else base._edges
        )
        self._forest: Forest = Forest(env.me, None if base is None else base._forest)
        self._order: int = 0 if base is None else base._order
        self._before: dict[StackId, tuple[int, StackState | None]] = {}
        self._generation = 0
        self.shape = 0
        self._dirty = True
        self._watchers: list[Callable[[], None]] = []
        if base is None:
            for owner in replica.owners:
                self._read(owner)
            self._forest.flatten()
        else:
            self._forget_own()
        self._adrift: dict[StackId, None] = {}
        for owner in self._before:
            self._note_adrift(owner)
        self._before.clear()  # what is there at the start is no news
        neighbours.topology = self
        neighbours.watch(self._neighbour_changed)

    def _forget_own(self) -> None:
        """The base knows this stack from its records, which count for nothing here. The edges
        that it read in them stand until our links say otherwise: we go on where we were."""
        for kept in (self._claims, self._consent, self._seen, self._named):
            kept.pop(self._env.me, None)

    # --- reads -----------------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """Names one state of the graph; whatever was derived under another number is stale."""
        self._settle()
        return self._generation

    def state(self, stack_id: StackId) -> StackState:
        """A stack that nothing is known of counts as deregistered."""
        if stack_id == self._env.me:
            return StackState.SELF
        self._settle()
        seen = self._seen.get(stack_id)
        if seen is None:
            return StackState.DEREGISTERED
        return _derive(seen, self._forest.connected(stack_id))

    def reachable(self, stack_id: StackId) -> bool:
        """Whether the stack is this one or up."""
        return self.state(stack_id) in (StackState.SELF, StackState.UP)

    def connected(self, stack_id: StackId) -> bool:
        """Whether a chain of edges leads there at this very instant, told or not."""
        return self._forest.connected(stack_id)

    def edges(self, stack_id: StackId) -> dict[StackId, int]:
        """The edges that may be routed over: neighbour -> cost in ms. Not to be changed."""
        return self._edges.get(stack_id, {})

    def witnesses(self, stack_id: StackId) -> Sequence[StackId]:
        """The other stacks that share an edge with `stack_id`, suspect ones included."""
        return [peer for peer in self._forest.near(stack_id) if peer != self._env.me]

    def adrift(self) -> Sequence[StackId]:
        """The live stacks that no path leads to."""
        self._settle()
        return tuple(self._adrift)

    def joined(self, one: StackId, other: StackId) -> bool:
        """Whether both ends say that there is a link, suspect or not."""
        return other in self._forest.near(one)

    def observers(self, stack_id: StackId) -> list[StackId]:
        """On whose word it hangs whether a stack is up: the live ones that it says it is linked to
        or that share an edge with it, this one included. If it is one, a single stack's word makes
        it unreachable for all."""
        others = [*self._claims.get(stack_id, ()), *self._forest.near(stack_id)]
        return [other for other in dict.fromkeys(others) if self._is_heard(other)]

    def _is_heard(self, stack_id: StackId) -> bool:
        seen = self._seen.get(stack_id)
        return stack_id == self._env.me or (seen is not None and seen[1])

    def claims(self, stack_id: StackId) -> dict[StackId, Claim]:
        """What a live stack says of its links; of this one, what its own eyes see."""
        if stack_id != self._env.me:
            return dict(self._claims.get(stack_id, {}))
        peers = dict.fromkeys(link.stack_id for link in self._neighbours.links.values())
        own = {peer: self._neighbours.edge(peer) for peer in peers}
        return {peer: claim for peer, claim in own.items() if claim is not None}

    def claim(self, one: StackId, other: StackId) -> Claim | None:
        """What `one` says of its link to `other`; None when it says nothing that counts."""
        if one == self._env.me:
            return self._neighbours.edge(other)
        return self._claims.get(one, {}).get(other)

    def claimants(self, stack_id: StackId) -> list[StackId]:
        """The other stacks that say they are linked to this one, confirmed or not."""
        return [owner for owner, claims in self._claims.items() if stack_id in claims]

    def transit_ms(self, stack_id: StackId) -> int | None:
        """What passing through a stack costs on top of its edges; None when it does not relay."""
        if self._consent.get(stack_id) == "none":
            return None
        return DRAINING_MS if self.draining(stack_id) else 0

    def draining(self, stack_id: StackId) -> bool:
        """Whether a stack says that it is about to leave."""
        held = self._replica.owners.get(stack_id)
        return held is not None and held.head.status == Status.DRAINING

    def passes(self, stack_id: StackId, dest: StackId) -> bool:
        """Whether a stack relays to `dest` whoever asks; one that relays for its linked peers only
        does so for those that it is linked with."""
        consent = self._consent.get(stack_id)
        return consent is None or (consent == "peers" and dest in self.edges(stack_id))

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback()` after the graph has changed, at most once in 50 ms."""
        self._watchers.append(callback)

    # --- changes ---------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """An owner's news: only links, the own words of a stack and its life matter here."""
        owner = change.owner
        if owner == self._env.me:
            return
        about_links = [key for key in change.keys if key.startswith("link/")]
        told = change.kind == "new" or about_links or "stack/self" in change.keys
        if told or self._look(owner) != self._seen.get(owner):
            self._read(owner)
            self._touch()
            self._doubt(owner, about_links)

    def _neighbour_changed(self, stack_id: StackId) -> None:
        self._rejoin(stack_id)
        self._touch()

    def _look(self, owner: StackId) -> Seen | None:
        """What an owner is now. The end of a lease after it left makes no difference."""
        held = self._replica.owners.get(owner)
        if held is None:
            return None
        known = self._seen.get(owner)
        order = self._order if known is None else known[0]
        ended = held.expired and not held.left
        return order, self._replica.live(owner), held.head.status, ended

    def _touch(self) -> None:
        """The graph changed; watchers are told soon."""
        self._dirty = True
        self._env.deadlines.set_earlier("graph", self._env.after(SETTLE_S), self._tell_watchers)

    def _tell_watchers(self) -> None:
        self._settle()
        for watcher in self._watchers:
            watcher()

    def _doubt(self, owner: StackId, keys: Sequence[str]) -> None:
        """A suspicion that another stack publishes makes us make sure ourselves."""
        claims = self._claims.get(owner, {})
        for peer, (_cost, state) in claims.items():
            if state == SUSPECT and link_key(peer) in keys:
                self._neighbours.doubt(owner if peer == self._env.me else peer)

    def _read(self, owner: StackId) -> None:
        """Take over what an owner says of its links and of relaying."""
        self._note(owner)
        seen = self._look(owner)
        if seen is not None and owner not in self._seen:
            self._order += 1
        keep(self._seen, owner, seen)
        held = self._replica.owners.get(owner)
        claims: dict[StackId, Claim] = {}
        consent = None
        if held is not None:
            read = [read_claim(key, held.value(key)) for key in held.keys("link")]
            about = held.value("stack/self") or {}
            # Reading may show that one record is no record: then none of them counts.
            if self._replica.live(owner) and not held.quarantined:
                claims = dict(entry for entry in read if entry is not None)
                claims.pop(owner, None)
            name = about.get("name")
            if isinstance(name, str):
                keep(self._named, owner, name)
            consent = about.get("relay")
        keep(self._claims, owner, claims or None)
        keep(self._consent, owner, consent if consent in ("none", "peers") else None)
        self._rejoin(owner)

    # --- edges -----------------------------------------------------------------------------------

    def _rejoin(self, owner: StackId) -> None:
        """Bring the edges of one owner in line with what is said of them; those that stay as they
        are cost nothing."""
        claimed = self._claimed(owner)
        for peer in [peer for peer in self._forest.near(owner) if peer not in claimed]:
            self._part(owner, peer)
        for peer, (claim, back) in claimed.items():
            self._join(owner, peer, claim, back)

    def _claimed(self, owner: StackId) -> dict[StackId, tuple[Claim, Claim]]:
        """The edges that an owner shall have, with what both ends say of them. At the one between
        it and this stack, what it says may lag behind our own eyes; only its cost is of use."""
        me = self._env.me
        claimed = {}
        said = self._claims.get(owner, {})
        for peer, claim in said.items():
            back = self._claims.get(peer, {}).get(owner)
            if back is not None and peer != me:
                claimed[peer] = claim, back
        own = self._neighbours.edge(owner)
        seen = self._seen.get(owner)
        if own is not None and seen is not None and seen[1]:
            claimed[me] = own, (said.get(me, own)[0], own[1])
        return claimed

    def _join(self, one: StackId, other: StackId, claim: Claim, back: Claim) -> None:
        assert one != other, "no stack has an edge to itself"
        assert min(claim[0], back[0]) >= 1, "costs are positive, or paths might never end"
        if other not in self._forest.near(one):
            for moved in self._forest.join(one, other):
                self._note(moved, reached=False)
        if claim[1] == back[1] == UP:
            cost, known = max(claim[0], back[0]), self.edges(one).get(other)
            if known != cost:
                self.shape += known is None
                own_dict(self._edges, one)[other] = own_dict(self._edges, other)[one] = cost
        else:
            self._close(one, other)

    def _part(self, one: StackId, other: StackId) -> None:
        """There is no edge any more."""
        self._close(one, other)
        for moved in self._forest.cut(one, other):
            self._note(moved, reached=True)

    def _close(self, one: StackId, other: StackId) -> None:
        """Nothing is routed over this edge any more."""
        self.shape += other in self.edges(one)
        for here, there in ((one, other), (other, one)):
            if there in self.edges(here):
                del own_dict(self._edges, here)[there]
                keep(self._edges, here, self._edges[here] or None)

    # --- states ----------------------------------------------------------------------------------

    def _note(self, owner: StackId, *, reached: bool | None = None) -> None:
        """Keep the state that an owner had when states were last told: it is about to change.
        `reached` says whether it was connected with us, if that has changed already."""
        if owner in self._before:
            return
        seen = self._seen.get(owner)
        if seen is None:
            self._before[owner] = 0, None
            return
        if reached is None:
            reached = self._forest.connected(owner)
        # Before anything was told, nothing had a state that could have changed.
        told = self._generation > 0
        self._before[owner] = seen[0], _derive(seen, reached) if told else None

    def _settle(self) -> None:
        """Tell the transitions since the last time if anything changed: of those that are known
        in the order in which they came to be, then of those that are forgotten."""
        if not self._dirty:
            return
        self._dirty = False
        self._generation += 1
        noted, self._before = self._before, {}
        known = sorted((self._seen[owner][0], owner) for owner in noted if owner in self._seen)
        gone = sorted((noted[owner][0], owner) for owner in noted if owner not in self._seen)
        for _order, owner in known + gone:
            before, after = noted[owner][1], self.state(owner)
            self._note_adrift(owner)
            if before is not after:
                self._tell_transition(owner, before, after)

    def _note_adrift(self, owner: StackId) -> None:
        seen = self._seen.get(owner)
        apart = seen is not None and seen[1] and not self._forest.connected(owner)
        if apart and owner != self._env.me:
            self._adrift[owner] = None
        else:
            self._adrift.pop(owner, None)

    def _tell_transition(
        self, owner: StackId, before: StackState | None, after: StackState
    ) -> None:
        """Say what changed for a stack. One that only becomes known as unreachable or gone, as
        all do while this node starts, is no news."""
        shown = self._named.get(owner, "")
        if owner not in self._replica.owners:
            self._named.pop(owner, None)
        if after != StackState.UP and before not in _PRESENT:
            return
        self._env.notice(_STATE_NOTICES[after], stack=shown, id=show_id(owner), name=shown)


def _derive(seen: Seen, reached: bool) -> StackState:
    _order, _live, status, ended = seen
    if status == Status.LEFT:
        return StackState.LEFT
    if ended:
        return StackState.DEREGISTERED
    return StackState.UP if reached else StackState.UNREACHABLE
