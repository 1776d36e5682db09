"""What an envelope's trace says, in words for people: names of stacks and how long they had it.

A trace holds short ids, which are labels that relays wrote; nothing here decides anything.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.envelope import ENTRIES_MAX, ENTRY_SIZE, Hop, read_trace
from tektonmesh.core.names import Names
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import StackId, short_id

KNOWN_MAX = 1024
"""Short ids that are remembered: of the stacks that passed something on, not of all there are."""


class Traces:
    """Reads traces for one node."""

    def __init__(self, replica: Replica, names: Names) -> None:
        self._replica = replica
        self._names = names
        self._known: dict[bytes, StackId] = {}

    def stacks(self, trace: bytes) -> list[StackId | None]:
        """The stacks along a trace, None for one that the replica does not know."""
        return [stack_id for _hop, stack_id in self._read(trace)]

    def path(self, trace: bytes, destination: StackId) -> list[str]:
        """The labels along a trace, and that of the destination, which is not in it."""
        names = [self._name(hop, stack_id) for hop, stack_id in self._read(trace)]
        return [*names, self._names.label(destination)]

    def hops(self, trace: bytes) -> list[dict[str, Any]]:
        """`{"stack", "dwell_ms"}` of each stack that passed it on."""
        return [
            {"stack": self._name(hop, stack_id), "dwell_ms": hop.dwell_ms}
            for hop, stack_id in self._read(trace)
        ]

    def _name(self, hop: Hop, stack_id: StackId | None) -> str:
        """The label of the stack; the short id itself for one that is not known here."""
        return self._names.label(stack_id) if stack_id is not None else hop.short.hex()

    def _read(self, trace: bytes) -> list[tuple[Hop, StackId | None]]:
        """The hops of a trace, no more than an envelope can have: another stack wrote it, as long
        as it liked. Ids that are not known cost one look at the replica together."""
        hops = read_trace(trace[: ENTRIES_MAX * ENTRY_SIZE])
        unknown = {hop.short: None for hop in hops if hop.short not in self._known}
        if unknown:
            if len(self._known) > KNOWN_MAX:
                self._known = {}
            for owner in self._replica.owners:
                if short_id(owner) in unknown:
                    self._known[short_id(owner)] = owner
        return [(hop, self._known.get(hop.short)) for hop in hops]
