"""What an envelope's trace says, in words for people: names of stacks and how long they had it.

A trace holds short ids, which are labels that relays wrote; nothing here decides anything.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.envelope import read_trace
from tektonmesh.core.names import Names
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import StackId, short_id


class Traces:
    """Reads traces for one node."""

    def __init__(self, replica: Replica, names: Names) -> None:
        self._replica = replica
        self._names = names
        self._known: dict[bytes, StackId] = {}

    def stack_of(self, short: bytes) -> StackId | None:
        """The stack that a short id means, as far as the replica knows."""
        if short not in self._known:
            self._known = {short_id(owner): owner for owner in self._replica.owners}
        return self._known.get(short)

    def name_of(self, short: bytes) -> str:
        """The label of the stack; the short id itself for one that is not known here."""
        stack_id = self.stack_of(short)
        return self._names.label(stack_id) if stack_id is not None else short.hex()

    def path(self, trace: bytes, destination: StackId) -> list[str]:
        """The labels along a trace, and that of the destination, which is not in it."""
        names = [self.name_of(hop.short) for hop in read_trace(trace)]
        return [*names, self._names.label(destination)]

    def hops(self, trace: bytes) -> list[dict[str, Any]]:
        """`{"stack", "dwell_ms"}` of each stack that passed it on."""
        hops = read_trace(trace)
        return [{"stack": self.name_of(hop.short), "dwell_ms": hop.dwell_ms} for hop in hops]
