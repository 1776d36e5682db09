"""`tektonmesh token`: bearer tokens for programs that call over HTTP."""

from __future__ import annotations

import time
from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, table
from tektonmesh.cli.spans import Span

SCOPES = ("read", "send", "register", "tools", "owner")


@verb(example="tektonmesh token create dashboard --scope read --expires 30d")
@click.argument("action", type=click.Choice(("create", "list", "revoke")), default="list")
@click.argument("name", required=False)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    help="What it may do (repeatable); 'owner' is everything.",
)
@click.option("--expires", type=Span(), help="How long it holds; else until it is revoked.")
def command(
    where: Where, action: str, name: str | None, scopes: tuple[str, ...], expires: float | None
) -> None:
    """List the bearer tokens of this stack, create one called NAME, or revoke the one with that ID.

    The text of a token is shown once, by `create`; the daemon keeps only its hash.
    """
    if action != "list" and name is None:
        needed = "an ID" if action == "revoke" else "a NAME"
        raise click.UsageError(f"`token {action}` needs {needed}.", click.get_current_context())
    if action == "create" and not scopes:
        raise click.UsageError("Say what it may do with --scope.", click.get_current_context())
    with where.client() as client:
        if action == "list":
            _list(where, client.call("token"))
        elif action == "revoke":
            _say(where, client.call("token", revoke=name), "is revoked")
        else:
            shown = client.call("token", name=name, scopes=list(scopes), for_s=expires)
            _say(where, shown, "is made; its text is shown this once")
            if not where.json:
                print(shown["token"])


def _say(where: Where, shown: dict[str, Any], done: str) -> None:
    if where.json:
        emit_json(shown)
    else:
        click.echo(f"The token {shown['id']} {done}.", err=True)


def _list(where: Where, tokens: list[dict[str, Any]]) -> None:
    if where.json:
        for token in tokens:
            emit_json(token)
        return
    rows = [
        (t["id"], t["name"], t["scopes"], _day(t["expires"]), _day(t["last_used"])) for t in tokens
    ]
    table(("id", "name", "scopes", "expires", "last used"), rows, empty="No tokens were made.")


def _day(seconds: int | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
