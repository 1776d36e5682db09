"""`tektonmesh leave`: a graceful end of the own stack."""

from __future__ import annotations

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json


@verb(example="tektonmesh leave --timeout 30")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 60), default=5.0, show_default=True, metavar="SECONDS",
    help="How long this may take at most.",
)  # fmt: skip
def command(where: Where, timeout: float) -> None:
    """Finish what is under way, tell the mesh that this stack leaves, and stop its daemon.

    From the first moment the stack is `draining`: it takes no new message, and others pass it by.
    What its CIs have in hand they may finish while the time lasts. SIGTERM does the same within
    5 s.
    """
    with where.client() as client:
        result = client.leave(timeout)
    if where.json:
        emit_json(result)
    else:
        click.echo("The stack has left the mesh.", err=True)
