"""How many bytes may be spent now: so many a second, saved up for one second (a token bucket)."""

from __future__ import annotations

from tektonmesh.core.machine import Env

SLACK = 0.5
"""Sums of floats may miss a whole byte by a little."""


class Allowance:
    """`per_s` bytes a second; at least `least` can be saved up, or a large spend never comes."""

    def __init__(self, env: Env, per_s: float, least: int) -> None:
        assert per_s > 0
        self._env = env
        self._per_s = per_s
        self._most = max(per_s, float(least))
        self._left = self._most
        self._at = env.now

    def take(self, size: int) -> float:
        """Spends `size` bytes and returns 0, or returns the seconds until they can be spent."""
        assert 0 < size <= self._most, "nobody waits for what never comes"
        self._left = min(self._most, self._left + (self._env.now - self._at) * self._per_s)
        self._at = self._env.now
        if self._left + SLACK >= size:
            self._left -= size
            return 0.0
        return (size - self._left) / self._per_s

    def give_back(self, size: int) -> None:
        """So many of the bytes taken were not spent."""
        self._left = min(self._most, self._left + size)
