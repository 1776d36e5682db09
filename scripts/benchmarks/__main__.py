"""`./scripts/bench [NAME...] [--json] [--quick]`: runs the named benchmarks, all by default."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Callable

from scripts.benchmarks.figures import load_average, show
from scripts.benchmarks.joining import join
from scripts.benchmarks.messages import pipelined, relay, rr
from scripts.benchmarks.registry import propagation
from scripts.benchmarks.resting import idle, start

BENCHES: dict[str, Callable] = {
    "start": start,
    "rr": rr,
    "pipelined": pipelined,
    "relay": relay,
    "propagation": propagation,
    "join": join,
    "idle": idle,
}


def in_own_namespace(name: str, options: argparse.Namespace) -> bool:
    """`idle` counts an interface, so as root it runs in a network namespace made for it."""
    if name != "idle" or os.geteuid() != 0 or not shutil.which("ip") or options.inside:
        return False
    netns = f"tmbench{os.getpid()}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
        flags = [f"--{flag}" for flag in ("json", "quick") if getattr(options, flag)]
        inside = [sys.executable, "-m", "scripts.benchmarks", name, "--inside", *flags]
        subprocess.run(["ip", "netns", "exec", netns, *inside], check=True)
    finally:
        subprocess.run(["ip", "netns", "del", netns], check=True)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--json", action="store_true", help="one JSON object per figure")
    parser.add_argument("--quick", action="store_true", help="that it runs, not how fast")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHES)}")
    if not options.inside:
        print(f"load average {load_average()}, {os.cpu_count()} cores", file=sys.stderr)
    for name in options.names or BENCHES:
        if in_own_namespace(name, options):
            continue
        for figure in BENCHES[name](quick=options.quick):
            show([figure], options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
