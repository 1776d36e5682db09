"""What comes back to the origin: receipts, parts of a reply, the end of it, and nacks.

All are sealed by the destination, so a relay can neither forge an answer nor kill a message by
lying. Parts are put in order here; what follows for the message is `requests`'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.envelope import Envelope, Kind
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.machine import Env
from tektonmesh.core.outcomes import COLLECT_MAX
from tektonmesh.core.pending import Pending
from tektonmesh.core.sealing import Body, bytes_of, number_of, text_of
from tektonmesh.core.types import StackId
from tektonmesh.errors import CODES, LocalError, RemoteError

if TYPE_CHECKING:
    from tektonmesh.core.requests import Requests

OFFSET_MAX = 1 << 62
IN_HAND_MAX = 100_000
"""A stack that says more of a CI only keeps messages away from it."""


class Replies:
    """Reads what destinations send to this origin."""

    def __init__(
        self, env: Env, requests: Requests, forwarding: Forwarding, deliveries: Deliveries
    ) -> None:
        self.env = env
        self._requests = requests
        self._copies = requests.copies
        self._sealer = deliveries.sealer
        self._traces = deliveries.traces
        self._outcomes = deliveries.outcomes
        self.otherwise: Callable[[Envelope], None] = lambda _envelope: None
        """Takes what answers none of these messages."""
        forwarding.receive(Kind.REPLY, self._on_reply)
        forwarding.receive(Kind.CHUNK, self._on_chunk)
        forwarding.receive(Kind.RECEIPT, self._on_receipt)
        forwarding.receive(Kind.NACK, self._on_nack)

    def _on_receipt(self, envelope: Envelope) -> str:
        opened = self._open(envelope)
        if opened is not None:
            pending, body = opened
            self._outcomes.told(pending.question, number_of(body, "ld", IN_HAND_MAX))
            pending.attempts.trace = bytes_of(body, "tr")
            self._copies.has_receipt(pending, self._way(pending, pending.attempts.trace))
        return ""

    def _on_chunk(self, envelope: Envelope) -> str:
        opened = self._open(envelope)
        if opened is not None:
            pending, body = opened
            self._copies.has_receipt(pending, ())
            offset, data = number_of(body, "off", OFFSET_MAX), bytes_of(body, "data")
            if self._is_allowed(pending, offset + len(data)):
                self._take(pending, pending.stream.accept(offset, data))
                if pending.grant is not None and pending.grant.is_behind(pending.stream.next):
                    self._requests.tell_credit(pending)
        return ""

    def _on_reply(self, envelope: Envelope) -> str:
        opened = self._open(envelope)
        if opened is not None:
            pending, body = opened
            pending.reply_type = text_of(body, "ct")
            pending.reply_trace = bytes_of(body, "tr")
            self._outcomes.told(pending.question, number_of(body, "ld", IN_HAND_MAX))
            offset, data = number_of(body, "off", OFFSET_MAX), bytes_of(body, "body")
            if not self._is_allowed(pending, offset + len(data)):
                return ""
            fresh = pending.stream.finish(offset, data)
            if pending.stream.complete:
                pending.received = True  # and nothing is left to be planned
            else:
                self._copies.has_receipt(pending, ())
            self._take(pending, fresh)
        return ""

    def _on_nack(self, envelope: Envelope) -> str:
        opened = self._open(envelope)
        if opened is None:
            return ""
        pending, body = opened
        code = text_of(body, "code")
        if code == "unknown_key":
            if self._sealer.learn_prekey(pending.question.stack, body):
                self._copies.reseal(pending)
            return ""
        outcome = "released" if body.get("out") == "released" else "indeterminate"
        known = code if code in CODES else "ci_failed"
        detail = text_of(body, "detail") or CODES[known].meaning
        self._requests.fail(pending, known, detail, outcome)
        return ""

    def _open(self, envelope: Envelope) -> tuple[Pending, Body] | None:
        """The message this answers and the body; None unless its own destination says it."""
        header = envelope.header
        pending = self._requests.find(header.reply_to)
        if pending is None:
            self.otherwise(envelope)
            return None
        if pending.question.stack != header.source:
            return None
        try:
            return pending, self._sealer.open(envelope)
        except (RemoteError, LocalError) as error:
            self._sealer.refusals.note(header.source, error.detail)
            return None

    def _take(self, pending: Pending, fresh: bytes) -> None:
        """Bytes of the reply that are next in order."""
        if pending.stream.complete:
            body = b"".join([*pending.collected, fresh])
            if len(body) > COLLECT_MAX:
                self._too_large(pending)
            else:
                self._requests.answer(pending, body)
            return
        if pending.question.live:
            self._outcomes.chunk(pending.question, fresh)
        elif fresh:
            pending.collected.append(fresh)
            pending.collected_size += len(fresh)
        if pending.collected_size > COLLECT_MAX:
            self._too_large(pending)
        elif pending.stream.has_gap:
            self._copies.has_gap(pending)

    def _is_allowed(self, pending: Pending, end: int) -> bool:
        """Whether credit was given up to `end`; a stream that goes beyond it is given up. Its stack
        sealed it, so nobody else can be at fault."""
        if pending.grant is None or pending.grant.covers(end):
            return True
        detail = "The stack of the CI sent more of the reply than it was allowed to."
        self._requests.give_up(pending, "protocol", detail)
        self._requests.at_fault(pending.question.stack, detail)
        return False

    def _too_large(self, pending: Pending) -> None:
        detail = "The reply is too large to be collected; ask for a stream."
        self._requests.give_up(pending, "too_large", detail)

    def _way(self, pending: Pending, trace: bytes) -> tuple[StackId, ...]:
        """The stacks of a trace with the destination; empty if one of them is not known here."""
        stacks = self._traces.stacks(trace)
        known = [stack for stack in stacks if stack is not None]
        return (*known, pending.question.stack) if known and len(known) == len(stacks) else ()
