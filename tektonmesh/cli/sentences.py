"""How an event reads for people: one sentence for each kind, with names before ids.

Programs get the event as it is; what each kind means is in `core/notices`. A kind that has no
sentence here (of a newer daemon) is shown with its values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tektonmesh.cli.render import duration, milliseconds

_OWN_KEYS = ("seq", "at", "kind", "dropped")
ID_SIZE = 52
ID_SHOWN = 8

SENTENCES: dict[str, str] = {
    "audit_went_back": "The audit log of {stack} is not the one that was seen before.",
    "catalogue_changed": "What the MCP server of CI {ci} offers has changed.",
    "ci_deregistered": "CI {ci} is registered here no more ({reason}).",
    "ci_gone": "CI {ci} of another stack is gone.",
    "ci_not_published": "CI {ci} cannot be published: {detail}",
    "ci_offline": "CI {ci} takes no messages for now ({reason}).",
    "ci_registered": "CI {ci} is registered here (over {via}).",
    "ci_row_damaged": "The registration of CI {ci} on the disk was damaged and is dropped.",
    "ci_seen": "CI {ci} of another stack appeared.",
    "ci_up": "CI {ci} takes messages again.",
    "clock_agrees": "The clock of this machine is near that of the mesh again.",
    "clock_alarm": "The clock of this machine is {disagreement_s} s from that of the mesh.",
    "clock_memory_discarded": "A remembered mesh time, {ahead_s} s ahead, is dropped.",
    "self_contradicted": "Others hold proof that the key of this stack signed two states at once.",
    "novelty_ignored": "Something of a later version was passed over: {detail}",
    "peer_struck": "{name} broke the protocol: {reason}",
    "clone_fenced": "Another process runs with this identity (run {instance}); this one withdrew.",
    "converged": "{stack} holds the same as this stack again.",
    "dead_letter": "The message {id} from {sender} was lost by CI {ci} too often: {detail}",
    "daemon_started": "The daemon of {name} is ready on {listen}.",
    "envelope_ignored": "A message of the unknown kind {envelope_kind} is dropped.",
    "epoch_exhausted": "This identity has no epochs left after {epoch}.",
    "hop_silent": "{stack} confirms no messages; other ways are tried.",
    "link_down": "The link to {name} ended: {reason}",
    "link_error": "A neighbour broke the protocol on link {link}: {detail}",
    "link_not_published": "The link to {stack} cannot be published: {detail}",
    "link_recovered": "The link to {name} answers again.",
    "link_suspect": "{name} does not answer; others are asked about it.",
    "link_up": "A link to {name} came up ({address}, {called}).",
    "message_row_dropped": "A row of a message ({table}) could not be read and is dropped.",
    "mcp_failed": "The MCP server of CI {ci} failed: {detail}",
    "mcp_item_dropped": "CI {ci}: {detail}",
    "message_done": "A message to {to_stack} {done} in {took}.",
    "name_taken": "{id} claims the name {name}, which {holder} holds.",
    "not_converged": "{stack} still differs after several repairs; `status` says by how much.",
    "passed_on": "{ci} could not take a message to {selector} ({code}); the next one gets it.",
    "peer_admitted": "{name} is admitted ({id}).",
    "peer_evicted": "{name} is evicted ({id}).",
    "peer_pending": "{name} asks to be let in from {address}; `tektonmesh peers` lists it.",
    "peer_refused": "{name} at {address} does not admit this stack.",
    "relay_over_quota": "{stack} sends more through this stack than it passes on.",
    "seal_refused": "A message from {source} could not be opened: {detail}",
    "stack_deregistered": "{stack} is deregistered: its lease is over, or it was evicted.",
    "stack_equivocated": "{name} signed two different states under one version; it is left out.",
    "stack_left": "{stack} left the mesh.",
    "stack_unreachable": "{stack} is unreachable; `tektonmesh explain {stack}` says why.",
    "stack_up": "{stack} can be reached.",
    "store_failed": "The disk does not take writes: {detail}",
    "store_recovered": "The disk takes writes again.",
}

_MANY = {
    "ci_gone": "{count} CIs of {stack} are gone.",
    "ci_seen": "{count} CIs of {stack} appeared.",
}
"""For one event that stands for many."""


def sentence(event: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The event as a sentence. `names` has the labels of stacks by id."""
    kind = str(event["kind"])
    told = {key: value for key, value in event.items() if key not in _OWN_KEYS}
    form = _MANY.get(kind) if "count" in told else SENTENCES.get(kind)
    if form is None:
        said = " ".join(f"{key}={_shown(value, names)}" for key, value in told.items())
    else:
        said = form.format_map(_Values(told, names))
    lost = event.get("dropped")
    return f"{said} ({lost} events before it were lost.)" if lost else said


class _Values(dict[str, Any]):
    """What a sentence asks for; of an older daemon some may be missing."""

    def __init__(self, told: Mapping[str, Any], names: Mapping[str, str]) -> None:
        super().__init__({key: _shown(value, names) for key, value in told.items()})
        # Whoever gives no name has an id.
        for key in ("name", "stack"):
            if not told.get(key) and "id" in told:
                self[key] = _shown(told["id"], names)
        self["called"] = "called by us" if told.get("outbound") else "called by them"
        self["done"] = "was answered" if told.get("ok") else "failed"
        self["took"] = milliseconds(told.get("ms"))

    def __missing__(self, key: str) -> str:
        return "?"


def _shown(value: Any, names: Mapping[str, str]) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if text in names:
        return names[text]
    # Nobody reads 52 characters; `--json` and `tektonmesh stacks --json` have them all.
    return text[:ID_SHOWN] if len(text) == ID_SIZE and text.isalnum() else text


def gap(row: Mapping[str, Any]) -> str:
    """By how much a neighbour's replica differs: `lab (3 stacks differ for 12 s)`."""
    owners, since = row.get("owners"), duration(row.get("since_s"))
    if owners is None:
        return f"{row['stack']} (by an unknown number, for {since})"
    many = "1 stack differs" if owners == 1 else f"{owners} stacks differ"
    return f"{row['stack']} ({many} for {since})"
