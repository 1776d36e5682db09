"""A large body and a stream of tokens over one link of 50 Mbit/s, both in the same direction.

Two stacks in namespaces of their own, a shaped link between them (`tc`: tbf, with a queue of
300 ms, as cheap routers have). Tokens are timed from the CI that makes them to the caller that
reads them, alone first, then beside the body. `./scripts/beside --mb 200` prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tektonmesh.sync import Client
from tests.e2e.lab import Lab, a_lab
from tests.e2e.stacks import Mesh, Stack, a_mesh, wait_until

RATE_MBIT = 50
TOKENS_PER_S = 50.0
PART = 1 << 20


@contextlib.contextmanager
def a_link(lab: Lab, mesh: Mesh) -> Iterator[tuple[Stack, Stack]]:
    """Two stacks that know of each other, and nothing but one shaped link between them."""
    lab.bridge("br0")
    stacks: list[Stack] = []
    for number, name in enumerate("ab", 1):
        netns = lab.host(name, "br0", f"10.77.0.{number}/24")
        shape(netns)
        seeds = ["--seed", f"10.77.0.1:{7700}"] if stacks else []
        listen = ["--listen", f"10.77.0.{number}:7700"]
        words = [*mesh.by_secret(), "--seeds-only", *listen, *seeds]
        stacks.append(mesh.add(name, *words, netns=netns).start())
    mesh.wait_all_see(stacks)
    yield stacks[0], stacks[1]


def shape(netns: str) -> None:
    """What leaves there is shaped; so both directions are."""
    shaped = ["tbf", "rate", f"{RATE_MBIT}mbit", "burst", "16kb", "latency", "300ms"]
    command = ["ip", "netns", "exec", netns, "tc", "qdisc", "add", "dev", "eth0", "root", *shaped]
    subprocess.run(command, check=True, capture_output=True, timeout=20)


class Tokens(threading.Thread):
    """Reads a stream of tokens on one stack and notes how late each is, in ms."""

    def __init__(self, stack: Stack, target: str, seconds: float) -> None:
        super().__init__(daemon=True)
        self.stack, self.target, self.seconds = stack, target, seconds
        self.late_ms: list[float] = []
        self.problem: Exception | None = None

    def run(self) -> None:
        rest = ""
        body = f"{self.seconds} {TOKENS_PER_S}"
        try:
            with (
                Client(self.stack.home / "tektonmesh.sock", 120.0) as client,
                client.stream(self.target, body, timeout=self.seconds + 60.0) as reply,
            ):
                for text in reply:
                    now = time.monotonic_ns()
                    *whole, rest = (rest + text).split(" ")
                    self.late_ms += [(now - int(token)) / 1e6 for token in whole]
        except Exception as error:
            self.problem = error

    def done(self) -> dict[str, float]:
        """How late they were; the first few, which warm things up, do not count."""
        self.join(self.seconds + 120.0)
        assert self.problem is None, self.problem
        late = sorted(self.late_ms[10:])
        assert len(late) > 0.8 * (self.seconds * TOKENS_PER_S - 10), len(late)
        return {
            "tokens": len(late),
            "p50_ms": round(late[len(late) // 2], 1),
            "p99_ms": round(late[int(len(late) * 0.99)], 1),
            "max_ms": round(late[-1], 1),
        }


def a_body(folder: Path, size: int) -> tuple[Path, str]:
    """A file of so many bytes that no layer can make smaller, and its SHA-256."""
    path, luck, digest = folder / "body", random.Random(7), hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, size, PART):
            part = luck.randbytes(min(PART, size - at))
            digest.update(part)
            file.write(part)
    return path, digest.hexdigest()


def measure(mesh: Mesh, lab: Lab, size: int, alone_s: float) -> dict[str, Any]:
    """The figures of one run. The body goes from a to b, and so do the tokens."""
    with a_link(lab, mesh) as (a, b):
        a.start_ticker("ticker")
        b.start_hash("hash")
        wait_until("ticker@a on b", lambda: "ticker@a" in b.cis(), within_s=10)
        wait_until("hash@b on a", lambda: "hash@b" in a.cis(), within_s=10)
        path, digest = a_body(mesh.folder, size)
        alone = Tokens(b, "ticker@a", alone_s)
        alone.start()
        figures: dict[str, Any] = {"mb": size / 1e6, "alone": alone.done()}
        floor_s = size * 8 / (RATE_MBIT * 1e6)
        beside = Tokens(b, "ticker@a", floor_s)
        began, cpu_s = time.monotonic(), {stack.name: stack.cpu_s() for stack in (a, b)}
        beside.start()
        with Client(a.home / "tektonmesh.sock", 600.0) as client:
            reply = client.send("hash@b", path, timeout=900.0)
        took_s = time.monotonic() - began
        got = json.loads(reply.body)
        assert (got["size"], got["sha256"]) == (size, digest), got
        figures |= {"beside": beside.done(), "body_s": round(took_s, 1)}
        figures["mbit_s"] = round(size * 8 / took_s / 1e6, 1)
        for one in ("p50_ms", "p99_ms"):
            figures[f"more_{one}"] = round(figures["beside"][one] - figures["alone"][one], 1)
        figures["cpu_s"] = {
            stack.name: round(stack.cpu_s() - cpu_s[stack.name], 1) for stack in (a, b)
        }
        figures["resident_mb"] = {stack.name: round(stack.resident_mb()) for stack in (a, b)}
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="beside", description=__doc__)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--alone-s", type=float, default=20.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        a_lab("side") as lab,
        a_mesh(Path(folder)) as mesh,
    ):
        figures = measure(mesh, lab, options.mb * 1_000_000, options.alone_s)
    json.dump(figures, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
