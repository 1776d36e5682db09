"""A durable message at its destination: its rows, and the freight that its answer is.

A message has two rows: `inbox`, with its body, until its CI has answered, and `taken`, by which a
repeat is known for one, until long after its time is over; the answer is kept in `taken` until the
origin has confirmed it. Both are written in one transaction. What is done about them is `inbox`'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from tektonmesh.core.courier import Freight
from tektonmesh.core.ends import Span
from tektonmesh.core.envelope import Kind
from tektonmesh.core.large import Large, large_of, words_of
from tektonmesh.core.machine import Env
from tektonmesh.core.saying import Saying
from tektonmesh.core.sealing import Body
from tektonmesh.core.types import ID_SIZE, StackId

if TYPE_CHECKING:
    from tektonmesh.core.inbox import Inbox

OVERHEAD = 512
"""What a message occupies besides its body, about."""

PIECE_SIZE = 128 << 10
"""A reply beyond what one envelope holds goes in pieces of this size (two frames of eight)."""

Key = tuple[StackId, bytes]
"""(authenticated origin, msg_id)."""


class Stage(IntEnum):
    """How far a message is. Numbers are in rows and final."""

    WRITING = 0
    """Its rows are not durable yet."""
    WAITING = 1
    """For its CI, or for a place at it."""
    LEASED = 2
    """In the hands of its CI."""
    ANSWERED = 3
    """Its origin does not know yet."""
    DONE = 4
    """Nothing is left of it but that it was here."""


class Note(NamedTuple):
    """What its origin wrote, as the row keeps it. A `large` body lies in a file; `body` is empty
    then. The reply to a `live` one leaves as it is said, at
    first up to `credit`, which no row keeps."""

    ci: str
    sender: str
    content_type: str
    body: bytes
    no_reply: bool
    large: Large | None = None
    live: bool = False
    credit: int = 0


def words_of_note(note: Note) -> list[Any]:
    """All but the body, as a row keeps it."""
    plain = [note.ci, note.sender, note.content_type, note.no_reply]
    return plain + [True] * note.live + words_of(note.large)


def note_of(words: list[Any], body: bytes) -> Note | None:
    """What `words_of_note` wrote; None for anything else."""
    live = words[4:5] == [True]
    more = words[4 + live :]
    large = large_of(more)
    if len(words) < 4 or (large is None) != (not more):
        return None
    ci, sender, content_type, no_reply = words[:4]
    return Note(ci, sender, content_type, body, bool(no_reply), large, live)


class Answer(NamedTuple):
    """What its CI, or this stack in its place, said. A nack has a `code`, its words in `body`; of a
    stream `body` is empty, and `start` is how many bytes were said."""

    body: bytes
    content_type: str
    code: str = ""
    outcome: str = ""
    start: int = 0


class Incoming:
    """One message. Its `span` is how long its CI may take, and when that is `over` how long it is
    known. `attempt` counts the leases before this one, `losses` those that its CI lost. `trace` is
    the way that its newest copy took."""

    __slots__ = (
        "answer",
        "attempt",
        "carried",
        "key",
        "losses",
        "note",
        "number",
        "over",
        "saying",
        "span",
        "stage",
        "trace",
        "ttl_ms",
    )

    def __init__(self, key: Key, span: Span, *, ttl_ms: int, trace: bytes) -> None:
        self.key = key
        self.span = span
        self.ttl_ms = ttl_ms
        self.trace = trace
        self.note: Note | None = None
        self.over = False
        self.attempt = 0
        self.losses = 0
        self.number = 0
        self.stage = Stage.WRITING
        self.answer: Answer | None = None
        self.saying: Saying | None = None
        self.carried: AnswerFreight | None = None

    @property
    def row_key(self) -> bytes:
        return b"".join(self.key)

    @property
    def size(self) -> int:
        """What it counts for in the inbox."""
        kept = self.note.body if self.note is not None else b""
        return OVERHEAD + len(kept if self.answer is None else self.answer.body)


class AnswerFreight(Freight):
    """The answer to one message, on its way back until the origin confirms it. The pieces of a
    long one go ahead of it each time."""

    __slots__ = ("answer_id", "inbox", "item")

    def __init__(self, inbox: Inbox, item: Incoming, answer_id: bytes) -> None:
        super().__init__(item.key[0])
        self.inbox = inbox
        self.item = item
        self.answer_id = answer_id

    @property
    def kind(self) -> Kind:
        return Kind.NACK if self._answer.code else Kind.REPLY

    @property
    def msg_id(self) -> bytes:
        return self.answer_id

    @property
    def reply_to(self) -> bytes:
        return self.item.key[1]

    @property
    def size(self) -> int:
        return OVERHEAD + len(self._answer.body)

    @property
    def _answer(self) -> Answer:
        answer = self.item.answer
        assert answer is not None, "an answer is carried until it is confirmed"
        return answer

    def body(self, now: float) -> Body:
        answer = self._answer
        if answer.code:
            detail = answer.body.decode(errors="replace")
            return {"code": answer.code, "detail": detail, "out": answer.outcome, "du": True}
        start = self.inbox.send_ahead(self)
        return {
            "body": answer.body[start:],
            "ct": answer.content_type,
            "off": answer.start + start,
            "tr": self.item.trace,
            "du": True,
        }

    def ttl_s(self, now: float) -> float:
        return self.inbox.answer_left_s(self.item)

    def impossible(self, code: str, detail: str) -> None:
        self.inbox.unsayable(self.item, code, detail)


Row = tuple[list[Any], bytes]
"""Words and body of a row."""


def of_rows(env: Env, row_key: bytes, taken: Row, noted: Row | None) -> Incoming | None:
    """A message as its rows kept it; None if they are of no use."""
    words, body = taken
    if len(words) not in (7, 8) or len(row_key) != ID_SIZE + 16:
        return None
    stage, end_ms, ttl_ms, content_type, code, outcome, trace = words[:7]
    key = (row_key[:ID_SIZE], row_key[ID_SIZE:])
    span = Span(env, end_ms, ttl_ms / 1000.0, again=True)
    item = Incoming(key, span, ttl_ms=ttl_ms, trace=trace)
    item.stage = Stage(stage)
    if item.stage is Stage.ANSWERED:
        item.answer = Answer(body, content_type, code, outcome, *words[7:])
    elif item.stage is not Stage.DONE:
        item.note = None if noted is None else note_of(*noted)
        if item.note is None:
            return None
        item.stage = Stage.WAITING
    return item


class Voice(ABC):
    """How the inbox speaks to origins, other stacks and this one alike; each word may be lost."""

    @abstractmethod
    def receipt(self, key: Key, trace: bytes) -> None: ...

    @abstractmethod
    def nack(self, key: Key, code: str, detail: str, outcome: str) -> None: ...

    @abstractmethod
    def piece(self, key: Key, offset: int, data: bytes) -> None: ...

    @abstractmethod
    def answer_here(self, key: Key, answer: Answer) -> None:
        """To the outbox of this stack, which cannot miss it."""
