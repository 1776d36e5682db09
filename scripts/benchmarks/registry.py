"""`propagation`: how fast the registration of a CI is visible at all of N stacks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from typing import Any

from scripts.benchmarks.figures import Figure, middle, quantile
from scripts.benchmarks.fleet import fleet, free_port, processes
from tests.e2e.stacks import Connection


def _floor_flood(count: int, rounds: int) -> list[float]:
    """Milliseconds from publishing to the last node, for each round."""
    with processes() as made:
        ports = [free_port() for _ in range(count)]
        nodes = []
        for number in range(count):
            near = [ports[(number - step) % count] for step in (1, 2) if number - step >= 0]
            nodes.append(made.start("floor_flood", *map(str, [ports[number], *near])))
        waits = []
        for number in range(rounds):
            began = time.monotonic()
            _write(nodes[0], f"go {number}\n")
            last = max(float(_read(node).split()[2]) for node in nodes)
            waits.append((last - began) * 1000)
        return waits


def _write(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.flush()


def _read(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline()


def _wait_for(connections: list[Connection], address: str) -> float:
    """The wall time at which the last of these replicas showed `address`."""
    for connection in connections:
        while "result" not in _get(connection, address):
            continue
    return time.time()


def _get(connection: Connection, address: str) -> dict[str, Any]:
    connection.say(id=0, method="get", params={"address": address})
    return connection.hear()


def propagation(*, quick: bool) -> Iterator[Figure]:
    """Registration of a CI until it is visible at all of N."""
    for count in (2, 8) if quick else (2, 8, 32):
        rounds = 5 if quick else 20
        floor = _floor_flood(count, rounds)
        waits = []
        with fleet() as mesh:
            stacks = [mesh.private("n0").start()]
            for number in range(1, count):
                near = [stacks[number - step] for step in (1, 2) if number - step >= 0]
                stacks.append(mesh.private(f"n{number}", *near))
                stacks[-1].start()
            mesh.wait_all_see(stacks, within_s=60)
            connections = [stack.connect() for stack in stacks[1:]]
            for number in range(rounds):
                time.sleep(0.3)  # each change stands alone, as a CI that starts does
                began = time.time()
                stacks[0].rpc("register", name=f"p{number}", type="x", persist=True)
                waits.append((_wait_for(connections, f"p{number}@n0") - began) * 1000)
            for connection in connections:
                connection.close()
        yield Figure(
            "propagation",
            f"all of {count}, with coalescing",
            middle(waits),
            "ms",
            rounds,
            p50=middle(waits),
            p99=quantile(waits, 0.99),
            limit=("floor", middle(floor)),
            goal="p95 at most 80 ms at 32",
        )
