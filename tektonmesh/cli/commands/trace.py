"""`tektonmesh trace`: the hops to a target, or how the next hop would be chosen."""

from __future__ import annotations

from typing import Any

import click

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import emit_json, milliseconds, safe_text, table


@verb(example="tektonmesh trace numa@west")
@click.argument("target")
@click.option("--dry-run", is_flag=True, help="Send nothing: show the choice of the next hop.")
@click.option("--timeout", type=click.FloatRange(0.01), default=10.0, show_default=True,
              metavar="S", help="Seconds to wait.")  # fmt: skip
def command(where: Where, target: str, dry_run: bool, timeout: float) -> None:
    """Show each hop to TARGET (a stack or a CI) with its round trip and queue.

    With --dry-run nothing is sent; it shows which next hops there are, which were rejected and
    why. For a selector it shows the CIs that fit instead.
    """
    with where.client() as client:
        if dry_run:
            _show_route(where, client.route(target))
            return
        found = client.trace(target, timeout=timeout)
    hops = found["hops"]
    if where.json:
        for hop in hops:
            emit_json(hop)
        return
    rows = [
        (hop["hop"], hop["stack"], milliseconds(hop.get("rtt_ms")), hop.get("queue_bytes"))
        for hop in hops
    ]
    table(("hop", "stack", "rtt", "queued bytes"), rows, empty="The target is this stack: no hop.")


def _show_route(where: Where, route: dict[str, Any]) -> None:
    if where.json:
        emit_json(route)
        return
    if "selector" in route:
        _show_choices(route)
        return
    path = " > ".join(route.get("path") or []) or "none"
    print(safe_text(f"path: {path}"))
    candidates = [
        (hop["stack"], "candidate", milliseconds(hop.get("cost"))) for hop in route["candidates"]
    ]
    rejected = [(hop["stack"], "rejected", hop.get("why")) for hop in route.get("rejected", [])]
    table(("next hop", "is", "cost or reason"), [*candidates, *rejected], empty="No link is up.")


def _show_choices(found: dict[str, Any]) -> None:
    """Who would get a message to a selector, best first, and who would not."""
    fitting = [
        (one["to"], "candidate", milliseconds(one.get("score_ms"))) for one in found["candidates"]
    ]
    rejected = [(one["to"], "rejected", one["why"]) for one in found["rejected"]]
    table(("CI", "is", "score or reason"), [*fitting, *rejected], empty="No CI fits.")
