"""Which neighbour to hand an envelope to, best first: shortest paths over the two-sided graph.

This module orders next hops; it sends nothing and forgets nothing on purpose. What to do when a
hop fails, and which stacks an envelope has visited, is `forwarding`'s (docs/design/paths.md).
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence

from tektonmesh.core.frozen import frozen
from tektonmesh.core.graph import Graph
from tektonmesh.core.machine import Env
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.types import LinkId, StackId, short_id

DIRECT_FACTOR = 1.25
"""A direct link wins over a path that is faster by less: one relay less can fail or look on."""

TABLES_MAX = 64
"""Distance tables kept, one for each destination (and list of excluded stacks) in use. Each has
an entry for every stack."""

CHOICES_MAX = 4096
"""Ready lists of hops kept; a relay under load asks for the same few over and over."""

Distances = dict[StackId, int]


@frozen
class Hop:
    """A next hop: the link to use, the stack at its end, and what the whole path costs in ms."""

    link: LinkId
    stack_id: StackId
    cost: int


@frozen
class Ways:
    """`found` has for each stack what its path costs in ms, and the stack before it on it."""

    found: dict[StackId, tuple[int, StackId]]

    def cost(self, dest: StackId) -> int | None:
        found = self.found.get(dest)
        return None if found is None else found[0]

    def path(self, dest: StackId) -> list[StackId]:
        """Both ends included; empty when no path leads there."""
        path = [dest] if dest in self.found else []
        while path and (before := self.found[path[-1]][1]) != path[-1]:
            assert len(path) <= len(self.found), "every stack before costs less"
            path.append(before)
        return path[::-1]


class Paths:
    """Next hops for every destination, remembered until the graph changes."""

    def __init__(self, env: Env, graph: Graph, neighbours: Neighbours) -> None:
        self._env = env
        self._graph = graph
        self._neighbours = neighbours
        self._generation = -1
        self._tables: OrderedDict[tuple[StackId, tuple[bytes, ...]], Distances] = OrderedDict()
        self._choices: OrderedDict[tuple[StackId, tuple[bytes, ...], bool], list[Hop]] = (
            OrderedDict()
        )

    def candidates(
        self, dest: StackId, *, exclude: Sequence[bytes] = (), own: bool = True
    ) -> list[Hop]:
        """The next hops towards `dest`, best first; empty when there is none. Not to be changed.

        `exclude` are short ids that the envelope must not meet again. Hops whose only known way
        leads through one of those come last: they may know of an edge that we have not heard of.
        A neighbour that relays for its linked peers only does so for us (`own`); for another's
        envelope it may not, and comes last unless `dest` is such a peer.
        """
        self._refresh()
        key = (dest, tuple(sorted(exclude)), own)
        known = self._choices.get(key)
        if known is None:
            known = self._choices[key] = self._choose(dest, key[1], own)
            if len(self._choices) > CHOICES_MAX:
                self._choices.popitem(last=False)
        else:
            self._choices.move_to_end(key)
        return known

    def cost(self, dest: StackId) -> int | None:
        """What the best path costs in ms; 0 for this stack, None when no path leads there."""
        if dest == self._env.me:
            return 0
        hops = self.candidates(dest)
        return hops[0].cost if hops else None

    def path(
        self, dest: StackId, *, via: StackId | None = None, exclude: Sequence[bytes] = ()
    ) -> list[StackId]:
        """The stacks of the best path as this node sees it, both ends included; empty without
        one. It begins with the neighbour `via` if that is a next hop, and meets none of the short
        ids `exclude`. The relays decide for themselves, so an envelope may take another one."""
        me = self._env.me
        if dest == me:
            return [me]
        hops = [hop.stack_id for hop in self.candidates(dest, exclude=exclude)]
        if not hops:
            return []
        table = self._table(dest, tuple(sorted(exclude)))
        path = [me, via if via is not None and via in hops else hops[0]]
        while path[-1] != dest:
            assert len(path) <= len(table) + 1, "every step is nearer, so no stack comes twice"
            onward = self._ranked(path[-1], dest, table)
            if not onward:
                return []  # it is hoped to know a way that is not known here
            path.append(onward[0][1])
        return path

    def ways(self) -> Ways:
        """The shortest path to every stack by one search from here, for listings: `path` needs a
        table for each destination. Where several are as short, or a direct link is preferred to
        a shorter way, `path` may differ."""
        graph, me = self._graph, self._env.me
        ways = Ways({me: (0, me)})
        done: dict[StackId, None] = {}
        heap = [(0, me)]
        while heap:
            so_far, here = heapq.heappop(heap)
            transit = 0 if here == me else graph.transit_ms(here)
            if here in done or transit is None:
                continue
            done[here] = None
            for peer, cost in graph.edges(here).items():
                total = so_far + transit + cost
                known = ways.found.get(peer)
                if known is None or total < known[0]:
                    ways.found[peer] = total, here
                    heapq.heappush(heap, (total, peer))
        return ways

    def _refresh(self) -> None:
        generation = self._graph.generation
        if generation != self._generation:
            self._generation = generation
            self._tables.clear()
            self._choices.clear()

    def _choose(self, dest: StackId, exclude: tuple[bytes, ...], own: bool) -> list[Hop]:
        me = self._env.me
        if dest == me or short_id(dest) in exclude:
            return []
        ranked = self._ranked(me, dest, self._table(dest, exclude), near=own)
        doubtful = [] if own else self._ranked(me, dest, self._table(dest, exclude), near=True)
        if exclude:
            doubtful += self._ranked(me, dest, self._table(dest, ()), near=True)
        sure = {peer: None for _cost, peer in ranked}
        for cost, peer in doubtful:
            if peer not in sure and short_id(peer) not in exclude:
                sure[peer] = None
                ranked.append((cost, peer))
        links = [(self._neighbours.link_to(peer), peer, cost) for cost, peer in ranked]
        return [Hop(link.link, peer, cost) for link, peer, cost in links if link is not None]

    def _ranked(
        self, here: StackId, dest: StackId, table: Distances, *, near: bool = False
    ) -> list[tuple[int, StackId]]:
        """The ways on from `here`: (cost of the whole path, neighbour), best first. With `near`
        also by those that relay for `here` because it is linked with them."""
        ways = []
        for peer, cost in self._graph.edges(here).items():
            transit = self._transit_ms(peer, dest, near=near)
            if peer in table and transit is not None and peer != self._env.me:
                ways.append((cost + transit + table[peer], peer))
        ways.sort()
        direct = self._graph.edges(here).get(dest)
        if direct is not None and ways and direct <= DIRECT_FACTOR * ways[0][0]:
            ways.sort(key=lambda way: way[1] != dest)
        return ways

    def _transit_ms(self, stack_id: StackId, dest: StackId, *, near: bool) -> int | None:
        """What passing a stack on the way to `dest` costs; None if it would not pass it on."""
        if stack_id == dest:
            return 0
        willing = near or self._graph.passes(stack_id, dest)
        return self._graph.transit_ms(stack_id) if willing else None

    def _table(self, dest: StackId, exclude: tuple[bytes, ...]) -> Distances:
        key = (dest, exclude)
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = self._measure(dest, exclude)
            if len(self._tables) > TABLES_MAX:
                self._tables.popitem(last=False)
        else:
            self._tables.move_to_end(key)
        return table

    def _measure(self, dest: StackId, exclude: tuple[bytes, ...]) -> Distances:
        """The cost from every stack to `dest` without passing through this one (Dijkstra 1959,
        from the destination). Stacks that do not relay get a distance and are not passed."""
        graph, me = self._graph, self._env.me
        shut = dict.fromkeys(exclude)
        table: Distances = {dest: 0}
        done: dict[StackId, None] = {}
        heap = [(0, dest)]
        while heap:
            _, here = heapq.heappop(heap)
            transit = self._transit_ms(here, dest, near=False)
            if here in done or here == me or transit is None:
                continue
            assert here in table, "what is in the heap has a distance"
            done[here] = None
            start = table[here] + transit
            for peer, cost in graph.edges(here).items():
                so_far = start + cost
                known = table.get(peer)
                if (known is None or so_far < known) and not (shut and short_id(peer) in shut):
                    table[peer] = so_far
                    heapq.heappush(heap, (so_far, peer))
        return table
