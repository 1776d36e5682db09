"""`tektonmesh find`: CIs and stacks by words."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, WordyVerb, verb
from tektonmesh.cli.render import emit_json, table
from tektonmesh.errors import LocalError


@verb(example="tektonmesh find vision", cls=WordyVerb)
@click.argument("words", nargs=-1, required=True)
def command(where: Where, words: tuple[str, ...]) -> None:
    """Find CIs and stacks whose name, type, specialties, capabilities or description have WORDS."""
    with where.client() as client:
        found = client.find(" ".join(words))
    if not found:
        raise LocalError(
            f"Nothing here fits '{' '.join(words)}'.",
            code="not_found",
            hint="`tektonmesh cis` lists all CIs.",
        )
    if where.json:
        for thing in found:
            emit_json(thing)
        return
    table(("address", "type", "state", "description"), (_row(thing) for thing in found), empty="")


def _row(thing: dict[str, Any]) -> tuple[Any, ...]:
    address = thing.get("address") or thing.get("name")
    return (address, thing.get("type") or "stack", thing.get("state"), thing.get("description"))
