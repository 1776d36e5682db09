"""`start` and `idle`: what a daemon costs before and while nothing happens."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from scripts.benchmarks.figures import Figure, middle
from scripts.benchmarks.fleet import fleet
from scripts.benchmarks.taking import cpu_of, on_the_wire, resident_mb
from tests.e2e.stacks import Stack

BARE = """
import trio, ssl, sqlite3, msgpack, nacl.signing
from cryptography import x509
async def main():
    await trio.open_tcp_listeners(0, host="127.0.0.1")
    print("ready", flush=True)
    await trio.sleep_forever()
trio.run(main)
"""


def _bare_start() -> tuple[float, float]:
    """Milliseconds until a bare Trio listener with the same libraries is ready, and its memory."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    took = (time.perf_counter() - began) * 1000
    memory = resident_mb(child.pid)
    child.kill()
    child.wait()
    return took, memory


def start(*, quick: bool) -> Iterator[Figure]:
    """`run` until ready, with a home that exists; memory when idle."""
    repeats = 2 if quick else 7
    bare = [_bare_start() for _ in range(repeats)]
    times, memories = [], []
    with fleet() as mesh:
        stack = mesh.private("a").start()
        stack.stop()
        for _ in range(repeats):
            began = time.perf_counter()
            stack.spawn()
            stack.wait_ready(every_s=0.002)
            times.append((stack.ready_at - began) * 1000)
            time.sleep(1.0)
            memories.append(resident_mb(stack.pid()))
            stack.stop()
    floor_ms, floor_mb = middle([one for one, _ in bare]), middle([two for _, two in bare])
    yield Figure(
        "start",
        "until ready",
        middle(times),
        "ms",
        repeats,
        limit=("floor", floor_ms),
        goal="at most 350 ms",
    )
    yield Figure(
        "start",
        "memory when idle",
        middle(memories),
        "MB",
        repeats,
        limit=("floor", floor_mb),
        goal="at most 55 MB",
    )


def idle(*, quick: bool) -> Iterator[Figure]:
    """Bytes a second and node on the wire (TCP and IP headers too) and CPU, with nothing to do.

    Counts the whole loopback interface: run it where nothing else uses it (./scripts/bench makes a
    network namespace of its own for it when it is root).
    """
    goals = {2: 100, 8: 250, 32: 300}
    for count in (2,) if quick else (2, 8, 32):
        settle, measured = (5, 10) if quick else (20, 60)
        with fleet() as mesh:
            stacks = _ring(mesh, count)
            time.sleep(settle)
            bytes_before, cpu_before = on_the_wire(), cpu_of(stacks)
            time.sleep(measured)
            rate = (on_the_wire() - bytes_before) / measured / count
            cpu = (cpu_of(stacks) - cpu_before) / measured / count * 100
        yield Figure(
            "idle",
            f"wire at {count}",
            rate,
            "B/s",
            measured,
            goal=f"at most {goals[count]} B/s",
        )
        yield Figure("idle", f"CPU at {count}", cpu, "%", measured, goal="at most 0.5 %")


def _ring(mesh, count: int) -> list[Stack]:
    """Each stack linked with the two before it, which gives a mean degree of 4."""
    stacks = [mesh.private("n0").start()]
    for number in range(1, count):
        near = [stacks[number - step] for step in (1, 2) if number - step >= 0]
        stacks.append(mesh.private(f"n{number}", *near))
        stacks[-1].start()
    mesh.wait_all_see(stacks, within_s=90)
    return stacks
