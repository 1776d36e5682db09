"""Which links mere refreshes travel."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest

from tektonmesh.core.skeleton import REVIEW_S, Skeleton
from tektonmesh.core.types import StackId
from tests.support import advance, make_env, seed_bytes

IDS = [seed_bytes(n) for n in range(60)]


class Edges:
    """A graph that all see alike."""

    def __init__(self, *pairs: tuple[int, int]) -> None:
        self.shape = 1
        self.by_stack: dict[StackId, dict[StackId, int]] = {}
        for pair in pairs:
            self.join(*pair)

    def join(self, one: int, other: int) -> None:
        for here, there in ((one, other), (other, one)):
            self.by_stack.setdefault(IDS[here], {})[IDS[there]] = 1
        self.shape += 1

    def part(self, one: int, other: int) -> None:
        del self.by_stack[IDS[one]][IDS[other]], self.by_stack[IDS[other]][IDS[one]]
        self.shape += 1

    def edges(self, stack_id: StackId) -> Mapping[StackId, int]:
        return self.by_stack.get(stack_id, {})

    def witnesses(self, stack_id: StackId) -> Sequence[StackId]:
        return list(self.edges(stack_id))

    def reachable(self, _stack_id: StackId) -> bool:
        return True

    connected = reachable

    def adrift(self) -> Sequence[StackId]:
        return ()


def skeletons(graph: Edges, relays: tuple[int, ...] = ()) -> list[Skeleton]:
    """That of each stack of the graph, in the order of `IDS`."""
    made = []
    for stack in IDS[: len(graph.by_stack)]:
        env = make_env("a")
        env.me = stack
        skeleton = Skeleton(env)
        skeleton.topology = graph
        skeleton.passes_on = lambda stack: stack not in [IDS[n] for n in relays]
        made.append(skeleton)
    return made


def reached(graph: Edges, all_of: list[Skeleton], start: int) -> tuple[list[int], int]:
    """Who gets what `start` says, and how many copies were sent."""
    got, queue, copies = {start: -1}, [start], 0
    for here in queue:
        for peer in graph.edges(IDS[here]):
            there = IDS.index(peer)
            if there == got[here] or not all_of[here].carries(peer):
                continue
            copies += 1
            if there not in got:
                got[there] = here
                queue.append(there)
    return sorted(got), copies


@pytest.mark.parametrize("seed", range(8))
def test_every_refresh_reaches_everybody_once(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.choice((5, 12, 40, 60))
    pairs = {(at, chance.randrange(at)): None for at in range(1, count)}
    for _ in range(2 * count):
        one, other = sorted(chance.sample(range(count), 2))
        pairs[other, one] = None
    graph = Edges(*pairs)
    all_of = skeletons(graph)
    for start in range(count):
        assert reached(graph, all_of, start) == (list(range(count)), count - 1)


def test_both_halves_of_a_mesh_have_one_of_their_own() -> None:
    graph = Edges((0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3))
    all_of = skeletons(graph)
    assert reached(graph, all_of, 1) == ([0, 1, 2], 2)
    assert reached(graph, all_of, 4) == ([3, 4, 5], 2)


def test_an_edge_that_is_gone_is_replaced_when_the_graph_is_looked_at_again() -> None:
    graph = Edges((0, 1), (1, 2), (2, 0))
    root, one, other = sorted(range(3), key=lambda n: IDS[n])
    all_of = skeletons(graph)
    ends = [(all_of[one], IDS[other]), (all_of[other], IDS[one])]
    assert [end.carries(peer) for end, peer in ends] == [False, False]
    graph.part(root, one)
    assert [end.carries(peer) for end, peer in ends] == [False, False], "not at every change"
    for skeleton in all_of:
        advance(skeleton._env, REVIEW_S)
    assert [end.carries(peer) for end, peer in ends] == [True, True]


def test_who_passes_nothing_on_is_an_end() -> None:
    """A stack with the role `relay` has no records to pass on, whatever its id."""
    graph = Edges((0, 1), (0, 2), (0, 3), (1, 2), (2, 3))
    all_of = skeletons(graph, relays=(0,))
    got, _copies = reached(graph, all_of, 1)
    assert got == [0, 1, 2, 3]
    assert all_of[1].carries(IDS[2]) and all_of[2].carries(IDS[3])


def test_a_link_of_which_the_graph_knows_nothing_carries_all() -> None:
    [skeleton, *_] = skeletons(Edges((0, 1)))
    assert skeleton.carries(IDS[9])
