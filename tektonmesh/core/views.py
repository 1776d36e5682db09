"""What a node shows of itself to the doors: status, stacks and routes as plain dicts.

Pure reads in the shapes that the doors show; nothing here changes anything. Ages are those of
the node's last turn. What only a daemon knows (its socket, its HTTP address) is added by the
doors; CIs are in `views_cis`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tektonmesh.core.divergence import Gap
from tektonmesh.core.head import EPOCH_MAX
from tektonmesh.core.ids import show_id
from tektonmesh.core.linkcost import HOP_MS
from tektonmesh.core.neighbours import Neighbour
from tektonmesh.core.paths import TABLES_MAX, Paths, Ways
from tektonmesh.core.reasons import reason
from tektonmesh.core.types import StackId, StackState
from tektonmesh.core.views_cis import cis, cis_of, find, record, text_of, words_of
from tektonmesh.errors import DeliveryError

if TYPE_CHECKING:
    from tektonmesh.core.node import Node

__all__ = ["cis", "find", "record", "route", "stack", "stacks", "status"]


def status(node: Node) -> dict[str, Any]:
    """This stack in one object. `stacks` counts the others; `diverged` names the peers whose
    replica differs from ours, `divergence` says by how much; `queues` are in the units of their
    names; `registry` is what the node counts."""
    env = node.env
    rows = cis(node)
    local = sum(1 for row in rows if row["local"])
    gaps = node.divergence.gaps()
    states = [node.graph.state(owner) for owner in node.replica.owners]
    return {
        "name": env.identity.name,
        "id": show_id(env.me),
        "mesh": env.identity.mesh,
        "version": text_of(_own_words(node, env.me), "version"),
        "uptime_s": round(env.now - node.started, 3),
        "listen": list(env.settings.listen),
        "links": [_link(node, neighbour) for neighbour in node.neighbours.links.values()],
        "converged": not gaps,
        "diverged": sorted(node.names.label(peer) for peer in gaps),
        "divergence": [_gap(node, peer, gap) for peer, gap in gaps.items()],
        "fingerprint": node.replica.fingerprint().hex(),
        "stacks": {
            "up": states.count(StackState.UP),
            "unreachable": states.count(StackState.UNREACHABLE),
        },
        "cis": {"local": local, "remote": len(rows) - local},
        "queues": {
            "forwarding_bytes": node.forwarding.queued_bytes,
            "requests": node.requests.pending,
            "deliveries": node.deliveries.open,
            "reply_bytes": node.deliveries.kept_for_readers,
            "outbox": len(node.durable.outbox),
            "outbox_bytes": node.durable.outbox.held_bytes,
            "inbox": len(node.durable.inbox),
            "inbox_bytes": node.durable.inbox.held_bytes,
            "answers": node.durable.inbox.unconfirmed,
            "parked": len(node.durable.parking),
            "parked_bytes": node.durable.parking.held_bytes,
            "dead_letters": node.durable.inbox.dead_letters,
            "blobs_lacking": node.blobs.lacking,
            "bodies_coming": len(node.durable.pulls),
            "bodies_lacking_bytes": node.durable.pulls.lacking_bytes,
        },
        "relay": _relay(node),
        "share_default": env.settings.share_default,
        "registry": node.env.counts.shown()
        | {
            "queued_owners": node.dissemination.queued(),
            "unproven": len(node.antientropy.unproven.left_out),
        },
        "local_health": round(node.neighbours.local_health, 2),
        "clock_alarm": node.clock.alarm,
        "draining": node.owner.draining,
    }


def _relay(node: Node) -> dict[str, Any]:
    """What this stack does for others: for whom, how much for each origin (0: no limit), what it
    `passed` on and what it gave back, by code and, over their quota, by origin."""
    settings, relaying = node.env.settings, node.forwarding.relaying
    return {
        "for": settings.relay,
        "per_s": settings.relay_per_s,
        "bytes_per_s": settings.relay_bytes_per_s,
        "passed": node.forwarding.relayed,
        "refused": dict(relaying.refused),
        "over_quota": {node.names.label(stack): n for stack, n in relaying.over.items()},
    }


def _gap(node: Node, peer: StackId, gap: Gap) -> dict[str, Any]:
    """`owners` is null while only the prints of the two replicas are known to differ."""
    return {
        "stack": node.names.label(peer),
        "id": show_id(peer),
        "owners": gap.owners,
        "since_s": round(node.env.now - gap.since, 3),
    }


def _link(node: Node, neighbour: Neighbour) -> dict[str, Any]:
    return {
        "stack": node.names.label(neighbour.stack_id),
        "id": show_id(neighbour.stack_id),
        "rtt_ms": round(neighbour.rtt_s * 1000.0, 3),
        "since_s": round(node.env.now - neighbour.since, 3),
        "outbound": neighbour.outbound,
        "state": neighbour.state,
        "address": neighbour.address,
    }


def stacks(node: Node) -> list[dict[str, Any]]:
    """Every stack that the replica knows, this one first, the others by label."""
    owners = node.replica.owners
    # As many tables as there are stacks would hold up the daemon for minutes in a large mesh.
    ways: Paths | Ways = node.paths if len(owners) <= TABLES_MAX else node.paths.ways()
    rows = [_stack(node, owner, ways) for owner in owners if owner != node.env.me]
    rows.sort(key=lambda row: (row["name"], row["id"]))
    return [_stack(node, node.env.me, ways), *rows]


def stack(node: Node, stack_id: StackId) -> dict[str, Any]:
    """One stack in the shape of `stacks`."""
    return _stack(node, stack_id, node.paths)


def _stack(node: Node, stack_id: StackId, ways: Paths | Ways) -> dict[str, Any]:
    """`cis` is a number; `specialties` and `capabilities` are those of the stack and its
    CIs. `path` is empty and `rtt_ms` null while no path leads there; `head` is the newest head
    held, as (key_epoch, epoch, ver); `observers` is the number of stacks linked to it; `why` says
    why it is in its state."""
    held = node.replica.owners.get(stack_id)
    own = _own_words(node, stack_id)
    rows = cis_of(node, stack_id)
    path = ways.path(stack_id)
    return {
        "name": node.names.label(stack_id),
        "id": show_id(stack_id),
        "state": str(node.graph.state(stack_id)),
        "path": [node.names.label(hop) for hop in path],
        "rtt_ms": _rtt_ms(node, stack_id, ways),
        "lease_left_s": 0.0 if held is None else round(node.replica.lease_left_s(stack_id), 3),
        "version": text_of(own, "version"),
        "head": [] if held is None else list(held.head.version),
        "cis": len(rows),
        "specialties": _joined(words_of(own, "specialties"), rows, "specialties"),
        "capabilities": _joined([], rows, "capabilities"),
        "age_s": 0.0 if held is None else round(node.env.now - held.heard, 3),
        "since": _since(own),
        "draining": node.graph.draining(stack_id),
        "observers": len(node.graph.observers(stack_id)),
        "why": reason(node, stack_id, len(path) - 1),
    }


def _joined(words: list[str], rows: list[dict[str, Any]], key: str) -> list[str]:
    for row in rows:
        words = [*words, *row[key]]
    return sorted(dict.fromkeys(words))


def _own_words(node: Node, stack_id: StackId) -> dict[str, Any]:
    """The `stack/self` record of a stack; empty while there is none."""
    held = node.replica.owners.get(stack_id)
    return (held.value("stack/self") if held else None) or {}


def _since(own: dict[str, Any]) -> int | None:
    """The wall second of a stack's start as it says; None if that can be none."""
    since = own.get("since")
    return since if type(since) is int and 0 <= since <= EPOCH_MAX else None


def _rtt_ms(node: Node, stack_id: StackId, ways: Paths | Ways) -> float | None:
    """Measured for a neighbour, else what the costs of the best path amount to."""
    link = node.neighbours.link_to(stack_id)
    if link is not None:
        return round(link.rtt_s * 1000.0, 3)
    cost = ways.cost(stack_id)
    if cost is None:
        return None
    hops = len(ways.path(stack_id)) - 1
    return float(max(0, cost - HOP_MS * hops))


def route(node: Node, target: str) -> dict[str, Any]:
    """How a message to a stack or CI would leave this node, without sending one: the next hops,
    best first, and the neighbours that are none with the reason; costs in ms. Raises what
    `Names.resolve` raises."""
    stack_id, ci = _aim(node, target)
    hops = node.paths.candidates(stack_id)
    chosen = [hop.stack_id for hop in hops]
    others = dict.fromkeys(
        neighbour.stack_id
        for neighbour in node.neighbours.links.values()
        if neighbour.stack_id not in chosen
    )
    return {
        "target": target,
        "stack": node.names.label(stack_id),
        "ci": ci,
        "state": str(node.graph.state(stack_id)),
        "path": [node.names.label(hop) for hop in node.paths.path(stack_id)],
        "cost": node.paths.cost(stack_id),
        "candidates": [
            {
                "stack": node.names.label(hop.stack_id),
                "cost": hop.cost,
                "rtt_ms": _rtt_ms(node, hop.stack_id, node.paths),
            }
            for hop in hops
        ],
        "rejected": [
            {"stack": node.names.label(peer), "why": _why_not(node, peer, stack_id)}
            for peer in others
        ],
    }


def _aim(node: Node, target: str) -> tuple[StackId, str]:
    """As `Names.resolve`, but a bare name that is no local CI may be a stack."""
    if "@" not in target and node.cis.get(target) is None:
        try:
            return node.names.resolve_stack(target), ""
        except DeliveryError as error:
            if error.code.name == "ambiguous":
                raise
    return node.names.resolve(target)


def _why_not(node: Node, peer: StackId, dest: StackId) -> str:
    """Why a neighbour is no next hop towards `dest`."""
    if dest == node.env.me:
        return "The target is on this stack."
    if node.neighbours.link_to(peer) is None:
        return "Its link is suspect."
    if peer not in node.graph.edges(node.env.me):
        return "Its records are not here, or its lease is over."
    if node.graph.transit_ms(peer) is None:
        return "It does not relay for others."
    return "No path leads on from it."
