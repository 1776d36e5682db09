"""Which CIs were here lately: absence of one that was is no verdict on a durable message for it.

A CI that restarts, is moved or fails for a while will take what waits for it. Kept on the disk for
a day after a registration ends; over the bound the one that went first is forgotten.
"""

from __future__ import annotations

from tektonmesh.core.cis import Cis
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.rows import drop_row, pack_row, read_rows
from tektonmesh.core.types import Saved

TABLE = "gone"


class KnownCis:
    """The CIs of this stack that are registered or were within `ci_memory_s`."""

    def __init__(self, env: Env, clock: MeshTime, cis: Cis) -> None:
        self.env = env
        self._clock = clock
        self._cis = cis
        self._gone: dict[str, tuple[int, bool]] = {}
        """Key -> when it went (ms of mesh time), and whether other stacks could reach it."""

    def load(self, saved: Saved) -> None:
        for key, words, _body in read_rows(self.env, saved, TABLE):
            if len(words) == 2 and isinstance(words[0], int):
                self._gone[key.decode(errors="replace")] = (words[0], bool(words[1]))
            else:
                drop_row(self.env, TABLE, key)
        self._gone = dict(sorted(self._gone.items(), key=lambda pair: pair[1]))

    def __contains__(self, place: tuple[str, bool]) -> bool:
        """Whether (key, from another stack) is known: there, or gone less than a day ago."""
        key, from_outside = place
        ci = self._cis.get(key)
        if ci is not None:
            return ci.remote or not from_outside
        gone = self._gone.get(key)
        if gone is None or (from_outside and not gone[1]):
            return False
        return self._clock.now_ms() - gone[0] < self.env.settings.ci_memory_s * 1000.0

    def went(self, key: str, remote: bool) -> None:
        """A registration ended."""
        self._gone.pop(key, None)
        self._gone[key] = (self._clock.now_ms(), remote)
        self.env.save(TABLE, key.encode(), pack_row(self.env, [*self._gone[key]]))
        if len(self._gone) > self.env.settings.ci_max:
            self._forget(next(iter(self._gone)))

    def came(self, key: str) -> None:
        """It is registered."""
        if key in self._gone:
            self._forget(key)

    def _forget(self, key: str) -> None:
        del self._gone[key]
        self.env.save(TABLE, key.encode(), None)
