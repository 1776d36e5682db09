"""Every metric of `/metrics`: its name, kind, label and meaning, for the page and for the docs.

Names follow the conventions of Prometheus: `tektonmesh_` before, base units (seconds, bytes), and
`_total` behind what only grows. What the values are is decided in `metrics`.
"""

from __future__ import annotations

from typing import NamedTuple


class Family(NamedTuple):
    """`kind` is "counter", "gauge", "histogram" or "info"; `label` is empty for a plain number."""

    kind: str
    label: str
    text: str


FAMILIES: dict[str, Family] = {
    # The four success metrics of the federation.
    "federated_stacks": Family("gauge", "state", "Other stacks in this replica, by state."),
    "cross_stack_message_seconds": Family(
        "histogram",
        "",
        "Time from a message to another stack until its whole reply, for messages sent here.",
    ),
    "shared_uses": Family(
        "counter",
        "kind",
        "Uses of CIs of other stacks from here: messages answered, tools called, resources read, "
        "prompts and completions got.",
    ),
    "uptime_seconds": Family("gauge", "", "How long this daemon has been in the mesh."),
    # This stack.
    "stack": Family("info", "", "This stack: name, id, mesh and version."),
    "links": Family("gauge", "", "Authenticated links to peers."),
    "cis": Family("gauge", "where", "CIs in this replica."),
    "queue": Family("gauge", "queue", "What waits, in the unit of its name."),
    "messages": Family("counter", "outcome", "Messages from local callers, by outcome."),
    "relayed": Family("counter", "", "Envelopes passed on for others."),
    "relay_refused": Family(
        "counter", "code", "Envelopes of others that were given back, by code (errors.md)."
    ),
    # The registry.
    "converged": Family("gauge", "", "1 while all neighbours hold the same."),
    "diverged_peers": Family("gauge", "", "Neighbours whose replica differs from this one."),
    "heads_in": Family(
        "counter",
        "outcome",
        "Heads that came from neighbours, by what became of them: applied (news), refreshed (only "
        "a longer lease), stale (no news: a duplicate, or not fresh), need (asked for again), "
        "refused, unproven, contradicted, broken (the link was closed).",
    ),
    "heads_out": Family("counter", "", "Heads sent to neighbours, with or without records."),
    "bodies_in_bytes": Family("counter", "", "Bytes of records that came with heads."),
    "redundancy": Family(
        "gauge", "", "Heads that were no news for each one that was, since the start."
    ),
    "apply_latency_seconds": Family(
        "histogram",
        "",
        "From the signing of a change of a known stack until it was applied here: the last hop. "
        "By mesh time, so off by what clocks disagree.",
    ),
    "queued_owners": Family("gauge", "", "Stacks with news that wait to be sent, over all links."),
    "repairs": Family(
        "counter", "", "Repairs begun because a neighbour's fingerprint differed for long."
    ),
    "strikes": Family("counter", "", "Messages that broke the protocol and cost their link."),
    "link_messages_in": Family(
        "counter",
        "kind",
        "Messages from neighbours, by kind; what envelopes travel in is not counted.",
    ),
    "link_messages_out": Family(
        "counter",
        "kind",
        "Messages to neighbours, by kind; what envelopes travel in is not counted.",
    ),
    # This process.
    "local_health": Family(
        "gauge", "", "0 (well) to 1: how far this process itself was held up of late."
    ),
    "clock_alarm": Family("gauge", "", "1 while this clock is over a minute from the mesh's."),
    "loop_lag_seconds": Family("gauge", "", "How late the event loop was at its last beat."),
    "loop_lag_max_seconds": Family("gauge", "", "How late the event loop was at its worst beat."),
    "link_in_bytes": Family("counter", "", "Bytes that all links have brought."),
    "link_out_bytes": Family("counter", "", "Bytes that all links have taken."),
    "link_queue_bytes": Family("gauge", "", "Bytes that wait in the queues of all links."),
    "notices": Family("counter", "kind", "What happened, by kind of notice (events.md)."),
    "daemon": Family("gauge", "figure", "Other figures of this process."),
}


def shown_name(name: str) -> str:
    """The name under which a value of this family stands on the page."""
    ending = {"counter": "_total", "info": "_info"}.get(FAMILIES[name].kind, "")
    return f"tektonmesh_{name}{ending}"
