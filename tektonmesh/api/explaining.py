"""`explain` for the doors: of a stack why it is in its state, of a message where it is and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tektonmesh.api import validate
from tektonmesh.core.node import Node
from tektonmesh.core.views_explain import explain
from tektonmesh.core.views_message import explain_message
from tektonmesh.errors import LocalError

NAME_SIZE_MAX = 256
MSG_ID_SIZE = 16


def explained(
    node: Node,
    params: Mapping[str, Any],
    history: Callable[[str], dict[str, Any] | None],
) -> dict[str, Any]:
    """`history` has what became of a message that was sent from here. Raises LocalError."""
    if params.get("id") is not None:
        return _message(node, validate.text(params, "id", default="", size_max=64), history)
    name = validate.text(params, "name", default="", size_max=NAME_SIZE_MAX)
    stack = name.rpartition("@")[2].strip()
    if not stack:
        raise validate.field_error("name", "is missing: the name or id of a stack is needed")
    return explain(node, stack)


def _message(
    node: Node, wanted: str, history: Callable[[str], dict[str, Any] | None]
) -> dict[str, Any]:
    try:
        msg_id = bytes.fromhex(wanted)
    except ValueError:
        msg_id = b""
    found = explain_message(node, msg_id) if len(msg_id) == MSG_ID_SIZE else None
    became = history(wanted)
    if found is None and became is None:
        raise LocalError(
            f"No message with the id '{wanted}' is known here (any more).",
            code="not_found",
            hint="Ask at the stack that sent it; `tektonmesh send --json` prints the id.",
        )
    return (became or {"id": wanted, "state": None, "transitions": []}) | (found or {})
