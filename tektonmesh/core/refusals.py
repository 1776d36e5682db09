"""Telling people of envelopes that were not sealed by whom they name, without a flood of notices.

Anybody on the way can make as many of them as it likes. One a minute and source is told, with the
number of those that were not; what is done with the envelope is decided by those who open it.
"""

from __future__ import annotations

from tektonmesh.core.machine import Env
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import StackId

PAUSE_S = 60.0


class Refusals:
    """The notices `seal_refused` of one node. What names a source that is not known here shares
    one row, so the rows are no more than the stacks that the replica has had."""

    def __init__(self, env: Env, replica: Replica) -> None:
        self.env = env
        self._replica = replica
        self._told: dict[StackId, tuple[float, int]] = {}

    def note(self, source: StackId, detail: str) -> None:
        """Tell of one, or count it if another of its source was told less than a minute ago."""
        key = source if self._replica.has(source) else b""
        until, untold = self._told.get(key, (0.0, 0))
        if self.env.now < until:
            self._told[key] = (until, untold + 1)
            return
        self._told[key] = (self.env.after(PAUSE_S), 0)
        self.env.notice("seal_refused", source=source.hex(), detail=detail, untold=untold)
