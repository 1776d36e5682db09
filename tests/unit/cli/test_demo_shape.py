"""The shape of the demonstration's mesh."""

from __future__ import annotations

import pytest

from tektonmesh.cli.demo.shape import STACKS_MAX, STACKS_MIN, Shape, two_chains


def neighbours(shape: Shape) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in shape.names}
    for name, seeds in shape.seeds.items():
        for seed in seeds:
            found[name].append(seed)
            found[seed].append(name)
    return found


def hops(shape: Shape, without: str = "") -> int:
    """Links on the shortest way from the first to the last stack; 0 when there is none."""
    edges = neighbours(shape)
    seen, level, count = {shape.first: None}, [shape.first], 0
    while level:
        count += 1
        level = [n for at in level for n in edges[at] if n not in seen and n != without]
        seen.update(dict.fromkeys(level))
        if shape.last in level:
            return count
    return 0


@pytest.mark.parametrize("count", range(STACKS_MIN, STACKS_MAX + 1))
def test_the_ends_share_no_link_and_every_relay_may_die(count: int) -> None:
    shape = two_chains(count)
    assert len(set(shape.names)) == count
    assert shape.last not in neighbours(shape)[shape.first]
    assert hops(shape) >= 3
    for relay in shape.names[1:-1]:
        assert hops(shape, without=relay) >= 3


@pytest.mark.parametrize("count", range(STACKS_MIN, STACKS_MAX + 1))
def test_every_stack_calls_only_stacks_that_started_before(count: int) -> None:
    shape = two_chains(count)
    for at, name in enumerate(shape.names):
        assert all(shape.names.index(seed) < at for seed in shape.seeds[name])
        assert shape.seeds[name] or name == shape.first
