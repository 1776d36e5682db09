"""How a load is driven and what it measures, whatever carries it. The standard library alone: the
ends of other systems run where nothing else is installed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

WINDOW = {"rr": 1, "pipelined": 64, "oneway": 256, "durable": 1, "durable64": 64}
"""What is under way at once, by mode."""

Say = Callable[[list[int]], None]
"""Sends the messages of these numbers."""
Hear = Callable[[], list[int]]
"""Waits for answers, and gives the numbers of those that came."""


def measure(mode: str, count: int, say: Say, hear: Hear) -> None:
    """Print `{"n","seconds","p50_us","p99_us"}` of `count` messages, after a tenth to warm up."""
    window = WINDOW[mode]
    _drive(max(20, count // 10), window, say, hear)
    began = time.perf_counter()
    waits = sorted(_drive(count, window, say, hear))
    seconds = time.perf_counter() - began
    middle, tail = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    shown = {"n": len(waits), "seconds": seconds, "p50_us": middle * 1e6, "p99_us": tail * 1e6}
    print(json.dumps(shown))


def _drive(count: int, window: int, say: Say, hear: Hear) -> list[float]:
    """The seconds that each message took."""
    sent_at: dict[int, float] = {}
    waits: list[float] = []
    number = 0
    while len(waits) < count:
        room = min(count - number, window - len(sent_at))
        batch = list(range(number, number + room))
        number += room
        sent_at |= dict.fromkeys(batch, time.perf_counter())
        if batch:
            say(batch)
        answered = hear()
        now = time.perf_counter()
        waits += [now - sent_at.pop(one) for one in answered]
    return waits
