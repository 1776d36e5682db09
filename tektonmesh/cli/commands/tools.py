"""`tektonmesh tools`: the tools of all CIs, and the approval of one that has changed."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.failures import EXIT_FAILED
from tektonmesh.cli.render import emit_json, safe_text, table

DESCRIPTION_SHOWN = 72


@verb(example="tektonmesh tools approve files@west/read_file")
@click.argument("action", type=click.Choice(("list", "approve")), default="list")
@click.argument("ref", required=False)
@click.option("--ci", metavar="X@S", help="Only those of this CI.")
@click.option("--yes", is_flag=True, help="Approve without asking.")
def command(where: Where, action: str, ref: str | None, ci: str | None, yes: bool) -> int | None:
    """List the tools that the CIs of the mesh offer, or approve one that has changed.

    A tool of another stack is remembered as it was when it first appeared here. When its name,
    description or schema changes it is blocked until you have looked at the difference and
    approved REF, which is `ci@stack/tool`.
    """
    if action == "list":
        if ref is not None:
            raise click.UsageError("`tools list` takes no REF.", click.get_current_context())
        show_items(where, "tools", ci)
        return None
    if ref is None:
        raise click.UsageError("`tools approve` needs a REF.", click.get_current_context())
    return _approve(where, ref, yes)


def show_items(where: Where, kind: str, ci: str | None) -> None:
    """Print the items of one kind as a table or as JSON lines."""
    with where.client() as client:
        found = client.call(kind, **({"ci": ci} if ci else {}))
    if where.json:
        for item in found:
            emit_json(item)
        return
    columns = ("ref", "state", "description")
    table(columns, (_row(item) for item in found), empty=f"No CI offers any {kind}.")


def _row(item: dict[str, Any]) -> tuple[Any, ...]:
    lines = str(item["description"] or item["title"]).splitlines()
    text = lines[0] if lines else ""
    if len(text) > DESCRIPTION_SHOWN:
        text = text[: DESCRIPTION_SHOWN - 1] + "…"
    return (item["ref"], item["state"], text)


def _approve(where: Where, ref: str, yes: bool) -> int | None:
    with where.client() as client:
        seen = client.call("approve", ref=ref, look=True)
        if not where.json:
            for line in seen["diff"]:
                click.echo(safe_text(line))
        if not seen["changed"]:
            result = seen
        elif not yes and not click.confirm("Approve this?", err=True):
            click.echo("Nothing was done.", err=True)
            return EXIT_FAILED
        else:
            result = client.call("approve", ref=ref)
    if where.json:
        emit_json(result)
    else:
        done = "is approved" if result["changed"] else "has not changed"
        click.echo(f"{safe_text(result['ref'])} {done}.", err=True)
    return None
