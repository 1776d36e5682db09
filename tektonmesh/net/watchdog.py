"""Notices when this process did not run: a stalled event loop, SIGSTOP, a suspended machine.

A node that was away must not accuse others of having been away (Lifeguard, arXiv:1707.00788).
So whoever feeds the node first asks `Pulse.missed`, and the pause is told before anything that
piled up during it. What follows from a pause is decided in `core/neighbours`.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from tektonmesh.net.wallclock import slept_s

BEAT_S = 0.5
"""How often the loop shows that it is alive. Two wake-ups a second cost nothing measurable."""

STALL_MIN_S = 0.25
"""Shorter lateness is ordinary (a busy machine, a garbage collection). A guess."""


class Pulse:
    """When the loop last beat, and how late it was."""

    def __init__(self, now: float) -> None:
        self._next_beat = now + BEAT_S
        self._slept = slept_s()
        self.lag_s = 0.0
        self.lag_max_s = 0.0

    def missed(self, now: float) -> float:
        """Seconds this process did not run, told once; 0 when all is well."""
        late = now - self._next_beat
        if late < STALL_MIN_S:
            return 0.0
        self._next_beat = now + BEAT_S
        self._note(late)
        return late

    def beat(self, now: float) -> float:
        """One beat of the loop. Returns the seconds that the machine was suspended since the last
        one, which Trio's clock does not show."""
        self._note(max(0.0, now - self._next_beat))
        self._next_beat = now + BEAT_S
        slept = slept_s()
        suspended, self._slept = slept - self._slept, slept
        return suspended if suspended >= STALL_MIN_S else 0.0

    def _note(self, lag_s: float) -> None:
        self.lag_s = lag_s
        self.lag_max_s = max(self.lag_max_s, lag_s)


async def keep_beating(beat: Callable[[], None]) -> None:
    """Call `beat` every half second for ever."""
    while True:
        await trio.sleep(BEAT_S)
        beat()
