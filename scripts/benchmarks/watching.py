"""Polling the state of many processes until all of them show something."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

PAUSE_S = 0.002
"""Between two looks at one process: short beside what is measured, long enough that looking
leaves the cores to those who are looked at."""


def until_all(probes: Sequence[Callable[[], bool]], *, within_s: float = 60.0) -> float:
    """The monotonic instant at which every probe had said yes. They are asked one after the
    other, each until it does: what is shown once stays, so the last one decides."""
    give_up = time.monotonic() + within_s
    for at, probe in enumerate(probes):
        while not probe():
            assert time.monotonic() < give_up, f"not within {within_s} s: number {at}"
            time.sleep(PAUSE_S)
    return time.monotonic()
