"""`tektonmesh revoke`: take grants back, at once."""

from __future__ import annotations

import re

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json

_GRANT_ID = re.compile("[0-9a-f]{10}")


@verb(example="tektonmesh revoke 3f9c01ab77")
@click.argument("grant")
def command(where: Where, grant: str) -> None:
    """Take back GRANT (its id in `tektonmesh grant`), or all grants of the stack named so."""
    key = "grant" if _GRANT_ID.fullmatch(grant) else "stack"
    with where.client() as client:
        shown = client.call("revoke", **{key: grant})
    if where.json:
        emit_json(shown)
    else:
        count = len(shown["revoked"])
        click.echo(f"{count} grant{'' if count == 1 else 's'} taken back.", err=True)
