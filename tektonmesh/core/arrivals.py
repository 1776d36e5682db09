"""Messages that arrive from other stacks: opened, told apart from repeats, handed to their CI.

A message is opened before anything else, so a name in the clear decides nothing. A repeat gets the
receipt or the answer that the first copy got. What is refused is refused by this stack in a sealed
nack, which no relay can forge. Handing out is `handouts`', the words of the answer are
`answering`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tektonmesh.core.answering import GRACE_S, Answering, RemoteReplier
from tektonmesh.core.ci import CALL_TYPE, Ci, key_of
from tektonmesh.core.dedup import Taken
from tektonmesh.core.envelope import Envelope, Header, Kind
from tektonmesh.core.forwarding import FULL
from tektonmesh.core.handouts import Handouts, Parcel
from tektonmesh.core.machine import Env
from tektonmesh.core.names import NAME, Names
from tektonmesh.core.policy import Act
from tektonmesh.core.repliers import NoReplier
from tektonmesh.core.rights import Rights
from tektonmesh.core.sealing import Body, Sealer, bytes_of, number_of, text_of
from tektonmesh.core.types import StackId
from tektonmesh.errors import DeliveryError, LocalError, RemoteError

OFFSET_MAX = 1 << 62
BURST = 4.0
"""A source may send this many seconds' worth of its rate at once (docs/design/security.md)."""

Allowance = tuple[float, float]
"""How many messages a source may send, as of an instant."""


class Arrivals:
    """The destination's side of requests, cancels and resends."""

    def __init__(
        self,
        env: Env,
        names: Names,
        *,
        rights: Rights,
        sealer: Sealer,
        answering: Answering,
        handouts: Handouts,
    ) -> None:
        self.env = env
        self._names = names
        self._rights = rights
        self._sealer = sealer
        self._answering = answering
        self._handouts = handouts
        self._allowances: dict[StackId, Allowance] = {}
        self.durable: Callable[[Envelope, Body], None] = lambda _envelope, _body: None
        """Takes those that are marked as durable."""
        self.durable_cancel: Callable[[Envelope], None] = lambda _envelope: None
        self.check_call: Callable[[Header, Body], int] = lambda _header, _body: 0
        """The depth of a call, if its stack vouches for it; raises DeliveryError otherwise."""
        self.durable_credit: Callable[[Envelope, Body], None] = lambda _envelope, _body: None

    # --- requests --------------------------------------------------------------------------------

    def on_request(self, envelope: Envelope) -> str:
        """A message for one of our CIs, with a body of its own or a shared one. Returns the code to
        release it with, if any."""
        header = envelope.header
        try:
            body = self._sealer.open(envelope)
        except LocalError:
            self._answering.ask_reseal(header.source, header.msg_id)
            return ""
        except RemoteError as error:
            self._not_genuine(envelope, error)
            return ""
        if body.get("du") is True:
            self._on_durable(envelope, body)
            return ""
        one_way = body.get("nr") is True
        taken = self._answering.dedup.get((header.source, header.msg_id))
        if taken is not None:
            if not one_way:
                self._repeat(envelope, taken)
            return ""
        try:
            self._deliver(envelope, body, one_way)
        except DeliveryError as error:
            if one_way and error.code.name in ("busy", "leaving"):
                return FULL  # the origin keeps it and tries again
            self._refuse(envelope, error)
        return ""

    def _on_durable(self, envelope: Envelope, body: Body) -> None:
        header = envelope.header
        try:
            self._charge(header.source)
        except DeliveryError as error:
            self._answering.nack(header.source, header.msg_id, error.code.name, error.detail)
        else:
            self.durable(envelope, body)

    def _deliver(self, envelope: Envelope, body: Body, one_way: bool) -> None:
        """Raises DeliveryError if it cannot be handed out."""
        source, msg_id = envelope.header.source, envelope.header.msg_id
        self._charge(source)
        depth = 0
        if text_of(body, "ct") == CALL_TYPE:
            depth = self.check_call(envelope.header, body)
        ci = self._ci_for(envelope, body, depth)
        parcel = self._parcel(envelope, body)._replace(depth=depth)
        if one_way:
            self._handouts.hand_out(ci, parcel, NoReplier())
            self._answering.dedup.add((source, msg_id), parcel.left_s)
            return
        live = body.get("st") is True
        replier = RemoteReplier(
            self._answering, source, msg_id, live=live, trace=envelope.trace, left_s=parcel.left_s
        )
        if "cr" in body:
            replier.out.credit = number_of(body, "cr", OFFSET_MAX)
        replier.in_hand = partial(self._handouts.in_hand, ci)
        number = self._handouts.hand_out(ci, parcel, replier)
        taken = self._answering.dedup.add((source, msg_id), parcel.left_s)
        self._answering.dedup.deliver(taken, replier, number)
        taken.avoid = envelope.avoid  # what led nowhere on the way here may not lead back either
        replier.start(taken)

    def _ci_for(self, envelope: Envelope, body: Body, depth: int) -> Ci:
        """The CI that is meant, if the policy lets the origin speak to it. The body names the CI
        that asks, sealed by its stack, so no relay can put another one in its place."""
        name, sender = key_of(text_of(body, "to")), text_of(body, "from")
        size, ref = len(bytes_of(body, "body")), envelope.header.msg_id.hex()
        # A call says what it uses inside, so whoever serves it asks again (`mcp/serving`).
        verb = "discover" if text_of(body, "ct") == CALL_TYPE else "message"
        act = Act(verb, name, caller_ci=sender, size=size, depth=depth, ref=ref)
        self._rights.require(envelope.header.source, act)
        ci = self._rights.cis.get(name)
        assert ci is not None, "nobody is let through to a CI that is not there"
        return ci

    def _parcel(self, envelope: Envelope, body: Body) -> Parcel:
        """The message as its CI gets it; whatever the origin wrote is brought within bounds."""
        settings = self.env.settings
        left_ms = number_of(body, "left", int(settings.request_timeout_max_s * 1000))
        if not left_ms:
            raise DeliveryError("The message came after its deadline.", code="timeout")
        sender = text_of(body, "from")
        if sender and NAME.fullmatch(sender.lower()) is None:
            raise DeliveryError("The name of the sender is malformed.", code="bad_request")
        label = self._names.label(envelope.header.source)
        return Parcel(
            msg_id=envelope.header.msg_id,
            sender=f"{sender}@{label}" if sender else label,
            body=bytes_of(body, "body"),
            content_type=text_of(body, "ct"),
            left_s=left_ms / 1000.0,
        )

    def _charge(self, source: StackId) -> None:
        """Take one message off what the source may send. Raises DeliveryError `busy`."""
        settings = self.env.settings
        own = self._rights.is_own(source)
        rate = settings.source_rate_per_s if own else settings.foreign_rate_per_s
        if not rate:
            return
        left, at = self._allowances.get(source, (BURST * rate, self.env.now))
        left = min(left + (self.env.now - at) * rate, BURST * rate)
        self._allowances[source] = (max(left - 1.0, 0.0), self.env.now)
        if left < 1.0:
            raise DeliveryError("This stack sends too many messages.", code="busy")

    def _refuse(self, envelope: Envelope, error: DeliveryError) -> None:
        """Say no, and the same to repeats: a late copy must not be delivered after that. So no CI
        has it, whatever it was refused for."""
        header = envelope.header
        answering = self._answering
        code, detail = error.code.name, error.detail
        body = answering.nack(header.source, header.msg_id, code, detail, outcome="released")
        taken = answering.dedup.add((header.source, header.msg_id), 0.0)
        answering.dedup.answer(taken, Kind.NACK, body, None)

    def _repeat(self, envelope: Envelope, taken: Taken) -> None:
        self._answering.not_heard(taken)
        if taken.asker is not None:
            taken.asker.trace = envelope.trace
            taken.asker.receipt()
        else:
            self._answer_again(envelope.header.source, envelope.header.msg_id, taken)

    def _answer_again(self, source: StackId, msg_id: bytes, taken: Taken) -> None:
        answering = self._answering
        if taken.body is not None:
            answering.say(taken.kind, source, msg_id, taken.body, ttl_s=GRACE_S)
        else:
            answering.nack(source, msg_id, "ci_failed", "Its answer is not kept any more.")

    # --- what else the origin says ---------------------------------------------------------------

    def on_cancel(self, envelope: Envelope) -> str:
        """The origin does not wait any more. A cancel that overtook its message is remembered, at
        the cost of a message."""
        body = self._opened(envelope)
        if body is None:
            return ""
        if body.get("du") is True:
            self.durable_cancel(envelope)
            return ""
        key = (envelope.header.source, envelope.header.reply_to)
        taken = self._answering.dedup.get(key)
        if taken is None:
            try:
                self._charge(key[0])
            except DeliveryError:
                return ""
            self._answering.dedup.add(key, self.env.settings.request_timeout_max_s)
        elif taken.asker is not None:
            self._handouts.withdraw(taken.delivery, "cancelled")
            taken.asker.abandon()
            self._answering.dedup.cancel(taken)
        return ""

    def on_resend(self, envelope: Envelope) -> str:
        """The origin has the reply up to an offset and misses what follows."""
        body = self._opened(envelope)
        if body is None:
            return ""
        source, msg_id = envelope.header.source, envelope.header.reply_to
        offset = number_of(body, "off", OFFSET_MAX)
        taken = self._answering.dedup.get((source, msg_id))
        if taken is None:
            detail = "The message is not known here (any more)."
            self._answering.nack(source, msg_id, "ci_failed", detail)
        elif taken.asker is not None:
            taken.asker.resend(offset)
            if "cr" in body:
                taken.asker.grant(number_of(body, "cr", OFFSET_MAX), offset)
        else:
            self._answering.not_heard(taken)
            out = taken.stream
            if out is not None and not out.is_crowded:
                pieces = out.since(offset) or []
                self._answering.send_pieces(out, pieces, source, msg_id, ttl_s=GRACE_S)
            self._answer_again(source, msg_id, taken)
        return ""

    def on_credit(self, envelope: Envelope) -> str:
        """The origin takes more of a streamed reply."""
        body = self._opened(envelope)
        if body is not None and body.get("du") is True:
            self.durable_credit(envelope, body)
        elif body is not None:
            taken = self._answering.dedup.get((envelope.header.source, envelope.header.reply_to))
            if taken is not None and taken.asker is not None:
                credit, have = (number_of(body, key, OFFSET_MAX) for key in ("cr", "off"))
                taken.asker.grant(credit, have)
        return ""

    def _opened(self, envelope: Envelope) -> Body | None:
        try:
            return self._sealer.open(envelope)
        except LocalError:
            return None  # sealed to an old prekey; its message will be asked to be sealed again
        except RemoteError as error:
            self._not_genuine(envelope, error)
            return None

    def _not_genuine(self, envelope: Envelope, error: RemoteError) -> None:
        self._sealer.refusals.note(envelope.header.source, error.detail)
