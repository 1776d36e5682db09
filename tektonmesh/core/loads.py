"""How busy CIs seem from here: what is open at each, how long it takes, what its stack says.

Kept for every CI that was sent to of late. A CI's own stack says with each receipt and reply how
many messages it has in hand; that word loses weight as it grows old. From these `choosing` makes
the time that a further message would wait. Nothing here is exact, and nothing has to be.
"""

from __future__ import annotations

from collections import OrderedDict

from tektonmesh.core.machine import Env
from tektonmesh.core.types import StackId

CIS_MAX = 4096
"""CIs remembered; what was not used for longest is forgotten."""

NEW_WEIGHT = 0.25
"""Of the newest service time in the mean (a guess: eight answers change it tenfold less)."""

UNKNOWN_MS = 50.0
"""Taken for a CI that has answered nothing yet (a guess between an echo and a model)."""

HINT_S = 5.0
"""After this a stack's word on how busy its CI is counts nothing."""

Key = tuple[StackId, str]


class _Load:
    __slots__ = ("hint", "hint_at", "mean_ms", "open")

    def __init__(self) -> None:
        self.open = 0
        self.mean_ms: float | None = None
        self.hint = 0
        self.hint_at = 0.0


class Loads:
    """The loads of CIs by (stack, name in lower case)."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self._loads: OrderedDict[Key, _Load] = OrderedDict()

    def begun(self, key: Key) -> None:
        """A message to this CI is on its way."""
        self._touch(key).open += 1

    def ended(self, key: Key, ms: float, *, answered: bool) -> None:
        """It is over; only what was `answered` tells how long the CI takes."""
        load = self._touch(key)
        load.open = max(0, load.open - 1)
        if answered:
            mean = load.mean_ms
            load.mean_ms = ms if mean is None else mean + NEW_WEIGHT * (ms - mean)

    def told(self, key: Key, in_hand: int) -> None:
        """Its stack said how many messages it had in hand."""
        load = self._touch(key)
        load.hint, load.hint_at = in_hand, self.env.now

    def wait_ms(self, key: Key) -> float:
        """What a further message would wait there, about, its own time included."""
        load = self._loads.get(key)
        if load is None:
            return UNKNOWN_MS
        age = min((self.env.now - load.hint_at) / HINT_S, 1.0)
        ahead = max(float(load.open), load.hint * (1.0 - age))
        return (ahead + 1.0) * (UNKNOWN_MS if load.mean_ms is None else load.mean_ms)

    def _touch(self, key: Key) -> _Load:
        load = self._loads.get(key)
        if load is None:
            load = self._loads[key] = _Load()
            while len(self._loads) > CIS_MAX:
                self._loads.popitem(last=False)
        else:
            self._loads.move_to_end(key)
        assert load.open >= 0
        return load
