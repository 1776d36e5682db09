"""`tektonmesh demo`: the whole daemon shown at work in less than half a minute."""

from __future__ import annotations

import click

from tektonmesh.cli.common import Where, verb

STACKS_DEFAULT = 6


@verb(example="tektonmesh demo --stacks 8")
@click.option("--stacks", type=click.IntRange(6, 16), default=STACKS_DEFAULT, show_default=True,
              metavar="N", help="How many daemons to start, 6 to 16.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the mesh running and say how to talk to it.")
def command(where: Where, stacks: int, keep: bool) -> int:
    """Start a mesh of real daemons on this machine and show what it does, with measurements.

    Everything lives in a temporary folder and ends with the demonstration. The exit code is 0
    only if every step did what it says; `--json` prints one object per step.
    """
    from tektonmesh.cli.demo.run import run_demo

    return run_demo(stacks=stacks, as_json=where.json, keep=keep)
