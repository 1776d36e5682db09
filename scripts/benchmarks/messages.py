"""`rr`, `pipelined` and `relay`: requests and one-way messages over 1 and 3 links."""

from __future__ import annotations

from collections.abc import Iterator

from scripts.benchmarks.figures import Figure, middle
from scripts.benchmarks.fleet import floor_chain, mesh_chain, run_load


def measure(links: int, mode: str, what: str, count: int, repeats: int) -> tuple[list, list]:
    """What `load` printed of each run through our daemons, and through the floor."""
    last = "abcdefgh"[links]
    with floor_chain(links, what) as path:
        floor = [run_load("floor", path, "ci", mode, str(count), "1024") for _ in range(repeats)]
    with mesh_chain(links, what) as path:
        target = f"ci@{last}"
        real = [run_load("mesh", path, target, mode, str(count), "1024") for _ in range(repeats)]
    return real, floor


def rr(*, quick: bool) -> Iterator[Figure]:
    """Request and reply of 1 KiB, clients on both ends, one at a time."""
    count, repeats = (200, 1) if quick else (3000, 3)
    for links, goal in ((1, "at most 1.25"), (3, "at most 1.2")):
        real, floor = measure(links, "rr", "echo", count, repeats)
        value = middle([run["p50_us"] for run in real])
        yield Figure(
            "rr",
            f"{links} link(s), p50",
            value,
            "us",
            count * repeats,
            p50=value,
            p99=middle([run["p99_us"] for run in real]),
            limit=("floor", middle([run["p50_us"] for run in floor])),
            goal=goal,
        )


def pipelined(*, quick: bool) -> Iterator[Figure]:
    """The same with 64 in flight over 3 links."""
    yield from _rates("pipelined", "pipelined", "echo", ((3, "at least 0.75"),), quick=quick)


def relay(*, quick: bool) -> Iterator[Figure]:
    """One-way 1 KiB messages through one relay and over 3 links, counted at the receiver."""
    goals = ((2, "60,000/s"), (3, "35,000/s"))
    yield from _rates("relay", "oneway", "count", goals, quick=quick)


def _rates(
    bench: str, mode: str, what: str, goals: tuple[tuple[int, str], ...], *, quick: bool
) -> Iterator[Figure]:
    count, repeats = (1000, 1) if quick else (20_000, 3)
    for links, goal in goals:
        real, floor = measure(links, mode, what, count, repeats)
        value = middle([run["n"] / run["seconds"] for run in real])
        yield Figure(
            bench,
            f"{links} links",
            value,
            "1/s",
            count * repeats,
            p50=middle([run["p50_us"] for run in real]),
            p99=middle([run["p99_us"] for run in real]),
            limit=("floor", middle([run["n"] / run["seconds"] for run in floor])),
            goal=goal,
        )
