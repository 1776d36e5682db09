"""What the doors count: messages by outcome, their latency across stacks, and recent histories.

The numbers are kept in plain lists, so that counting costs nothing until `/metrics` is read. How
they are shown is decided in `api/http/metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tektonmesh.core.counts import Histogram
from tektonmesh.errors import MeshError

LATENCY_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
MESSAGES_KEPT = 1000
"""Histories of the newest messages; about 200 bytes each."""


_KINDS = {
    "tools/call": "tool",
    "resources/read": "resource",
    "prompts/get": "prompt",
    "completion/complete": "completion",
}


class Figures:
    """What was sent through the doors of this daemon."""

    def __init__(self) -> None:
        self.cross_stack = Histogram(LATENCY_BOUNDS_S)
        self.local = 0
        self.remote = 0
        self.shared: dict[str, int] = dict.fromkeys(_KINDS.values(), 0)
        self.failures: dict[str, int] = {}
        self._messages: dict[str, tuple[str, float, float]] = {}

    def answered(self, result: Mapping[str, Any], started: float, now: float) -> None:
        """A reply came (or, without one asked for, the message was taken over)."""
        path = result.get("path", ())
        if len(path) > 1:
            self.remote += 1
            self.cross_stack.add(float(result["ms"]) / 1000.0)
        elif path:
            self.local += 1
        state = "answered" if path else "accepted"
        self._keep(str(result["id"]), state, started, now)

    def used(self, method: str) -> None:
        """A method of MCP was answered by a CI of another stack."""
        kind = _KINDS.get(method)
        if kind is not None:
            self.shared[kind] += 1

    def failed(self, error: MeshError, now: float) -> None:
        """The mesh or the CI could not; errors that carry an `id` get a history."""
        code = error.code.name
        self.failures[code] = self.failures.get(code, 0) + 1
        msg_id = error.data.get("id")
        if isinstance(msg_id, str):
            self._keep(msg_id, "failed", now, now)

    def history(self, msg_id: str) -> dict[str, Any] | None:
        """`{"id", "state", "transitions": [{"state", "at"}]}` of one of the newest messages."""
        kept = self._messages.get(msg_id)
        if kept is None:
            return None
        state, started, now = kept
        steps = [{"state": state, "at": round(now, 3)}]
        if state == "answered":
            steps.insert(0, {"state": "accepted", "at": round(started, 3)})
        return {"id": msg_id, "state": state, "transitions": steps}

    def _keep(self, msg_id: str, state: str, started: float, now: float) -> None:
        self._messages[msg_id] = (state, started, now)
        if len(self._messages) > MESSAGES_KEPT:
            del self._messages[next(iter(self._messages))]
