"""Who waits on this stack for a local CI's answer: a caller, or nobody.

A replier turns what the CI says into what its asker understands; that of another stack is in
`answering`. When a delivery begins and ends is `handouts`' to say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from tektonmesh.core.credits import WINDOW_MAX
from tektonmesh.core.handouts import Replier
from tektonmesh.core.outcomes import COLLECT_MAX, Elsewhere, Outcomes, Question
from tektonmesh.core.streams import UNSETTLED_MAX
from tektonmesh.errors import DeliveryError

CERTAIN = ("not_found", "ci_offline", "busy", "refused")
"""Failures after which the CI has certainly not acted on the message."""


def outcome_of(code: str) -> str:
    return "released" if code in CERTAIN else "indeterminate"


class NoReplier(Replier):
    """Nobody waits for the answer of a one-way message."""

    def chunk(self, data: bytes) -> None:
        """Not wanted."""

    def done(self, body: bytes, content_type: str) -> None:
        """Not wanted."""

    def failed(self, code: str, detail: str) -> None:
        """Not wanted."""


class LocalReplier(Replier):
    """A caller on this stack. `over` is called once, when it has its answer. A streamed reply runs
    at most a window ahead of its reader; the rest waits here."""

    def __init__(self, outcomes: Outcomes, question: Question, over: Callable[[], object]) -> None:
        self._outcomes = outcomes
        self._question = question
        self._over = over
        self._collected: list[bytes] = []
        self._size = 0
        self._held: deque[bytes] = deque()
        self._held_size = 0
        self._credit = WINDOW_MAX
        self._final_type: str | None = None

    def chunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._question.live:
            if self._held_size + len(data) > UNSETTLED_MAX:
                detail = "The reply is written faster than it is read."
                raise DeliveryError(detail, code="busy")
            self._held.append(data)
            self._held_size += len(data)
            self._pass_on()
        elif self._size <= COLLECT_MAX:
            self._collected.append(data)

    def taken(self, size: int) -> None:
        """The caller has read so much more."""
        self._credit += size
        self._pass_on()
        if self._final_type is not None and not self._held:
            self._answer(b"", self._final_type)

    def _pass_on(self) -> None:
        while self._held and self._credit > 0:
            data = self._held.popleft()
            self._held_size -= len(data)
            self._credit -= len(data)
            self._outcomes.chunk(self._question, data)

    def done(self, body: bytes, content_type: str) -> None:
        if self._size + len(body) > COLLECT_MAX and not self._question.live:
            self.failed("too_large", "The reply is too large to be collected; ask for a stream.")
        elif self._held:
            self._held.append(body)
            self._held_size += len(body)
            self._final_type = content_type
        else:
            self._answer(b"".join([*self._collected, body]), content_type)

    def _answer(self, body: bytes, content_type: str) -> None:
        self._over()
        self._outcomes.answered(self._question, body, content_type, b"")

    def failed(self, code: str, detail: str) -> None:
        self._over()
        error = DeliveryError(detail, code=code, outcome=outcome_of(code))
        self._outcomes.failed_with(self._question, error, self._elsewhere(error.outcome))

    def _elsewhere(self, outcome: str) -> Elsewhere:
        if self._size:
            return Elsewhere.NEVER  # the caller has seen a part of the answer
        return Elsewhere.YES if outcome == "released" else Elsewhere.IF_IDEMPOTENT
