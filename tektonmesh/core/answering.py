"""Answering another stack: receipts, chunks, the final reply, nacks; all sealed for it.

A receipt says that the message is here; it is sent only if the CI does not answer quickly. Chunks
are sent once and kept for a while, the final answer is posted until it is settled and kept for
repeats. What arrives from other stacks, and whether it was there before, is `arrivals`'.
"""

from __future__ import annotations

from functools import partial

from tektonmesh.core.dedup import Dedup, Taken
from tektonmesh.core.envelope import Kind
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.handouts import Replier
from tektonmesh.core.lanes import Done
from tektonmesh.core.machine import Env
from tektonmesh.core.posts import Posts
from tektonmesh.core.repliers import outcome_of
from tektonmesh.core.sealing import Body, Sealer
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
        is lost, the origin asks again."""
        try:
            envelope = self._sealer.seal(kind, to, body, reply_to=reply_to, ttl_s=ttl_s)
        except DeliveryError:
            return False
        return self._forwarding.send(envelope, done)

    def send_pieces(
        self, out: StreamOut, pieces: list[Piece], to: StackId, reply_to: bytes, *, ttl_s: float
    ) -> None:
        """Parts of the reply `out`; gaps are asked for."""
        for offset, data in pieces:
            size = len(data)
            body, done = {"data": data, "off": offset}, partial(out.settled, size)
            if self.say(Kind.CHUNK, to, reply_to, body, ttl_s=ttl_s, done=done):
                out.unsettled += size

    def nack(
        self, to: StackId, reply_to: bytes, code: str, detail: str, *, begun: bool = False
    ) -> Body:
        """Post a failure; its body, to be kept for repeats. A CI that has `begun` to answer has
        certainly seen the message, whatever it failed with."""
        outcome = "indeterminate" if begun else outcome_of(code)
        body: Body = {"code": code, "detail": detail, "out": outcome}
        self.posts.send(Kind.NACK, to, reply_to, body, within_s=NACK_WITHIN_S)
        return body

    def ask_reseal(self, to: StackId, reply_to: bytes) -> None:
        """The message was sealed to a prekey that is not known here: send it again, to this one."""
        key_id, prekey = self.env.crypto.prekey()
        body = {"code": "unknown_key", "detail": "", "out": "released", "id": key_id, "pk": prekey}
        self.say(Kind.NACK, to, reply_to, body, ttl_s=NACK_WITHIN_S)


class RemoteReplier(Waiting, Replier):
    """The origin of one message, on another stack. `trace` is the way its newest copy took."""

    __slots__ = (
        "_answering",
        "_deadline",
        "_live",
        "_spoke",
        "_taken",
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
        self.out = StreamOut(live)
        self._answering = answering
        self._deadline = answering.env.after(left_s)
        self._live = live
        self._spoke = False
        self._taken: Taken | None = None

    def start(self, taken: Taken) -> None:
        """The message is in the CI's hands and remembered as `taken`."""
        self._taken = taken
        self._answering.wheel.arm(self, self._answering.env.after(RECEIPT_AFTER_S))

    # --- what the CI says ------------------------------------------------------------------------

    def chunk(self, data: bytes) -> None:
        self._check_room()
        self._send_pieces(self.out.push(data))
        if self._live and self.out.held:
            self._answering.wheel.arm(self, self._answering.env.after(FLUSH_S))

    def done(self, body: bytes, content_type: str) -> None:
        self._check_room()
        size_max = self._answering.env.settings.body_size_max
        if self.out.held + len(body) > size_max:
            self._send_pieces(self.out.push(body))
            self._send_pieces(self.out.flush())
            body = b""
        start = self.out.offset
        rest = self.out.take() + body
        reply = {"body": rest, "ct": content_type, "off": start, "tr": self.trace}
        within_s = self._left_s() + GRACE_S
        self._answering.posts.send(Kind.REPLY, self.source, self.msg_id, reply, within_s=within_s)
        self._close(Kind.REPLY, reply)

    def failed(self, code: str, detail: str) -> None:
        begun = self.out.offset > 0
        nack = self._answering.nack(self.source, self.msg_id, code, detail, begun=begun)
        self._close(Kind.NACK, nack)

    # --- what the origin asks --------------------------------------------------------------------

    def receipt(self) -> None:
        """Say that the message is here and which way it came."""
        self._spoke = True
        body = {"tr": self.trace}
        answering = self._answering
        answering.say(Kind.RECEIPT, self.source, self.msg_id, body, ttl_s=self._left_s() + GRACE_S)

    def resend(self, offset: int) -> None:
        """Send again what was sent from `offset` on."""
        pieces = self.out.since(offset)
        if pieces is not None and not self.out.is_crowded:
            self._send_pieces(pieces)

    def abandon(self) -> None:
        """The origin does not want the answer any more."""
        self._answering.wheel.disarm(self)

    def wake_up(self) -> None:
        if self._live and self.out.held:
            self._send_pieces(self.out.flush())
        elif not self._spoke:
            self.receipt()

    def _send_pieces(self, pieces: list[Piece]) -> None:
        self._spoke = self._spoke or bool(pieces)
        ttl_s = self._left_s() + GRACE_S
        self._answering.send_pieces(self.out, pieces, self.source, self.msg_id, ttl_s=ttl_s)

    def _check_room(self) -> None:
        if self.out.is_crowded:
            raise DeliveryError("The reply is written faster than it can be sent.", code="busy")

    def _left_s(self) -> float:
        return max(0.0, self._deadline - self._answering.env.now)

    def _close(self, kind: Kind, body: Body) -> None:
        self._answering.wheel.disarm(self)
        assert self._taken is not None, "a message is remembered before its CI can answer"
        self._answering.dedup.answer(self._taken, kind, body, self.out)
