"""`tektonmesh stacks`: every stack the own replica knows."""

from __future__ import annotations

from typing import Any

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import duration, emit_json, milliseconds, table

_COLUMNS = ("stack", "state", "path", "rtt", "lease left", "CIs", "specialties")


@verb(example="tektonmesh stacks")
def command(where: Where) -> None:
    """List the stacks of the mesh with state, path, round trip and lease.

    `unreachable` means that no path leads there at this moment; such a stack stays listed until
    its lease ends and is then `deregistered`. `left` says that it left by itself,
    `draining` that it is about to and takes nothing new. With --json each
    has a `why`; `tektonmesh explain STACK` shows all that is known of one.
    """
    with where.client() as client:
        stacks = client.stacks()
    if where.json:
        for stack in stacks:
            emit_json(stack)
        return
    table(_COLUMNS, (_row(stack) for stack in stacks), empty="No stack is known.")


def _row(stack: dict[str, Any]) -> tuple[Any, ...]:
    return (
        stack["name"],
        stack["state"] + (", draining" if stack.get("draining") else ""),
        " > ".join(stack.get("path") or []),
        milliseconds(stack.get("rtt_ms")),
        duration(stack.get("lease_left_s")),
        stack.get("cis"),
        stack.get("specialties"),
    )
