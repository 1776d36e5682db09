"""`durable`: how long until a message is accepted, that is, on the disk; and how many a second.

The destination is away, so nothing but accepting is measured; then it is there, and the messages
are delivered, answered and confirmed meanwhile. The floor is a bare program that writes the same
rows in groups and answers (`floor_durable`), on the same file system with the same settings.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.figures import Figure, middle, quantile
from scripts.benchmarks.fleet import fleet, processes, run_load, socket_of
from tests.e2e.stacks import wait_until

SIZE = 1024


def durable(*, quick: bool) -> Iterator[Figure]:
    """Accept p50 with one sender, and the rate with 64 in flight."""
    one, many, repeats = (100, 500, 1) if quick else (1000, 1800, 3)
    with tempfile.TemporaryDirectory(prefix="tmf") as folder, processes() as made:
        place = f"{folder}/floor"
        made.start("floor_durable", place, folder)
        floor = [("floor", place, "ci", mode) for mode in ("durable", "durable64")]
        singles = [run_load(*floor[0], str(one), str(SIZE)) for _ in range(repeats)]
        batched = [run_load(*floor[1], str(many), str(SIZE)) for _ in range(repeats)]
    with fleet() as mesh, processes() as made:
        a, b = mesh.chain("ab")
        made.start("sink", "mesh", socket_of(b), "ci", "echo")
        wait_until("ci@b", lambda: "ci@b" in a.cis(), within_s=10)
        b.kill()
        wait_until("b away", lambda: a.stacks()["b"]["state"] == "unreachable", within_s=10)
        load = ("mesh", socket_of(a), "ci@b")
        runs = [run_load(*load, "durable", str(one), str(SIZE)) for _ in range(repeats)]
        yield Figure(
            "durable",
            "accepted, one sender, p50",
            middle([run["p50_us"] for run in runs]),
            "us",
            one * repeats,
            p50=middle([run["p50_us"] for run in runs]),
            p99=middle([run["p99_us"] for run in runs]),
            limit=("floor", middle([run["p50_us"] for run in singles])),
            goal="at most 1,000",
        )
        yield Figure("durable", "one commit of SQLite, p50", _commits(one), "us", one)
        runs = [run_load(*load, "durable64", str(many), str(SIZE)) for _ in range(repeats)]
        yield _rate("accepted, 64 in flight", runs, batched, "at least 8,000")
    with fleet() as mesh, processes() as made:
        a, b = mesh.chain("ab")
        made.start("sink", "mesh", socket_of(b), "ci", "echo")
        wait_until("ci@b", lambda: "ci@b" in a.cis(), within_s=10)
        load = ("mesh", socket_of(a), "ci@b")
        began = time.perf_counter()
        runs = [run_load(*load, "durable64", str(many), str(SIZE)) for _ in range(repeats)]
        yield _rate("the same, delivered as well", runs, batched, "")
        wait_until("all answered", lambda: not a.status()["queues"]["outbox"], within_s=60)
        total = repeats * (many + max(20, many // 10))
        rate = total / (time.perf_counter() - began)
        yield Figure("durable", "accepted to answered, all", rate, "1/s", total)


def _rate(name: str, runs: list, floor: list, goal: str) -> Figure:
    return Figure(
        "durable",
        name,
        middle([run["n"] / run["seconds"] for run in runs]),
        "1/s",
        sum(int(run["n"]) for run in runs),
        p50=middle([run["p50_us"] for run in runs]),
        p99=middle([run["p99_us"] for run in runs]),
        limit=("floor", middle([run["n"] / run["seconds"] for run in floor])),
        goal=goal,
    )


def _commits(count: int) -> float:
    """The p50 of a commit of one row by SQLite alone, in us."""
    waits = []
    with tempfile.TemporaryDirectory(prefix="tmf") as folder:
        db = sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        for number in range(count):
            began = time.perf_counter()
            db.execute("INSERT INTO kv VALUES (?, ?)", (number.to_bytes(16), b"x" * SIZE))
            waits.append(time.perf_counter() - began)
        db.close()
    return quantile(waits, 0.5) * 1e6
