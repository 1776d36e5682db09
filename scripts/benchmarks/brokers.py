"""`brokers`: messages through NATS, Zenoh and Redis, and through our daemons, in the same run.

NATS servers are joined by leaf node links and Zenoh routers by each other, as many as our links;
Redis is one hub between the two ends. None of them has TLS here, seals or signs; our daemons and
the floor have TLS between them, and ours seal each message from end to end. Clients are processes
of their own: over TCP to them, over a Unix socket to ours.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from scripts.benchmarks.figures import Figure, middle
from scripts.benchmarks.fleet import free_port
from scripts.benchmarks.messages import measure
from scripts.benchmarks.packages import environment, provided

ROUTER = Path(__file__).with_name("zenoh_router.py")
ZENOH, ZENOH_VERSION = Path(__file__).parents[2] / ".venv" / "zenoh", "1.10.2"
SIZE = 1024
START_S = 20.0
RUNS = (("rr", 1, "echo"), ("rr", 3, "echo"), ("pipelined", 3, "echo"), ("oneway", 3, "count"))

Chain = Callable[[contextlib.ExitStack, int], tuple[int, int]]
"""Starts what lies between the ends, with so many links; the ports of the sink and of the load."""


def brokers(*, quick: bool) -> Iterator[Figure]:
    """1 KiB messages through each system, p50 of one at a time and rates."""
    with contextlib.ExitStack() as stack:
        systems = dict(_systems(stack))
        for mode, links, what in RUNS:
            count, repeats = (100, 1) if quick else (2000 if mode == "rr" else 20_000, 3)
            real, floor = measure(links, mode, what, count, repeats)
            runs = {"tektonmesh": real}
            for name, (python, chain) in systems.items():
                runs[name] = [
                    _through(python, name, chain, links, (mode, what, count))
                    for _ in range(repeats)
                ]
            yield from _figures(mode, links, runs, floor)


def _figures(mode: str, links: int, runs: dict[str, list], floor: list) -> Iterator[Figure]:
    value, unit = (_p50_us, "us") if mode == "rr" else (_rate, "1/s")
    limit = ("floor", middle([value(run) for run in floor]))
    for name, some in runs.items():
        shown = f"{mode}, {'hub' if name == 'redis' else f'{links} link(s)'}: {name}"
        n, p99 = sum(int(run["n"]) for run in some), middle([run["p99_us"] for run in some])
        middle_of = middle([value(run) for run in some])
        yield Figure("brokers", shown, middle_of, unit, n, p99=p99, limit=limit)


def _p50_us(run: dict[str, float]) -> float:
    return run["p50_us"]


def _rate(run: dict[str, float]) -> float:
    return run["n"] / run["seconds"]


def _through(
    python: str, dialect: str, chain: Chain, links: int, words: tuple[str, str, int]
) -> dict[str, float]:
    """One run through a chain that was started for it."""
    mode, what, count = words
    ends = [python, "-m", "scripts.benchmarks.broker_ends", dialect]
    with contextlib.ExitStack() as stack:
        sink_port, load_port = chain(stack, links)
        _spawn(stack, [*ends, str(sink_port), what], ready=True)
        asked = [*ends, str(load_port), mode, str(count), str(SIZE)]
        done = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=300)
        measured: dict[str, float] = json.loads(done.stdout)
        return measured


def _spawn(stack: contextlib.ExitStack, command: list[str], *, ready: bool = False) -> None:
    """A process that ends with the block; with `ready` it says so first."""
    quiet = subprocess.DEVNULL
    child = stack.enter_context(
        subprocess.Popen(command, stdout=subprocess.PIPE if ready else quiet, stderr=quiet)
    )
    stack.callback(child.kill)
    if ready:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n", command


def _systems(stack: contextlib.ExitStack) -> Iterator[tuple[str, tuple[str, Chain]]]:
    """Those that can be had here: name -> the Python of their ends, and what lies between."""
    packages = {
        "nats": ("nats-server", "nats-server"),
        "redis": ("redis-server", "redis-server", "redis-tools", "liblzf1", "libjemalloc2"),
    }
    for name, (program, *files) in packages.items():
        reason = stack.enter_context(provided(program, *files))
        if reason:
            print(f"brokers: without {name}: {reason}", file=sys.stderr)
        else:
            yield name, (sys.executable, _nats if name == "nats" else _redis)
    reason = environment(ZENOH, "eclipse-zenoh", ZENOH_VERSION)
    if reason:
        print(f"brokers: without zenoh: {reason}", file=sys.stderr)
    else:
        yield "zenoh", (str(ZENOH / "bin" / "python"), _zenoh)


def _nats(stack: contextlib.ExitStack, links: int) -> tuple[int, int]:
    """Servers in a row, each a leaf node of the one before."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tmnats")))
    ports, leaf = [free_port() for _ in range(links + 1)], 0
    for number, port in enumerate(ports):
        remote = f'remotes: [{{ url: "nats-leaf://127.0.0.1:{leaf}" }}]' if number else ""
        leaf = free_port()
        file = folder / f"{number}.conf"
        file.write_text(
            f'listen: "127.0.0.1:{port}"\nserver_name: n{number}\n'
            f'leafnodes {{\n listen: "127.0.0.1:{leaf}"\n {remote}\n}}\n'
        )
        _spawn(stack, ["nats-server", "-c", str(file)])
        _reach(port)
        _reach(leaf)
    return ports[0], ports[-1]


def _redis(stack: contextlib.ExitStack, _links: int) -> tuple[int, int]:
    port = free_port()
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    _spawn(stack, ["redis-server", *words])
    _reach(port)
    return port, port


def _zenoh(stack: contextlib.ExitStack, links: int) -> tuple[int, int]:
    """Routers in a row, each connected to the one before."""
    ports = [free_port() for _ in range(links + 1)]
    for number, port in enumerate(ports):
        onward = [str(ports[number - 1])] if number else []
        command = [str(ZENOH / "bin" / "python"), str(ROUTER), str(port), *onward]
        _spawn(stack, command, ready=True)
    return ports[0], ports[-1]


def _reach(port: int) -> None:
    end = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < end, "it does not listen"
            time.sleep(0.02)
