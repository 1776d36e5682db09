"""What must hold of messages in every world: no loops, one outcome per call, nothing twice, nothing
kept for ever (docs/design/forwarding.md)."""

from __future__ import annotations

from tektonmesh.core.effects import Answer, AnswerChunk, AnswerFailed, Deliver
from tektonmesh.core.envelope import FLOW, TRACE_AT, read_mutable, read_trace
from tektonmesh.core.events import Received
from tektonmesh.core.messages import Forward, Message
from tektonmesh.core.types import LinkId
from tektonmesh.sim.checkers import node_of
from tektonmesh.sim.gauges import gauges
from tektonmesh.sim.host import Host
from tektonmesh.sim.letter_checkers import LettersArrive
from tektonmesh.sim.reading_checkers import ReadingsAreWhole
from tektonmesh.sim.watcher import Watcher
from tektonmesh.sim.workload import Call, expected_reply
from tektonmesh.sim.world import World


class NoLoops(Watcher):
    """No stack is twice in a trace."""

    name = "no-loops"

    def sent(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        for message in messages:
            if isinstance(message, Forward):
                mutable = read_mutable(message.envelope)
                hops = read_trace(message.envelope[TRACE_AT : mutable.trace_end])
                shorts = [hop.short for hop in hops]
                if len(dict.fromkeys(shorts)) != len(shorts):
                    self.fail(host, f"sends an envelope in a loop: {[s.hex() for s in shorts]}")


class OneOutcome(Watcher):
    """Every command has exactly one outcome, in time; a reply is the one the CI gave."""

    name = "one-outcome"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._outcomes: dict[int, str] = {}
        self._paused_s: dict[int, float] = {}

    def answered(self, host: Host, effect: Answer | AnswerFailed | AnswerChunk) -> None:
        ticket = effect.ticket
        before = self._outcomes.get(ticket)
        if before is not None:
            self.fail(host, f"ticket {ticket} gets {effect} after {before}")
        if isinstance(effect, AnswerChunk):
            return
        self._outcomes[ticket] = type(effect).__name__
        call = self.world.workload.calls.get(ticket)
        if call is not None and call.kind == "send" and isinstance(effect, Answer):
            self._check_reply(host, call, effect)

    def _check_reply(self, host: Host, call: Call, effect: Answer) -> None:
        if call.chunks + effect.result["body"] != expected_reply(call.target, call.body):
            self.fail(host, f"the reply of {call.target} is not what the CI said")

    def sweep(self) -> None:
        """Calls in the order they were made; a caller's pause does not count against its node."""
        world = self.world
        for call in world.workload.open_calls():
            host = world.hosts[call.host]
            late_s = world.now - call.due
            if late_s > 0.0 and host.alive and host.changed < call.at:
                self.fail(host, f"the {call.kind} of {call.at:.3f} s has no outcome")


class CalmCallsSucceed(Watcher):
    """In a calm world a call to a CI that answers, and that everyone knows, is answered, unless a
    hostile relay had a part of it in its hands."""

    name = "calm-calls-succeed"
    calm_s = 20.0
    known_s = 5.0

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._handled: dict[bytes, float] = {}
        """(source, destination) -> when a hostile host last had an envelope of the two."""

    def received(self, host: Host, event: Received) -> None:
        if not self.world.honest(host):
            for message in event.messages:
                if isinstance(message, Forward):
                    self._handled[message.envelope[FLOW]] = self.world.now

    def _target(self, call: Call) -> Host | None:
        stack = call.target.partition("@")[2]
        return next((it for it in self.world.hosts if it.name == stack), None)

    def _is_known(self, host: Host, target: Host) -> bool:
        """Whether the name means that stack at the caller: the first to claim a name keeps it."""
        return node_of(host).names.label(target.stack_id) == target.name

    def _was_in_bad_hands(self, host: Host, target: Host, since: float) -> bool:
        """Whether a hostile relay had the message, its reply or a receipt: then it is lost if the
        relay wants it to be."""
        flows = host.stack_id + target.stack_id, target.stack_id + host.stack_id
        return any(self._handled.get(flow, -1.0) >= since for flow in flows)

    def answered(self, host: Host, effect: Answer | AnswerFailed | AnswerChunk) -> None:
        world = self.world
        call = world.workload.calls.get(effect.ticket)
        if not isinstance(effect, AnswerFailed) or call is None or call.kind != "send":
            return
        if effect.error["code"] == "cancelled":
            return
        calm = call.at - (world.now - world.calm_s()) > self.calm_s
        if world.options.loss >= 0.05 or not calm:
            return
        target = self._target(call)
        if target is None or not world.components.together(host, target):
            return
        if self._was_in_bad_hands(host, target, call.at) or not self._is_known(host, target):
            return
        since = world.workload.attached_since(call.target)
        if since is not None and call.at - since > self.known_s:
            self.fail(host, f"the call to {call.target} failed: {effect.error}")


class DeliveredOnce(Watcher):
    """One message id reaches a CI once while the destination's node runs."""

    name = "delivered-once"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen: dict[tuple[int, int, bytes], str] = {}

    def delivered(self, host: Host, deliver: Deliver) -> None:
        key = (host.index, host.incarnation, deliver.msg_id)
        if key in self._seen:
            self.fail(host, f"delivers {deliver.msg_id.hex()} to {deliver.ci} twice")
        self._seen[key] = deliver.ci


class NothingKept(Watcher):
    """When all calls have ended, no honest node keeps anything of a message. One that keeps
    messages back does so on purpose."""

    name = "nothing-kept"

    def settled(self) -> None:
        for host in self.world.hosts:
            if host.node is not None and self.world.honest(host):
                left = {name: size for name, size in gauges(host.node).items() if size}
                if left:
                    self.fail(host, f"still holds {left}")


MESSAGE_CHECKERS: tuple[type[Watcher], ...] = (
    NoLoops,
    OneOutcome,
    CalmCallsSucceed,
    DeliveredOnce,
    NothingKept,
    LettersArrive,
    ReadingsAreWhole,
)
