"""What running daemons take of the machine, as the kernel counts it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.stacks import Stack


def resident_mb(pid: int) -> float:
    return _field(Path(f"/proc/{pid}/status"), "VmRSS:") / 1024


def proportional_mb(pid: int) -> float:
    """Pages that several processes share count in each for its part."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / 1024


def threads(pid: int) -> int:
    return _field(Path(f"/proc/{pid}/status"), "Threads:")


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_of(stacks: list[Stack]) -> float:
    return sum(cpu_s(stack.pid()) for stack in stacks)


def on_the_wire() -> int:
    """Bytes that crossed the loopback interface, TCP and IP headers too."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == "lo":
            return int(rest.split()[0])
    raise AssertionError("no loopback interface")


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise AssertionError(f"no {name} in {path}")
