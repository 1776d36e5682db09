"""`tektonmesh join`: take an invite of another stack."""

from __future__ import annotations

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, safe_text


@verb(example="tektonmesh join TOKEN")
@click.argument("token")
def command(where: Where, token: str) -> None:
    """Admit the stack that issued TOKEN, and be admitted by it.

    What that stack may do here is for you to say: nothing, until `tektonmesh peers terms` or
    `tektonmesh grant`.
    """
    with where.client() as client:
        shown = client.call("join", token=token)
    if where.json:
        emit_json(shown)
    else:
        click.echo(f"Joined {safe_text(shown['name'])} ({shown['id']}).", err=True)
