"""Everything a node can ask of the world. The shell carries these out without waiting.

Tables named in `Save`, all of them (table, key) -> value maps that `Node` gets back as `Saved` at
the next start: `meta` (epoch, highest hlc), `keydoc` (owner -> packed), `head` (owner -> packed),
`record` (owner | scope | key -> value), `ci` (name -> packed registration), `address`
(owner or address -> packed), `name` (label -> owner), `peer` (id -> packed state), `floor`
(owner -> packed version), `proof` (owner -> packed), `leaf` (identity key -> highest issued_at;
written by the shell), `outbox`, `outnews`, `sent`, `inbox`, `taken`, `lease`, `low`, `gone`, `said`
(durable messages; docs/design/forwarding.md), `blob` (BLAKE2b-256 -> the bytes that have it),
`terms` (id -> packed terms), `grant` (id of the grant -> packed), `invite` (id of the invite ->
packed), `witness` (owner -> the end of its audit log that was seen), `audit` (the end of our own,
by the shell).
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.frozen import frozen
from tektonmesh.core.large import Large
from tektonmesh.core.messages import Message
from tektonmesh.core.types import LinkId, StackId


@frozen
class Send:
    """Messages for one link, in order within a class. A full link queue closes the link (the
    repair and the hop acknowledgements make that harmless)."""

    link: LinkId
    messages: tuple[Message, ...]


@frozen
class CloseLink:
    """Close a link; `code` is told to the peer. `LinkDown` follows as an event."""

    link: LinkId
    code: str
    detail: str


@frozen
class Dial:
    """Try to open a link. Comes back as `LinkUp` or `DialFailed`. With `expect`, another
    identity at that address is a failure."""

    address: str
    expect: StackId | None


@frozen
class Save:
    """Rows to write in one transaction: (table, key, value or None to delete). With a `ticket`
    the event `Saved(ticket)` follows once they are durable."""

    rows: tuple[tuple[str, bytes, bytes | None], ...]
    ticket: int | None


@frozen
class Deliver:
    """Hand a message to a local CI. The shell knows how from the registration (`how` is its
    delivery part: attached connection, endpoint and format). It answers with `ReplyChunk`,
    `ReplyDone` or `ReplyFailed` for `delivery`, exactly one of the last two."""

    delivery: int
    ci: str
    how: dict[str, Any]
    msg_id: bytes
    sender: str
    body: bytes
    content_type: str
    deadline_s: float
    """Seconds the CI has left to answer."""
    attempt: int
    depth: int = 0
    """How many calls led to this one, if it is one, by the word of the calling stack."""
    large: Large | None = None
    """A body that is in a file; `body` is empty then."""
    reply_from: int | None = None
    """Of a reply that resumes: so many bytes of it are here from an earlier attempt."""


@frozen
class CancelDelivery:
    """Tell the CI that nobody waits any more. No answer is expected, one is ignored."""

    delivery: int
    reason: str


@frozen
class Answer:
    """The result of a command event with this `ticket`."""

    ticket: int
    result: dict[str, Any]


@frozen
class AnswerChunk:
    """Part of a streamed reply, in order, never twice."""

    ticket: int
    data: bytes


@frozen
class AnswerFailed:
    """A command failed. `error` is `MeshError.as_dict()`: code, detail, retry, outcome ..."""

    ticket: int
    error: dict[str, Any]


@frozen
class WatchEndpoint:
    """Check (or, with None, stop checking) the health of a local CI's HTTP endpoint; changes
    come back as `CiHealth`."""

    ci: str
    url: str | None


@frozen
class Notice:
    """Something worth a line in the log, on `watch`, in the audit or in a metric."""

    kind: str
    data: dict[str, Any]


@frozen
class Audit:
    """An entry for the audit log: who did what and which rule let it pass or not; no bodies."""

    kind: str
    data: dict[str, Any]


@frozen
class ReplyKept:
    """Of a reply that resumes everything before `offset` is durable: the CI need not keep it."""

    delivery: int
    offset: int


@frozen
class BodyAct:
    """Something to do with the file of a large body (docs/design/bodies.md). All but "drop" are
    answered by `BodyDone`:
    "open" makes it for a body of `size` bytes and says which chunks of it have their hash in `data`
    (one byte each); "read" gives `size` bytes at `offset`, and behind the body, which has `whole`
    bytes, its sums; "write" puts `data` at `offset`; "sync" makes it durable."""

    act: str
    name: str
    offset: int = 0
    size: int = 0
    whole: int = 0
    data: bytes = b""


Effect = (
    Send
    | CloseLink
    | Dial
    | Save
    | Deliver
    | CancelDelivery
    | Answer
    | AnswerChunk
    | AnswerFailed
    | WatchEndpoint
    | Notice
    | Audit
    | BodyAct
    | ReplyKept
)
