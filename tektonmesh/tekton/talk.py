"""Two forms that Tekton's tools write to a socket, taken on ours: one-shots and specialist lines.

A one-shot is one object `{"from", "content", ...}` without an answer; specialist lines are
`{"type": "chat", "content"}` answered by `{"type": "response"}`. Both were made for a socket that
belongs to one CI; ours belongs to all, so they must name theirs in `to`. `execute` means nothing
here: no text from anywhere is run (docs/design/tekton.md, section 3).
"""

from __future__ import annotations

import json
from typing import Any

from tektonmesh.api import validate
from tektonmesh.api.operations import Caller, Operations
from tektonmesh.core.frozen import frozen
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.wire.jsonrpc import BadLine, read_json

_LINES = ("chat", "ping", "health", "info")
_TARGETS = ("to", "target", "ai_id")


@frozen
class Form:
    """One object in either form; only specialist lines want an answer."""

    given: dict[str, Any]
    wants_answer: bool


def read(line: bytes) -> Form | None:
    """The form that this line is in, if it is in one of the two."""
    try:
        given = read_json(line)
    except BadLine:
        return None
    if not isinstance(given, dict):
        return None
    if given.get("type") in _LINES:
        return Form(given, wants_answer=True)
    if "from" in given and "content" in given:
        return Form(given, wants_answer=False)
    return None


async def answer(form: Form, operations: Operations, caller: Caller) -> bytes:
    """Act on it; what to write back. Failures are answered in Tekton's words, and a one-shot only
    hears of them."""
    try:
        shown = await _act(form, operations, caller)
    except MeshError as error:
        shown = {"type": "error", "error": error.sentence(), "code": error.code.name}
    if not shown:
        return b""
    return json.dumps(shown, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


async def _act(form: Form, operations: Operations, caller: Caller) -> dict[str, Any]:
    kind = form.given.get("type")
    name = operations.daemon.node.env.identity.name
    if kind == "ping":
        return {"type": "pong"}
    if kind == "health":
        return {"type": "health", "status": "healthy", "ai_id": name}
    if kind == "info":
        return {"type": "info", "ai_id": name, "component": "tektonmesh"}
    target = _target(form.given)
    params = {"to": target, "body": form.given.get("content")}
    if form.wants_answer:
        reply = await operations.send(params, caller)
        return {"type": "response", "ai_id": target, "content": reply.get("body", "")}
    sender = form.given.get("from")
    if isinstance(sender, str) and operations.is_attached(sender, caller):
        params["from"] = sender
    await operations.send(params | {"no_reply": True}, caller)
    return {}


def _target(given: dict[str, Any]) -> str:
    for key in _TARGETS:
        found = validate.text(given, key, default="", size_max=200)
        if found:
            return found
    raise LocalError(
        "This socket is not that of one CI, so the message does not say whom it is for.",
        hint='Add "to": "numa@west".',
        data={"field": "to"},
    )
