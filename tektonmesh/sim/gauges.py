"""How much a node still holds of messages: all of it must go back to zero."""

from __future__ import annotations

from tektonmesh.core.node import Node


def gauges(node: Node) -> dict[str, int]:
    """What is in flight at one node, by name."""
    return {
        "queued_bytes": node.forwarding.queued_bytes,
        "requests": node.requests.pending,
        "posts": len(node.deliveries.posts),
        "deliveries": node.deliveries.open,
        "outbox": len(node.durable.outbox),
        "inbox": len(node.durable.inbox),
        "answers": node.durable.inbox.unconfirmed,
        "carried": len(node.durable.courier),
        "pulls": len(node.durable.pulls),
        "parked": len(node.durable.parking),
        "said": node.durable.inbox.sayings.kept_bytes,
        "parts": len(node.durable.offers),
        "blob_callers": node.blobs.waiting,
    }
