"""The one module that reads the machine's clocks other than Trio's.

It tells the node the wall time (which may jump) and the watchdog how long the machine has slept.
What a jump means is decided in `core/meshtime`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from tektonmesh.core.events import Event, WallClock

INTERVAL_S = 10.0


def wall_s() -> float:
    """Seconds since 1970 as the machine believes now."""
    return time.time()


def slept_s() -> float:
    """Seconds this machine has spent suspended since it booted; 0 where the system cannot tell.

    Linux: CLOCK_BOOTTIME runs on during suspend, CLOCK_MONOTONIC (Trio's clock) does not.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    if boot is None:
        return 0.0
    return time.clock_gettime(boot) - time.monotonic()


async def tell_wall_time(inject: Callable[[Event], None]) -> None:
    """Tell the node at once and then every 10 s."""
    while True:
        inject(WallClock(wall_s()))
        await trio.sleep(INTERVAL_S)
