"""Messages for local CIs, wherever they come from: the face of the destination's side.

Composes the machines that open what arrives (`arrivals`), hand it to the CI (`handouts`) and
answer (`answering`, `repliers`), and takes what the CIs say. It decides only what they share.
"""

from __future__ import annotations

from tektonmesh.core.answering import Answering
from tektonmesh.core.arrivals import Arrivals
from tektonmesh.core.assertions import Assertions
from tektonmesh.core.ci import CALL_TYPE, Ci
from tektonmesh.core.cis import Cis
from tektonmesh.core.dedup import Dedup
from tektonmesh.core.envelope import Kind
from tektonmesh.core.events import ChunksTaken, ReplyChunk, ReplyDone, ReplyFailed, SendMessage
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.handouts import Handouts, Parcel
from tektonmesh.core.machine import Env
from tektonmesh.core.names import Names
from tektonmesh.core.outcomes import Outcomes, Question
from tektonmesh.core.posts import Posts
from tektonmesh.core.replica import Replica
from tektonmesh.core.repliers import LocalReplier, NoReplier
from tektonmesh.core.rights import Rights
from tektonmesh.core.sealing import Sealer
from tektonmesh.core.traces import Traces
from tektonmesh.errors import DeliveryError


class Deliveries:
    """What local CIs are asked and what they answer."""

    def __init__(
        self,
        env: Env,
        replica: Replica,
        names: Names,
        cis: Cis,
        rights: Rights,
        forwarding: Forwarding,
    ) -> None:
        self.env = env
        self.sealer = Sealer(env, replica)
        self.posts = Posts(env, self.sealer, forwarding)
        self.traces = Traces(replica, names)
        self.outcomes = Outcomes(env, names, self.traces)
        self._cis = cis
        self.rights = rights
        self._handouts = self.handouts = Handouts(env)
        answering = self.answering = Answering(env, self.sealer, self.posts, forwarding, Dedup(env))
        self.assertions = Assertions(env, replica)
        arrivals = self.arrivals = Arrivals(
            env,
            names,
            rights=rights,
            sealer=self.sealer,
            answering=answering,
            handouts=self._handouts,
        )
        arrivals.check_call = self.assertions.check
        self._local: dict[int, tuple[int, Question, LocalReplier]] = {}
        forwarding.receive(Kind.REQUEST, arrivals.on_request)
        forwarding.receive(Kind.SHARED, arrivals.on_request)
        forwarding.receive(Kind.CANCEL, arrivals.on_cancel)
        forwarding.receive(Kind.RESEND, arrivals.on_resend)
        forwarding.receive(Kind.CREDIT, arrivals.on_credit)

    @property
    def open(self) -> int:
        """How many messages are in the hands of local CIs."""
        return len(self._handouts)

    @property
    def kept_for_readers(self) -> int:
        """Bytes of replies that wait for readers on other stacks, or may be asked for again."""
        return self.answering.waiting

    # --- local callers ---------------------------------------------------------------------------

    def check_here(self, name: str) -> Ci:
        """The CI of this stack with that name. Raises DeliveryError `not_found`."""
        ci = self._cis.get(name)
        if ci is None:
            raise DeliveryError(f"There is no CI '{name}' on this stack.", code="not_found")
        return ci

    def send_local(self, command: SendMessage, name: str, timeout_s: float) -> None:
        """A message from a caller here to a CI here; no envelope is made.

        Raises DeliveryError `not_found`, `ci_offline` or `busy`.
        """
        ci = self.check_here(name)
        msg_id = command.options.get("id") or self.sealer.new_id()
        sender, depth = self._handouts.led_to(command.options.get("within", b""), command.sender)
        question = Question(
            ticket=command.ticket,
            msg_id=msg_id,
            stack=self.env.me,
            ci=ci.name,
            sender=sender,
            live=command.stream,
            started=self.env.now,
        )
        parcel = Parcel(
            msg_id=msg_id,
            sender=self._shown(sender, command.content_type),
            body=command.body,
            content_type=command.content_type,
            left_s=timeout_s,
            depth=depth,
        )
        if command.options.get("no_reply"):
            self._handouts.hand_out(ci, parcel, NoReplier())
            self.outcomes.begun(question)
            self.outcomes.accepted(question)
            return
        ticket = command.ticket
        replier = LocalReplier(self.outcomes, question, lambda: self._local.pop(ticket, None))
        self._local[ticket] = (self._handouts.hand_out(ci, parcel, replier), question, replier)
        self.outcomes.begun(question)

    def _shown(self, sender: str, content_type: str) -> str:
        """A local sender as its CI reads it. Whoever serves calls looks at the stack of each."""
        if sender and content_type != CALL_TYPE:
            return sender
        return self.outcomes.address(sender, self.env.me)

    def cancel_local(self, ticket: int) -> bool:
        """Whether `ticket` waited for a local CI; it does not any more."""
        held = self._local.pop(ticket, None)
        if held is None:
            return False
        number, question, _replier = held
        self._handouts.withdraw(number, "cancelled")
        error = DeliveryError("The message was cancelled.", code="cancelled")
        self.outcomes.failed_with(question, error)
        return True

    def chunks_taken_local(self, event: ChunksTaken) -> None:
        """The caller of a local CI reads on; unknown tickets are ignored."""
        held = self._local.get(event.ticket)
        if held is not None:
            held[2].taken(event.size)

    # --- what the CIs say ------------------------------------------------------------------------

    def reply_chunk(self, event: ReplyChunk) -> None:
        self._handouts.chunk(event.delivery, event.data, event.offset)

    def reply_done(self, event: ReplyDone) -> None:
        self._handouts.done(event.delivery, event.body, event.content_type, event.offset)

    def reply_failed(self, event: ReplyFailed) -> None:
        lost = event.lost
        self._handouts.failed(event.delivery, event.code, event.detail, lost=lost)

    # --- the node --------------------------------------------------------------------------------

    def graph_changed(self) -> None:
        self.posts.graph_changed()
        self.answering.mend()

    def draining(self) -> None:
        """CIs here get nothing new; what they have they may finish."""
        self._handouts.closed = True

    def leaving(self) -> None:
        """Nobody here will answer any more; those who wait are told."""
        self._handouts.fail_all("leaving", "The stack is leaving the mesh.")
