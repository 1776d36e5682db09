"""How often an owner may publish changes: at once after a rest, slower under sustained churn."""

from __future__ import annotations

from tektonmesh.core.machine import Env

SLOWER = 1.25
"""Each publish out of an empty bucket makes the next wait longer by this; from 0.2 s to 5 s it
takes 25 s of churn without a pause. A guess."""
ALMOST_ONE = 0.999
"""Sums of floats may miss a whole token by a little."""


class Pace:
    """How often changes may be published: a burst, then one per interval that grows while the
    bucket stays empty and falls back once it was full again."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self._tokens = float(env.settings.publish_burst)
        self._interval_s = env.settings.publish_refill_s
        self._at = env.now

    def take(self) -> float:
        """Takes a token and returns 0, or returns the seconds until there is one."""
        settings = self.env.settings
        self._tokens += (self.env.now - self._at) / self._interval_s
        self._at = self.env.now
        if self._tokens >= settings.publish_burst:
            self._tokens = float(settings.publish_burst)
            self._interval_s = settings.publish_refill_s
        if self._tokens >= ALMOST_ONE:
            self._tokens -= 1.0
            return 0.0
        self._interval_s = min(self._interval_s * SLOWER, settings.publish_slow_s)
        return (1.0 - self._tokens) * self._interval_s
