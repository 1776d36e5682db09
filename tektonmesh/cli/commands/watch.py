"""`tektonmesh watch`: events as they happen, one line each, until interrupted."""

from __future__ import annotations

import time
from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, safe_text

_OWN_KEYS = ("seq", "at", "kind")


@verb(example="tektonmesh watch --kind stack_up --kind stack_unreachable")
@click.option("--kind", "kinds", multiple=True, help="Only events of this kind (repeatable).")
def command(where: Where, kinds: tuple[str, ...]) -> None:
    """Show what happens in the mesh, as this stack sees it, until you press Ctrl-C."""
    with where.client() as client:
        for event in client.watch(*kinds):
            if where.json:
                emit_json(event)
            else:
                print(safe_text(_line(event)), flush=True)


def _line(event: dict[str, Any]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event["at"])) if "at" in event else "--:--:--"
    data = " ".join(f"{key}={value}" for key, value in event.items() if key not in _OWN_KEYS)
    return f"{at} {event['kind']:<20} {data}".replace("\n", " ")
