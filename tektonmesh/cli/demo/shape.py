"""The shape of the demonstration's mesh: two chains that meet in the first and the last stack.

The first and the last share no link, each chain leads over at least three hops, and either chain
alone still joins the two ends: so a relay can die and there is a way round it.
"""

from __future__ import annotations

from dataclasses import dataclass

STACKS_MIN = 6
STACKS_MAX = 16
"""With more, a machine of two cores starts processes for most of the demonstration."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Stack names in the order they start, and for each the stacks it calls (its seeds)."""

    names: tuple[str, ...]
    seeds: dict[str, tuple[str, ...]]

    @property
    def first(self) -> str:
        return self.names[0]

    @property
    def last(self) -> str:
        return self.names[-1]


def two_chains(count: int) -> Shape:
    """The shape for `count` stacks; their names are letters, the first is `a`."""
    assert STACKS_MIN <= count <= STACKS_MAX
    names = tuple(chr(ord("a") + at) for at in range(count))
    inner = names[1:-1]
    upper, lower = inner[: (len(inner) + 1) // 2], inner[(len(inner) + 1) // 2 :]
    seeds: dict[str, tuple[str, ...]] = {names[0]: ()}
    for chain in (upper, lower):
        for before, name in zip((names[0], *chain), chain, strict=False):
            seeds[name] = (before,)
    seeds[names[-1]] = (upper[-1], lower[-1])
    return Shape(names, seeds)
