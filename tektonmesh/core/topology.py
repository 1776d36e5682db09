"""What liveness and dialling ask of the link graph, which is built on top of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tektonmesh.core.types import StackId


class Topology(Protocol):
    """The link graph as its own foundations see it. `shape` rises when an edge comes or goes."""

    shape: int

    def witnesses(self, stack_id: StackId, /) -> Sequence[StackId]:
        """The stacks that share an edge with `stack_id`."""
        ...

    def reachable(self, stack_id: StackId, /) -> bool:
        """Whether a stack is this one or up. Asking tells the transitions of late."""
        ...

    def connected(self, stack_id: StackId, /) -> bool:
        """Whether a chain of edges leads to a stack at this very instant. Asking changes
        nothing, so it may be asked in the middle of a change."""
        ...

    def edges(self, stack_id: StackId, /) -> Mapping[StackId, int]:
        """The neighbours of a stack with the cost in ms, as both ends say."""
        ...

    def adrift(self) -> Sequence[StackId]:
        """The live stacks that no path leads to."""
        ...


class NoTopology:
    """The answer of a node that knows of nobody else."""

    shape = 0

    def witnesses(self, _stack_id: StackId) -> Sequence[StackId]:
        return ()

    def reachable(self, _stack_id: StackId) -> bool:
        return False

    def connected(self, _stack_id: StackId) -> bool:
        return False

    def edges(self, _stack_id: StackId) -> Mapping[StackId, int]:
        return {}

    def adrift(self) -> Sequence[StackId]:
        return ()
