"""What this node knows of one message: the answer of `explain` for the id of a message.

Pure reads of whatever part of the way this node is: its origin, its destination, a relay that has
it now. Times are seconds of mesh time since 1970, lengths of time are those of this node's last
turn. The words of relays (fates, traces) are shown as theirs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tektonmesh.core.attempts import UNDER_WAY, Attempt, Attempts
from tektonmesh.core.courier import Freight
from tektonmesh.core.dedup import Taken
from tektonmesh.core.envelope import FLOW, TRACE_AT, read_mutable, shorts_of
from tektonmesh.core.incoming import Incoming, Stage
from tektonmesh.core.lanes import Kept, Lane
from tektonmesh.core.outgoing import Outgoing
from tektonmesh.core.parking import Parked
from tektonmesh.core.pending import Pending
from tektonmesh.core.reasons import reason
from tektonmesh.core.types import ID_SIZE, StackId, short_id

if TYPE_CHECKING:
    from tektonmesh.core.node import Node

MSG_ID = slice(6, 22)
"""Of a packed envelope."""


def explain_message(node: Node, msg_id: bytes) -> dict[str, Any] | None:
    """`origin`, `destination` and `relay` have what this node knows in each part; None if it knows
    the message in none of them."""
    found = {
        "origin": _origin(node, msg_id),
        "destination": _destination(node, msg_id),
        "relay": _relayed(node, msg_id) or None,
    }
    known = {part: shown for part, shown in found.items() if shown is not None}
    return {"id": msg_id.hex()} | known if known else None


# --- at the origin -------------------------------------------------------------------------------


def _origin(node: Node, msg_id: bytes) -> dict[str, Any] | None:
    requests, outbox = node.requests, node.durable.outbox
    pending, outgoing = requests.find(msg_id), outbox.find(msg_id)
    if pending is not None:
        question = pending.question
        return _open(node, pending.attempts, question.stack, question.ci) | {
            "durable": False,
            "copies": pending.attempt,
            "left_s": round(pending.deadline - node.env.now, 3),
            "waits": _pending_waits(node, pending),
        }
    if outgoing is not None:
        return _open(node, outgoing.attempts, outgoing.stack, outgoing.letter.ci) | {
            "durable": True,
            "copies": outgoing.number,
            "left_s": round(outbox.left_s(outgoing), 3),
            "waits": _outgoing_waits(node, outgoing),
        }
    past = outbox.past.get(msg_id) or requests.copies.past.get(msg_id)
    ended = outbox.sent.get(msg_id)
    if past is None and ended is None:
        return None
    attempts = past or Attempts()
    trace = attempts.trace or (ended.trace if ended is not None else b"")
    shown = _attempts(node, attempts) | {"receipt": _receipt(node, trace), "waits": None}
    return shown | {"durable": ended is not None}


def _open(node: Node, attempts: Attempts, stack: StackId, ci: str) -> dict[str, Any]:
    label = node.names.label(stack)
    return _attempts(node, attempts) | {
        "to": f"{ci}@{label}",
        "receipt": _receipt(node, attempts.trace),
        "stack": {
            "name": label,
            "state": str(node.graph.state(stack)),
            "why": reason(node, stack, len(node.paths.path(stack)) - 1),
        },
    }


def _attempts(node: Node, attempts: Attempts) -> dict[str, Any]:
    return {"attempts": [_attempt(node, attempt) for attempt in attempts]}


def _attempt(node: Node, attempt: Attempt) -> dict[str, Any]:
    ended = attempt.fate != UNDER_WAY
    return {
        "at": round(_mesh_s(node, attempt.at), 3),
        "path": [node.names.label(stack) for stack in attempt.path],
        "avoids": [_label_of(node, short) for short in shorts_of(attempt.avoid)],
        "fate": attempt.fate or "under way",
        "after_ms": round((attempt.fate_at - attempt.at) * 1000.0, 3) if ended else None,
    }


def _receipt(node: Node, trace: bytes) -> dict[str, Any] | None:
    """Which way a copy took to the destination and how long each stack had it, by the sealed word
    of the destination (of what the relays wrote)."""
    hops = node.deliveries.traces.hops(trace)
    return {"hops": hops} if hops else None


def _waits(what: str, why: str, next_s: float | None = None) -> dict[str, Any]:
    return {"for": what, "why": why, "next_s": None if next_s is None else round(next_s, 3)}


def _pending_waits(node: Node, pending: Pending) -> dict[str, Any]:
    now, stack = node.env.now, pending.question.stack
    label = node.names.label(stack)
    if not pending.window.is_open(pending):
        why = f"As many messages as may be are on their way to {label}; it is sent when one ends."
        return _waits("its turn", why)
    if pending.route_until is not None:
        return _waits("a way", _no_way(node, stack), pending.route_until - now)
    next_s = max(0.0, pending.act_at - now)
    if pending.received:
        why = f"{label} says that it has the message; its CI has not answered. Then it is asked."
        return _waits("the reply", why, next_s)
    return _waits("a receipt", _unheard(label), next_s)


def _outgoing_waits(node: Node, item: Outgoing) -> dict[str, Any]:
    label = node.names.label(item.stack)
    if not item.committed:
        return _waits("the disk", "It is not accepted before it is on the disk.")
    if item.received:
        why = f"{label} has it on its disk; its CI has not answered, or is away."
        return _waits("the reply", why)
    if item.stack == node.env.me:
        return _waits("its CI", "It is on this stack; see the destination's part.")
    standing = node.durable.courier.standing(item)
    next_s = None if standing.next_at is None else max(0.0, standing.next_at - node.env.now)
    if standing.blocked:
        return _waits("a way", _no_way(node, item.stack))
    if item.code:
        return _waits("room", f"{label} said '{item.code}': {item.detail}", next_s)
    if standing.place == "queue":
        why = f"{standing.ahead} messages for {label} are before it."
        return _waits("its turn", why)
    return _waits("a receipt", _unheard(label), next_s)


def _no_way(node: Node, stack: StackId) -> str:
    return f"Nobody here leads to {node.names.label(stack)}. {reason(node, stack, 0)}"


def _unheard(label: str) -> str:
    return f"A copy left and {label} has not said that it has it. Then another one leaves."


# --- at the destination --------------------------------------------------------------------------


def _destination(node: Node, msg_id: bytes) -> dict[str, Any] | None:
    for item in node.durable.inbox.with_id(msg_id):
        return _incoming(node, item)
    for taken in node.deliveries.answering.dedup.with_id(msg_id):
        return _taken(node, taken)
    return None


def _incoming(node: Node, item: Incoming) -> dict[str, Any]:
    note = item.note
    return {
        "from": node.durable.inbox.label(item.key[0]),
        "to": note.ci if note is not None else None,
        "durable": True,
        "stage": item.stage.name.lower(),
        "attempt": item.attempt,
        "losses": item.losses,
        "left_s": round(node.durable.inbox.left_s(item), 3),
        "receipt": _receipt(node, item.trace),
        "waits": _incoming_waits(node, item),
        "answer": None if item.carried is None else _answer(node, item.carried),
    }


def _answer(node: Node, freight: Freight) -> dict[str, Any]:
    return _attempts(node, freight.attempts) | {"copies": freight.number}


def _incoming_waits(node: Node, item: Incoming) -> dict[str, Any] | None:
    note = item.note
    if item.stage is Stage.WRITING:
        return _waits("the disk", "It is not received before it is on the disk.")
    if item.stage is Stage.LEASED:
        return _waits("the answer", "It is in the hands of its CI.")
    if item.stage is Stage.ANSWERED:
        label = node.names.label(item.key[0])
        why = f"{label} has not said that the answer is on its disk; until then it is sent again."
        return _waits("the confirmation", why)
    if note is None:
        return None
    if node.cis.get(note.ci) is None:
        return _waits("its CI", f"'{note.ci}' was here lately and is not registered now.")
    others = node.durable.inbox.turns.waiting(note.ci) - 1
    return _waits("its turn", f"'{note.ci}' has {others} other messages, or was given a pause.")


def _taken(node: Node, taken: Taken) -> dict[str, Any]:
    in_hand = taken.asker is not None
    return {
        "from": node.names.label(taken.key[0]),
        "to": None,
        "durable": False,
        "stage": "leased" if in_hand else "done",
        "receipt": _receipt(node, taken.asker.trace) if taken.asker is not None else None,
        "waits": _waits("the answer", "It is in the hands of its CI.") if in_hand else None,
        "answer": None,
    }


# --- at a relay ----------------------------------------------------------------------------------


def _relayed(node: Node, msg_id: bytes) -> list[dict[str, Any]]:
    """The copies that this stack passed on, or is about to, and still answers for, and what it
    keeps for a stack that is away."""
    parked = [_parked(node, parked) for parked in node.durable.parking.with_id(msg_id)]
    return parked + [
        _kept(node, lane, seq, kept)
        for lane in node.forwarding.lanes()
        for seq, kept in lane.kept.items()
        if kept.data[MSG_ID] == msg_id and kept.back is not None
    ]


def _parked(node: Node, parked: Parked) -> dict[str, Any]:
    label = node.names.label
    to = label(parked.stack)
    standing = node.durable.courier.standing(parked)
    why = _no_way(node, parked.stack) if standing.blocked else f"{to} has not said that it has it."
    return _attempts(node, parked.attempts) | {
        "from": label(parked.key[0]),
        "to": to,
        "via": node.names.label(node.env.me),
        "left_s": round(parked.ttl_s(node.env.now), 3),
        "waits": _waits("a way" if standing.blocked else "a receipt", why),
    }


def _kept(node: Node, lane: Lane, seq: int, kept: Kept) -> dict[str, Any]:
    data, label = kept.data, node.names.label
    flow = data[FLOW]
    acked = lane.acked[seq & 3] >= seq
    to = label(lane.stack_id)
    trace = data[TRACE_AT : read_mutable(data).trace_end]
    return {
        "from": label(flow[:ID_SIZE]),
        "to": label(flow[ID_SIZE:]),
        "via": to,
        "here_ms": round((node.env.now - kept.since) * 1000.0, 3),
        "hops": node.deliveries.traces.hops(trace),
        "waits": _waits(
            "the settlement" if acked else "the acknowledgement",
            f"{to} has it and has not said that it arrived."
            if acked
            else f"It left for {to}, which has not said that it has it.",
        ),
    }


# --- words ---------------------------------------------------------------------------------------


def _label_of(node: Node, short: bytes) -> str:
    for owner in node.replica.owners:
        if short_id(owner) == short:
            return node.names.label(owner)
    return short.hex()


def _mesh_s(node: Node, at: float) -> float:
    return node.clock.now_ms() / 1000.0 - (node.env.now - at)
