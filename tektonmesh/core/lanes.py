"""One link as forwarding sees it: what was sent on it and is not settled, and what goes out next.

A lane numbers the envelopes of each class of the link by itself, because classes overtake one
another in the link's queue: the low two bits of a `seq` are the class, the rest counts from 1. So
a `HopAck` is cumulative within its class. A lane decides nothing about paths.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from tektonmesh.core.envelope import CLASS_AT, DESTINATION, FLOW, KIND_AT, grow_old, shorts_of
from tektonmesh.core.fairness import FairQueue
from tektonmesh.core.joining import SHARED, join
from tektonmesh.core.messages import Forward, HopAck, Message, Released, Settled
from tektonmesh.core.types import SHORT_ID_SIZE, LinkId, StackId, short_id

CLASS_BITS = 2
CLASS_MASK = 3

SETTLED_MAX = 4096
"""In one message, which a link limits to 256 KiB and 20,000 values."""

ANSWERS_WAITING_MAX = 32
"""So many `Settled` are worth a write of their own, and a sender may be waiting for room."""

TRIED_MAX = 64
"""Twice `tries_limit`, and what an avoid list can hold."""

WINDOW_MIN = 512 << 10
WINDOW_MAX = 8 << 20
"""Bytes of envelopes that the other end has not acknowledged; further ones wait here, where flows
take turns. At 50 Mbit/s the least window is 80 ms of sending: so long a new flow waits at most
behind an old one of its class."""

CREDIT_FIRST = WINDOW_MIN
"""Bytes of envelopes that either end may send before it is told of more, as both ends know."""

WINDOW_BYTES_PER_S = 100e6
"""The rate that a window allows over the shortest round trip seen: TLS in Python gives less."""

HEARD_BYTES_MAX = 64 << 10
"""Received bytes whose acknowledgement does not wait any longer: an eighth of the least window."""

Done = Callable[[str], None]
"""Told once what became of an own envelope: "settled", or the code it was released with."""


class Kept:
    """An envelope that this hop answers for until it is settled or released.

    `data` is the packed envelope as it came, `back` and `back_seq` say to whom the answer goes (or
    `done` for an own one), `tried` are the short ids found to lead nowhere, `certain` tells that
    no copy of it can have got through.
    """

    __slots__ = (
        "back",
        "back_seq",
        "certain",
        "data",
        "done",
        "sent_at",
        "since",
        "transit_ms",
        "tried",
        "tries",
    )

    def __init__(
        self,
        data: bytes,
        since: float,
        tries: int,
        *,
        back: Lane | None = None,
        back_seq: int = 0,
        done: Done | None = None,
    ) -> None:
        self.data = data
        self.since = since
        self.sent_at = since
        self.tries = tries
        self.back = back
        self.back_seq = back_seq
        self.done = done
        self.tried = b""
        self.certain = True
        self.transit_ms = 0

    def note_tried(self, shorts: bytes) -> None:
        """Add packed short ids, newest first; the oldest fall off beyond `TRIED_MAX`."""
        self.tried = (shorts + self.tried)[: TRIED_MAX * SHORT_ID_SIZE]

    def others_tried(self) -> bytes:
        """What was tried, for the avoid list. The destination is never in it: that its direct
        link is silent says nothing of the ways round."""
        destination = short_id(self.data[DESTINATION])
        return b"".join(short for short in shorts_of(self.tried) if short != destination)


class Lane:
    """Both directions of one link. `answer_at` is when the answers that wait for something to ride
    with leave by themselves; infinity while none waits. `sent` and `received` count the bytes of
    envelopes that need credit, `limit` and `granted` say how far they may go; `starved_at` is since
    when something waits for credit, infinity while nothing does."""

    __slots__ = (
        "_acks_due",
        "_counts",
        "_heard",
        "_rtt_least_s",
        "_sent",
        "_shared",
        "acked",
        "answer_at",
        "granted",
        "heard_bytes",
        "in_flight",
        "kept",
        "limit",
        "link",
        "out",
        "received",
        "sent",
        "settled",
        "short",
        "silent",
        "stack_id",
        "starved_at",
        "timed",
        "transit_ms",
        "unacked",
        "up",
        "waiting",
        "window",
    )

    def __init__(self, link: LinkId, stack_id: StackId) -> None:
        self.link = link
        self.stack_id = stack_id
        self.short = short_id(stack_id)
        self.up = True
        self.silent = False
        self.timed = False
        self.transit_ms = 0
        self.kept: dict[int, Kept] = {}
        self.unacked: deque[int] = deque()
        self.acked = [0, 0, 0, 0]
        self.answer_at = inf
        self.out: list[Message] = []
        self.settled: list[int] = []
        self._counts = [0, 0, 0, 0]
        self._shared = 0
        self.heard_bytes = 0
        self.in_flight = 0
        self.sent = self.received = 0
        self.limit = self.granted = CREDIT_FIRST
        self.starved_at = inf
        self.window = WINDOW_MIN
        self._rtt_least_s = inf
        self._sent: tuple[deque[tuple[int, int]], ...] = tuple(deque() for _ in range(4))
        self.waiting: FairQueue[tuple[Kept, bytes]] = FairQueue()
        self._heard = [0, 0, 0, 0]
        self._acks_due = [False, False, False, False]

    # --- sending ---------------------------------------------------------------------------------

    def forward(self, kept: Kept, packed: bytes, send_class: int, now: float) -> bool:
        """Queue one envelope and answer for it; False if it waits for its turn first. Control is
        never kept waiting."""
        assert self.up, "nothing is sent on a link that is gone"
        kept.sent_at = now
        size = len(packed)
        full = self.in_flight + size > self.window or self.waiting.count
        starved = self.sent >= self.limit
        # With nothing on its way nothing would ever let it go but credit.
        if send_class and ((full and self.in_flight) or starved):
            self.waiting.push(send_class, packed[FLOW], size, (kept, packed))
            if starved:
                self.starved_at = min(self.starved_at, now)
            return False
        self._number(kept, packed, send_class)
        return True

    def on_credit(self, limit: int) -> None:
        """The other end takes more; older news change nothing."""
        if limit > self.limit:
            self.limit = limit
            self.starved_at = inf

    def pump(self, now: float) -> bool:
        """Queue what may go of what waits; whether something may."""
        moved = False
        while self.waiting.count and self.in_flight < self.window and self.sent < self.limit:
            _size, (kept, packed) = self.waiting.pop()
            waited_ms = int((now - kept.sent_at) * 1000.0)
            kept.sent_at = now
            packed = grow_old(packed, waited_ms) if waited_ms else packed
            self._number(kept, packed, packed[CLASS_AT] & CLASS_MASK)
            moved = True
        if self.waiting.count and self.sent >= self.limit:
            self.starved_at = min(self.starved_at, now)
        return moved

    def drain(self) -> list[Kept]:
        """Everything that waits, to go another way."""
        return [kept for kept, _packed in self.waiting.drain()]

    def have_left(self, seqs: tuple[int, ...]) -> None:
        """As `has_left`, of many at once."""
        sent_of, in_flight = self._sent, self.in_flight
        for seq in seqs:
            sent = sent_of[seq & CLASS_MASK]
            while sent and sent[0][0] <= seq:
                in_flight -= sent.popleft()[1]
        self.in_flight = in_flight
        assert in_flight >= 0

    def has_left(self, seq: int) -> None:
        """The other end has this envelope and all before it of its class, or it is not waited for
        any more."""
        self.have_left((seq,))

    def note_rtt(self, rtt_s: float) -> None:
        """Size the window by the shortest round trip seen: longer ones measure our own queue."""
        if 0.0 < rtt_s < self._rtt_least_s:
            self._rtt_least_s = rtt_s
            self.window = int(min(max(rtt_s * WINDOW_BYTES_PER_S, WINDOW_MIN), WINDOW_MAX))

    def _number(self, kept: Kept, packed: bytes, send_class: int) -> None:
        count = self._counts[send_class] = self._counts[send_class] + 1
        seq = count << CLASS_BITS | send_class
        self.kept[seq] = kept
        self.unacked.append(seq)
        self.out.append(Forward(seq, packed))
        if send_class:
            size = len(packed)
            self._sent[send_class].append((seq, size))
            self.in_flight += size
            self.sent += size
        if packed[KIND_AT] == SHARED:
            self._shared += 1

    def release(self, seq: int, code: str, visited: tuple[bytes, ...]) -> None:
        self.out.append(Released(seq, code, visited))

    def take(self) -> tuple[Message, ...]:
        """Everything queued; the answers first, they free what others hold."""
        out: list[Message] = []
        self.heard_bytes = 0
        if True in self._acks_due:
            due, self._acks_due = self._acks_due, [False, False, False, False]
            out += [HopAck(seq) for seq, owed in zip(self._heard, due, strict=True) if owed]
        if self.settled:
            settled, self.settled = self.settled, []
            starts = range(0, len(settled), SETTLED_MAX)
            out += [Settled(tuple(settled[at : at + SETTLED_MAX])) for at in starts]
        out += join(self.out) if self._shared > 1 else self.out
        self.out, self._shared = [], 0
        return tuple(out)

    # --- receiving -------------------------------------------------------------------------------

    def is_repeat(self, seq: int) -> bool:
        """Note an incoming envelope; True if the link brought this number before."""
        send_class = seq & CLASS_MASK
        if seq <= self._heard[send_class]:
            return True
        self._heard[send_class] = seq
        return False

    def owe_ack(self, seq: int) -> None:
        """This envelope stays here for a while, so its receipt is to be said by itself."""
        self._acks_due[seq & CLASS_MASK] = True

    def on_ack(self, seq: int) -> None:
        send_class = seq & CLASS_MASK
        self.acked[send_class] = max(self.acked[send_class], seq)
        self.has_left(seq)

    def oldest_unacked(self) -> tuple[int, Kept] | None:
        """The envelope that has waited longest for its hop acknowledgement, if any."""
        unacked, kept, acked = self.unacked, self.kept, self.acked
        while unacked:
            seq = unacked[0]
            if seq in kept and seq > acked[seq & CLASS_MASK]:
                return seq, kept[seq]
            unacked.popleft()
        return None

    def oldest_kept(self) -> tuple[int, Kept] | None:
        """The envelope sent longest ago that is neither settled nor released, if any."""
        return next(iter(self.kept.items()), None)
