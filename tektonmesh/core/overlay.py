"""Which links this node should have: how many, to whom, and which one is too many.

After HyParView (Leitão, Pereira and Rodrigues, 2007): a few active links and a passive view of
others to draw from. Here every node holds everyone's signed addresses, so the passive view is drawn
from the replica and no peer can fill it with its friends; nothing is shuffled over the wire
(docs/design/decisions/0009). Half of the links that this node chooses are near, by what the signed
link records say of the round trips beyond its neighbours, the others are drawn by lot. Dialling is
`dialling`'s work, judging links `neighbours`'.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log10

from tektonmesh.core.machine import Env
from tektonmesh.core.neighbours import Neighbour, Neighbours
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import StackId

PASSIVE_SIZE = 30
PASSIVE_RENEW_S = 60.0
REDRAW_MIN_S = 1.0
"""A passive view that was used up is drawn anew, but not more often than this: it costs a look at
all owners."""
SLACK = 2
"""Links above the wanted number that are left alone: ends that disagree must not close and dial
the same link for ever."""
NEARER = 0.5
"""A stack is worth another link if it is this much nearer than our farthest one. A guess."""
OUTBOUND_PART = 3
"""At least every third link was chosen by this node: whoever dials us cannot be all we see
(Heilman et al., "Eclipse Attacks on Bitcoin's Peer-to-Peer Network", 2015)."""


def links_wanted(stacks: int, *, full_mesh: int, least: int, most: int) -> int:
    """How many links a node of a mesh of `stacks` wants: all up to `full_mesh` stacks, then
    HyParView's logarithmic degree."""
    if stacks <= full_mesh:
        return full_mesh - 1
    return max(least, min(most, round(2.5 * log10(stacks + 1))))


class Overlay:
    """The views of one node. `rests(stack)` says whether a stack could be dialled now: neither
    linked, nor waiting for a dial, nor refused."""

    def __init__(
        self,
        env: Env,
        replica: Replica,
        neighbours: Neighbours,
        rests: Callable[[StackId], bool],
    ) -> None:
        self._env = env
        self._replica = replica
        self._neighbours = neighbours
        self._rests = rests
        self._passive: list[StackId] = []
        self._drawn_at = float("-inf")
        self._near: dict[StackId, None] = {}

    # --- how many --------------------------------------------------------------------------------

    @property
    def small(self) -> bool:
        """Whether everyone is to be linked with everyone."""
        return self._replica.count() <= self._env.settings.links_full_mesh_max

    def wanted(self) -> int:
        """How many links this node wants."""
        settings = self._env.settings
        return links_wanted(
            self._replica.count(),
            full_mesh=settings.links_full_mesh_max,
            least=settings.links_min,
            most=settings.links_max,
        )

    def missing(self, linked: int, pursued: int) -> int:
        """How many more dials should be made, beside those under way: for the wanted number of
        links, and for those that this node is to have chosen itself."""
        wanted = self.wanted()
        missing = wanted - linked - pursued
        if self.small or missing > 0:
            return missing
        outbound = sum(neighbour.outbound for neighbour in self._neighbours.links.values())
        return max(missing, ceil(wanted / OUTBOUND_PART) - outbound - pursued)

    # --- to whom ---------------------------------------------------------------------------------

    def pick(self, most: int) -> list[StackId]:
        """Up to `most` stacks to dial, near ones and drawn ones by turns."""
        picked: list[StackId] = []
        near = self._near_ones() if most > 1 or len(self._near) < self.wanted() // 2 else []
        while len(picked) < most:
            stack = near.pop(0) if near and len(picked) % 2 == 0 else self._draw(picked)
            if stack is None:
                break
            if stack not in picked:
                picked.append(stack)
        return picked

    def nearer(self) -> StackId | None:
        """A stack that is worth one link more, since it is much nearer than our farthest."""
        links = list(self._neighbours.links.values())
        if self.small or len(links) >= self.wanted() + SLACK:
            return None
        found = self._estimates()
        if not found or not links:
            return None
        cost, stack = found[0]
        farthest_ms = max(link.cost.ms for link in links)
        if cost >= farthest_ms * NEARER:
            return None
        self._near[stack] = None
        return stack

    def _near_ones(self) -> list[StackId]:
        return [stack for _cost, stack in self._estimates()]

    def _estimates(self) -> list[tuple[int, StackId]]:
        """The stacks two links away that rest, with the cost of the way there, cheapest first."""
        topology, best = self._neighbours.topology, dict[StackId, int]()
        for neighbour in self._neighbours.links.values():
            for peer, cost in topology.edges(neighbour.stack_id).items():
                way = neighbour.cost.ms + cost
                if peer != self._env.me and way < best.get(peer, way + 1):
                    best[peer] = way
        return sorted((way, peer) for peer, way in best.items() if self._rests(peer))

    def _draw(self, but: list[StackId]) -> StackId | None:
        """One of the passive view by lot; None if nobody rests."""
        self.renew()
        stack = self._draw_kept(but)
        if stack is None and self._env.now - self._drawn_at >= REDRAW_MIN_S:
            self._draw_view()
            stack = self._draw_kept(but)
        return stack

    def _draw_kept(self, but: list[StackId]) -> StackId | None:
        chance = self._env.chance
        while self._passive:
            stack = self._passive.pop(chance.randrange(len(self._passive)))
            if stack not in but and self._rests(stack):
                return stack
        return None

    def renew(self) -> None:
        """Draw the passive view anew when it is old."""
        if self._env.now - self._drawn_at >= PASSIVE_RENEW_S:
            self._draw_view()

    def _draw_view(self) -> None:
        """Thirty owners by lot: the first steps of a shuffle (Fisher and Yates)."""
        self._drawn_at = self._env.now
        owners = [owner for owner in self._replica.owners if owner != self._env.me]
        chance = self._env.chance
        for at in range(min(PASSIVE_SIZE, len(owners))):
            other = at + chance.randrange(len(owners) - at)
            owners[at], owners[other] = owners[other], owners[at]
        self._passive = [owner for owner in owners[:PASSIVE_SIZE] if self._replica.live(owner)]

    # --- which is too many -----------------------------------------------------------------------

    def excess(self, keep: Callable[[StackId], bool]) -> StackId | None:
        """A neighbour whose link is one too many for both ends, if there is one. `keep` says which
        are not to be closed."""
        links = list(self._neighbours.links.values())
        limit = self.wanted() + SLACK
        if self.small or len(links) <= limit:
            return None
        self._near = {link.stack_id: None for link in links if link.stack_id in self._near}
        outbound = sum(link.outbound for link in links)
        spare_outbound = outbound > ceil(self.wanted() / OUTBOUND_PART)
        found = [
            link
            for link in links
            if self._can_go(link, limit) and (spare_outbound or not link.outbound)
        ]
        found = [link for link in found if not keep(link.stack_id)]
        if not found:
            return None
        if len(self._near) > limit // 2:
            return max(found, key=lambda link: (link.stack_id in self._near, link.cost.ms)).stack_id
        far = [link for link in found if link.stack_id not in self._near] or found
        return max(far, key=lambda link: (link.cost.ms, link.stack_id)).stack_id

    def _can_go(self, link: Neighbour, limit: int) -> bool:
        """Whether the peer has links to spare as well, by what it publishes itself."""
        return len(self._neighbours.topology.edges(link.stack_id)) > limit
