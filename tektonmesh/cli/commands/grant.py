"""`tektonmesh grant`: a right of another stack, with its caveats; or all there are."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, table
from tektonmesh.cli.spans import Span

CAVEATS = ("not_after_ms", "per_minute", "size_max", "caller_ci", "tool_hash", "depth_max")


@verb(example="tektonmesh grant west tool.call:search* numa --expires 7d")
@click.argument("stack", required=False)
@click.argument("right", metavar="VERB", required=False)
@click.argument("ci", required=False)
@click.option("--expires", type=Span(), help="How long it holds; else until it is revoked.")
@click.option("--rate", type=click.IntRange(1, 1_000_000), help="So many acts a minute.")
@click.option("--size", type=click.IntRange(1, 2**31), help="At most so many bytes an act.")
@click.option("--caller", metavar="CI", help="Only for this CI of that stack.")
@click.option("--tool-hash", metavar="HASH", help="Only while the tool is as it is now.")
@click.option("--depth", type=click.IntRange(0, 16), help="At most so many calls in a chain.")
def command(
    where: Where, stack: str | None, right: str | None, ci: str | None, **caveats: Any
) -> None:
    """Give STACK the right VERB on the CI (all that are shared with it, if none is named).

    VERB is discover, message, relay, introduce, tool.call:GLOB, resource.read:GLOB or
    prompt.get:GLOB. Without arguments all grants are listed. A CI that is for partners becomes
    visible to a stack that holds any right on it; a private one never does.
    """
    if stack is not None and right is None:
        raise click.UsageError("Say which right: a VERB.", click.get_current_context())
    with where.client() as client:
        if stack is None:
            _list(where, client.call("grant"))
            return
        wanted = {
            "for_s": caveats["expires"],
            "per_minute": caveats["rate"],
            "size_max": caveats["size"],
            "caller_ci": caveats["caller"],
            "tool_hash": caveats["tool_hash"],
            "depth_max": caveats["depth"],
        }
        given = {key: value for key, value in wanted.items() if value is not None}
        shown = client.call("grant", stack=stack, verb=right, ci=ci, **given)
    if where.json:
        emit_json(shown)
    else:
        said = f"{shown['name']} may {shown['verb']} on {shown['ci']}"
        click.echo(f"{said}. `tektonmesh revoke {shown['id']}` takes it back.", err=True)


def _list(where: Where, grants: list[dict[str, Any]]) -> None:
    if where.json:
        for grant in grants:
            emit_json(grant)
        return
    rows = [(g["id"], g["name"], g["verb"], g["ci"], _caveats(g)) for g in grants]
    table(("id", "stack", "verb", "ci", "caveats"), rows, empty="No grants were made.")


def _caveats(grant: dict[str, Any]) -> str:
    return " ".join(f"{key}={grant[key]}" for key in CAVEATS if key in grant)
