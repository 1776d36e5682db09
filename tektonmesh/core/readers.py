"""Callers that read durable streams: what each gets, and going on where one broke off.

A durable, streamed reply has at most one reader at a time: the newest. It says from which byte on
it reads, so a caller that lost its daemon asks again with its key and goes on, no byte lost and
none twice. Credit follows what it reads (`core/credits`), and tells the stack of the CI what need
not be kept (`core/saying`); what is missing, or silent for long, is asked for. The last bytes that
were given to a reader are kept with the end of the message, since it may not have them yet when
this stack crashes. When a message ends is `outbox`' affair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tektonmesh.core.credits import WINDOW_MAX, Credits
from tektonmesh.core.effects import AnswerChunk
from tektonmesh.core.events import ChunksTaken
from tektonmesh.core.machine import Env
from tektonmesh.core.streams import StreamIn
from tektonmesh.core.types import StackId

if TYPE_CHECKING:
    from tektonmesh.core.outgoing import Outgoing

TAIL_MAX = WINDOW_MAX + (256 << 10)

GAP_S = 0.1
ABANDONED_S = 60.0
"""A stream that nobody has read for so long is given up: a caller whose daemon was killed is back
within seconds. A guess."""

SILENT_S, SILENT_MAX_S = 1.0, 10.0
"""A reader of a stream of which nothing comes asks for more so often. Guesses."""


class Reader:
    """One caller: its ticket, what it has been given and may be sent. `allowed` is what may have
    been granted to the one before it, of which nothing is known after a restart."""

    __slots__ = ("allowed", "grant", "pause_s", "stream", "tail", "tail_size", "ticket")

    def __init__(self, ticket: int, credits: Credits, offset: int) -> None:
        self.ticket = ticket
        self.grant = credits.open()
        self.grant.taken = offset
        self.grant.limit = offset + self.grant.window
        self.allowed = offset + 2 * WINDOW_MAX
        self.stream = StreamIn()
        self.stream.next = offset
        self.tail: deque[bytes] = deque()
        self.tail_size = 0
        self.pause_s = SILENT_S

    def given(self, data: bytes) -> None:
        """Remember what it was given last."""
        self.tail.append(data)
        self.tail_size += len(data)
        while self.tail_size - len(self.tail[0]) >= TAIL_MAX:
            self.tail_size -= len(self.tail.popleft())


class Readers:
    """The readers of one node. `ask(item, again)` tells the stack of the CI how far the reader of a
    message is, and (`again`) that nothing later has come; `broken` is told of one that sends more
    than it may."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self._credits = Credits(env)
        self.ask: Callable[[Outgoing, bool], None] = lambda _item, _again: None
        self.broken: Callable[[Outgoing], None] = lambda _item: None
        self.abandoned: Callable[[Outgoing], None] = lambda _item: None
        """Told of one that has had no reader for long, or has ended."""
        self._items: dict[int, Outgoing] = {}

    def open(self, item: Outgoing, ticket: int, offset: int) -> None:
        """A caller reads from `offset` on."""
        assert item.reader is None, "the reader before it was told to go"
        self.env.deadlines.drop(("abandoned", item.msg_id))
        item.reader = Reader(ticket, self._credits, offset)
        self._items[ticket] = item
        self._watch(item, item.reader.pause_s)
        if item.committed:
            self.ask(item, True)  # of a CI of this stack all may come at once, and then the end

    def close(self, item: Outgoing, ticket: int) -> None:
        """That caller reads no more."""
        reader = item.reader
        if reader is not None and reader.ticket == ticket:
            self._credits.close(reader.grant)
            self.env.deadlines.drop(("reader", item.msg_id))
            item.reader = None
            del self._items[ticket]
            self.missed(item)

    def missed(self, item: Outgoing) -> None:
        """Nobody reads it now."""
        due = self.env.after(ABANDONED_S)
        self.env.deadlines.set(("abandoned", item.msg_id), due, partial(self.abandoned, item))

    def come(self, item: Outgoing, offset: int, data: bytes) -> None:
        """A piece of the reply; without a reader it is asked for again later."""
        reader = item.reader
        if reader is None:
            return
        end = offset + len(data)
        if end > reader.allowed and not reader.grant.covers(end):
            self.broken(item)
            return
        self._give(reader, reader.stream.accept(offset, data))
        reader.pause_s = SILENT_S
        self._watch(item, GAP_S if reader.stream.has_gap else reader.pause_s)

    def ended(self, item: Outgoing, end: int) -> tuple[int, bytes] | None:
        """The reply has so many bytes. If its reader has all of them: where what is kept begins,
        and what that is."""
        reader = item.reader
        if reader is None:
            return None
        reader.stream.end = end
        if not reader.stream.complete:
            self._watch(item, GAP_S)
            return None
        tail = b"".join(reader.tail)
        return end - len(tail), tail

    def taken(self, event: ChunksTaken, rtt_s: Callable[[StackId], float]) -> bool:
        """Whether that was one of these callers; it has read on."""
        item = self._items.get(event.ticket)
        if item is None or item.reader is None:
            return False
        if self._credits.taken(item.reader.grant, event.size, rtt_s(item.stack)):
            self.ask(item, False)
        return True

    def stir(self, stack: StackId | None = None) -> None:
        """Ways changed, or that stack did: whoever reads from there asks again."""
        for item in list(self._items.values()):
            if item.reader is not None and stack in (None, item.stack):
                item.reader.pause_s = SILENT_S
                self._watch(item, GAP_S)

    def _give(self, reader: Reader, fresh: bytes) -> None:
        if fresh:
            reader.given(fresh)
            self.env.emit(AnswerChunk(reader.ticket, fresh))

    def _watch(self, item: Outgoing, wait_s: float) -> None:
        due = self.env.after(wait_s)
        self.env.deadlines.set(("reader", item.msg_id), due, partial(self._silent, item))

    def _silent(self, item: Outgoing) -> None:
        reader = item.reader
        assert reader is not None, "a reader that is gone is not watched"
        reader.pause_s = min(2.0 * reader.pause_s, SILENT_MAX_S)
        self._watch(item, self.env.jitter(reader.pause_s))
        self.ask(item, True)
