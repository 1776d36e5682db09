"""Small sealed answers that must arrive: replies, nacks, cancels and answered traces.

Whoever answers has no caller that waits, so nobody would notice a loss. A post is sent again, with
its attempt raised and growing pauses, until the hop-by-hop settlement says that the other stack has
it or its time is over. Requests have their own, richer rule (`requests`); receipts and chunks need
none, since the origin asks again for what it misses.
"""

from __future__ import annotations

from tektonmesh.core.envelope import Kind
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.machine import Env
from tektonmesh.core.sealing import Body, Copy, Sealer
from tektonmesh.core.types import StackId
from tektonmesh.core.wheel import Waiting, Wheel
from tektonmesh.errors import DeliveryError, LocalError

POSTS_MAX = 8192
BYTES_MAX = 32 << 20
"""Both bound what waits unsettled; over them the oldest is given up (its request times out)."""

PAUSE_MAX_S = 10.0


class Post(Waiting):
    """One answer on its way."""

    __slots__ = (
        "attempt",
        "avoid",
        "body",
        "kind",
        "msg_id",
        "out",
        "pause_s",
        "reply_to",
        "size",
        "to",
        "until",
    )

    def __init__(
        self, kind: Kind, to: StackId, reply_to: bytes, body: Body, *, msg_id: bytes, until: float
    ) -> None:
        super().__init__()
        self.kind = kind
        self.to = to
        self.reply_to = reply_to
        self.body = body
        self.msg_id = msg_id
        self.until = until
        self.attempt = 0
        self.avoid = b""
        self.out = False
        self.pause_s = 0.0
        self.size = len(body.get("body", b""))


class Posts:
    """Sends each post until it is settled."""

    def __init__(self, env: Env, sealer: Sealer, forwarding: Forwarding) -> None:
        self.env = env
        self._sealer = sealer
        self._forwarding = forwarding
        self._open: dict[bytes, Post] = {}
        self._bytes = 0
        self._wheel: Wheel[Post] = Wheel(env, "posts", self._again)

    def __len__(self) -> int:
        """How many are not settled."""
        return len(self._open)

    def send(
        self,
        kind: Kind,
        to: StackId,
        reply_to: bytes,
        body: Body,
        *,
        within_s: float,
        avoid: bytes = b"",
    ) -> None:
        """Post `body` to the stack `to`; tried for `within_s` seconds, past the relays `avoid` as
        long as that leads there.

        Raises LocalError if the body cannot be packed or is too large; nothing is posted then."""
        assert within_s > 0
        msg_id = self._sealer.new_id()
        post = Post(kind, to, reply_to, body, msg_id=msg_id, until=self.env.after(within_s))
        round_trip_s = self._forwarding.round_trip_s(to)
        post.avoid = avoid
        post.pause_s = max(self.env.settings.receipt_wait_s, 8.0 * round_trip_s)
        self._open[msg_id] = post
        self._bytes += post.size
        while len(self._open) > POSTS_MAX or self._bytes > BYTES_MAX:
            self._close(next(iter(self._open.values())))
        try:
            self._transmit(post)
        except LocalError:
            self._close(post)
            raise

    def graph_changed(self) -> None:
        """A way may have opened for those that had none."""
        for post in [post for post in self._open.values() if not post.out]:
            self._transmit(post)

    def _transmit(self, post: Post) -> None:
        try:
            envelope = self._sealer.seal(
                post.kind,
                post.to,
                post.body,
                ttl_s=post.until - self.env.now,
                reply_to=post.reply_to,
                copy=Copy(post.msg_id, post.attempt, post.avoid),
            )
        except DeliveryError:
            pass  # the keys of a stack that has just restarted come with its record
        else:
            post.out = self._forwarding.send(envelope, lambda code: self._done(post, code))
            if post.avoid and not post.out:
                post.avoid = b""
                self._transmit(post)
                return
        post.attempt += 1
        # Never beyond its end: a graph that keeps changing would put that off for ever.
        self._wheel.arm(post, min(post.until, self.env.after(self.env.jitter(post.pause_s))))
        post.pause_s = min(post.pause_s * 2.0, PAUSE_MAX_S)

    def _done(self, post: Post, code: str) -> None:
        post.out = False
        if code == "settled":
            self._close(post)
        else:
            post.avoid = b""

    def _again(self, post: Post) -> None:
        if self.env.now >= post.until:
            self._close(post)
        else:
            self._transmit(post)

    def _close(self, post: Post) -> None:
        if self._open.pop(post.msg_id, None) is not None:
            self._bytes -= post.size
            assert self._bytes >= 0
            self._wheel.disarm(post)
