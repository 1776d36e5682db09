"""Which links mere refreshes travel: one tree that all stacks of a small mesh work out alike.

The tree of news grows from second copies and is mended by announcements. A refresh waits at every
hop for a ping to ride with, so which copy is the second is chance, and an announcement would be as
large as the refresh: in a mesh where nothing else is said such a tree falls to pieces, and all is
asked for again when half the leases are gone (three times the traffic at rest of 32 stacks). But
every stack knows the whole graph. So each works out the breadth-first tree from the smallest id
that a path leads to, and a refresh goes along its edges. Two ends that see different graphs for a
moment may lose some; who misses one asks for it, as ever (`core/antientropy`).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from tektonmesh.core.machine import Env
from tektonmesh.core.topology import NoTopology, Topology
from tektonmesh.core.types import StackId

REVIEW_S = 2.0
"""The tree is worked out anew at most so often, and when edges came or went."""


class Skeleton:
    """The edges of the tree at one node. `topology` is the link graph, told by whoever builds it;
    `passes_on` says whether a stack hands on what it hears."""

    def __init__(self, env: Env) -> None:
        self.topology: Topology = NoTopology()
        self.passes_on: Callable[[StackId], bool] = lambda _stack: True
        self._env = env
        self._shape = -1
        self._review_at = -inf
        self._left_out: dict[StackId, None] = {}

    def carries(self, peer: StackId) -> bool:
        """Whether the link to a peer is part of the tree, or of no graph that is known here."""
        if self._shape != self.topology.shape and self._env.now >= self._review_at:
            self._shape = self.topology.shape
            self._review_at = self._env.after(REVIEW_S)
            self._left_out = self._work_out()
        return peer not in self._left_out

    def _work_out(self) -> dict[StackId, None]:
        """The neighbours to which no edge of the tree leads."""
        me = self._env.me
        reached = [stack for stack in self._depths(me) if self.passes_on(stack)]
        if me not in reached:
            return {}
        depths = self._depths(min(reached))
        if me not in depths:
            return {}
        parent = self._parent(me, depths)
        return {
            peer: None
            for peer in self.topology.edges(me)
            if peer in depths and peer != parent and self._parent(peer, depths) != me
        }

    def _depths(self, root: StackId) -> dict[StackId, int]:
        """How many edges each stack is away from one; those that pass nothing on are ends."""
        depths = {root: 0}
        queue = [root]
        for here in queue:
            if here != root and not self.passes_on(here):
                continue
            for there in self.topology.edges(here):
                if there not in depths:
                    depths[there] = depths[here] + 1
                    queue.append(there)
        return depths

    def _parent(self, stack: StackId, depths: dict[StackId, int]) -> StackId | None:
        """The neighbour from which a stack hears: of those nearest to the root the smallest id."""
        above = [
            peer
            for peer in self.topology.edges(stack)
            if depths.get(peer, inf) < depths[stack] and self.passes_on(peer)
        ]
        return min(above, key=lambda peer: (depths[peer], peer), default=None)
