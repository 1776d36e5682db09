"""Durable messages of one node, both ends: the face of `outbox` and `inbox`, and their words.

What stands in sealed bodies, besides what `sealing` lists: `du` marks everything that is about a
durable message, `low` (in a REQUEST) is the instant before which its origin sends no copies any
more, and a RECEIPT with `rr` goes the other way: the origin has the answer. Nothing else is decided
here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tektonmesh.core.answering import NACK_WITHIN_S, Answering
from tektonmesh.core.assertions import check_lasting
from tektonmesh.core.ci import key_of
from tektonmesh.core.cis import Cis
from tektonmesh.core.commits import Commits
from tektonmesh.core.courier import Courier
from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.effects import ReplyKept
from tektonmesh.core.envelope import Envelope, Kind
from tektonmesh.core.events import BodyDone, SendMessage
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.inbox import Inbox
from tektonmesh.core.incoming import Answer, Key, Note, Voice
from tektonmesh.core.knowncis import KnownCis
from tektonmesh.core.large import SIZE_MAX, Large, name_at
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.names import NAME
from tektonmesh.core.offers import Offers
from tektonmesh.core.outbox import Outbox
from tektonmesh.core.outcomes import COLLECT_MAX
from tektonmesh.core.outgoing import Letter, Outgoing
from tektonmesh.core.parking import Parking
from tektonmesh.core.policy import Act
from tektonmesh.core.pulls import Pulls
from tektonmesh.core.replica import Change
from tektonmesh.core.replies import OFFSET_MAX
from tektonmesh.core.sealing import Body, bytes_of, number_of, text_of
from tektonmesh.core.turns import Turns
from tektonmesh.core.types import Saved, StackId
from tektonmesh.errors import CODES, DeliveryError, LocalError, RemoteError

LATER = ("busy", "ci_offline", "leaving", "store", "unreachable")
"""What a destination may say without ending a message."""

DETOURS = 4
"""Ways round that are tried in turn for a confirmation of which nothing was heard."""

TIME_MAX = (1 << 48) - 1


class Durable(Voice):
    """Everything of one node that outlives it."""

    def __init__(
        self,
        env: Env,
        clock: MeshTime,
        cis: Cis,
        graph: Graph,
        forwarding: Forwarding,
        deliveries: Deliveries,
    ) -> None:
        self.env = env
        self.commits = Commits(env)
        self.courier = Courier(env, graph, forwarding, deliveries.sealer)
        self.outbox = Outbox(env, clock, graph, self.courier, self.commits, deliveries.outcomes)
        self.known = KnownCis(env, clock, cis)
        self.inbox = Inbox(env, clock, self.known, self.courier, self.commits, self)
        self.offers = Offers(env, deliveries.sealer, forwarding)
        self.offers.find, self.offers.broken = self._offer, self._body_is_broken
        self.pulls = self.inbox.pulls = Pulls(env, deliveries.sealer, forwarding)
        self.pulls.held_by = self._large_bytes
        self.inbox.turns = Turns(env, cis, deliveries.handouts, self.inbox)
        self.inbox.label = partial(deliveries.outcomes.address, "")
        self.outbox.confirm = self._confirm
        self.outbox.deliver_here = self._deliver_here
        self.inbox.permit = self._permit
        self.outbox.permit = self._permit_use
        self._cis, self._rights = cis, deliveries.rights
        self._sealer = deliveries.sealer
        self._forwarding = forwarding
        self._answering: Answering = deliveries.answering
        deliveries.arrivals.durable = self.on_request
        self.parking = Parking(env, clock, forwarding=forwarding, courier=self.courier)
        self.parking.wire(self, deliveries.sealer, deliveries.rights.is_own)
        deliveries.arrivals.durable_credit = self._on_credit
        self.inbox.sayings.told = lambda number, offset: env.emit(ReplyKept(number, offset))
        readers = self.readers = self.outbox.readers
        readers.ask, readers.broken = self._ask, self._reader_is_broken
        readers.abandoned = self._abandoned
        deliveries.arrivals.durable_cancel = self._on_cancel
        cis.came = self._ci_came
        cis.went = self.known.went

    def load(self, saved: Saved) -> None:
        """Take back what the disk kept; nothing is sent before `start`."""
        self.known.load(saved)
        self.outbox.load(saved)
        self.inbox.load(saved)
        self.parking.load(saved)

    def start(self) -> None:
        self.outbox.start()
        self.inbox.start()
        self.parking.start()

    def accept(self, command: SendMessage, stack: StackId, ci: str, timeout_s: float) -> None:
        """A durable message, or one with an idempotency key, from a caller here; its answer
        follows. Raises DeliveryError, StoreError, LocalError as `Outbox.accept` does, and
        DeliveryError `not_found` for a CI of this stack that was not here lately."""
        if stack == self.env.me and (key_of(ci), False) not in self.known:
            raise DeliveryError(f"There is no CI '{ci}' on this stack.", code="not_found")
        self.outbox.accept(command, stack, ci, timeout_s)
        item = self.outbox.of_ticket(command.ticket)
        if item is not None and command.options.get("may_park") and stack != self.env.me:
            self.parking.watch(item)

    def draining(self) -> None:
        """Accept no more and hand out no more; what arrives waits on the disk."""
        self.outbox.draining()
        self.inbox.turns.stop()

    def _abandoned(self, item: Outgoing) -> None:
        """Nobody wants the answer: the CI may stop as well."""
        if self.outbox.find(item.msg_id) is not item or item.reader is not None:
            return
        if item.stack == self.env.me:
            self.inbox.cancel((item.stack, item.msg_id))
        else:
            posts, body = self._answering.posts, {"du": True}
            posts.send(Kind.CANCEL, item.stack, item.msg_id, body, within_s=NACK_WITHIN_S)
        if self.outbox.find(item.msg_id) is item:
            self.outbox.fail(item, "cancelled", "Nobody waits for the answer any more.")

    def _on_cancel(self, envelope: Envelope) -> None:
        key = envelope.header.source, envelope.header.reply_to
        self.inbox.cancel(key)
        self.pulls.cancel(key)

    def leaving(self) -> None:
        """Take no more and hand out no more; what is here waits on the disk."""
        self.outbox.leaving()
        self.inbox.turns.stop()

    # --- what others tell ------------------------------------------------------------------------

    def on_change(self, change: Change) -> None:
        self.courier.on_owner(change.owner)
        if change.kind in ("new", "content"):
            self.readers.stir(change.owner)

    def graph_changed(self) -> None:
        self.courier.graph_changed()
        self.pulls.graph_changed()
        self.readers.stir()

    def on_body_done(self, event: BodyDone) -> None:
        """The shell has done something about the file of a large body."""
        if event.act == "read":
            self.offers.on_done(event)
        else:
            self.pulls.on_done(event)

    def holds(self, name: str) -> bool:
        """Whether the file of a large body is needed."""
        mine = any(large.name == name for large in self.outbox.large_bodies())
        theirs = any(large.name == name for _source, large in self.inbox.large_bodies())
        return mine or theirs or name in self.pulls.names

    def _offer(self, stack: StackId, msg_id: bytes) -> Large | None:
        """The large body of a message that is for that stack and has no end."""
        item = self.outbox.find(msg_id)
        return item.letter.large if item is not None and item.stack == stack else None

    def _large_bytes(self, source: StackId) -> int:
        """What large bodies from one origin take here."""
        return sum(large.size for at, large in self.inbox.large_bodies() if at == source)

    def _body_is_broken(self, msg_id: bytes) -> None:
        item = self.outbox.find(msg_id)
        if item is not None:
            self.outbox.fail(item, "store", "The body of the message cannot be read any more.")

    def _ci_came(self, key: str) -> None:
        self.known.came(key)
        self.inbox.turns.ready(key)

    # --- at the destination ----------------------------------------------------------------------

    def on_request(self, envelope: Envelope, body: Body) -> None:
        """A durable message from another stack, opened and paid for."""
        header = envelope.header
        sender = text_of(body, "from")
        key = header.source, header.msg_id
        try:
            if sender and NAME.fullmatch(sender.lower()) is None:
                raise LocalError("The name of the sender is malformed.")
            check_lasting(text_of(body, "ct"))
        except LocalError as error:
            self.nack(key, error.code.name, error.detail, "released")
            return
        ttl_max_ms = int(self.env.settings.durable_ttl_max_s * 1000.0)
        note = Note(
            ci=key_of(text_of(body, "to")),
            sender=sender,
            content_type=text_of(body, "ct"),
            body=bytes_of(body, "body"),
            no_reply=body.get("nr") is True,
            large=_large_of(key, body),
            live=body.get("st") is True,
            credit=number_of(body, "cr", OFFSET_MAX),
        )
        left_s = max(1, number_of(body, "left", ttl_max_ms)) / 1000.0
        self.inbox.take(key, note, left_s, number_of(body, "low", TIME_MAX), envelope.trace)

    def _permit(self, key: Key, note: Note) -> None:
        """The policy, once for each message: a repeat gets what the first copy got. A CI that is
        away has no policy of its own; only our own mesh may leave messages for it."""
        source, msg_id = key
        away = self._cis.get(note.ci) is None and self._rights.is_own(source)
        if source != self.env.me and not away:
            self._rights.require(source, _act(note, note.ci, msg_id))

    def _permit_use(self, msg_id: bytes, letter: Letter) -> None:
        """The import policy, once for each message as well."""
        if letter.stack != self.env.me:
            act = _act(letter, letter.ci, msg_id)
            self._rights.require_use(letter.stack, act)

    def _deliver_here(self, item: Outgoing) -> None:
        """From this stack to one of its own CIs."""
        letter, me = item.letter, self.env.me
        note = Note(
            ci=key_of(letter.ci),
            sender=letter.sender,
            content_type=letter.content_type,
            body=letter.body,
            no_reply=letter.no_reply,
            large=letter.large,
            live=letter.live,
            credit=item.reader.grant.limit if item.reader is not None else 0,
        )
        low_ms = self.outbox.low_ms(me)
        self.inbox.take((me, item.msg_id), note, self.outbox.left_s(item), low_ms, b"")

    def receipt(self, key: Key, trace: bytes) -> None:
        if key[0] == self.env.me:
            self._heard_here(key, self.outbox.on_receipt)
        else:
            self._say(Kind.RECEIPT, key, {"tr": trace, "du": True})

    def nack(self, key: Key, code: str, detail: str, outcome: str) -> None:
        if key[0] == self.env.me:
            self._heard_here(key, lambda item: self._on_nack(item, code, detail, outcome))
        else:
            body = {"code": code, "detail": detail, "out": outcome, "du": True}
            self._say(Kind.NACK, key, body)

    def piece(self, key: Key, offset: int, data: bytes) -> None:
        if key[0] == self.env.me:
            self._heard_here(key, lambda item: self.readers.come(item, offset, data))
            return
        self._say(Kind.CHUNK, key, {"data": data, "off": offset, "du": True})

    def answer_here(self, key: Key, answer: Answer) -> None:
        item = self.outbox.find(key[1])
        if item is None:
            self.inbox.confirmed(key)
        elif answer.code:
            detail = answer.body.decode(errors="replace")
            self._on_nack(item, answer.code, detail, answer.outcome, final=True)
        elif item.letter.live:
            self._ended(item, answer.start, answer.content_type, b"")
        else:
            self.outbox.on_answer(item, answer.content_type, answer.body, b"")

    def _ended(self, item: Outgoing, end: int, content_type: str, trace: bytes) -> None:
        """A stream has so many bytes; it is answered when its reader has them all."""
        kept = self.readers.ended(item, end)
        if kept is not None:
            self.outbox.on_answer(item, content_type, kept[1], trace, start=kept[0])

    def _ask(self, item: Outgoing, again: bool) -> None:
        """Tell the stack of the CI how far the reader of a stream is."""
        reader = item.reader
        assert reader is not None, "who asks reads"
        credit, have = reader.grant.limit, reader.grant.taken
        again_from = reader.stream.next if again else None
        if item.stack == self.env.me:
            self.inbox.grant((item.stack, item.msg_id), credit, have, again_from)
            return
        body: Body = {"du": True, "cr": credit, "off": have}
        if again_from is not None:
            body["rs"] = again_from
        self._answering.say(
            Kind.CREDIT, item.stack, item.msg_id, body, ttl_s=self.outbox.left_s(item)
        )

    def _on_credit(self, envelope: Envelope, body: Body) -> None:
        credit, have = (number_of(body, key, OFFSET_MAX) for key in ("cr", "off"))
        again_from = number_of(body, "rs", OFFSET_MAX) if "rs" in body else None
        key = envelope.header.source, envelope.header.reply_to
        self.inbox.grant(key, credit, have, again_from)

    def _reader_is_broken(self, item: Outgoing) -> None:
        detail = "The stack of the CI sent more of the reply than it was allowed to."
        self.outbox.fail(item, "protocol", detail, "indeterminate")

    def _heard_here(self, key: Key, act: Callable[[Outgoing], None]) -> None:
        item = self.outbox.find(key[1])
        if item is not None:
            act(item)

    def _say(self, kind: Kind, key: Key, body: Body) -> None:
        self._answering.say(kind, key[0], key[1], body, ttl_s=NACK_WITHIN_S)

    def arrive(self, envelope: Envelope, body: Body) -> bool:
        """A durable message that a parker kept, opened; whether it is known here durably."""
        self.on_request(envelope, body)
        return self.inbox.knows((envelope.header.source, envelope.header.msg_id))

    def ask_reseal(self, to: StackId, msg_id: bytes) -> None:
        self._answering.ask_reseal(to, msg_id)

    def say_parked(self, kind: Kind, to: StackId, reply_to: bytes, body: Body) -> None:
        self._answering.say(kind, to, reply_to, body | {"pk": True}, ttl_s=NACK_WITHIN_S)

    # --- at the origin ---------------------------------------------------------------------------

    def on_answer(self, envelope: Envelope) -> None:
        """Something that answers no message of `requests`: it may be about a durable one."""
        header = envelope.header
        try:
            body = self._sealer.open(envelope)
        except (RemoteError, LocalError) as error:
            self._sealer.refusals.note(header.source, error.detail)
            return
        item = self.outbox.find(header.reply_to)
        if item is not None and item.stack == header.source:
            self._take(item, header.kind, body)
        elif body.get("pk") is True:
            has_it = header.kind == Kind.RECEIPT
            self.parking.on_answer(header.source, header.reply_to, has_it=has_it)
        elif body.get("rr") is True:
            self.inbox.confirmed((header.source, header.reply_to))
        elif self.outbox.is_ending(header.reply_to):
            pass  # confirmed when that is durable
        elif body.get("du") is True and header.kind in (Kind.REPLY, Kind.NACK):
            self._confirm(header.source, header.reply_to, again=header.attempt % DETOURS + 1)

    def _take(self, item: Outgoing, kind: int, body: Body) -> None:
        if kind == Kind.RECEIPT:
            item.attempts.trace = bytes_of(body, "tr")
            self.outbox.on_receipt(item)
        elif item.letter.live and kind in (Kind.CHUNK, Kind.REPLY):
            self._take_live(item, kind, body)
        elif kind == Kind.CHUNK:
            offset = number_of(body, "off", OFFSET_MAX)
            self._collect(item, item.stream.accept(offset, bytes_of(body, "data")))
        elif kind == Kind.REPLY:
            self.outbox.on_receipt(item)
            offset = number_of(body, "off", OFFSET_MAX)
            self._collect(item, item.stream.finish(offset, bytes_of(body, "body")))
            if item.stream.complete and self.outbox.find(item.msg_id) is item:
                whole = b"".join(item.collected)
                trace = bytes_of(body, "tr")
                self.outbox.on_answer(item, text_of(body, "ct"), whole, trace)
        elif text_of(body, "code") == "unknown_key":
            if self._sealer.learn_prekey(item.stack, body):
                self.courier.now(item)
        else:
            outcome = "released" if body.get("out") == "released" else "indeterminate"
            code = text_of(body, "code")
            known = code if code in CODES else "ci_failed"
            detail = text_of(body, "detail") or CODES[known].meaning
            self._on_nack(item, known, detail, outcome)

    def _take_live(self, item: Outgoing, kind: int, body: Body) -> None:
        self.outbox.on_receipt(item)
        offset = number_of(body, "off", OFFSET_MAX)
        if kind == Kind.CHUNK:
            self.readers.come(item, offset, bytes_of(body, "data"))
        else:
            self._ended(item, offset, text_of(body, "ct"), bytes_of(body, "tr"))

    def _collect(self, item: Outgoing, fresh: bytes) -> None:
        if not fresh:
            return
        item.collected.append(fresh)
        item.collected_size += len(fresh)
        if item.collected_size > COLLECT_MAX:
            detail = "The reply is too large to be collected."
            self.outbox.fail(item, "too_large", detail, "indeterminate")

    def _on_nack(
        self, item: Outgoing, code: str, detail: str, outcome: str, *, final: bool = False
    ) -> None:
        """Its destination said no: for good, or (unless `final`) for now."""
        if not final and code in LATER and outcome == "released" and not item.received:
            self.outbox.busy(item, code, detail)
        else:
            self.outbox.fail(item, code, detail, outcome)

    def _confirm(self, stack: StackId, msg_id: bytes, *, again: int = 0) -> None:
        """Say that the answer is safe here; `again` that its stack had not heard of that, and which
        way round to take."""
        body = {"rr": True, "du": True}
        if stack == self.env.me:
            self.inbox.confirmed((stack, msg_id))
        elif not again:
            self._answering.say(Kind.RECEIPT, stack, msg_id, body, ttl_s=NACK_WITHIN_S)
        else:
            avoid = b""
            for _ in range(again):
                avoid = self._forwarding.detour(stack, avoid)
            self._answering.say_round(avoid, stack, msg_id, body)


def _large_of(key: Key, body: Body) -> Large | None:
    """The large body that a request of another stack names."""
    size, root = number_of(body, "ls", SIZE_MAX), bytes_of(body, "lr")
    return Large(name_at(*key), size, root) if size else None


def _act(said: Note | Letter, ci: str, msg_id: bytes) -> Act:
    """A message as the policy and both audit logs see it."""
    size = len(said.body) if said.large is None else said.large.size
    return Act("message", ci, caller_ci=said.sender, size=size, ref=msg_id.hex())
