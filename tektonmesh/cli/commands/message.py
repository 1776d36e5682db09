"""`tektonmesh message`: what became of a message that was sent from here."""

from __future__ import annotations

from datetime import datetime

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, safe_text


@verb(example="tektonmesh message 019e2c4d11a000000000000000000000")
@click.argument("id")
def command(where: Where, id: str) -> None:
    """Show every state that the message ID went through, with its time, and its reply.

    `send --no-wait` prints the id. `accepted`: safe on the disk here; `sent`: a copy left;
    `received`: safe on the disk of the other stack; `answered`, `failed` or `expired`: the end.
    """
    with where.client() as client:
        found = client.message(id)
    if where.json:
        emit_json(found)
        return
    for step in found["transitions"]:
        at = datetime.fromtimestamp(step["at"]).astimezone()
        print(f"{at:%Y-%m-%d %H:%M:%S}.{int(step['at'] * 1000) % 1000:03}  {step['state']}")
    error = found.get("error")
    if error:
        print(f"{error.get('code')}: {error.get('detail')}")
    elif found.get("body"):
        print(safe_text(str(found["body"])))
