"""A message of this stack that has no answer yet, and the window of its destination.

`Pending` keeps what was sent, what is known of its fate and what of the reply is there; `Window`
bounds how much one destination may have open. What is done about them is `requests`'.
"""

from __future__ import annotations

from collections import deque

from tektonmesh.core.attempts import Attempts
from tektonmesh.core.credits import Grant
from tektonmesh.core.outcomes import Question
from tektonmesh.core.sealing import Shared
from tektonmesh.core.streams import StreamIn
from tektonmesh.core.types import NodeSettings, StackId
from tektonmesh.core.wheel import Waiting
from tektonmesh.errors import DeliveryError

OVERHEAD = 512
"""What a message occupies besides its body, about."""


class Pending(Waiting):
    """One message and its reply so far.

    `flying` counts the copies of which nothing was heard, `doubt` says that one of them may have
    got through unseen, `received` that the destination has it, by its own sealed word. `path` are
    the stacks its newest copy took, as far as known, `avoid` the short ids that it was to avoid.
    `act_at` is when to ask or send again, `route_until` how long to wait while no path exists (None
    while one does). `shared` is the body if it goes to many, `grant` how much of a streamed reply
    may come, `aside` that its CI had no room for it. A call of MCP has a `depth` and its stack's
    `signature` (`assertions`).
    """

    __slots__ = (
        "act_at",
        "aside",
        "attempt",
        "attempts",
        "avoid",
        "body",
        "busy",
        "collected",
        "collected_size",
        "content_type",
        "deadline",
        "depth",
        "doubt",
        "flying",
        "grant",
        "one_way",
        "path",
        "pause_s",
        "question",
        "received",
        "reply_trace",
        "reply_type",
        "resealed",
        "route_until",
        "shared",
        "signature",
        "stream",
        "window",
    )

    def __init__(
        self,
        question: Question,
        body: bytes,
        content_type: str,
        *,
        deadline: float,
        one_way: bool,
        window: Window,
    ) -> None:
        super().__init__()
        self.question = question
        self.body = body
        self.content_type = content_type
        self.deadline = deadline
        self.one_way = one_way
        self.window = window
        self.attempt = 0
        self.attempts = Attempts()
        self.avoid = b""
        self.act_at = deadline
        self.pause_s = 0.0
        self.route_until: float | None = None
        self.path: tuple[StackId, ...] = ()
        self.flying = 0
        self.doubt = False
        self.busy = False
        self.received = False
        self.resealed = self.aside = False
        self.shared: Shared | None = None
        self.depth = 0
        self.signature = b""
        self.grant: Grant | None = None
        self.stream = StreamIn()
        self.collected: list[bytes] = []
        self.collected_size = 0
        self.reply_type = ""
        self.reply_trace = b""

    @property
    def msg_id(self) -> bytes:
        return self.question.msg_id

    @property
    def size(self) -> int:
        return len(self.body) + OVERHEAD

    @property
    def outcome(self) -> str:
        """What can be said of it if it fails now."""
        certain = not (self.received or self.doubt or self.flying)
        return "released" if certain else "indeterminate"


RECEIVED_MAX = 8192
"""Messages that one destination has and has not answered. A guess: a thousand stalled streams and
as many slow CIs as anybody runs."""


ASIDE_MAX = 64
"""One-way messages for one CI that it had no room for and that wait here; then more are refused."""


class Window:
    """What is open towards one destination, what it has received and not answered, and what waits
    for room; all bounded. What it has takes no room from others: a slow CI or a caller that does
    not read must not keep messages to the rest of its stack from leaving. Nor may a full CI: what
    it had no room for waits aside, a bounded number for each."""

    def __init__(self, settings: NodeSettings) -> None:
        self._messages_max = settings.window_messages
        self._bytes_max = settings.window_bytes
        self._open: dict[bytes, Pending] = {}
        self._open_bytes = 0
        self._received: dict[bytes, Pending] = {}
        self._aside: dict[str, int] = {}
        self._waiting: deque[Pending] = deque()
        self._waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._open) + len(self._received) + len(self._waiting)

    def enter(self, pending: Pending) -> bool:
        """Whether it may be sent now; else it waits. Raises DeliveryError `busy` if as much waits
        as may be open, or if its CI has no room."""
        if pending.one_way and self._aside.get(pending.question.ci, 0) >= ASIDE_MAX:
            raise DeliveryError(f"'{pending.question.ci}' has too many messages open.", code="busy")
        if not self._waiting and self._has_room(pending):
            self._take(pending)
            return True
        full = len(self._waiting) >= self._messages_max or len(self._received) >= RECEIVED_MAX
        if full or self._waiting_bytes + pending.size > self._bytes_max:
            raise DeliveryError("Too many messages wait for this stack.", code="busy")
        self._waiting.append(pending)
        self._waiting_bytes += pending.size
        return False

    def leave(self, pending: Pending) -> list[Pending]:
        """It is over; those that may be sent now in its place, in order."""
        if self._open.pop(pending.msg_id, None) is not None:
            self._open_bytes -= pending.size
        elif self._received.pop(pending.msg_id, None) is None:
            self._waiting.remove(pending)
            self._waiting_bytes -= pending.size
        assert self._open_bytes >= 0 and self._waiting_bytes >= 0
        if pending.aside:
            self._count_aside(pending.question.ci, -1)
        return self._started()

    def set_aside(self, pending: Pending) -> list[Pending]:
        """Its CI had no room for it; those that may be sent now in its place, in order."""
        if pending.aside:
            return []
        pending.aside = True
        self._count_aside(pending.question.ci, 1)
        return self.received(pending)

    def _count_aside(self, ci: str, step: int) -> None:
        count = self._aside.pop(ci, 0) + step
        assert count >= 0, "a message is set aside once"
        if count:
            self._aside[ci] = count

    def received(self, pending: Pending) -> list[Pending]:
        """The destination has it; those that may be sent now in its place, in order."""
        if self._open.pop(pending.msg_id, None) is None:
            return []
        self._open_bytes -= pending.size
        self._received[pending.msg_id] = pending
        return self._started()

    def _started(self) -> list[Pending]:
        started = []
        while self._waiting and self._has_room(self._waiting[0]):
            following = self._waiting.popleft()
            self._waiting_bytes -= following.size
            self._take(following)
            started.append(following)
        return started

    def is_open(self, pending: Pending) -> bool:
        """Whether it had its turn: it was sent, and possibly received."""
        return pending.msg_id in self._open or pending.msg_id in self._received

    def _has_room(self, pending: Pending) -> bool:
        """A single message always fits, so that none is too large for ever."""
        if len(self._received) >= RECEIVED_MAX:
            return False
        if not self._open:
            return True
        fits = self._open_bytes + pending.size <= self._bytes_max
        return fits and len(self._open) < self._messages_max

    def _take(self, pending: Pending) -> None:
        self._open[pending.msg_id] = pending
        self._open_bytes += pending.size
