"""`tektonmesh run`: the daemon in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tektonmesh.cli.common import Where, verb


@verb(example="tektonmesh run --mesh home --secret-file mesh.secret --seed west.example:7700")
@click.option("--name", metavar="N", help="What other stacks call this one.")
@click.option("--listen", multiple=True, metavar="HOST:PORT",
              help="Where to take links (repeatable); port 0 takes any.")  # fmt: skip
@click.option("--seed", "seeds", multiple=True, metavar="HOST:PORT",
              help="A stack to call (repeatable).")  # fmt: skip
@click.option("--mesh", metavar="M", help="The mesh to belong to.")
@click.option("--secret-file", type=click.Path(path_type=Path), metavar="F",
              help="The secret of your own mesh; made when missing.")  # fmt: skip
@click.option("--lan", is_flag=True, help="A test stack: join all test stacks on this network.")
@click.option(
    "--no-mdns", is_flag=True, help="Neither look for stacks on the network nor be found."
)
@click.option("--seeds-only", is_flag=True, help="Link only with seeds and with those who call us.")
@click.option("--http", metavar="HOST:PORT", help="Serve HTTP over TCP as well, or `off`.")
@click.option("--admit", "allow", multiple=True, metavar="ID",
              help="Admit the stack with this id (repeatable).")  # fmt: skip
@click.option("--log-level", type=click.Choice(("debug", "info", "warning", "error")),
              help="How much to say on stderr.")  # fmt: skip
def command(where: Where, lan: bool, no_mdns: bool, seeds_only: bool, **given: Any) -> int:
    """Run the daemon of this stack in the foreground; a missing home is made first.

    It prints one `ready` line on stderr when its socket answers. Ctrl-C or SIGTERM leaves the
    mesh gracefully. With --lan and no --home each start on this machine is a stack of its own.
    """
    from tektonmesh.cli.serve import run_in_home, run_test_stack

    overrides = dict(given)
    overrides["secret_file"] = str(given["secret_file"]) if given["secret_file"] else None
    overrides["mdns"] = False if no_mdns else None
    overrides["seeds_only"] = True if seeds_only else None
    overrides["socket"] = where.socket
    if lan:
        return run_test_stack(where, overrides)
    return run_in_home(where.resolved_home(), overrides)
