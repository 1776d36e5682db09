"""`peers`: other systems that tell nodes of one another, and our daemons, in the same run.

One group of N processes after the other, on the same machine and with the same measure: a change
is made at one, and every other one's state is polled over a connection that is open already. A
peer stands beside us in what it does for its users by default, not in how it does it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from scripts.benchmarks.figures import Figure, middle, quantile
from scripts.benchmarks.fleet import fleet
from scripts.benchmarks.peers_serf import SerfGroup
from scripts.benchmarks.taking import cpu_s, on_the_wire, resident_mb
from scripts.benchmarks.watching import until_all
from tests.e2e.stacks import Connection, Mesh
from tests.e2e.swarm import Swarm


class Group(Protocol):
    """N processes that have met. `changes` has, by what is changed, a function that makes the
    change of some number and gives the seconds until all others show it."""

    label: str
    changes: dict[str, Callable[[int], float]]

    def pids(self) -> list[int]: ...

    def death(self, victim: int) -> float:
        """Seconds from kill -9 of one until all others show that; it is back afterwards."""
        ...


class OwnGroup:
    """Our daemons: three seed peers each, links of their own choice."""

    label = "tektonmesh"

    def __init__(self, mesh: Mesh, count: int) -> None:
        self.swarm = Swarm(mesh, count)
        self.swarm.start()
        self.swarm.converge(within_s=90, equal=False)
        self.changes: dict[str, Callable[[int], float]] = {"CI": self._ci}
        self._doors: dict[str, Connection] = {}

    def pids(self) -> list[int]:
        return [stack.pid() for stack in self.swarm.stacks]

    def _ci(self, number: int) -> float:
        writer, *others = self.swarm.stacks
        name = f"p{number}"
        began = time.monotonic()
        writer.rpc("register", name=name, type="x", persist=True)
        address = {"address": f"{name}@{writer.name}"}
        probes = [lambda s=s: "result" in self._ask(s.name, "get", address) for s in others]
        return until_all(probes) - began

    def death(self, victim: int) -> float:
        dying = self.swarm.stacks[victim]
        others = [stack for stack in self.swarm.stacks if stack is not dying]
        self._doors.pop(dying.name, None)
        for stack in others:
            self._ask(stack.name, "ping", {})  # opens the connection
        began = time.monotonic()
        dying.signal(signal.SIGKILL)
        wanted = {"name": dying.name}

        def shown(name: str) -> bool:
            row = self._ask(name, "stacks", wanted)["result"][0]
            return bool(row["state"] == "unreachable")

        took = until_all([lambda s=s: shown(s.name) for s in others]) - began
        assert dying.process is not None
        dying.process.wait(10)
        dying.start()
        # As with the others: all are there again, whatever else they may tell one another.
        self.swarm.converge(within_s=60, equal=False)
        return took

    def _ask(self, name: str, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if name not in self._doors:
            stack = next(stack for stack in self.swarm.stacks if stack.name == name)
            self._doors[name] = stack.connect()
        door = self._doors[name]
        door.say(id=0, method=method, params=params)
        return door.hear()


@contextlib.contextmanager
def _own(count: int) -> Iterator[Group]:
    with fleet() as mesh:
        yield OwnGroup(mesh, count)


@contextlib.contextmanager
def _serf(count: int) -> Iterator[Group]:
    with contextlib.closing(SerfGroup(count)) as group:
        yield group


def peers(*, quick: bool) -> Iterator[Figure]:
    """Serf with its default LAN profile, then our daemons, at N = 8 and 32."""
    for count in (4,) if quick else (8, 32):
        with _serf(count) as group:
            theirs = list(_measured(group, count, quick))
        yield from theirs
        beside = {figure.name.split(": ")[1]: figure for figure in theirs}
        with _own(count) as group:
            for figure in _measured(group, count, quick):
                yield _beside(figure, beside)


def _beside(figure: Figure, theirs: dict[str, Figure]) -> Figure:
    """Our figure with Serf's of the same kind; what changes at Serf is a tag."""
    what = figure.name.split(": ")[1].replace("CI", "tag")
    return dataclasses.replace(figure, limit=("serf", theirs[what].value))


def _measured(group: Group, count: int, quick: bool) -> Iterator[Figure]:
    settle_s, idle_s, rounds, kills = (3, 5, 3, 1) if quick else (20, 60, 20, 5)

    def figure(what: str, values: list[float], unit: str) -> Figure:
        p50, name = middle(values), f"{group.label}: {what} of {count}"
        if len(values) == 1:
            return Figure("peers", name, p50, unit, 1)
        return Figure("peers", name, p50, unit, len(values), p50=p50, p99=quantile(values, 0.99))

    time.sleep(settle_s)
    pids = group.pids()
    bytes_before, cpu_before = on_the_wire(), sum(map(cpu_s, pids))
    time.sleep(idle_s)
    yield figure("idle wire, each", [(on_the_wire() - bytes_before) / idle_s / count], "B/s")
    cpu = (sum(map(cpu_s, pids)) - cpu_before) / idle_s / count * 100
    yield figure("idle CPU, each", [cpu], "%")
    yield figure("memory (RSS), each", [resident_mb(pid) for pid in pids], "MB")

    chance = random.Random(count)
    victims = chance.sample(range(1, count), kills)
    yield figure("kill -9 shown by all", [group.death(victim) for victim in victims], "s")
    for what, change in group.changes.items():
        waits = []
        for number in range(rounds):
            # Each change stands alone; by chance, so that no timer keeps step with the rounds.
            time.sleep(0.3 + 0.3 * chance.random())
            waits.append(change(number) * 1000)
        yield figure(f"{what} at all", waits, "ms")
