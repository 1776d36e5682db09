"""Worlds with durable messages, as data: how they differ from sites behind firewalls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from tektonmesh.sim.faults import Fault
from tektonmesh.sim.options import PARKS, Options
from tektonmesh.sim.plans import restarts


@dataclass(frozen=True, slots=True)
class DurableWorld:
    """A scenario-to-be (`sim/scenarios.py`)."""

    name: str
    about: str
    changes: dict[str, Any]
    plan: Callable[[Random, Options], tuple[Fault, ...]] | None = None


_CALM: dict[str, Any] = {
    "nodes": 4,
    "topology": "ring",
    "letters": 4.0,
    "messages": 0.5,
    "writes": 0.0,
    "cis_per_host": 2,
    "settle_s": 60.0,
}
_KILLED = "durable messages while one host or another is killed every second or two"
_JUMPS = (
    Fault(6.0, "clock", (1,), amount_s=3600.0),
    Fault(8.0, "kill", (1,), 2.0),
    Fault(12.0, "clock", (2,), amount_s=-3600.0),
    Fault(14.0, "kill", (2,), 2.0),
    Fault(20.0, "kill", (1, 2), 1.0),
)
_AWAY = (Fault(6.0, "kill", (3,), 14.0), Fault(16.0, "kill", (0,), 10.0))
_APART = (Fault(6.0, "cut", (0, 1), 20.0), Fault(10.0, "freeze", (3,), 8.0))

DURABLE = (
    DurableWorld("durable", _KILLED, _CALM, restarts),
    DurableWorld(
        "durable-chain", f"{_KILLED}, over relays", _CALM | {"topology": "chain"}, restarts
    ),
    DurableWorld(
        "durable-loss",
        f"{_KILLED}, packets are lost",
        _CALM | {"loss": 0.1, "disk_s": 0.05},
        restarts,
    ),
    DurableWorld(
        "durable-large",
        f"{_KILLED}; half of them fit into no envelope",
        _CALM | {"topology": "chain", "letters": 1.0, "large": 0.5, "loss": 0.02},
        restarts,
    ),
    DurableWorld(
        "durable-apart",
        "durable messages while two halves are apart, and a frozen host returns",
        _CALM | {"duration_s": 40.0, "faults": _APART},
    ),
    DurableWorld(
        "durable-clocks",
        "durable messages while wall clocks jump by an hour and hosts restart",
        _CALM | {"skew_s": 20.0, "faults": _JUMPS},
    ),
    DurableWorld(
        "durable-parked",
        "a stack comes back while those that wrote to it are away; others kept what it is to get",
        _CALM | {"duration_s": 34.0, "parked": 0.7, "settings": PARKS, "faults": _AWAY},
    ),
    DurableWorld(
        "durable-readings",
        "replies that somebody reads as they come, while one host or another is killed",
        _CALM | {"letters": 1.0, "readings": 1.0},
        restarts,
    ),
)
