"""`tektonmesh watch`: events as they happen, one line each, until interrupted."""

from __future__ import annotations

import time
from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, safe_text
from tektonmesh.cli.sentences import sentence


@verb(example="tektonmesh watch --kind stack_up --kind stack_unreachable")
@click.option("--kind", "kinds", multiple=True, help="Only events of this kind (repeatable).")
def command(where: Where, kinds: tuple[str, ...]) -> None:
    """Show what happens in the mesh, as this stack sees it, until you press Ctrl-C.

    One sentence a line; with --json each event as it is. --kind stands for a family as well:
    `--kind stack` shows all that happens to stacks.
    """
    with where.client() as client:
        names = {} if where.json else {row["id"]: row["name"] for row in client.stacks()}
        for event in client.watch(*kinds):
            if where.json:
                emit_json(event)
                continue
            if event["kind"] == "stack_up" and event.get("stack"):
                names[event["id"]] = event["stack"]
            print(safe_text(_line(event, names)), flush=True)


def _line(event: dict[str, Any], names: dict[str, str]) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(event["at"])) if "at" in event else "--:--:--"
    return f"{at} {event['kind']:<19} {sentence(event, names)}".replace("\n", " ")
