"""What becomes of a message, said once: the answer to its caller, the counters, the notice.

Local and remote sends end here, so that they look alike to whoever asked. When a message is over
is decided by `requests` and `deliveries`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tektonmesh.core.effects import Answer, AnswerChunk, AnswerFailed
from tektonmesh.core.envelope import ENTRY_SIZE
from tektonmesh.core.machine import Env
from tektonmesh.core.names import Names
from tektonmesh.core.traces import Traces
from tektonmesh.core.types import StackId
from tektonmesh.errors import MeshError

COLLECT_MAX = 4 << 20
"""A reply that is not streamed may be this large; larger ones need a stream."""


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


class Outcomes:
    """Answers the callers of one node."""

    def __init__(self, env: Env, names: Names, traces: Traces) -> None:
        self.env = env
        self.sent = 0
        self.failed = 0
        self._names = names
        self._traces = traces

    def address(self, name: str, stack: StackId) -> str:
        """`numa@west`; the bare stack for a sender that is a person."""
        label = self._names.label(stack)
        return f"{name}@{label}" if name else label

    def chunk(self, question: Question, data: bytes) -> None:
        """The next bytes of a streamed reply."""
        if data:
            self.env.emit(AnswerChunk(question.ticket, data))

    def answered(self, question: Question, body: bytes, content_type: str, trace: bytes) -> None:
        """The whole reply is there. `trace` is that of the request; empty for a local one."""
        if question.live:
            self.chunk(question, body)
            body = b""
        self._emit_reply(question, body, content_type, trace, ms=self._ms(question))
        self._done(question, ok=True, hops=len(trace) // ENTRY_SIZE)

    def _emit_reply(
        self, question: Question, body: bytes, content_type: str, trace: bytes, *, ms: float
    ) -> None:
        hops = self._traces.hops(trace)
        result: dict[str, Any] = {
            "id": question.msg_id.hex(),
            "to": self.address(question.ci, question.stack),
            "from": self.address(question.sender, self.env.me),
            "body": body,
            "content_type": content_type,
            "path": [hop["stack"] for hop in hops] + [self._names.label(question.stack)],
            "ms": ms,
            "hops": hops,
        }
        self.env.emit(Answer(question.ticket, result))

    def accepted(self, question: Question) -> None:
        """A message without a reply is at its destination stack."""
        self.env.emit(Answer(question.ticket, {"id": question.msg_id.hex(), "accepted": True}))
        self._done(question, ok=True, hops=0)

    def failed_with(self, question: Question, error: MeshError) -> None:
        """The message failed for good."""
        self.env.emit(AnswerFailed(question.ticket, error.as_dict()))
        if error.code.name != "cancelled":
            self._done(question, ok=False, hops=0)

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
        self._emit_reply(question, body, content_type, trace, ms=ms)

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
