"""`tektonmesh invite`: a token that admits another stack, once and for a while."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import duration, emit_json, table
from tektonmesh.cli.spans import Span
from tektonmesh.cli.terms import terms_of, terms_options


@verb(example="tektonmesh invite --mode partial --ci numa")
@click.option("--expires", type=Span(), default="1h", help="How long it holds, at most 24h.")
@click.option("--uses", type=click.IntRange(1, 32), default=1, help="How many stacks it admits.")
@terms_options
@click.option("--list", "listing", is_flag=True, help="List the open invites instead.")
@click.option("--withdraw", metavar="ID", help="Withdraw an open invite instead.")
def command(
    where: Where, expires: float, uses: int, listing: bool, withdraw: str | None, **terms: Any
) -> None:
    """Make an invite for another stack and print its token.

    Pass the token on over a channel you trust, and run `tektonmesh join TOKEN` there. It admits
    that stack for good, under the terms given here. Five wrong proofs burn it.
    """
    with where.client() as client:
        if listing:
            _list(where, client.call("invite", list=True))
            return
        if withdraw is not None:
            shown = client.call("invite", withdraw=withdraw)
        else:
            shown = client.call("invite", for_s=expires, uses=uses, **terms_of(**terms))
    if where.json:
        emit_json(shown)
    elif withdraw is not None:
        click.echo(f"The invite {shown['id']} is withdrawn.", err=True)
    else:
        times = "once" if uses == 1 else f"{uses} times"
        click.echo(f"Good {times}, for {duration(expires)}. On the other stack run:", err=True)
        click.echo("tektonmesh join \\", err=True)
        print(shown["token"])


def _list(where: Where, invites: list[dict[str, object]]) -> None:
    if where.json:
        for invite in invites:
            emit_json(invite)
        return
    columns = ("id", "expires_in_s", "uses", "wrong", "role", "mode", "shared_cis")
    rows = [[invite[column] for column in columns] for invite in invites]
    table(columns, rows, empty="No invite is open.")
