"""`tektonmesh peers`: who is admitted, who waits, who was refused; approve and evict."""

from __future__ import annotations

import time
from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, table

ACTIONS = ("list", "approve", "evict")


@verb(example="tektonmesh peers approve ID")
@click.argument("action", type=click.Choice(ACTIONS), default="list")
@click.argument("stack_id", metavar="ID", required=False)
def command(where: Where, action: str, stack_id: str | None) -> None:
    """List the stacks that linked or asked to, or approve or evict one of them.

    ID is the 52 characters of `tektonmesh status` on that stack, with or without dashes, or the
    name it has in this list. Read the id to one another over a channel you trust before you
    approve. An eviction is permanent.
    """
    if action == "list":
        if stack_id is not None:
            raise click.UsageError("`peers list` takes no ID.", click.get_current_context())
        _list(where)
        return
    if stack_id is None:
        raise click.UsageError(f"`peers {action}` needs an ID.", click.get_current_context())
    with where.client() as client:
        result = client.peers(**{action: stack_id})
    if where.json:
        emit_json(result)
    else:
        done = "approved" if action == "approve" else "evicted"
        click.echo(f"{result.get('name') or stack_id} is {done}.", err=True)
        if result.get("warning"):
            click.echo(result["warning"], err=True)


def _list(where: Where) -> None:
    with where.client() as client:
        peers = client.peers()
    if where.json:
        for peer in peers:
            emit_json(peer)
        return
    columns = ("name", "state", "last seen", "id", "reason")
    table(columns, (_row(peer) for peer in peers), empty="No other stack was met.")


def _row(peer: dict[str, Any]) -> tuple[Any, ...]:
    seen = peer.get("last_seen")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen)) if seen else None
    return (peer.get("name"), peer["state"], when, peer["id"], peer.get("reason"))
