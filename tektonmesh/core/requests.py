"""Messages that this stack sends: from the caller's wish to the one answer it gets.

Here is decided whether a message can be sent at all (the replica knows who exists), how many may
be open towards one stack, and what its caller is told. When a copy is sent again is `copies`' to
decide, reading what comes back is `replies`', and getting a copy there is `forwarding`'s
(docs/design/forwarding.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tektonmesh.core.assertions import check_lasting
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.core.copies import Copies
from tektonmesh.core.credits import Credits
from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.envelope import Kind
from tektonmesh.core.events import ChunksTaken, SendMessage, TraceRoute
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.machine import Env
from tektonmesh.core.names import Names
from tektonmesh.core.outcomes import Elsewhere, Question
from tektonmesh.core.pending import Pending, Window
from tektonmesh.core.policy import Act
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.replies import Replies
from tektonmesh.core.tracing import Tracing
from tektonmesh.core.types import StackId, StackState
from tektonmesh.errors import DeliveryError, LocalError

if TYPE_CHECKING:
    from tektonmesh.core.durable import Durable

CANCEL_WITHIN_S = 10.0
DURABLE_OPTIONS = {"durable": None, "key": None, "large": None}.keys()
GONE = (StackState.LEFT, StackState.DEREGISTERED)
"""What a stack is when there is nothing to wait for."""


class Requests:
    """The messages of local callers to CIs of other stacks."""

    def __init__(
        self,
        env: Env,
        replica: Replica,
        names: Names,
        graph: Graph,
        forwarding: Forwarding,
        deliveries: Deliveries,
    ) -> None:
        self.env = env
        self._replica = replica
        self._names = names
        self._graph = graph
        self._forwarding = forwarding
        self._deliveries = deliveries
        self._sealer = deliveries.sealer
        self._outcomes = deliveries.outcomes
        self._open: dict[bytes, Pending] = {}
        self._tickets: dict[int, Pending] = {}
        self._windows: dict[StackId, Window] = {}
        self._draining = self._leaving = False
        self._credits = Credits(env)
        self.shared: Callable[[StackId, str], dict[str, Any] | None] = _nothing_shared
        """The record of a CI that a stack shares with this one alone; told by `core/sharing`."""
        self.at_fault: Callable[[StackId, str], None] = lambda _stack, _detail: None
        """Told of a stack that broke the protocol of a message, and how."""
        self.copies = Copies(env, self, graph, forwarding, self._sealer)
        self._tracing = Tracing(env, names, forwarding, deliveries)
        self._replies = Replies(env, self, forwarding, deliveries)
        self._durable: Durable | None = None

    def with_durable(self, durable: Durable) -> None:
        """Durable messages, and those with a key, are `durable`'s, and so is what answers them."""
        self._durable = durable
        self._replies.otherwise = durable.on_answer

    # --- reads -----------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """How many messages have no answer yet."""
        return len(self._open)

    @property
    def sent(self) -> int:
        """How many were answered, those to local CIs included."""
        return self._outcomes.sent

    @property
    def failed(self) -> int:
        return self._outcomes.failed

    def find(self, msg_id: bytes) -> Pending | None:
        return self._open.get(msg_id)

    # --- commands --------------------------------------------------------------------------------

    def send(self, command: SendMessage) -> None:
        """Send a message; its answer follows as an effect.

        Raises LocalError `bad_request` or `too_large`, DeliveryError `not_found`, `ambiguous`,
        `ci_offline`, `unreachable`, `busy` or `leaving`.
        """
        settings = self.env.settings
        if self._draining:
            raise DeliveryError("This stack is leaving the mesh.", code="leaving")
        if len(command.body) > settings.body_size_max:
            limit = settings.body_size_max
            raise LocalError(f"A message has at most {limit} bytes.", code="too_large")
        stack, ci = self._names.resolve(command.target)
        if not ci:
            raise LocalError(
                f"'{command.target}' names a stack, not a CI.", hint="Write NAME@STACK."
            )
        wanted_s = command.timeout_s if command.timeout_s > 0 else settings.request_timeout_s
        timeout_s = min(wanted_s, settings.request_timeout_max_s)
        if self._durable is not None and (command.options.keys() & DURABLE_OPTIONS):
            check_lasting(command.content_type)
            self._durable.accept(command, stack, ci, timeout_s)
        elif stack == self.env.me:
            self._deliveries.send_local(command, ci, timeout_s)
        else:
            self._send_remote(command, stack, ci, timeout_s)

    def cancel(self, ticket: int) -> None:
        """Nobody waits for `ticket` any more; the destination is told."""
        pending = self._tickets.get(ticket)
        if pending is None and self._durable is not None and self._durable.outbox.cancel(ticket):
            return
        if pending is None:
            if not self._deliveries.cancel_local(ticket):
                self._tracing.cancel(ticket)
            return
        self.give_up(pending, "cancelled", "The message was cancelled.")

    def chunks_taken(self, event: ChunksTaken) -> None:
        """The caller reads on: its CI may say more."""
        pending = self._tickets.get(event.ticket)
        durable, round_trip_s = self._durable, self._forwarding.round_trip_s
        if pending is None and durable is not None and durable.readers.taken(event, round_trip_s):
            return
        if pending is None:
            self._deliveries.chunks_taken_local(event)
            return
        rtt_s = self._forwarding.round_trip_s(pending.question.stack)
        if pending.grant and self._credits.taken(pending.grant, event.size, rtt_s):
            self.tell_credit(pending)

    def tell_credit(self, pending: Pending) -> None:
        """Say how far the reply of `pending` may go and how much of it is here."""
        grant, within_s = pending.grant, pending.deadline - self.env.now
        if grant is not None and within_s > 0:
            grant.have = pending.stream.next
            body = {"off": grant.have, "cr": grant.limit}
            stack, posts = pending.question.stack, self._deliveries.posts
            posts.send(Kind.CREDIT, stack, pending.msg_id, body, within_s=within_s)

    def trace(self, command: TraceRoute) -> dict[str, Any] | None:
        """Trace the way to a stack; the answer follows unless it is this one.

        Raises DeliveryError `not_found`, `ambiguous`, `unreachable`, LocalError `bad_request`.
        """
        stack, ci = self._names.resolve(command.target)
        if ci and stack == self.env.me:
            self._deliveries.check_here(ci)
        elif ci and self._graph.state(stack) not in GONE:
            self._record_of(stack, ci)
        return self._tracing.start(command)

    def draining(self) -> None:
        """Take no more from callers here, nor for CIs here; what is open goes on."""
        self._draining = True
        self._deliveries.draining()

    def leaving(self) -> None:
        """Answer those that wait: after this nobody will."""
        self.draining()
        self._leaving = True
        self._deliveries.leaving()
        for pending in list(self._open.values()):
            self.fail(pending, "leaving", "This stack is leaving the mesh.")

    # --- beginning -------------------------------------------------------------------------------

    def _send_remote(self, command: SendMessage, stack: StackId, ci: str, timeout_s: float) -> None:
        assert command.ticket not in self._tickets, "a ticket is used once"
        msg_id = command.options.get("id") or self._sealer.new_id()
        deliveries, options = self._deliveries, command.options
        sender, depth = deliveries.handouts.led_to(options.get("within", b""), command.sender)
        act = Act(
            options.get("act", "message"),
            ci,
            caller_ci=sender,
            size=len(command.body),
            depth=depth,
            ref=msg_id.hex(),
        )
        deliveries.rights.require_use(stack, act)
        self._check_known(stack, ci)
        question = Question(
            ticket=command.ticket,
            msg_id=msg_id,
            stack=stack,
            ci=ci,
            sender=sender,
            live=command.stream,
            started=self.env.now,
        )
        window = self._windows.get(stack) or Window(self.env.settings)
        pending = Pending(
            question,
            command.body,
            command.content_type,
            deadline=self.env.after(timeout_s),
            one_way=bool(options.get("no_reply")),
            window=window,
        )
        pending.shared = options.get("shared")
        if command.content_type == CALL_TYPE:
            pending.depth = depth
            pending.signature = deliveries.assertions.sign(question, command.body, depth)
        pending.grant = self._credits.open() if question.live else None
        try:
            may_go = window.enter(pending)
        except DeliveryError:
            self._no_more_chunks(pending)
            raise
        self._windows[stack] = window
        self._open[pending.msg_id] = pending
        self._tickets[command.ticket] = pending
        self._outcomes.begun(question)
        if may_go:
            self.copies.begin(pending)
        else:
            self.copies.hold(pending)

    def _check_known(self, stack: StackId, ci: str) -> None:
        """Answer from the replica at once what will not change by waiting."""
        label = self._names.label(stack)
        if self._graph.state(stack) in GONE:
            raise DeliveryError(f"The stack '{label}' has left the mesh.", code="unreachable")
        if self._record_of(stack, ci).get("state") == "offline":
            raise DeliveryError(f"'{ci}@{label}' takes no messages at present.", code="ci_offline")

    def _record_of(self, stack: StackId, ci: str) -> dict[str, Any]:
        record = self._replica.owners[stack].value(f"ci/{ci}") or self.shared(stack, ci)
        if record is None:
            label = self._names.label(stack)
            raise DeliveryError(f"There is no CI '{ci}' on the stack '{label}'.", code="not_found")
        return record

    # --- what others tell ------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        """A stack that is gone answers nothing; one that is new can be sent to."""
        if change.kind == "refresh" or change.owner not in self._windows:
            return
        self._review([p for p in self._open.values() if p.question.stack == change.owner])

    def graph_changed(self) -> None:
        """Ways broke or opened."""
        self.copies.forget_paths()
        self._deliveries.graph_changed()
        self._review(list(self._open.values()))

    def _review(self, some: list[Pending]) -> None:
        for pending in some:
            stack = pending.question.stack
            if self._graph.state(stack) in GONE:
                label = self._names.label(stack)
                self.fail(pending, "unreachable", f"The stack '{label}' has left the mesh.")
            elif pending.window.is_open(pending):
                self.copies.review(pending)

    # --- the end ---------------------------------------------------------------------------------

    def accepted(self, pending: Pending) -> None:
        """A one-way message is at its destination stack."""
        self.close(pending)
        self._outcomes.accepted(pending.question)

    def received(self, pending: Pending) -> None:
        """Its destination has it: its place in the window is free for the next."""
        for freed in pending.window.received(pending):
            self.copies.begin(freed)

    def set_aside(self, pending: Pending) -> None:
        """Its CI has no room: it waits, and the next for the rest of the stack may go."""
        for freed in pending.window.set_aside(pending):
            self.copies.begin(freed)

    def answer(self, pending: Pending, body: bytes) -> None:
        """The reply is complete; `body` is what of it was not streamed."""
        self.close(pending)
        trace, content_type = pending.reply_trace, pending.reply_type
        self._outcomes.answered(pending.question, body, content_type, trace)

    def fail(self, pending: Pending, code: str, detail: str, outcome: str = "") -> None:
        """It failed for good; `outcome` is that of the destination if it said one."""
        error = DeliveryError(detail, code=code, outcome=outcome or pending.outcome)
        self.close(pending)
        self._outcomes.failed_with(pending.question, error, _elsewhere(pending, outcome))

    def give_up(self, pending: Pending, code: str, detail: str) -> None:
        """It fails by this end's will, so the destination may stop as well."""
        if pending.attempt and not pending.one_way:
            stack = pending.question.stack
            posts = self._deliveries.posts
            posts.send(Kind.CANCEL, stack, pending.msg_id, {}, within_s=CANCEL_WITHIN_S)
        self.fail(pending, code, detail)

    def close(self, pending: Pending) -> None:
        """It is over, and so is its place in the window."""
        assert self._open[pending.msg_id] is pending, "a message ends once"
        del self._open[pending.msg_id], self._tickets[pending.question.ticket]
        self.copies.drop(pending)
        self._no_more_chunks(pending)
        stack = pending.question.stack
        following = pending.window.leave(pending)
        if not len(pending.window):
            del self._windows[stack]
        for freed in following if not self._leaving else ():
            self.copies.begin(freed)

    def _no_more_chunks(self, pending: Pending) -> None:
        if pending.grant is not None:
            self._credits.close(pending.grant)
            pending.grant = None


def _elsewhere(pending: Pending, said: str) -> Elsewhere:
    """Whether another CI may have the message, `said` being the outcome by the destination's own
    sealed word. A relay's word is not enough: it could deliver and say that it did not."""
    if pending.question.live and pending.stream.next:
        return Elsewhere.NEVER  # the caller has seen a part of the answer
    sure = said == "released" or pending.attempt == 0
    return Elsewhere.YES if sure else Elsewhere.IF_IDEMPOTENT


def _nothing_shared(_stack: StackId, _ci: str) -> dict[str, Any] | None:
    return None
