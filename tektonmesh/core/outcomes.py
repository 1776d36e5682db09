"""What becomes of a message, said once: the answer to its caller, the counters, the notice.

Local and remote sends end here, so that they look alike to whoever asked. When a message is over
is decided by `requests` and `deliveries`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple, Protocol

from tektonmesh.core.ci import key_of
from tektonmesh.core.effects import Answer, AnswerChunk, AnswerFailed
from tektonmesh.core.envelope import ENTRY_SIZE
from tektonmesh.core.loads import Loads
from tektonmesh.core.machine import Env
from tektonmesh.core.names import Names
from tektonmesh.core.traces import Traces
from tektonmesh.core.types import StackId
from tektonmesh.errors import MeshError

COLLECT_MAX = 4 << 20
"""A reply that is not streamed may be this large; larger ones need a stream."""


class Elsewhere(IntEnum):
    """Whether a message that failed may be sent to somebody else: never; only if twice is as good
    as once, since a copy may have got through; or because certainly none did."""

    NEVER = 0
    IF_IDEMPOTENT = 1
    YES = 2


class Question(NamedTuple):
    """What a caller asked, as far as its answer needs it. `stack` owns the CI; `started` is the
    instant of asking; with `live` the reply goes out in chunks and the answer's body is empty."""

    ticket: int
    msg_id: bytes
    stack: StackId
    ci: str
    sender: str
    live: bool
    started: float


class Taker(Protocol):
    """One who hears first what becomes of a message, and may keep it from the caller."""

    def answered(self, question: Question, result: dict[str, Any]) -> dict[str, Any] | None:
        """The result that the caller gets; None if it gets none now."""
        ...

    def failed(
        self, question: Question, error: MeshError, elsewhere: Elsewhere
    ) -> MeshError | None:
        """The error that the caller gets; None if it gets none now."""
        ...


class Outcomes:
    """Answers the callers of one node. `takers` are by ticket."""

    def __init__(self, env: Env, names: Names, traces: Traces) -> None:
        self.env = env
        self.sent = 0
        self.failed = 0
        self.loads = Loads(env)
        self.takers: dict[int, Taker] = {}
        self._names = names
        self._traces = traces

    def address(self, name: str, stack: StackId) -> str:
        """`numa@west`; the bare stack for a sender that is a person."""
        label = self._names.label(stack)
        return f"{name}@{label}" if name else label

    def begun(self, question: Question) -> None:
        """A message is on its way; exactly one of the three below follows."""
        self.loads.begun((question.stack, key_of(question.ci)))

    def told(self, question: Question, in_hand: int) -> None:
        """The stack of the CI said how many messages that has in hand."""
        self.loads.told((question.stack, key_of(question.ci)), in_hand)

    def chunk(self, question: Question, data: bytes) -> None:
        """The next bytes of a streamed reply."""
        if data:
            self.env.emit(AnswerChunk(question.ticket, data))

    def answered(self, question: Question, body: bytes, content_type: str, trace: bytes) -> None:
        """The whole reply is there. `trace` is that of the request; empty for a local one."""
        if question.live:
            self.chunk(question, body)
            body = b""
        self._answer(
            question, self._reply(question, body, content_type, trace, ms=self._ms(question))
        )
        self._done(question, ok=True, hops=len(trace) // ENTRY_SIZE)

    def _reply(
        self, question: Question, body: bytes, content_type: str, trace: bytes, *, ms: float
    ) -> dict[str, Any]:
        hops = self._traces.hops(trace)
        return {
            "id": question.msg_id.hex(),
            "to": self.address(question.ci, question.stack),
            "from": self.address(question.sender, self.env.me),
            "body": body,
            "content_type": content_type,
            "path": [hop["stack"] for hop in hops] + [self._names.label(question.stack)],
            "ms": ms,
            "hops": hops,
        }

    def accepted(self, question: Question) -> None:
        """A message without a reply is at its destination stack."""
        to = self.address(question.ci, question.stack)
        self._answer(question, {"id": question.msg_id.hex(), "to": to, "accepted": True})
        self._done(question, ok=True, hops=0)

    def failed_with(
        self, question: Question, error: MeshError, elsewhere: Elsewhere = Elsewhere.NEVER
    ) -> None:
        """The message failed for good, where it was sent to."""
        self.loads.ended((question.stack, key_of(question.ci)), 0.0, answered=False)
        taker = self.takers.get(question.ticket)
        told = error if taker is None else taker.failed(question, error, elsewhere)
        if told is None:
            return
        self.env.emit(AnswerFailed(question.ticket, told.as_dict()))
        if told.code.name != "cancelled":
            self._done(question, ok=False, hops=0)

    def _answer(self, question: Question, result: dict[str, Any]) -> None:
        answered = "body" in result
        self.loads.ended(
            (question.stack, key_of(question.ci)), self._ms(question), answered=answered
        )
        taker = self.takers.get(question.ticket)
        told = result if taker is None else taker.answered(question, result)
        if told is not None:
            self.env.emit(Answer(question.ticket, told))

    # --- durable messages, whose callers may be many or none -------------------------------------

    def taken(self, ticket: int, msg_id: bytes) -> None:
        """A message is safe on the disk of this stack."""
        self.env.emit(Answer(ticket, {"id": msg_id.hex(), "accepted": True}))

    def refused(self, ticket: int, error: MeshError) -> None:
        """This caller gets no reply."""
        self.env.emit(AnswerFailed(ticket, error.as_dict()))

    def replied(
        self, question: Question, body: bytes, content_type: str, trace: bytes, ms: float
    ) -> None:
        """This caller gets the reply, which may have come before it asked."""
        reply = self._reply(question, body, content_type, trace, ms=ms)
        self.env.emit(Answer(question.ticket, reply))

    def over(self, question: Question, *, ok: bool, trace: bytes) -> None:
        """A durable message has its end."""
        self._done(question, ok=ok, hops=len(trace) // ENTRY_SIZE)

    def _done(self, question: Question, *, ok: bool, hops: int) -> None:
        self.sent += ok
        self.failed += not ok
        label = self._names.label(question.stack)
        ms = self._ms(question)
        self.env.notice("message_done", to_stack=label, ms=ms, ok=ok, hops=hops)

    def _ms(self, question: Question) -> float:
        return round((self.env.now - question.started) * 1000.0, 3)
