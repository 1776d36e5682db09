"""Who is connected while edges come and go, against a search of everything."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tektonmesh.core import forest as fs
from tektonmesh.core.forest import Forest
from tektonmesh.core.types import StackId

STACKS = [bytes([n]) for n in range(9)]
EDGES = st.tuples(st.sampled_from(STACKS), st.sampled_from(STACKS)).filter(lambda e: e[0] != e[1])
CALM = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def connected(forest: Forest, start: StackId) -> set[StackId]:
    """Everyone that edges lead to, by a search of all."""
    reached = [start]
    for here in reached:
        reached += [peer for peer in forest.near(here) if peer not in reached]
    return set(reached)


def toggle(forest: Forest, edge: tuple[StackId, StackId]) -> tuple[list[StackId], set[StackId]]:
    """Add the edge or remove it. Returns who is said to have moved, and who has."""
    one, other = edge
    before = connected(forest, STACKS[0])
    act = forest.cut if other in forest.near(one) else forest.join
    return act(one, other), before ^ connected(forest, STACKS[0])


def check(forest: Forest, edges: list[tuple[StackId, StackId]]) -> None:
    for edge in edges:
        told, moved = toggle(forest, edge)
        assert len(told) == len(set(told)) and set(told) == moved
        reached = connected(forest, STACKS[0])
        assert {stack for stack in STACKS if forest.connected(stack)} == reached


@CALM
@given(edges=st.lists(EDGES, max_size=80), low=st.booleans())
def test_whoever_is_connected_is_known_after_any_change(
    edges: list[tuple[StackId, StackId]], low: bool
) -> None:
    held, fs.STEPS_MAX = fs.STEPS_MAX, 2 if low else fs.STEPS_MAX
    try:
        check(Forest(STACKS[0]), edges)
    finally:
        fs.STEPS_MAX = held


@CALM
@given(below=st.lists(EDGES, max_size=40), above=st.lists(EDGES, max_size=40), flat=st.booleans())
def test_a_forest_over_another_is_its_own_and_starts_as_the_other_is(
    below: list[tuple[StackId, StackId]], above: list[tuple[StackId, StackId]], flat: bool
) -> None:
    base = Forest(b"base")
    for edge in below:
        toggle(base, edge)
    if flat:
        base.flatten()
    before = {stack: dict(base.near(stack)) for stack in STACKS}
    forest = Forest(STACKS[0], base)
    for stack in STACKS:
        assert set(forest.near(stack)) == set(base.near(stack))
    check(forest, above)
    assert {stack: dict(base.near(stack)) for stack in STACKS} == before


def chain(forest: Forest, length: int) -> list[StackId]:
    stacks = [n.to_bytes(2) for n in range(length)]
    for one, other in pairwise(stacks):
        forest.join(one, other)
    return stacks


def test_a_chain_may_be_longer_than_a_tree_should_be_high() -> None:
    forest = Forest((0).to_bytes(2))
    stacks = chain(forest, 5 * fs.STEPS_MAX)
    assert all(forest.connected(stack) for stack in stacks)
    middle = len(stacks) // 2
    assert forest.cut(stacks[middle], stacks[middle - 1]) == stacks[middle:]
    assert not forest.connected(stacks[-1])


def test_a_tree_that_became_high_is_built_anew() -> None:
    forest = Forest((0).to_bytes(2))
    stacks = chain(forest, fs.STEPS_MAX)
    for stack in stacks[2:]:
        forest.join(stacks[0], stack)
    last = chain_on(forest, stacks[-1], 4)
    assert forest.connected(last)
    assert height(forest, last) <= 8


class Counted(Forest):
    """Counts how often a tree was built anew."""

    builds = 0

    def _build(self, root: StackId) -> dict[StackId, int]:
        self.builds += 1
        return super()._build(root)


def test_where_the_graph_itself_is_long_its_trees_are_not_built_again_and_again() -> None:
    forest = Counted((0).to_bytes(2))
    stacks = chain(forest, 20 * fs.STEPS_MAX)
    for stack in stacks[::-1][:100]:
        forest.join(stack, b"new")
        forest.cut(stack, b"new")
    assert 1 <= forest.builds <= 6


def chain_on(forest: Forest, start: StackId, length: int) -> StackId:
    for n in range(length):
        following = bytes([n, 0, 0])
        forest.join(start, following)
        start = following
    return start


def height(forest: Forest, stack: StackId) -> int:
    steps = 0
    while (above := forest._parent.get(stack)) is not None:
        stack, steps = above, steps + 1
    return steps


def test_an_edge_is_added_once_and_removed_once() -> None:
    forest = Forest(STACKS[0])
    forest.join(STACKS[0], STACKS[1])
    with pytest.raises(AssertionError):
        forest.join(STACKS[0], STACKS[1])
    with pytest.raises(AssertionError):
        forest.cut(STACKS[0], STACKS[2])
