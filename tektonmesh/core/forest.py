"""Who is connected with whom while edges come and go, at the cost of what a change moves.

Every connected part of the graph is spanned by a tree, kept as one parent for each stack; two
stacks are connected if the walks to their roots end in the same place. An edge that joins two
trees hangs the smaller below the larger. When an edge of a tree goes, both sides are searched in
lockstep for another edge between them, so that it costs what the smaller side costs at most
(S. Even, Y. Shiloach, "An On-Line Edge-Deletion Problem", JACM 1981). On the well-joined graphs of
a mesh another edge is found after a few stacks. What edges mean is for `core/graph`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from itertools import cycle

from tektonmesh.core.layers import keep, layer, own_dict
from tektonmesh.core.types import StackId

STEPS_MAX = 32
"""A longer walk to a root has its tree built anew, breadth first. In a mesh of 10,000 stacks such
a tree is some 6 steps high, and changes make it higher by and by."""

_NONE: Mapping[StackId, None] = {}


class Forest:
    """The edges and a spanning forest of them. `anchor` is the stack whose part of the graph
    matters: every change tells who became connected with it, or no longer is."""

    def __init__(self, anchor: StackId, base: Forest | None = None) -> None:
        self._near: MutableMapping[StackId, dict[StackId, None]] = layer(
            None if base is None else base._near
        )
        self._parent: MutableMapping[StackId, StackId] = layer(
            None if base is None else base._parent
        )
        self._steps_max: int = STEPS_MAX if base is None else base._steps_max
        self._deep: StackId | None = None
        self._anchor = anchor

    # --- reads -----------------------------------------------------------------------------------

    def near(self, stack: StackId) -> Mapping[StackId, None]:
        """The stacks that an edge joins to this one. Not to be changed."""
        return self._near.get(stack) or _NONE

    def connected(self, stack: StackId) -> bool:
        """Whether edges lead from the anchor to this stack."""
        return self._root(stack) == self._root(self._anchor)

    # --- changes ---------------------------------------------------------------------------------

    def join(self, one: StackId, other: StackId) -> list[StackId]:
        """Add an edge that is not there. Returns who is connected with the anchor by it."""
        assert one != other and other not in self.near(one)
        here, there = self._root(one), self._root(other)
        own_dict(self._near, one)[other] = None
        own_dict(self._near, other)[one] = None
        if here == there:
            return []
        moved = self._apart(here, there)
        if self._is_smaller(here, there):
            one, other = other, one
        self._hang(other, one)
        self._flatten()
        return moved

    def cut(self, one: StackId, other: StackId) -> list[StackId]:
        """Remove an edge that is there. Returns who was connected with the anchor by it alone."""
        assert other in self.near(one) and one in self.near(other)
        self._drop(one, other)
        self._drop(other, one)
        if self._parent.get(one) == other:
            child, rest = one, other
        elif self._parent.get(other) == one:
            child, rest = other, one
        else:
            return []
        top = self._root(rest)
        del self._parent[child]
        moved = self._mend(child, top)
        self._flatten()
        return moved

    def flatten(self) -> None:
        """Build all trees anew, as low as they can be: worth while after many changes."""
        done: dict[StackId, int] = {}
        for stack in self._near:
            if stack not in done:
                done |= self._build(stack)

    def _drop(self, here: StackId, there: StackId) -> None:
        peers = own_dict(self._near, here)
        del peers[there]
        if not peers:
            del self._near[here]

    def _mend(self, child: StackId, top: StackId) -> list[StackId]:
        """Join the two halves of a tree, known by their roots, by another edge if there is one."""
        roots = child, top
        walks = self._tree(child), self._tree(top)
        for turn in cycle((0, 1)):
            here = next(walks[turn], None)
            if here is None:
                break
            there = self._way_out(here, roots[turn])
            if there is not None:
                self._hang(*((here, there) if turn == 0 else (there, here)))
                return []
        return self._apart(child, top)

    def _way_out(self, here: StackId, root: StackId) -> StackId | None:
        """A neighbour of `here` that is not in the tree of `root`, as `here` is."""
        above = self._parent.get(here)
        for peer in self.near(here):
            in_tree = peer == above or self._parent.get(peer) == here
            if not in_tree and self._root(peer) != root:
                return peer
        return None

    def _apart(self, one: StackId, other: StackId) -> list[StackId]:
        """Who is in the one of two trees, known by their roots, that the anchor is not in; nobody
        if it is in neither."""
        home = self._root(self._anchor)
        if home not in (one, other):
            return []
        return list(self._tree(other if home == one else one))

    # --- trees -----------------------------------------------------------------------------------

    def _root(self, stack: StackId) -> StackId:
        steps = 0
        while (above := self._parent.get(stack)) is not None:
            stack, steps = above, steps + 1
        if steps > self._steps_max:
            self._deep = stack
        return stack

    def _tree(self, root: StackId) -> Iterator[StackId]:
        """Everyone in the tree of `root`, by distance from it."""
        queue = [root]
        for here in queue:
            yield here
            queue += [peer for peer in self.near(here) if self._parent.get(peer) == here]

    def _is_smaller(self, one: StackId, other: StackId) -> bool:
        """Whether the tree of `one` is smaller; looks no further than the smaller one is large."""
        others = self._tree(other)
        return all(next(others, None) is not None for _ in self._tree(one))

    def _hang(self, child: StackId, under: StackId) -> None:
        """Make `child` the root of its tree and hang it below `under`, which is in another."""
        here: StackId | None = child
        while here is not None:
            above = self._parent.get(here)
            self._parent[here] = under
            under, here = here, above

    def _flatten(self) -> None:
        """Build the tree anew in which a walk was too long."""
        if self._deep is not None:
            self._build(self._root(self._deep))
            self._deep = None

    def _build(self, root: StackId) -> dict[StackId, int]:
        """Span the part of the graph that `root` is in, breadth first; returns how high everyone
        stands. Where the graph itself is long (a chain), longer walks are allowed from then on, or
        every walk would end here."""
        height = {root: 0}
        self._parent.pop(root, None)
        for here in (queue := [root]):
            for peer in self.near(here):
                if peer not in height:
                    height[peer] = height[here] + 1
                    queue.append(peer)
                    keep(self._parent, peer, here)
        self._steps_max = max(self._steps_max, 2 * height[queue[-1]])
        return height
