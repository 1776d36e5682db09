"""`tektonmesh peers`: who is admitted, who waits, who was refused; approve and evict."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.failures import EXIT_FAILED
from tektonmesh.cli.render import aligned, emit_json, on_terminal, safe_text, table
from tektonmesh.cli.terms import terms_of, terms_options

_ROTATE = (
    "It knows the mesh secret and could come back under another id: from now on this stack admits"
    " nobody by the secret alone (`peers approve`). Give your other stacks a new secret."
)
ACTIONS = ("list", "approve", "terms", "evict")


@verb(example="tektonmesh peers approve ID")
@click.argument("action", type=click.Choice(ACTIONS), default="list")
@click.argument("stack_id", metavar="ID", required=False)
@terms_options
@click.option(
    "--use",
    "imports",
    metavar="NAME",
    multiple=True,
    help="Let callers here use only this CI of it (repeatable; 'none' for no CI).",
)
@click.option("--yes", is_flag=True, help="Evict without asking.")
def command(
    where: Where, action: str, stack_id: str | None, yes: bool, **chosen: Any
) -> int | None:
    """List the stacks that linked or asked to, or approve, set terms with or evict one of them.

    ID is the 52 characters of `tektonmesh status` on that stack, with or without dashes, or the
    name it has in this list. Read the id to one another over a channel you trust before you
    approve. An eviction is permanent, so at a terminal you are asked first.
    """
    if action == "list":
        if stack_id is not None:
            raise click.UsageError("`peers list` takes no ID.", click.get_current_context())
        _list(where)
        return None
    if stack_id is None:
        raise click.UsageError(f"`peers {action}` needs an ID.", click.get_current_context())
    if action == "evict" and not (yes or _is_sure(stack_id)):
        click.echo("Nothing was done.", err=True)
        return EXIT_FAILED
    terms = _terms(**chosen)
    if action == "terms" and not terms:
        raise click.UsageError("Say which terms, such as --mode.", click.get_current_context())
    with where.client() as client:
        result: dict[str, Any] = {}
        if action != "terms":
            result = client.peers(**{action: stack_id})
        if terms and action != "evict":
            result |= client.call("terms", stack=result.get("id", stack_id), **terms)
    if where.json:
        emit_json(result)
    elif action == "terms":
        click.echo(f"The terms with {safe_text(result['name'])} are set.", err=True)
    else:
        done = "approved" if action == "approve" else "evicted"
        click.echo(f"{result.get('name') or stack_id} is {done}.", err=True)
        if result.get("rotate_secret"):
            click.echo(_ROTATE, err=True)
    return None


def _terms(
    mode: str | None,
    shared_cis: tuple[str, ...],
    role: str | None,
    imports: tuple[str, ...],
) -> dict[str, Any]:
    terms = terms_of(mode, shared_cis, role)
    if imports:
        terms["imports"] = [] if imports == ("none",) else list(imports)
    return terms


def _is_sure(stack_id: str) -> bool:
    """Asked of a person only: a script that says `evict` means it."""
    if sys.stdin is None or not sys.stdin.isatty():
        return True
    return click.confirm(f"Evict {safe_text(stack_id)} for ever?", err=True)


def _list(where: Where) -> None:
    with where.client() as client:
        peers = client.peers()
    if where.json:
        for peer in peers:
            emit_json(peer)
        return
    if on_terminal() and peers:
        for line in lines_for_people(peers):
            print(line)
        return
    columns = ("name", "state", "last seen", "id", "reason")
    table(columns, (_row(peer) for peer in peers), empty="No other stack was met.")


def lines_for_people(peers: list[dict[str, Any]]) -> list[str]:
    """Each id on a line of its own, so that it can be copied whole from a narrow terminal."""
    rows = [(*_row(peer)[:3], _row(peer)[4]) for peer in peers]
    shown = [[safe_text(str(cell or "-")) for cell in row] for row in rows]
    heads = aligned([["name", "state", "last seen", "reason"], *shown])
    lines = heads[:1]
    for head, peer in zip(heads[1:], peers, strict=True):
        lines += [head, f"  {peer['id']}"]
    return lines


def _row(peer: dict[str, Any]) -> tuple[Any, ...]:
    seen = peer.get("last_seen")
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen)) if seen else None
    return (peer.get("name"), peer["state"], when, peer["id"], _why(peer))


def _why(peer: dict[str, Any]) -> str | None:
    held_off_s, reason = peer.get("held_off_s"), peer.get("reason")
    return f"held off for {held_off_s:.0f} s" if held_off_s else reason
