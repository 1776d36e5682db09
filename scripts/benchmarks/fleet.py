"""The processes of a benchmark: real daemons, or the bare programs they stand beside."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.stacks import Mesh, Stack, a_mesh, free_ports, wait_until

PYTHON = [sys.executable, "-m"]


def free_port() -> int:
    return free_ports(1)[0]


class Processes:
    """Child processes that say `ready`; all of them end with the block."""

    def __init__(self) -> None:
        self.all: list[subprocess.Popen[str]] = []

    def start(self, module: str, *words: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [*PYTHON, f"scripts.benchmarks.{module}", *words],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self.all.append(child)
        assert child.stdout is not None
        said = child.stdout.readline()
        assert said == "ready\n", f"{module} {words}: {said!r}"
        return child

    def close(self) -> None:
        for child in self.all:
            child.kill()
            child.wait()


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    made = Processes()
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def fleet() -> Iterator[Mesh]:
    with tempfile.TemporaryDirectory(prefix="tmb") as folder, a_mesh(Path(folder)) as mesh:
        yield mesh


def socket_of(stack: Stack) -> str:
    return str(stack.home / "tektonmesh.sock")


def run_load(*words: str) -> dict[str, float]:
    done = subprocess.run(
        [*PYTHON, "scripts.benchmarks.load", *words],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@contextlib.contextmanager
def floor_chain(links: int, what: str) -> Iterator[str]:
    """Bare nodes with `links` TLS links between the two ends; gives the first one's socket."""
    with tempfile.TemporaryDirectory(prefix="tmf") as folder, processes() as made:
        port = free_port()
        made.start("floor_node", f"{folder}/0", str(port), "deliver")
        made.start("sink", "floor", f"{folder}/0", "ci", what)
        for number in range(1, links + 1):
            onward, port = port, free_port()
            made.start("floor_node", f"{folder}/{number}", str(port), str(onward))
        yield f"{folder}/{links}"


@contextlib.contextmanager
def mesh_chain(links: int, what: str) -> Iterator[str]:
    """Real daemons with `links` links between the two ends; gives the first one's socket."""
    with fleet() as mesh, processes() as made:
        names = "abcdefgh"[: links + 1]
        chain = mesh.chain(names)
        made.start("sink", "mesh", socket_of(chain[-1]), "ci", what)
        target = f"ci@{names[-1]}"
        wait_until(target, lambda: target in chain[0].cis(), within_s=10)
        yield socket_of(chain[0])
