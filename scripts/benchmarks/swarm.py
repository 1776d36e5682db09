"""`swarm`: sixty daemons on one machine, from a cold start of all at once over kill -9 of ten and
of all to a clean end, and what they take of the machine meanwhile.

Each is a process with a home of its own, three seed peers and, once all have met, two persistent
CIs; whom it links with beyond that is its own choice. The steps are in `tests/e2e/swarm.py`.
"""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from collections.abc import Iterator

from scripts.benchmarks.figures import Figure, load_average, middle, quantile
from scripts.benchmarks.fleet import fleet
from scripts.benchmarks.taking import (
    cpu_of,
    on_the_wire,
    open_files,
    proportional_mb,
    resident_mb,
    threads,
)
from tests.e2e.swarm import Swarm

CIS_EACH = 2
FILES_SPARE = 256
"""What this process itself may have open beside two files for each daemon."""


def swarm(*, quick: bool) -> Iterator[Figure]:
    """60 processes: convergence, ten killed, all killed, and what they take."""
    count, victims, idle_s = (8, 2, 5) if quick else (60, 10, 60)
    _check_limits(count)
    with fleet() as mesh:
        made = Swarm(mesh, count)
        yield from _first_start(made)
        yield from _resources(made, settle_s=idle_s / 3, idle_s=idle_s)
        yield from _some_die(made, victims)
        yield from _all_die(made)
        yield from _all_leave(made)


def _figure(name: str, value: float, unit: str, n: int, goal: str = "") -> Figure:
    return Figure("swarm", name, value, unit, n, goal=goal)


def _spread(name: str, values: list[float], unit: str, goal: str = "") -> Figure:
    p50, p99 = middle(values), quantile(values, 0.99)
    return Figure("swarm", name, p50, unit, len(values), p50=p50, p99=p99, goal=goal)


def _check_limits(count: int) -> None:
    """Say what the machine gives. This process holds few files for each daemon; a daemon's own
    number is measured, and its limit is the same one."""
    files, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") >> 20
    print(
        f"{count} daemons; open files at most {files} for each process, {memory_mb} MB free",
        file=sys.stderr,
    )
    assert files >= 2 * count + FILES_SPARE, "raise the limit: ulimit -n 1024"


def _first_start(made: Swarm) -> Iterator[Figure]:
    count = len(made.stacks)
    yield _figure(f"{count} started at once, ready", made.start(), "s", count)
    took = made.converge(within_s=180)
    yield _figure("then all see all, equal", took, "s", count)
    yield _figure("CPU of the start, each", cpu_of(made.stacks) / count, "s", count)
    began = time.monotonic()
    made.register(CIS_EACH)
    made.converge(within_s=60)
    took = time.monotonic() - began
    yield _figure(f"{CIS_EACH * count} CIs registered, equal", took, "s", count)
    print(f"load average after the start {load_average()}", file=sys.stderr)


def _resources(made: Swarm, *, settle_s: float, idle_s: float) -> Iterator[Figure]:
    """Memory, CPU and bytes while nothing happens."""
    time.sleep(settle_s)
    count = len(made.stacks)
    heads_before, wire_before, cpu_before = _versions(made), on_the_wire(), cpu_of(made.stacks)
    time.sleep(idle_s)
    cpu = (cpu_of(made.stacks) - cpu_before) / idle_s / count * 100
    wire = (on_the_wire() - wire_before) / idle_s / count
    heads = (_versions(made) - heads_before) / idle_s * 60
    pids = [stack.pid() for stack in made.stacks]
    shares = [proportional_mb(pid) for pid in pids]
    yield _spread("memory (RSS)", [resident_mb(pid) for pid in pids], "MB", "at most 55 MB")
    yield _spread("memory (PSS)", shares, "MB")
    yield _figure("memory of all (PSS)", sum(shares), "MB", count)
    yield _spread("open files", [float(open_files(pid)) for pid in pids], "")
    yield _spread("threads", [float(threads(pid)) for pid in pids], "")
    yield _spread("links", [float(len(stack.status()["links"])) for stack in made.stacks], "")
    yield _figure("CPU when idle, each", cpu, "%", int(idle_s), "at most 0.5 %")
    yield _figure("idle wire, each", wire, "B/s", int(idle_s), "at most 1,200 B/s at 100")
    yield _figure("heads signed when idle, all", heads, "/min", int(idle_s))
    print(f"load average when idle {load_average()}", file=sys.stderr)


def _versions(made: Swarm) -> int:
    """The numbers of all newest heads that one daemon holds, summed: how often all have signed."""
    return sum(row["head"][2] for row in made.stacks[0].stacks().values())


def _some_die(made: Swarm, number: int) -> Iterator[Figure]:
    victims = random.Random(2).sample(made.stacks, number)
    deaths = made.kill(victims, within_s=30, hold_s=10)
    goal = "at most 2 s for all"
    yield _spread(f"{number} killed, shown by each", deaths.waits_s, "s", goal)
    yield _figure(
        f"{number} killed, shown by all", max(deaths.waits_s), "s", len(deaths.waits_s), goal
    )
    for told in deaths.strays[:10]:
        print(f"told of one who lives: {told}", file=sys.stderr)
    yield _figure("living ones shown gone", len(deaths.strays), "", len(deaths.waits_s), "0")
    made.start(victims)
    took = made.converge(within_s=120)
    yield _figure(f"{number} restarted, all equal", took, "s", len(made.stacks))


def _all_die(made: Swarm) -> Iterator[Figure]:
    count = len(made.stacks)
    for stack in made.stacks:
        stack.kill()
    yield _figure(f"{count} killed, restarted, ready", made.start(), "s", count)
    took = made.converge(within_s=180)
    yield _figure("then all see all, equal, CIs", took, "s", count)
    made.check_cis()


def _all_leave(made: Swarm) -> Iterator[Figure]:
    codes, took = made.stop()
    yield _figure("SIGTERM to all, ended", took, "s", len(codes), "at most 5 s")
    unclean = sum(code != 0 for code in codes)
    yield _figure("exit codes other than 0", unclean, "", len(codes), "0")
