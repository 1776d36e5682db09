"""The official conformance suite of MCP: at a gateway, here and two hops away, and at the attaching
side. Needs Node and the suite from npm (`./scripts/node`)."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.hosts import CONFORMANCE, attach
from tests.e2e.stacks import Stack, a_mesh, wait_until

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".venv" / "node" / "node_modules"
SUITE = MODULES / "@modelcontextprotocol" / "conformance"
HERE = Path(__file__).parent
NEW, OLD = "2026-07-28", "2025-11-25"
LINE = re.compile(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed", re.MULTILINE)
TRIES = 2
"""A scenario of the client that failed is tried once more: its server waits 30 s in all, which a
busy machine can use up."""


def nodes() -> list[Path]:
    return [path / "bin" / "node" for path in MODULES.glob("node-linux-*")]


@pytest.fixture(scope="module")
def node() -> Path:
    """Node 22, installed if it can be. Where it cannot the tests are skipped, on CI they fail."""
    done = subprocess.run([ROOT / "scripts" / "node"], capture_output=True, text=True, timeout=600)
    usable = [path for path in nodes() if path.exists()]
    if done.returncode or not usable:
        reason = done.stderr.strip().splitlines()[-1:] or ["there is no Node for this machine"]
        if os.environ.get("CI"):
            pytest.fail(f"the conformance suite cannot run: {reason[0]}")
        pytest.skip(f"the conformance suite cannot run: {reason[0]}")
    return usable[0]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Stack]]:
    """The ends of a chain of three: `a`, and `c` with the servers `new` and `old`."""
    with a_mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        a, _b, c = mesh.chain("abc")
        attach(c, "new", server=CONFORMANCE)
        attach(c, "old", "--old", server=CONFORMANCE)
        wait_until("a sees them", lambda: {"new@c", "old@c"} <= set(a.cis()), within_s=10)
        # The catalogue comes behind its record.
        wait_until("listed", lambda: len(a.rpc("tools", ci="old@c")) > 20, within_s=10)
        wait_until("listed", lambda: len(a.rpc("tools", ci="new@c")) > 20, within_s=10)
        yield a, c


@contextmanager
def relayed(stack: Stack) -> Iterator[str]:
    """An address on loopback that leads to a stack's socket: the suite knows no Unix sockets and no
    tokens."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        path = str(stack.home / "tektonmesh.sock")
        threading.Thread(target=accept, args=(listener, path), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def accept(listener: socket.socket, path: str) -> None:
    while True:
        try:
            outer, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=relay, args=(outer, path), daemon=True).start()


def relay(outer: socket.socket, path: str) -> None:
    with outer, socket.socket(socket.AF_UNIX) as inner:
        inner.connect(path)
        back = threading.Thread(target=carry, args=(inner, outer), daemon=True)
        back.start()
        carry(outer, inner)
        back.join()


def carry(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65_536):
            sink.sendall(data)
    except OSError:
        pass  # One side hung up; the other is told.
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def run(node: Path, folder: Path, *words: str) -> str:
    """What the suite printed."""
    command = [str(node), str(SUITE / "dist" / "index.js"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    return done.stdout + done.stderr


def required(side: str, revision: str) -> list[str]:
    """The scenarios that a revision requires, from the suite's own frozen list."""
    text = (SUITE / "requirements" / f"{revision}.yaml").read_text()
    part = re.search(rf"^{side}:\n((?:  - .*\n)+)", text, re.MULTILINE)
    assert part is not None
    return [line.strip("- ").strip() for line in part[1].splitlines()]


@pytest.mark.parametrize(
    ("where", "revision", "ci"),
    [
        ("here", NEW, "new"),
        ("here", OLD, "new"),
        ("two hops away", NEW, "new"),
        ("two hops away", OLD, "new"),
        ("two hops away", OLD, "old"),
    ],
)
def test_every_required_scenario_of_the_server_passes(
    node: Path, chain: tuple[Stack, Stack], tmp_path: Path, where: str, revision: str, ci: str
) -> None:
    stack = chain[1] if where == "here" else chain[0]
    with relayed(stack) as address:
        url = f"{address}/mcp/ci/{ci}@c"
        shown = run(node, tmp_path, "server", "--url", url, "--requirements", revision)
    passed = [name for name, _good, bad in LINE.findall(shown) if bad == "0"]
    wanted = required("server", revision)
    assert len(wanted) == (37 if revision == NEW else 30)
    missing = [name for name in wanted if name not in passed]
    assert not missing, shown


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("door") / "s"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "door.py"), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield path
    process.kill()
    process.wait(10)
    process.stdout.close()


CLIENT_SCENARIOS = 32


def test_every_required_scenario_of_the_client_passes(
    node: Path, door: Path, tmp_path: Path
) -> None:
    command = f"{sys.executable} -S {HERE / 'knock.py'} {door}"
    wanted = required("client", NEW)
    assert len(wanted) == CLIENT_SCENARIOS
    shown = run(node, tmp_path, "client", "--command", command, "--requirements", NEW)
    passed = [name for name, _good, bad in LINE.findall(shown) if bad == "0"]
    for name in [name for name in wanted if name not in passed]:
        words = ("client", "--command", command, "--scenario", name, "--spec-version", NEW)
        again = [run(node, tmp_path, *words) for _ in range(TRIES - 1)]
        assert any("OVERALL: PASSED" in one for one in again), again[-1]
