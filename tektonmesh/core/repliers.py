"""Who waits on this stack for a local CI's answer: a caller, or nobody.

A replier turns what the CI says into what its asker understands; that of another stack is in
`answering`. When a delivery begins and ends is `handouts`' to say.
"""

from __future__ import annotations

from collections.abc import Callable

from tektonmesh.core.handouts import Replier
from tektonmesh.core.outcomes import COLLECT_MAX, Outcomes, Question
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
    """A caller on this stack. `over` is called once, when it has its answer."""

    def __init__(self, outcomes: Outcomes, question: Question, over: Callable[[], object]) -> None:
        self._outcomes = outcomes
        self._question = question
        self._over = over
        self._collected: list[bytes] = []
        self._size = 0

    def chunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._question.live:
            self._outcomes.chunk(self._question, data)
        elif self._size <= COLLECT_MAX:
            self._collected.append(data)

    def done(self, body: bytes, content_type: str) -> None:
        if self._size + len(body) > COLLECT_MAX and not self._question.live:
            self.failed("too_large", "The reply is too large to be collected; ask for a stream.")
            return
        self._over()
        whole = b"".join([*self._collected, body])
        self._outcomes.answered(self._question, whole, content_type, b"")

    def failed(self, code: str, detail: str) -> None:
        self._over()
        error = DeliveryError(detail, code=code, outcome=outcome_of(code))
        self._outcomes.failed_with(self._question, error)
