"""Plans of faults that are drawn: for random worlds, for churn, for a whole day.

A plan is data (`Fault`); what a kind does is `sim/faults.py`. The same seed draws the same plan.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from tektonmesh.sim.faults import KINDS, Fault

if TYPE_CHECKING:
    from tektonmesh.sim.options import Options

MANY = ("cut", "oneway", "swizzle", "slow", "storm", "garble", "upgrade")
"""Kinds that fall upon several hosts at once."""
AMOUNTS: dict[str, tuple[float, ...]] = {
    "slow": (0.05, 0.3, 1.5),
    "slowdisk": (0.2, 2.0),
    "power": (0.0, 1.0, 5.0),
    "clock": (-3600.0, -40.0, -5.0, 1.0, 5.0, 3600.0),
}
LONGEST_S = {"flap": 6.0, "storm": 8.0, "crashloop": 8.0}
"""What costs a world the most is drawn shorter than the rest."""
HOUR_S = 3600.0


def draw_faults(chance: Random, options: Options, gone: tuple[int, ...]) -> tuple[Fault, ...]:
    """A plan for a random world. Only the hosts in `gone` never come back; who draws the world
    sees to it that the others can still reach one another without them."""
    span = options.duration_s
    plan: list[Fault] = []
    for index in gone:
        kind = chance.choice(("kill", "freeze", "leave", "power"))
        plan.append(Fault(chance.uniform(3.0, span), kind, (index,)))
    rest = [index for index in range(options.nodes) if index not in gone]
    for _ in range(chance.choice((0, 0, 1, 1, 2, 3, 4))):
        kind = chance.choice(KINDS)
        amount_s = chance.choice(AMOUNTS.get(kind, (0.0,)))
        at_s, for_s = chance.uniform(1.0, span), chance.uniform(1.0, LONGEST_S.get(kind, 25.0))
        plan.append(Fault(at_s, kind, _victims(chance, kind, rest), for_s, amount_s))
    return tuple(sorted(plan, key=lambda fault: fault.at_s))


def _victims(chance: Random, kind: str, hosts: list[int]) -> tuple[int, ...]:
    if kind == "clog":
        return tuple(chance.sample(hosts, 2))
    if kind in MANY:
        return tuple(sorted(chance.sample(hosts, chance.randint(1, max(1, len(hosts) // 2)))))
    return (chance.choice(hosts),)


def churn(chance: Random, options: Options) -> tuple[Fault, ...]:
    """One percent of the hosts a minute go, in one way or another, and come back within minutes."""
    return tuple(_churn(chance, options, 1.0 / 100.0))


def quick_churn(chance: Random, options: Options) -> tuple[Fault, ...]:
    """The same in a hurry: ten hosts a minute, back within seconds."""
    plan = _churn(chance, options, 10.0 / options.nodes)
    return tuple(replace(fault, for_s=min(fault.for_s, 10.0)) for fault in plan)


def _churn(chance: Random, options: Options, part_per_minute: float) -> list[Fault]:
    plan: list[Fault] = []
    pause_s = 60.0 / (part_per_minute * options.nodes)
    at_s = chance.expovariate(1.0 / pause_s)
    while at_s < options.duration_s:
        kind = chance.choice(("kill", "kill", "freeze", "leave", "wipe", "power"))
        host = chance.randrange(options.nodes)
        for_s = chance.choice((2.0, 20.0, 60.0, 240.0)) * chance.uniform(0.5, 1.5)
        plan.append(Fault(at_s, kind, (host,), for_s))
        at_s += chance.expovariate(1.0 / pause_s)
    return plan


def day(chance: Random, options: Options) -> tuple[Fault, ...]:
    """Churn, and about every hour a pause, a partition or another trouble of a real network."""
    plan = _churn(chance, options, 1.0 / 100.0)
    hosts = list(range(options.nodes))
    at_s = chance.expovariate(4.0 / HOUR_S)
    while at_s < options.duration_s:
        kind = chance.choice(("pause", "pause", "cut", "oneway", "clog", "flap", "slow", "reset"))
        amount_s = chance.choice(AMOUNTS.get(kind, (0.0,)))
        for_s = chance.choice((10.0, 60.0, 600.0)) if kind != "flap" else 20.0
        plan.append(Fault(at_s, kind, _victims(chance, kind, hosts), for_s, amount_s))
        at_s += chance.expovariate(4.0 / HOUR_S)
    return tuple(sorted(plan, key=lambda fault: fault.at_s))


def restarts(chance: Random, options: Options) -> tuple[Fault, ...]:
    """One host or another dies, as by `kill -9`, every second or two, and comes back soon."""
    plan: list[Fault] = []
    at_s = 4.0
    while at_s < options.duration_s:
        for_s = chance.choice((0.05, 0.5, 3.0)) * chance.uniform(0.5, 1.5)
        plan.append(Fault(at_s, "kill", (chance.randrange(options.nodes),), for_s))
        at_s += chance.uniform(0.5, 3.0)
    return tuple(plan)


def pauses(chance: Random, options: Options) -> tuple[Fault, ...]:
    """One to ten percent of the hosts stand still for 1-30 s, again and again."""
    plan: list[Fault] = []
    at_s = 6.0
    while at_s < options.duration_s:
        count = max(1, round(options.nodes * chance.uniform(0.01, 0.1)))
        nodes = tuple(chance.sample(range(options.nodes), count))
        plan.append(Fault(at_s, "pause", nodes, chance.uniform(1.0, 30.0)))
        at_s += chance.uniform(2.0, 12.0)
    return tuple(plan)
