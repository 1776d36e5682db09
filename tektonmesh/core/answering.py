"""Answering another stack: receipts, chunks, the final reply, nacks; all sealed for it.

A receipt says that the message is here; it is sent only if the CI does not answer quickly. Chunks
are sent once and kept for a while, the final answer is posted until it is settled and kept for
repeats. What arrives from other stacks, and whether it was there before, is `arrivals`'.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf

from tektonmesh.core.credits import UNLIMITED, WINDOW_MIN
from tektonmesh.core.dedup import Dedup, Taken
from tektonmesh.core.envelope import Kind
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.handouts import Replier
from tektonmesh.core.lanes import Done
from tektonmesh.core.machine import Env
from tektonmesh.core.posts import Posts
from tektonmesh.core.repliers import outcome_of
from tektonmesh.core.sealing import Body, Copy, Sealer
from tektonmesh.core.streams import FLUSH_S, Piece, StreamOut
from tektonmesh.core.types import StackId
from tektonmesh.core.wheel import Waiting, Wheel
from tektonmesh.errors import DeliveryError

RECEIPT_AFTER_S = 0.05
"""A CI that answers within this time spares the network a receipt."""

GRACE_S = 2.0
"""An answer is worth sending this long after the deadline here: the origin's clock for it started
earlier, but its envelope may have waited on the way."""

NACK_WITHIN_S = 10.0

WAITING_MAX = 64 << 20
"""Bytes of all replies that wait for their readers or may be asked for again; beyond it those with
more than the smallest window fail as they grow."""


MEND_FIRST_S, MEND_MAX_S = 0.05, 1.0
"""A piece that came back goes again after this at the latest; longer each time that it comes back
again. Guesses; the first is `graph.SETTLE_S`."""

Torn = Callable[[int], None]
"""Told the offset of a piece that certainly or probably did not get there."""


class Answering:
    """What all answers of a node share: the ways out, and the clock for receipts and chunks."""

    def __init__(
        self, env: Env, sealer: Sealer, posts: Posts, forwarding: Forwarding, dedup: Dedup
    ) -> None:
        self.env = env
        self.posts = posts
        self.dedup = dedup
        self._sealer = sealer
        self._forwarding = forwarding
        self.waiting = 0
        self._torn: dict[RemoteReplier, None] = {}
        self._torn_at = -inf
        self._mend_s = MEND_FIRST_S
        # Tokens of a stream wait for this wheel, so its slots are short.
        self.wheel: Wheel[RemoteReplier] = Wheel(
            env, "answers", lambda replier: replier.wake_up(), slot_s=0.005
        )

    def say(
        self,
        kind: Kind,
        to: StackId,
        reply_to: bytes,
        body: Body,
        *,
        ttl_s: float,
        done: Done | None = None,
    ) -> bool:
        """Send something once; whether it is on its way, and `done` will be told of its end. If it
        is lost, the origin asks again (`not_heard`)."""
        taken = self.dedup.get((to, reply_to))
        copy = Copy(self._sealer.new_id(), avoid=taken.avoid) if taken and taken.avoid else None
        try:
            envelope = self._sealer.seal(kind, to, body, reply_to=reply_to, ttl_s=ttl_s, copy=copy)
        except DeliveryError:
            return False
        return self._forwarding.send(envelope, done)

    def say_round(self, avoid: bytes, to: StackId, reply_to: bytes, body: Body) -> None:
        """Send a receipt once more, past the relays `avoid`."""
        copy = Copy(self._sealer.new_id(), avoid=avoid)
        with suppress(DeliveryError):
            envelope = self._sealer.seal(
                Kind.RECEIPT, to, body, reply_to=reply_to, ttl_s=NACK_WITHIN_S, copy=copy
            )
            self._forwarding.send(envelope)

    def not_heard(self, taken: Taken) -> None:
        """The origin of this message asks again: what it was answered may have met a relay that
        acknowledges and discards, so from now on its answers go round that way."""
        taken.avoid = self._forwarding.detour(taken.key[0], taken.avoid)

    def send_pieces(
        self,
        out: StreamOut,
        pieces: list[Piece],
        to: StackId,
        reply_to: bytes,
        *,
        ttl_s: float,
        torn: Torn | None = None,
    ) -> None:
        """Parts of the reply `out`; gaps are asked for. `torn` hears of those that came back."""
        for offset, data in pieces:
            size = len(data)
            body, done = {"data": data, "off": offset}, partial(_fate, out, offset, size, torn)
            if self.say(Kind.CHUNK, to, reply_to, body, ttl_s=ttl_s, done=done):
                out.unsettled += size
            elif torn is not None:
                torn(offset)

    def tear(self, replier: RemoteReplier) -> None:
        """A piece of this reply came back: it goes again when a way may have opened, and soon in
        any case, since nobody tells of each return of a link that comes and goes."""
        self._torn[replier] = None
        if "torn" not in self.env.deadlines:
            again = self.env.now - self._torn_at < 2.0 * self._mend_s
            self._mend_s = min(2.0 * self._mend_s, MEND_MAX_S) if again else MEND_FIRST_S
            self.env.deadlines.set("torn", self.env.after(self._mend_s), self.mend)

    def over(self, replier: RemoteReplier) -> None:
        """It has its answer, or is not wanted any more."""
        self.wheel.disarm(replier)
        self._torn.pop(replier, None)

    def mend(self) -> None:
        """Send again what came back, before it is asked for."""
        self.env.deadlines.drop("torn")
        self._torn_at = self.env.now
        torn, self._torn = self._torn, {}
        for replier in torn:
            if self._forwarding.path(replier.source):
                replier.mend()
            else:
                self.tear(replier)

    def nack(
        self, to: StackId, reply_to: bytes, code: str, detail: str, *, outcome: str = ""
    ) -> Body:
        """Post a failure; its body, to be kept for repeats. `outcome` is said where more is known
        than the code tells."""
        outcome = outcome or outcome_of(code)
        body: Body = {"code": code, "detail": detail, "out": outcome}
        self.posts.send(Kind.NACK, to, reply_to, body, within_s=NACK_WITHIN_S)
        return body

    def ask_reseal(self, to: StackId, reply_to: bytes) -> None:
        """The message was sealed to a prekey that is not known here: send it again, to this one."""
        key_id, prekey = self.env.crypto.prekey()
        body = {"code": "unknown_key", "detail": "", "out": "released", "id": key_id, "pk": prekey}
        self.say(Kind.NACK, to, reply_to, body, ttl_s=NACK_WITHIN_S)


def _fate(out: StreamOut, offset: int, size: int, torn: Torn | None, code: str) -> None:
    """What became of a piece of a reply."""
    out.settled(size, code)
    if torn is not None and code != "settled":
        torn(offset)


class RemoteReplier(Waiting, Replier):
    """The origin of one message, on another stack. `trace` is the way its newest copy took,
    `in_hand` says how many messages the CI has now (docs/design/choosing.md)."""

    __slots__ = (
        "_answering",
        "_deadline",
        "_final_type",
        "_live",
        "_over",
        "_spoke",
        "_taken",
        "_torn",
        "_waiting",
        "in_hand",
        "msg_id",
        "out",
        "source",
        "trace",
    )

    def __init__(
        self,
        answering: Answering,
        source: StackId,
        msg_id: bytes,
        *,
        live: bool,
        trace: bytes,
        left_s: float,
    ) -> None:
        super().__init__()
        self.source = source
        self.msg_id = msg_id
        self.trace = trace
        self.in_hand: Callable[[], int] = lambda: 0
        self.out = StreamOut(live)
        self._answering = answering
        self._deadline = answering.env.after(left_s)
        self._live = live
        self._spoke = False
        self._taken: Taken | None = None
        self._final_type: str | None = None
        self._waiting = 0
        self._torn: int | None = None
        self._over = False

    def start(self, taken: Taken) -> None:
        """The message is in the CI's hands and remembered as `taken`."""
        self._taken = taken
        self._answering.wheel.arm(self, self._answering.env.after(RECEIPT_AFTER_S))

    # --- what the CI says ------------------------------------------------------------------------

    def chunk(self, data: bytes) -> None:
        self._check_room()
        self._send_pieces(self.out.push(data))
        self._note_waiting()
        if self._live and self.out.held and self.out.offset < self.out.credit:
            self._answering.wheel.arm(self, self._answering.env.after(FLUSH_S))

    def done(self, body: bytes, content_type: str) -> None:
        self._check_room()
        out, size = self.out, self.out.held + len(body)
        if size > self._answering.env.settings.body_size_max or out.offset + size > out.credit:
            self._send_pieces(out.push(body))
            self._send_pieces(out.flush())
            body = b""
        if out.may_end:
            self._finish(body, content_type)
            return
        # The CI has said all; the rest leaves as the caller reads, or not at all.
        self._final_type = content_type
        self._note_waiting()
        self._answering.wheel.arm(self, self._deadline)

    def _finish(self, body: bytes, content_type: str) -> None:
        start = self.out.offset
        rest = self.out.take() + body
        reply = {"body": rest, "ct": content_type, "off": start, "tr": self.trace}
        reply["ld"] = self.in_hand()
        within_s = self._left_s() + GRACE_S
        avoid = self._taken.avoid if self._taken is not None else b""
        self._answering.posts.send(
            Kind.REPLY, self.source, self.msg_id, reply, within_s=within_s, avoid=avoid
        )
        self._close(Kind.REPLY, reply)

    def failed(self, code: str, detail: str) -> None:
        self._final_type = None
        # A CI that has begun to answer has certainly seen the message, whatever it failed with.
        outcome = "indeterminate" if self.out.offset > 0 else ""
        nack = self._answering.nack(self.source, self.msg_id, code, detail, outcome=outcome)
        self._close(Kind.NACK, nack)

    # --- what the origin asks --------------------------------------------------------------------

    def receipt(self) -> None:
        """Say that the message is here and which way it came."""
        self._spoke = True
        body = {"tr": self.trace, "ld": self.in_hand()}
        answering = self._answering
        answering.say(Kind.RECEIPT, self.source, self.msg_id, body, ttl_s=self._left_s() + GRACE_S)

    def resend(self, offset: int) -> None:
        """Send again what was sent from `offset` on."""
        if offset < self.out.offset and not self.out.unsettled and self._taken is not None:
            self._answering.not_heard(self._taken)  # the hops say that it has all of it
        pieces = self.out.since(offset)
        if pieces is not None and not self.out.is_crowded:
            self._send_pieces(pieces)

    def grant(self, credit: int, have: int) -> None:
        """The origin has everything before `have` and takes what comes before `credit`."""
        out = self.out
        out.credit = max(out.credit, credit) if out.credit < UNLIMITED else UNLIMITED
        out.forget(have)
        self._send_pieces(out.flush())
        if self._final_type is not None and out.may_end:
            self._finish(b"", self._final_type)
        else:
            self._note_waiting()

    def mend(self) -> None:
        """Send again what came back, and what followed it."""
        offset, self._torn = self._torn, None
        if offset is not None:
            self.resend(offset)

    def _tear(self, offset: int) -> None:
        if not self._over:
            self._torn = offset if self._torn is None else min(offset, self._torn)
            self._answering.tear(self)

    def abandon(self) -> None:
        """The origin does not want the answer any more."""
        self._end()

    def wake_up(self) -> None:
        if self._final_type is not None:
            self.failed("timeout", "The reply was not read before the deadline.")
        elif self._live and self.out.held and self.out.offset < self.out.credit:
            self._send_pieces(self.out.flush())
        elif not self._spoke:
            self.receipt()

    def _send_pieces(self, pieces: list[Piece]) -> None:
        self._spoke = self._spoke or bool(pieces)
        ttl_s = self._left_s() + GRACE_S
        out, answering = self.out, self._answering
        answering.send_pieces(out, pieces, self.source, self.msg_id, ttl_s=ttl_s, torn=self._tear)

    def _note_waiting(self, *, over: bool = False) -> None:
        """Bring the sum of what is kept for readers up to date."""
        held = 0 if over else self.out.size
        self._answering.waiting += held - self._waiting
        self._waiting = held
        assert self._answering.waiting >= 0

    def _check_room(self) -> None:
        waits = self.out.size > WINDOW_MIN
        too_many = waits and self._answering.waiting > WAITING_MAX
        if self.out.is_crowded or too_many:
            raise DeliveryError("The reply is written faster than it can be sent.", code="busy")

    def _left_s(self) -> float:
        return max(0.0, self._deadline - self._answering.env.now)

    def _end(self) -> None:
        self._over = True
        self._answering.over(self)
        self._note_waiting(over=True)

    def _close(self, kind: Kind, body: Body) -> None:
        self._end()
        assert self._taken is not None, "a message is remembered before its CI can answer"
        self._answering.dedup.answer(self._taken, kind, body, self.out)
