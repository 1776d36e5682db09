"""Calls that ask back, at servers of the old era: parked here until the caller has answered.

The newest dialect has no requests from server to client: a call that needs something ends with
`input_required`, and the caller calls again with the answers. An old server asks in the middle of a
call instead. Such a call goes on in a task of its own: its question ends the caller's call, and the
caller's next call, which names it, carries the answer to it.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, INVALID_REQUEST, REQUEST_TIMEOUT

from tektonmesh.mcp.upstream import Asked

PARKED_S = 600.0
"""How long a question waits for its answer. People read and type."""
PARKED_MAX = 64
QUESTION = "question"
_ASKED_WITH = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
}

Act = Callable[[Asked], Awaitable[dict[str, Any]]]


class Parked:
    """One call under way, with the question it waits on, if any."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.token = secrets.token_hex(16)
        self.scope = trio.CancelScope()
        self._news = trio.Event()
        self._question: dict[str, Any] | None = None
        self._answer: dict[str, Any] | None = None
        self._answered = trio.Event()
        self._outcome: dict[str, Any] | Exception | None = None

    async def run(self, act: Act) -> None:
        """The call itself. What it comes to is kept for whoever asks."""
        try:
            with self.scope:
                self._outcome = await act(self._ask)
        except Exception as error:
            self._outcome = error
        if self._outcome is None:
            self._outcome = MCPError(REQUEST_TIMEOUT, "The question was not answered in time.")
        self._news.set()

    async def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if self._question is not None:
            raise MCPError(INVALID_REQUEST, "One question at a time.")
        self._question = {"method": method, "params": params}
        self._answered = trio.Event()
        self._news.set()
        with trio.move_on_after(PARKED_S):
            await self._answered.wait()
        self._question = None
        if self._answer is None:
            raise MCPError(REQUEST_TIMEOUT, "The question was not answered in time.")
        answer, self._answer = self._answer, None
        return answer

    def answer(self, responses: Any) -> None:
        """Give the caller's answer. Raises MCPError if there is none."""
        given = responses.get(QUESTION) if isinstance(responses, dict) else None
        if not isinstance(given, dict):
            raise MCPError(INVALID_PARAMS, "The answer to the question is missing.")
        self._answer = given
        self._news = trio.Event()
        self._answered.set()

    async def step(self) -> dict[str, Any]:
        """The result, or the next question as `input_required`. Raises what the call raised."""
        await self._news.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        if self._outcome is not None:
            return self._outcome
        return {
            "resultType": "input_required",
            "inputRequests": {QUESTION: self._question},
            "requestState": self.token,
        }

    @property
    def over(self) -> bool:
        return self._outcome is not None


class ParkingPlace:
    """The parked calls of one server."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._parked: dict[str, Parked] = {}

    async def begin(self, owner: str, act: Act) -> dict[str, Any]:
        """Start a call that may ask back; its result or its first question."""
        call = Parked(owner)
        self._nursery.start_soon(call.run, act)
        return await self._step(call)

    async def go_on(self, owner: str, params: dict[str, Any]) -> dict[str, Any]:
        """Take a parked call up again. Raises MCPError if it is not this caller's, or gone."""
        call = self._parked.get(str(params.get("requestState")))
        if call is None or call.owner != owner:
            raise MCPError(INVALID_PARAMS, "The call that this continues is unknown or over.")
        call.answer(params.get("inputResponses"))
        del self._parked[call.token]
        return await self._step(call)

    async def _step(self, call: Parked) -> dict[str, Any]:
        """Whoever is cancelled here cancels the call."""
        done = False
        try:
            result = await call.step()
            done = True
        finally:
            if not done:
                call.scope.cancel()
        if not call.over:
            if len(self._parked) >= PARKED_MAX:
                oldest = next(iter(self._parked))
                self._parked.pop(oldest).scope.cancel()
            self._parked[call.token] = call
        return result


def may_be_asked(capabilities: Any, method: str) -> bool:
    """Whether a caller with these capabilities can answer such a question."""
    word = _ASKED_WITH.get(method)
    return isinstance(capabilities, dict) and word is not None and word in capabilities


def can_answer(capabilities: Any) -> bool:
    """Whether a caller with these capabilities can answer anything at all."""
    return any(may_be_asked(capabilities, method) for method in _ASKED_WITH)
