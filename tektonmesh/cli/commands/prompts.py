"""`tektonmesh prompts`: the prompts that CIs offer through MCP."""

from __future__ import annotations

import click

from tektonmesh.cli.commands.tools import show_items
from tektonmesh.cli.common import Where, verb


@verb(example="tektonmesh prompts --ci files@west")
@click.option("--ci", metavar="X@S", help="Only those of this CI.")
def command(where: Where, ci: str | None) -> None:
    """List the prompts that the CIs of the mesh offer; `call` gets one."""
    show_items(where, "prompts", ci)
