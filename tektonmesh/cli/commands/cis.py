"""`tektonmesh cis`: every CI the own replica knows, with filters."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, table

COLUMNS = ("address", "type", "state", "share", "specialties", "capabilities")


@verb(example="tektonmesh cis --specialty vision")
@click.option("--stack", help="Only the CIs of this stack.")
@click.option("--specialty", help="Only CIs with this specialty.")
@click.option("--capability", help="Only CIs with this capability.")
@click.option("--local", is_flag=True, help="Only the CIs of this stack.")
def command(
    where: Where, stack: str | None, specialty: str | None, capability: str | None, local: bool
) -> None:
    """List the CIs of the mesh that this stack may see."""
    filters: dict[str, Any] = {
        "stack": stack,
        "specialty": specialty,
        "capability": capability,
        "local": True if local else None,
    }
    with where.client() as client:
        cis = client.cis(**{key: value for key, value in filters.items() if value is not None})
    show_cis(where, cis)


def show_cis(where: Where, cis: list[dict[str, Any]]) -> None:
    """Print CIs as a table or as JSON lines."""
    if where.json:
        for ci in cis:
            emit_json(ci)
        return
    table(COLUMNS, (_row(ci) for ci in cis), empty="No CI fits.")


def _row(ci: dict[str, Any]) -> tuple[Any, ...]:
    return (
        ci["address"],
        ci.get("type"),
        ci.get("state"),
        ci.get("share"),
        ci.get("specialties"),
        ci.get("capabilities"),
    )
