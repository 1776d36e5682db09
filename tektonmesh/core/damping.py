"""Flap damping: which links come and go too often to tell the mesh each time.

After RFC 2439 (sections 4.2 and 4.4): each loss of a link adds 1 to a figure of merit that halves
in some seconds. Above one threshold the link is damped, and it is trusted again below a lower one,
which a ceiling brings within 15 s of rest. BGP damps for up to an hour; here a damped link may be
the only one of a stack, so the times are short. What a damped link shows is for `core/ownlinks`.
"""

from __future__ import annotations

from math import log2, pow

from tektonmesh.core.machine import Env
from tektonmesh.core.types import StackId

HALF_LIFE_S = 5.0
CUT = 2.5
"""A third loss within some three seconds of the first. A restart or two is no flapping."""
REUSE = 1.5
REST_MAX_S = 15.0
CEILING = REUSE * pow(2.0, REST_MAX_S / HALF_LIFE_S)
"""However long it flapped, a link that rests for `REST_MAX_S` is trusted again. A link that flaps
once a second for long stays at 7.7, which is 12 s of rest. All of these numbers are guesses."""
FORGOTTEN = 0.05


class Damping:
    """The figures of merit by the stack at the other end, as (value, instant)."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._merits: dict[StackId, tuple[float, float]] = {}
        self._damped: dict[StackId, None] = {}

    def lost(self, stack_id: StackId) -> None:
        """A link that was up is not any more."""
        value = min(self._value(stack_id) + 1.0, CEILING)
        self._merits[stack_id] = value, self._env.now
        if value > CUT:
            self._damped[stack_id] = None
        for other in [one for one in self._merits if self._value(one) < FORGOTTEN]:
            del self._merits[other]
            self._damped.pop(other, None)

    def rest_s(self, stack_id: StackId) -> float:
        """For how many seconds more a link must rest until it is trusted; 0 if it is."""
        if stack_id not in self._damped:
            return 0.0
        value = self._value(stack_id)
        if value > REUSE:
            return HALF_LIFE_S * log2(value / REUSE)
        del self._damped[stack_id]
        return 0.0

    def _value(self, stack_id: StackId) -> float:
        value, at = self._merits.get(stack_id, (0.0, 0.0))
        return value * pow(0.5, (self._env.now - at) / HALF_LIFE_S)
