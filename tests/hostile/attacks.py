"""Attackers as processes, and what others wait for meanwhile; for tests and the benchmark."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.stacks import Connection, Mesh, Stack


@contextmanager
def flooding(mesh: Mesh, victim: Stack) -> Iterator[None]:
    """A member that floods until it is held off, and strangers who come and go (`flooder.py`)."""
    with _attacker("flooder.py", str(victim.port), str(mesh.secret), "own"):
        yield


@contextmanager
def knocking(victim: Stack, strangers: int) -> Iterator[subprocess.Popen[bytes]]:
    """Strangers whose handshakes never end (`knocker.py`)."""
    with _attacker("knocker.py", str(victim.port), str(strangers)) as process:
        yield process


@contextmanager
def _attacker(script: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process, once it says that it is at it."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *words]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet) as process:
        try:
            assert process.stdout is not None and process.stdout.readline(), script
            yield process
        finally:
            process.kill()


def waits_s(stack: Stack, count: int) -> list[float]:
    """What messages to `numa@west` take, one after the other, the quickest first."""
    times = []
    with Connection(stack.home / "tektonmesh.sock") as stream:
        for number in range(count):
            began = time.perf_counter()
            stream.say(id=number, method="send", params={"to": "numa@west", "body": "x"})
            assert "result" in stream.hear()
            times.append(time.perf_counter() - began)
    return sorted(times)
