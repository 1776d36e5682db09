"""`tektonmesh sim`: worlds of the daemon's own core, from a seed."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, verb


@verb(example="tektonmesh sim --nodes 32 --scenario partition --worlds 20")
@click.option("--nodes", type=click.IntRange(1, 100_000), metavar="N", help="Nodes in each world.")
@click.option("--scenario", metavar="NAME", help="What happens in it (see --list).")
@click.option("--worlds", type=click.IntRange(1), metavar="K", help="How many worlds.")
@click.option("--rng-seed", type=click.IntRange(0), metavar="S", help="The first world's seed.")
@click.option("--hours", type=click.FloatRange(0, min_open=True), metavar="H",
              help="Virtual hours in each world.")  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the scenarios.")
def command(where: Where, **options: Any) -> int:
    """Run simulated worlds and print what was measured.

    Each world runs the production core over a network that delays, loses, cuts and crashes, all
    from one seed. The exit code is 1 when an invariant is violated, with the command that replays
    that world. Without a scenario it is one writer and no faults.
    """
    from tektonmesh.sim.main import run

    code: int = run(dict(options, json=where.json))
    return code
