"""`flood`: what others wait for while a stack is attacked.

One caller, a CI of another daemon that answers at once, and beside them what attacks that daemon: a
member that sends all it can until it is held off, with 300 strangers who come and go; or strangers
by the thousand whose handshakes never end. Since attackers take cores of the same machine, each
attack is made upon a daemon that nobody uses as well: what is slower then is the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from scripts.benchmarks.figures import Figure, middle, quantile
from scripts.benchmarks.fleet import fleet
from tests.e2e.stacks import Stack, wait_until
from tests.hostile.attacks import flooding, knocking, waits_s

STRANGERS = 100_000
"""More than can knock while it is measured."""


def flood(*, quick: bool) -> Iterator[Figure]:
    """p99 of messages to a stack that is attacked, beside quiet and beside another's attack."""
    rounds, count = (1, 30) if quick else (5, 300)
    with fleet() as mesh:
        west, spare = mesh.private("west").start(), mesh.private("spare").start()
        east = mesh.private("east", west).start()
        west.start_echo("numa")
        wait_until("east sees numa", lambda: "numa@west" in east.cis(), within_s=20)
        _p99_ms(east, count)
        quiet = middle([_p99_ms(east, count) for _ in range(rounds)])
        yield Figure("flood", "quiet, p99", quiet, "ms", rounds * count)
        attacks: dict[str, Callable[[Stack], AbstractContextManager[Any]]] = {
            "member and strangers": partial(flooding, mesh),
            "strangers": partial(knocking, strangers=STRANGERS),
        }
        for name, attack in attacks.items():
            taken: dict[str, list[float]] = {"west": [], "spare": []}
            for stack in (spare, west) * rounds:
                with attack(stack):
                    taken[stack.name].append(_p99_ms(east, count))
            other, own = middle(taken["spare"]), middle(taken["west"])
            n = rounds * count
            beside = ("quiet", quiet)
            yield Figure("flood", f"{name}, elsewhere", other, "ms", n, limit=beside)
            goal = "at most 2 x quiet"
            yield Figure("flood", f"{name}, here", own, "ms", n, limit=beside, goal=goal)


def _p99_ms(stack: Stack, count: int) -> float:
    return quantile(waits_s(stack, count), 0.99) * 1000.0
