"""`./scripts/bench [NAME...] [--peers] [--json | --markdown] [--quick]`: runs the named benchmarks.

Without a name and without `--peers` all run but `peers`, `brokers` and `gateways`, which need other
programs, and `silence`, which takes a quarter of an hour. `--peers` adds `gateways` beside `mcp`,
`brokers` beside `rr`, `pipelined` or `relay`, and `peers` otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from scripts.benchmarks.brokers import brokers
from scripts.benchmarks.durable import durable
from scripts.benchmarks.figures import MARKDOWN_HEAD, load_average, show
from scripts.benchmarks.flood import flood
from scripts.benchmarks.gateways import gateways
from scripts.benchmarks.gateways import provided as forge_provided
from scripts.benchmarks.joining import join
from scripts.benchmarks.messages import pipelined, relay, rr
from scripts.benchmarks.packages import provided
from scripts.benchmarks.peers import peers
from scripts.benchmarks.registry import propagation
from scripts.benchmarks.resting import idle, start
from scripts.benchmarks.swarm import swarm
from scripts.benchmarks.tools import mcp, silence

BENCHES: dict[str, Callable] = {
    "start": start,
    "rr": rr,
    "pipelined": pipelined,
    "relay": relay,
    "durable": durable,
    "propagation": propagation,
    "join": join,
    "idle": idle,
    "mcp": mcp,
    "brokers": brokers,
    "gateways": gateways,
    "silence": silence,
    "flood": flood,
    "swarm": swarm,
    "peers": peers,
}
ALONE = ("idle", "peers", "swarm")
"""They count an interface, so as root each runs in a network namespace made for it."""
ASKED_FOR = ("brokers", "gateways", "peers", "silence")
PROVIDED = {"gateways": forge_provided, "peers": partial(provided, "serf", "serf")}
"""What installs the other programs for the length of a block, or says why it cannot."""


def in_own_namespace(name: str, options: argparse.Namespace) -> bool:
    """Run a benchmark that must be alone in a namespace; False if that is not called for."""
    if name not in ALONE or os.geteuid() != 0 or not shutil.which("ip") or options.inside:
        return False
    netns = f"tmbench{os.getpid()}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
        flags = ["--quick"] if options.quick else []
        flags += [] if options.form == "text" else [f"--{options.form}"]
        inside = [sys.executable, "-m", "scripts.benchmarks", name, "--inside", *flags]
        subprocess.run(["ip", "netns", "exec", netns, *inside], check=True)
    finally:
        subprocess.run(["ip", "netns", "del", netns], check=True)
    return True


def main() -> int:
    options = read_options()
    if not options.inside:
        print(f"load average {load_average()}, {os.cpu_count()} cores", file=sys.stderr)
        if options.form == "markdown":
            print(MARKDOWN_HEAD, flush=True)
    for name in options.names:
        with PROVIDED.get(name, lambda: contextlib.nullcontext(""))() as missing:
            if missing:
                print(f"{name}: skipped: {missing}", file=sys.stderr)
            elif not in_own_namespace(name, options):
                for figure in BENCHES[name](quick=options.quick):
                    show(figure, options.form)
    return 0


def read_options() -> argparse.Namespace:
    """What the command line asks for, with every name it stands for in `names`."""
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--peers", action="store_true", help="other systems beside our daemons")
    forms = parser.add_mutually_exclusive_group()
    for form, what in (("json", "one JSON object per figure"), ("markdown", "rows of a table")):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=what)
    parser.set_defaults(form="text")
    parser.add_argument("--quick", action="store_true", help="that it runs, not how fast")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHES)}")
    if options.peers:
        options.names.append(_beside(options.names))
    options.names = options.names or [name for name in BENCHES if name not in ASKED_FOR]
    return options


def _beside(names: list[str]) -> str:
    """The benchmark that shows other systems beside these."""
    if "mcp" in names:
        return "gateways"
    return "brokers" if {"rr", "pipelined", "relay"} & set(names) else "peers"


if __name__ == "__main__":
    sys.exit(main())
