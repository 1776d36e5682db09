"""Every kind of notice, with a sentence on when it is given.

The one table from which `docs/reference/events.md` is made and by which subscriptions are checked.
What a notice carries is decided where it is given.
"""

from __future__ import annotations

KINDS: dict[str, str] = {
    "audit_went_back": "The record of another stack shows an older end of its audit log than was "
    "seen before, or another one: a restored backup, or a log that was replaced.",
    "catalogue_changed": "What the MCP server of a CI of this stack offers has changed.",
    "ci_deregistered": "A CI of this stack is no longer registered; `reason` says why.",
    "ci_gone": "A CI of another stack left the replica (`ci` is its "
    "address; with `count`, so many of `stack`).",
    "ci_not_published": "The record of a CI of this stack does not fit into what the "
    "stack publishes.",
    "ci_offline": "A CI of this stack takes no messages for now.",
    "ci_registered": "A CI of this stack was registered, or its registration changed.",
    "ci_row_damaged": "A registration on the disk could not be read and was dropped.",
    "ci_seen": "A CI of another stack appeared in the replica (`ci` is its "
    "address; with `count`, so many of `stack`).",
    "ci_up": "A CI of this stack takes messages again.",
    "clock_agrees": "After an alarm, the clock of this machine is near that of the mesh again.",
    "clock_alarm": "The clock of this machine is far from that of the mesh; no stack is "
    "deregistered meanwhile.",
    "clock_memory_discarded": "The remembered mesh time was too far ahead of the clock and "
    "was dropped.",
    "clone_fenced": "Another process runs with the identity of this stack; this one withdrew.",
    "converged": "A peer whose replica differed for long holds the same as this one again.",
    "dead_letter": "A CI of this stack lost a durable message five times; its sender is told.",
    "daemon_started": "The daemon is ready.",
    "envelope_ignored": "A message of a kind unknown here was dropped.",
    "epoch_exhausted": "This identity has no epochs left and can publish nothing more.",
    "hop_silent": "A neighbour confirms no messages; other ways are tried.",
    "link_down": "A link to a neighbour ended.",
    "link_error": "A neighbour broke the protocol; its link was closed.",
    "link_not_published": "The record of a link does not fit into what this stack publishes.",
    "link_recovered": "A suspect link answers again.",
    "link_suspect": "A neighbour does not answer; others are asked about it.",
    "link_up": "A link to a neighbour came up.",
    "message_row_dropped": "A row of a durable message means nothing to this program and was "
    "dropped.",
    "mcp_failed": "The MCP server of a CI of this stack cannot be reached or ended; it is tried "
    "again.",
    "mcp_item_dropped": "Something that an MCP server offers is malformed or too large, and is "
    "left out.",
    "message_done": "A message that was sent from here was answered or failed.",
    "name_taken": "Another stack claims a name that a known stack holds.",
    "novelty_ignored": "Something of a later version was passed over; said at most every ten "
    "minutes.",
    "not_converged": "The replica of a peer still differs after several repairs.",
    "passed_on": "A message to whoever fits a selector could not be taken by one CI (`ci`, `code`) "
    "and went to the next.",
    "peer_admitted": "A peer was admitted by hand.",
    "peer_evicted": "A peer was evicted.",
    "peer_pending": "A peer that nobody admitted asks to be let in.",
    "peer_refused": "A peer does not admit this stack.",
    "peer_struck": "A peer broke the protocol (`reason`); with `held_off_s` it has done so too "
    "often, and there is no link with it for so long.",
    "relay_over_quota": "A stack sends more through this one than it passes on; said at most once "
    "a minute of each.",
    "seal_refused": "A message could not be opened or was not from whom it claimed.",
    "self_contradicted": "Others hold proof that the key of this stack signed two states at once "
    "(a machine resumed from a copy, a clone); it publishes anew under a higher epoch, or with "
    "`keys` needs a new key epoch.",
    "stack_deregistered": "The lease of a stack ended, or the stack was evicted.",
    "stack_equivocated": "A stack signed two different states under one version, and the proof of "
    "that is here; it is left out.",
    "stack_left": "A stack left the mesh by itself.",
    "stack_unreachable": "No path leads to a stack at this moment.",
    "stack_up": "A stack can be reached.",
    "store_failed": "The disk does not take writes.",
    "store_recovered": "The disk takes writes again.",
}
