"""The link graph: who is joined to whom, and so who is up, unreachable, deregistered or left.

Every stack signs its own links only; this module counts an edge when both of its ends sign it and
derives every stack's state from that, so nobody can publish another's death. At this node's own
edges its own eyes count instead of records. Choosing a way is left to `paths`; judging the own
links to `neighbours` (docs/design/paths.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tektonmesh.core.held import Held
from tektonmesh.core.ids import show_id
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

    Edges follow every change at once. The states are worked out when they are asked for after a
    change, and 50 ms after it at the latest, when watchers are told; `generation` rises then.
    """

    def __init__(self, env: Env, replica: Replica, neighbours: Neighbours) -> None:
        self._env = env
        self._replica = replica
        self._neighbours = neighbours
        self._claims: dict[StackId, dict[StackId, Claim]] = {}
        self._no_relay: dict[StackId, None] = {}
        self._seen: dict[StackId, tuple[bool, Status]] = {}
        self._named: dict[StackId, str] = {}
        self._edges: dict[StackId, dict[StackId, int]] = {}
        self._joined: dict[StackId, dict[StackId, None]] = {}
        self._states: dict[StackId, StackState] = {}
        self._generation = 0
        self._dirty = True
        self._watchers: list[Callable[[], None]] = []
        for owner in replica.owners:
            self._read(owner)
        neighbours.topology = self
        neighbours.watch(self._neighbour_changed)

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
        return self._states.get(stack_id, StackState.DEREGISTERED)

    def reachable(self, stack_id: StackId) -> bool:
        """Whether the stack is this one or up."""
        return self.state(stack_id) in (StackState.SELF, StackState.UP)

    def edges(self, stack_id: StackId) -> dict[StackId, int]:
        """The edges that may be routed over: neighbour -> cost in ms. Not to be changed."""
        return self._edges.get(stack_id, {})

    def witnesses(self, stack_id: StackId) -> Sequence[StackId]:
        """The other stacks that share an edge with `stack_id`, suspect ones included."""
        return [peer for peer in self._joined.get(stack_id, ()) if peer != self._env.me]

    def transit_ms(self, stack_id: StackId) -> int | None:
        """What passing through a stack costs on top of its edges; None when it does not relay."""
        if stack_id in self._no_relay:
            return None
        held = self._replica.owners.get(stack_id)
        draining = held is not None and held.head.status == Status.DRAINING
        return DRAINING_MS if draining else 0

    def watch(self, callback: Callable[[], None]) -> None:
        """Call `callback()` after the graph has changed, at most once in 50 ms."""
        self._watchers.append(callback)

    # --- changes ---------------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """An owner's news: only links, the own words of a stack and its life matter here."""
        owner = change.owner
        if owner == self._env.me:
            return
        held = self._replica.owners.get(owner)
        seen = None if held is None else (self._replica.live(owner), held.head.status)
        about_links = [key for key in change.keys if key.startswith("link/")]
        told = change.kind == "new" or about_links or "stack/self" in change.keys
        if told or seen != self._seen.get(owner):
            self._read(owner)
            self._touch()
            self._doubt(owner, about_links)

    def _neighbour_changed(self, stack_id: StackId) -> None:
        self._rejoin(stack_id)
        self._touch()

    def _touch(self) -> None:
        """The states are stale; watchers are told soon."""
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
        for kept in (self._claims, self._no_relay, self._seen):
            kept.pop(owner, None)
        held = self._replica.owners.get(owner)
        if held is not None:
            live = self._replica.live(owner)
            self._seen[owner] = (live, held.head.status)
            read = [read_claim(key, held.value(key)) for key in held.keys("link")]
            about = held.value("stack/self") or {}
            # Reading may show that one record is no record: then none of them counts.
            if live and not held.quarantined:
                claims = dict(entry for entry in read if entry is not None)
                claims.pop(owner, None)
                self._claims[owner] = claims
            name = about.get("name")
            if isinstance(name, str):
                self._named[owner] = name
            if about.get("relay") == "none":
                self._no_relay[owner] = None
        self._rejoin(owner)

    # --- edges -----------------------------------------------------------------------------------

    def _rejoin(self, owner: StackId) -> None:
        """Bring all edges of one owner in line with what is said of them."""
        for peer in self._joined.pop(owner, {}):
            del self._joined[peer][owner]
            self._edges.get(peer, {}).pop(owner, None)
        self._edges.pop(owner, None)
        for peer, claim in self._claims.get(owner, {}).items():
            back = self._claims.get(peer, {}).get(owner)
            if back is not None and peer != self._env.me:
                self._join(owner, peer, claim, back)
        self._join_own(owner)

    def _join_own(self, peer: StackId) -> None:
        """The edge between this stack and a live neighbour. What the peer says of it may lag
        behind our own eyes; only its cost is of use."""
        own = self._neighbours.edge(peer)
        if own is not None and self._seen.get(peer, (False,))[0]:
            their_cost = self._claims.get(peer, {}).get(self._env.me, own)[0]
            self._join(self._env.me, peer, own, (their_cost, own[1]))

    def _join(self, one: StackId, other: StackId, claim: Claim, back: Claim) -> None:
        assert one != other, "no stack has an edge to itself"
        assert min(claim[0], back[0]) >= 1, "costs are positive, or paths might never end"
        for here, there in ((one, other), (other, one)):
            self._joined.setdefault(here, {})[there] = None
            if claim[1] == back[1] == UP:
                self._edges.setdefault(here, {})[there] = max(claim[0], back[0])

    # --- states ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Work the states out again if anything changed since the last time."""
        if not self._dirty:
            return
        self._dirty = False
        self._generation += 1
        reached = self._reach()
        before, self._states = self._states, {}
        for owner, held in self._replica.owners.items():
            if owner != self._env.me:
                after = self._states[owner] = _derive(held, owner in reached)
                was = before.pop(owner, None)
                if was is not after:
                    self._tell_transition(owner, was, after)
        for owner, state in before.items():
            self._tell_transition(owner, state, StackState.DEREGISTERED)

    def _reach(self) -> dict[StackId, None]:
        """Everyone that a path of any edges leads to, suspect ones included: a link that restarts
        must not make a stack unreachable."""
        reached = {self._env.me: None}
        queue = [self._env.me]
        for here in queue:
            for there in self._joined.get(here, ()):
                if there not in reached:
                    reached[there] = None
                    queue.append(there)
        return reached

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


def _derive(held: Held, reached: bool) -> StackState:
    if held.left:
        return StackState.LEFT
    if held.expired:
        return StackState.DEREGISTERED
    return StackState.UP if reached else StackState.UNREACHABLE
