"""Tracing a way: an empty envelope to a stack and back, to which every hop adds what it knows.

A trace is not sealed, because the hops write into it, and it says nothing that they do not know
anyway. What they write (queue, round trip of the next link) is for people and decides nothing. The
answer is sealed by the destination.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.effects import Answer, AnswerFailed
from tektonmesh.core.envelope import (
    ENTRIES_MAX,
    REPORT_SIZE,
    Envelope,
    Header,
    Kind,
    SendClass,
    read_reports,
    report,
)
from tektonmesh.core.events import TraceRoute
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.machine import Env
from tektonmesh.core.names import Names
from tektonmesh.core.sealing import bytes_of
from tektonmesh.core.types import StackId
from tektonmesh.core.wheel import Waiting, Wheel
from tektonmesh.errors import DeliveryError, LocalError, RemoteError

REPEAT_S = 0.5
ANSWER_TTL_S = 10.0


class Probe(Waiting):
    """One trace that is under way."""

    __slots__ = ("attempt", "deadline", "msg_id", "stack", "ticket")

    def __init__(self, ticket: int, stack: StackId, msg_id: bytes, deadline: float) -> None:
        super().__init__()
        self.ticket = ticket
        self.stack = stack
        self.msg_id = msg_id
        self.deadline = deadline
        self.attempt = 0


class Tracing:
    """Both ends of traces."""

    def __init__(
        self, env: Env, names: Names, forwarding: Forwarding, deliveries: Deliveries
    ) -> None:
        self.env = env
        self._names = names
        self._forwarding = forwarding
        self._sealer = deliveries.sealer
        self._traces = deliveries.traces
        self._probes: dict[bytes, Probe] = {}
        self._wheel: Wheel[Probe] = Wheel(env, "traces", self._due)
        forwarding.receive(Kind.TRACE, self._on_trace)
        forwarding.receive(Kind.TRACE_REPLY, self._on_answer)

    def start(self, command: TraceRoute) -> dict[str, Any] | None:
        """Begin a trace; a dict at once if the target is this stack itself."""
        stack, _ci = self._names.resolve(command.target)
        if stack == self.env.me:
            return {"hops": [], "path": [self._names.label(stack)]}
        settings = self.env.settings
        timeout_s = min(command.timeout_s, settings.request_timeout_max_s)
        msg_id = self._sealer.new_id()
        probe = Probe(command.ticket, stack, msg_id, self.env.after(timeout_s))
        self._probes[msg_id] = probe
        if not self._send(probe):
            self._close(probe)
            label = self._names.label(stack)
            raise DeliveryError(f"No path leads to the stack '{label}'.", code="unreachable")
        return None

    def cancel(self, ticket: int) -> None:
        """Nobody waits for this trace any more; unknown tickets are ignored."""
        for probe in list(self._probes.values()):
            if probe.ticket == ticket:
                self._fail(probe, "cancelled", "The trace was cancelled.")

    def _send(self, probe: Probe) -> bool:
        left_s = probe.deadline - self.env.now
        header = Header(
            kind=Kind.TRACE,
            msg_id=probe.msg_id,
            source=self.env.me,
            destination=probe.stack,
            created_ms=self._sealer.now_ms(),
            ttl_ms=max(1000, int(left_s * 1000)),
            size=0,
            attempt=probe.attempt,
            send_class=SendClass.INTERACTIVE,
        )
        sent = self._forwarding.send(Envelope(header, header.pack(), b""))
        probe.attempt += 1
        self._wheel.arm(probe, min(probe.deadline, self.env.after(REPEAT_S)))
        return sent

    def _due(self, probe: Probe) -> None:
        if self.env.now >= probe.deadline:
            self._fail(probe, "timeout", "The trace was not answered.")
        else:
            self._send(probe)

    def _on_trace(self, envelope: Envelope) -> str:
        """Send back what the hops wrote, and our own queue as the last report."""
        reports = envelope.body[: ENTRIES_MAX * REPORT_SIZE]
        body = {"tr": envelope.trace, "rep": reports + report(self._forwarding.queued_bytes, 0.0)}
        source, msg_id = envelope.header.source, envelope.header.msg_id
        try:
            answer = self._sealer.seal(
                Kind.TRACE_REPLY, source, body, reply_to=msg_id, ttl_s=ANSWER_TTL_S
            )
        except DeliveryError:
            return ""
        self._forwarding.send(answer)
        return ""

    def _on_answer(self, envelope: Envelope) -> str:
        probe = self._probes.get(envelope.header.reply_to)
        if probe is None or probe.stack != envelope.header.source:
            return ""
        try:
            body = self._sealer.open(envelope)
        except (RemoteError, LocalError):
            return ""
        trace, reports = bytes_of(body, "tr"), read_reports(bytes_of(body, "rep"))
        self._close(probe)
        path = self._traces.path(trace, probe.stack)
        result = {"hops": _hops(path, reports), "path": path}
        self.env.emit(Answer(probe.ticket, result))
        return ""

    def _fail(self, probe: Probe, code: str, detail: str) -> None:
        self._close(probe)
        error = DeliveryError(detail, code=code)
        self.env.emit(AnswerFailed(probe.ticket, error.as_dict()))

    def _close(self, probe: Probe) -> None:
        del self._probes[probe.msg_id]
        self._wheel.disarm(probe)


def _hops(path: list[str], reports: list[tuple[int, float]]) -> list[dict[str, Any]]:
    """One row per stack after the origin: the round trip of the link that leads to it, which the
    stack before it reported, and its own queue."""
    rows = []
    for hop, stack in enumerate(path[1:], 1):
        rtt_ms = reports[hop - 1][1] if hop <= len(reports) else 0.0
        queue_bytes = reports[hop][0] if hop < len(reports) else 0
        row = {"hop": hop, "stack": stack, "rtt_ms": round(rtt_ms, 3), "queue_bytes": queue_bytes}
        rows.append(row)
    return rows
