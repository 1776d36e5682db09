"""`tektonmesh status`: one look at the own stack. Plain text only, because it must be quick."""

from __future__ import annotations

from typing import Any

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import aligned, duration, emit_json, milliseconds, safe_text
from tektonmesh.cli.sentences import gap


@verb(example="tektonmesh status --json")
def command(where: Where) -> None:
    """Show name, id, addresses, links, CIs, queues, and whether the registry has converged.

    Where it has not, it says with which neighbours, in how many stacks and for how long.
    """
    with where.client() as client:
        status = client.status()
    if where.json:
        emit_json(status)
        return
    for line in aligned([[name, text] for name, text in _facts(status) if text]):
        print(safe_text(line))
    links = status.get("links", [])
    if links:
        print()
        rows = [["link to", "rtt", "since", "called by"]]
        rows += [_link_row(link) for link in links]
        for line in aligned(rows):
            print(safe_text(line))


def _facts(status: dict[str, Any]) -> list[tuple[str, str]]:
    stacks, cis = status.get("stacks", {}), status.get("cis", {})
    return [
        ("name", f"{status['name']} in mesh {status['mesh']}"),
        ("id", status["id"]),
        ("version", str(status.get("version", ""))),
        ("up for", duration(status.get("uptime_s"))),
        ("socket", str(status.get("socket", ""))),
        ("listens on", ", ".join(status.get("listen", [])) or "nothing"),
        ("http", status.get("http") or "off"),
        ("others", f"{stacks.get('up', 0)} up, {stacks.get('unreachable', 0)} unreachable"),
        ("draining", "yes: it takes nothing new" if status.get("draining") else ""),
        ("cis", f"{cis.get('local', 0)} local, {cis.get('remote', 0)} remote"),
        ("registry", _converged(status)),
        ("new CIs are", str(status.get("share_default", ""))),
        ("queues", ", ".join(f"{name} {n}" for name, n in status.get("queues", {}).items() if n)),
        ("relays", _relays(status.get("relay") or {})),
        ("last problem", _problem(status)),
    ]


def _converged(status: dict[str, Any]) -> str:
    if status.get("converged"):
        return "converged" if status.get("links") else "no neighbour to compare with"
    others = [gap(row) for row in status.get("divergence") or []] or status.get("diverged") or []
    return "not converged with " + (", ".join(others) or "a neighbour, being repaired")


def _relays(relay: dict[str, Any]) -> str:
    """For whom, and what came of it."""
    if not relay:
        return ""
    refused = sum(relay["refused"].values())
    over = ", ".join(f"{stack} ({count})" for stack, count in relay["over_quota"].items())
    said = [f"for {relay['for']}", f"{relay['passed']} passed on"]
    said += [f"{refused} given back"] if refused else []
    said += [f"over their quota: {over}"] if over else []
    return ", ".join(said)


def _problem(status: dict[str, Any]) -> str:
    if status.get("clock_alarm"):
        return "the clock is far from that of the mesh; see `tektonmesh doctor`"
    problem = status.get("last_problem")
    if isinstance(problem, dict):
        return str(problem.get("detail") or problem.get("kind") or "")
    return str(problem or "none")


def _link_row(link: dict[str, Any]) -> list[str]:
    caller = "us" if link.get("outbound") else "them"
    return [link["stack"], milliseconds(link.get("rtt_ms")), duration(link.get("since_s")), caller]
