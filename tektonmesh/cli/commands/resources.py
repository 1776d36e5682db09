"""`tektonmesh resources`: the resources that CIs offer through MCP."""

from __future__ import annotations

import click

from tektonmesh.cli.commands.tools import show_items
from tektonmesh.cli.common import Where, verb


@verb(example="tektonmesh resources --ci files@west")
@click.option("--ci", metavar="X@S", help="Only those of this CI.")
def command(where: Where, ci: str | None) -> None:
    """List the resources that the CIs of the mesh offer; `call` gets one."""
    show_items(where, "resources", ci)
