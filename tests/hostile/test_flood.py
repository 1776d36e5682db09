"""A member that floods and strangers who knock without end, against a stack that others use."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tektonmesh.net.gate import WAITING_MAX
from tests.e2e.stacks import Stack, a_mesh, pause, wait_until
from tests.hostile.attacks import flooding, knocking, waits_s

ROUNDS = 120
NOISE_S = 0.06
"""What a shared machine adds to one message in a hundred by itself."""
GROWTH_MAX_KIB = 96 * 1024
STRANGERS = 10_000
AT_ONCE_MIN = 256
"""As many as the kernel holds for a daemon; there are about a thousand at a time."""
PATIENCE_S = 10.0
"""What a handshake may take (docs/design/security.md)."""
ODD_FILES = 24
"""What a daemon has open for a moment: a connection that is just being refused, its disk."""


def rss_kib(stack: Stack) -> int:
    """Memory of the daemon, in KiB."""
    text = Path(f"/proc/{stack.pid()}/status").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS"))


def p99(stack: Stack) -> float:
    """Seconds that 99 of 100 messages through the mesh take at most."""
    return waits_s(stack, ROUNDS)[int(ROUNDS * 0.99) - 1]


@pytest.mark.hostile("half-open", "inbox-flood")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_flood_slows_others_by_half_at_most_and_fills_no_memory(tmp_path: Path) -> None:
    with a_mesh(tmp_path) as mesh:
        west = mesh.private("west").start()
        east = mesh.private("east", west).start()
        mesh.wait_all_see([west, east])
        west.start_echo("numa")
        wait_until("east sees numa", lambda: "numa@west" in east.cis(), within_s=10)
        p99(east)
        quiet, before = p99(east), rss_kib(west)
        with flooding(mesh, west):
            wait_until(
                "the flood is noticed",
                lambda: [p for p in west.rpc("peers") if p["name"] == "mallory" and p["strikes"]],
                within_s=20,
            )
            loud = min(p99(east) for _ in range(2))
            began = time.perf_counter()
            assert west.status()["name"] == "west"
            asked = time.perf_counter() - began
            grown = rss_kib(west) - before
        print(f"p99 quiet {quiet * 1e3:.1f} ms, flooded {loud * 1e3:.1f} ms; +{grown} KiB")
        assert loud <= 2 * quiet + NOISE_S
        assert asked < 1.0
        assert grown < GROWTH_MAX_KIB
        assert "east" in west.up()


def open_files(stack: Stack) -> int:
    return len(list(Path(f"/proc/{stack.pid()}/fd").iterdir()))


@pytest.mark.hostile("half-open")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files are counted in /proc")
def test_ten_thousand_handshakes_that_never_end_are_ended_and_others_are_served(
    tmp_path: Path,
) -> None:
    with a_mesh(tmp_path) as mesh:
        west = mesh.private("west").start()
        east = mesh.private("east", west).start()
        mesh.wait_all_see([west, east])
        west.start_echo("numa")
        wait_until("east sees numa", lambda: "numa@west" in east.cis(), within_s=10)
        p99(east)
        files, memory, most, slowest = open_files(west), rss_kib(west), 0, 0.0
        with knocking(west, STRANGERS) as knocker:
            while knocker.poll() is None:
                began = time.perf_counter()
                assert east.rpc("send", to="numa@west", body="x", timeout_s=5)["body"] == "x"
                assert west.status()["name"] == "west"
                slowest = max(slowest, time.perf_counter() - began)
                most = max(most, open_files(west) - files)
                pause(0.02)
            assert knocker.stdout is not None
            told = json.loads(knocker.stdout.read())
        grown = rss_kib(west) - memory
        print(f"{told}; {most} more files, +{grown} KiB, at most {slowest * 1e3:.0f} ms")
        assert told["reached"] == STRANGERS
        assert told["most_at_once"] > AT_ONCE_MIN
        assert WAITING_MAX // 2 <= most <= WAITING_MAX + ODD_FILES
        assert told["longest_s"] < PATIENCE_S + 3.0
        assert slowest < 1.5
        assert grown < GROWTH_MAX_KIB
        assert "east" in west.up()
        late = mesh.private("late", west).start()
        mesh.wait_all_see([west, east, late], within_s=20)
