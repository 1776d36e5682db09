"""Who would get a message to a selector, without sending one: what `trace --dry-run` shows.

Pure reads of `choosing`; nothing is drawn, so the best is only the likeliest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tektonmesh.core.selectors import TEAM, parse_selector

if TYPE_CHECKING:
    from tektonmesh.core.node import Node


def choices(node: Node, target: str) -> dict[str, Any]:
    """Candidates, best first, with their scores in ms (of a team: all members), and those that fit
    but are none, with the reason. Raises LocalError for what is no selector."""
    selector = parse_selector(target)
    anycast, address = node.choosing.anycast, node.deliveries.outcomes.address
    fitting = node.choosing.directory.find(selector)
    rejected = [(one, anycast.why_not(one)) for one in fitting]
    candidates = [
        {"to": address(one.ci, one.stack), "score_ms": round(one.score, 3)}
        for one in anycast.choices(selector)
    ]
    return {
        "target": target,
        "selector": selector.shown(),
        "sends_to": "all" if selector.kind == TEAM else "one",
        "candidates": candidates,
        "rejected": [
            {"to": address(one.ci, one.stack), "why": why} for one, why in rejected if why
        ],
    }
