"""`tektonmesh deregister`: remove a CI of the own stack."""

from __future__ import annotations

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json


@verb(example="tektonmesh deregister numa")
@click.argument("name")
def command(where: Where, name: str) -> None:
    """Remove the CI NAME of this stack from the registry of the mesh."""
    with where.client() as client:
        result = client.deregister(name)
    if where.json:
        emit_json(result)
    else:
        click.echo(f"{name} is deregistered.", err=True)
