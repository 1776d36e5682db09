"""A durable message at its origin: what is kept of it in memory and on the disk.

`Outgoing` is one that has no end yet; its row (table `outbox`) never changes, what happened to it
so far is a small row of its own (`outnews`). `Ended` is what is left of it afterwards (table
`sent`), for whoever asks what became of it or sends it again with its key. What is done about them
is `outbox`'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tektonmesh.core.courier import Freight
from tektonmesh.core.ends import Span
from tektonmesh.core.envelope import Kind
from tektonmesh.core.large import Large, large_of, words_of
from tektonmesh.core.readers import Reader
from tektonmesh.core.sealing import Body
from tektonmesh.core.streams import StreamIn
from tektonmesh.core.types import ID_SIZE, StackId
from tektonmesh.errors import DeliveryError

if TYPE_CHECKING:
    from tektonmesh.core.outbox import Outbox

OVERHEAD = 512
"""What a message occupies besides its body, about."""

ACCEPTED, SENT, RECEIVED = "accepted", "sent", "received"
PARKED = "parked"
ANSWERED, FAILED, EXPIRED = "answered", "failed", "expired"

ID_TIME_SIZE = 6
ID_TIME_MAX = 0xFFFF_FFFF_FFFF

Transitions = list[list[Any]]
"""[state, instant in ms of mesh time], in order."""


def time_of(msg_id: bytes) -> int:
    """The instant of mesh time at which an id was made."""
    return int.from_bytes(msg_id[:ID_TIME_SIZE])


class Letter(NamedTuple):
    """What a caller wrote, as its row keeps it. `key` is the caller's idempotency key with whom it
    belongs to, empty without one; `print` a hash of what was sent with it; `born_ms` and `end_ms`
    are instants of mesh time; with `no_reply` nobody wants the CI's answer. A `large` body lies in
    a file, and `body` is empty; the reply to a `live` one is read as it comes, by whoever has the
    key."""

    stack: StackId
    ci: str
    sender: str
    content_type: str
    body: bytes
    born_ms: int
    end_ms: int
    no_reply: bool = False
    key: bytes = b""
    print: bytes = b""
    live: bool = False
    large: Large | None = None


_PLAIN = len(Letter._fields) - 3
"""Words of a row besides the body; a stream adds one, a large body three."""


def words_of_letter(letter: Letter) -> list[Any]:
    """All but the body, as a row keeps it."""
    words = [*letter[: _PLAIN + 1]]
    del words[Letter._fields.index("body")]
    return words + [True] * letter.live + words_of(letter.large)


def letter_of(words: list[Any], body: bytes) -> Letter | None:
    """What `words_of_letter` wrote; None for anything else."""
    plain, live = words[:_PLAIN], words[_PLAIN : _PLAIN + 1] == [True]
    more = words[_PLAIN + live :]
    large = large_of(more)
    sound = len(plain) == _PLAIN and isinstance(plain[0], bytes) and len(plain[0]) == ID_SIZE
    if not sound or (large is None) != (not more):
        return None
    return Letter._make([*plain[:4], body, *plain[4:], live, large])


class Outgoing(Freight):
    """One message without an end. `committed` says that it is durable, `reloaded` that it was
    accepted before a restart, `received` that its destination has it; `waiters` are the tickets
    of callers that wait for its reply, `accepting` those that wait for the commit only."""

    __slots__ = (
        "accepting",
        "code",
        "collected",
        "collected_size",
        "committed",
        "detail",
        "letter",
        "letter_id",
        "outbox",
        "reader",
        "received",
        "reloaded",
        "span",
        "started",
        "stream",
        "transitions",
        "waiters",
    )

    def __init__(
        self, outbox: Outbox, letter_id: bytes, letter: Letter, span: Span, *, started: float
    ) -> None:
        super().__init__(letter.stack)
        self.outbox = outbox
        self.letter_id = letter_id
        self.letter = letter
        self.started = started
        self.span = span
        self.committed = False
        self.received = False
        self.reloaded = False
        self.code = ""
        self.detail = ""
        self.accepting: list[int] = []
        self.waiters: list[int] = []
        self.transitions: Transitions = []
        self.reader: Reader | None = None
        self.stream = StreamIn()
        self.collected: list[bytes] = []
        self.collected_size = 0

    def reload(self, news: Transitions) -> None:
        """It was accepted before a restart, and this was known of it."""
        self.committed = self.reloaded = True
        self.transitions = [[ACCEPTED, self.letter.born_ms], *news]
        self.received = any(state == RECEIVED for state, _at in self.transitions)

    @property
    def about(self) -> Letter:
        """Who wrote to whom."""
        return self.letter

    @property
    def kind(self) -> Kind:
        return Kind.REQUEST

    @property
    def msg_id(self) -> bytes:
        return self.letter_id

    @property
    def size(self) -> int:
        return len(self.letter.body) + OVERHEAD

    @property
    def state(self) -> str:
        return str(self.transitions[-1][0]) if self.transitions else "new"

    @property
    def outcome(self) -> str:
        """What can be said of it if it fails now."""
        certain = not (self.received or self.doubt or self.flying)
        return "released" if certain else "indeterminate"

    def body(self, now: float) -> Body:
        letter = self.letter
        body: Body = {
            "to": letter.ci,
            "from": letter.sender,
            "ct": letter.content_type,
            "body": letter.body,
            "left": max(1, int(self.ttl_s(now) * 1000)),
            "du": True,
            "low": self.outbox.low_ms(self.stack),
        }
        if letter.no_reply:
            body["nr"] = True
        if letter.live:
            body["st"] = True
        if self.reader is not None:
            body |= {"cr": self.reader.grant.limit, "off": self.reader.grant.taken}
        if letter.large is not None:
            body |= {"ls": letter.large.size, "lr": letter.large.root}
        return body

    def ttl_s(self, now: float) -> float:
        return self.outbox.left_s(self)

    def left(self) -> None:
        self.outbox.note(self, SENT)

    def impossible(self, code: str, detail: str) -> None:
        self.outbox.fail(self, code, detail)


class Ended(NamedTuple):
    """What became of a message. `error` of a failure is [code, detail, outcome]; `body` is empty
    when it was not wanted or is not kept any more (then `kept` is false); of a `live` one it is the
    end of the reply, from `start` on."""

    stack: StackId
    ci: str
    sender: str
    transitions: Transitions
    until_ms: int
    error: list[str] | None = None
    content_type: str = ""
    body: bytes = b""
    kept: bool = True
    trace: bytes = b""
    ms: int = 0
    key: bytes = b""
    print: bytes = b""
    live: bool = False
    start: int = 0

    @property
    def about(self) -> Ended:
        """Who wrote to whom."""
        return self

    @property
    def state(self) -> str:
        return str(self.transitions[-1][0])

    def failure(self) -> DeliveryError:
        """The failure again, as its first caller was told."""
        assert self.error is not None
        code, detail, outcome = self.error
        return DeliveryError(detail, code=code, outcome=outcome)

    def shown(self) -> dict[str, Any]:
        """Its reply if that is kept whole, or its error, for people."""
        if self.error is not None:
            return {"error": self.failure().as_dict()}
        whole = self.state == ANSWERED and self.kept and not self.start
        return {"body": self.body, "content_type": self.content_type} if whole else {}

    def lacking(self, offset: int) -> DeliveryError | None:
        """Why a caller that has the first `offset` bytes of a stream gets the rest no more."""
        if not self.live or (self.kept and self.start <= offset <= self.start + len(self.body)):
            return None
        detail = "That part of the reply is not kept any more."
        return DeliveryError(detail, code="not_found", outcome="indeterminate")


def history_of(found: Outgoing | Ended) -> dict[str, Any]:
    """What became of a message so far, for people."""
    steps = [{"state": one, "at": round(at / 1000.0, 3)} for one, at in found.transitions]
    more = found.shown() if isinstance(found, Ended) else {"copies": found.number}
    return {"state": found.state, "transitions": steps} | more
