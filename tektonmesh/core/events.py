"""Everything that can happen to a node. The shell and the simulator speak only these.

Commands carry a `ticket` chosen by the caller; exactly one `Answer` or `AnswerFailed` comes back
for it.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.ci import Offered
from tektonmesh.core.frozen import frozen
from tektonmesh.core.messages import Message
from tektonmesh.core.types import Crypto, LinkId, SignedKeyDoc, StackId


@frozen
class Tick:
    """A deadline may be due."""


@frozen
class WallClock:
    """A reading of the machine's wall clock, in seconds since 1970; about every 10 s."""

    wall_s: float


@frozen
class Stalled:
    """This process was not running for `seconds` (event-loop stall, suspend, SIGSTOP); for
    `suspended` of them its monotonic clock stood still, as it does while a machine sleeps."""

    seconds: float
    suspended: float = 0.0


@frozen
class Saved:
    """The rows of `Save(ticket)` are durable."""

    ticket: int


@frozen
class StoreTrouble:
    """The disk refuses writes from now on (`refusing`), or takes them again."""

    refusing: bool


# --- links ---------------------------------------------------------------------------------------


@frozen
class LinkUp:
    """A link was authenticated and admitted by both ends. `name` is the peer's own label,
    `addresses` where it says it listens, `address` where this link goes to or comes from."""

    link: LinkId
    stack_id: StackId
    name: str
    keydoc: SignedKeyDoc
    instance: bytes
    addresses: tuple[str, ...]
    address: str
    outbound: bool
    invite: bytes = b""
    """The invite of ours whose secret the peer proved, if that is why it was admitted."""


@frozen
class LinkDown:
    """The link is gone; `reason` is for people. EOF and reset look alike. `fault` says that what
    the peer sent could not be read as messages at all."""

    link: LinkId
    reason: str
    fault: bool = False


@frozen
class Received:
    """All messages that one read brought, in order."""

    link: LinkId
    messages: tuple[Message, ...]


@frozen
class DialFailed:
    """`code` is "unreachable", "refused" (the peer said no), "self", "wrong_identity" or
    "protocol"."""

    address: str
    expect: StackId | None
    code: str
    detail: str


@frozen
class PeerRefused:
    """A peer asked for a link and was not admitted (or did not admit us); listed in `peers`."""

    stack_id: StackId
    name: str
    address: str
    outbound: bool
    reason: str
    invite: bytes = b""


@frozen
class PeerSeen:
    """Somebody may listen here. `source` is "mdns", "seed_peer" or "user"; it grants nothing."""

    addresses: tuple[str, ...]
    source: str
    stack_id: StackId | None


# --- commands from the doors ---------------------------------------------------------------------


@frozen
class RegisterCi:
    """Register or update a local CI. `spec` is the validated registration (docs/design/cis.md);
    `connection` is the attached connection, if any; `token` proves an earlier registration;
    `trusted` callers (the owner of the socket, over the command line) need none."""

    ticket: int
    spec: dict[str, Any]
    connection: int | None
    token: str | None
    trusted: bool


@frozen
class HeartbeatCi:
    ticket: int
    name: str
    token: str | None
    trusted: bool


@frozen
class DeregisterCi:
    ticket: int
    name: str
    token: str | None
    trusted: bool


@frozen
class Detached:
    """An attached connection closed."""

    connection: int


@frozen
class CiHealth:
    """What the health check of an endpoint found."""

    ci: str
    healthy: bool
    detail: str


@frozen
class SetCatalogue:
    """What the MCP server of a local CI offers: {"hash", "length", ...} of the blob that lists it,
    which was put in before; None while it offers nothing (docs/design/mcp.md). `offered` are the
    items of that list, for the policy."""

    ticket: int
    ci: str
    reference: dict[str, Any] | None
    offered: tuple[Offered, ...] = ()


@frozen
class SendMessage:
    """Send to a CI, local or remote; the answer is the reply. `stream` asks for `AnswerChunk`s.
    `sender` is the local CI that sends, or empty for a person. Of the options, a call of MCP has
    `id`, as `Sealer.new_id` makes them, `act`, what it does in the words of the policy, and
    `within`, the id of the call that it is made for."""

    ticket: int
    target: str
    body: bytes
    content_type: str
    sender: str
    timeout_s: float
    stream: bool
    options: dict[str, Any]


@frozen
class ChunksTaken:
    """The caller of `ticket` has read so many more bytes of its `AnswerChunk`s."""

    ticket: int
    size: int


@frozen
class CancelCommand:
    """Nobody waits for `ticket` any more. Its answer, if one comes, is `cancelled`."""

    ticket: int


@frozen
class TraceRoute:
    """Send a trace envelope to a stack or CI; the answer lists the hops."""

    ticket: int
    target: str
    timeout_s: float


@frozen
class PutBlob:
    """Keep these bytes for the mesh; a record that refers to them has to follow within a minute.
    The answer is {"hash", "length"}, the hash in hex."""

    ticket: int
    data: bytes


@frozen
class GetBlob:
    """The bytes that have this BLAKE2b-256; the answer is {"data"}. What is not held here is
    fetched, which may take `timeout_s`."""

    ticket: int
    hash: bytes
    timeout_s: float


@frozen
class AdmitPeer:
    """Accept this stack from now on (allowlist, `peers approve`)."""

    ticket: int
    stack_id: StackId


@frozen
class EvictPeer:
    """Refuse this stack for ever and close its links."""

    ticket: int
    stack_id: StackId


@frozen
class Govern:
    """The owner of this stack changes its policy: `act` is "terms", "grant", "revoke" or "invite",
    `params` what it takes (`core/rights`, `core/invites`)."""

    ticket: int
    act: str
    params: dict[str, Any]


@frozen
class TakeKeys:
    """This stack has new keys from now on: `keydoc` names them, `crypto` signs and seals with them.
    They are on the disk already, so that a crash here changes nothing."""

    ticket: int
    keydoc: SignedKeyDoc
    crypto: Crypto


@frozen
class AskWitnesses:
    """Ask other stacks which end of this stack's audit log they have seen."""

    ticket: int


@frozen
class AuditState:
    """The audit log ends here: `number` entries, the `hash` of the last one, signed. `closed` says
    that it takes no entries, and that acts of other stacks are to be refused meanwhile."""

    number: int
    hash: bytes
    closed: bool


@frozen
class Drain:
    """Publish `draining`, take nothing new, and answer when nothing is held any more, or after
    `within_s`, with the counts of what is left."""

    ticket: int
    within_s: float


@frozen
class Leave:
    """Publish `left`, wait for the neighbours to have it (bounded), then answer."""

    ticket: int


# --- what local CIs answer -----------------------------------------------------------------------


@frozen
class ReplyChunk:
    """`offset`, where the CI says it, is that of `data` in the whole reply."""

    delivery: int
    data: bytes
    offset: int | None = None


@frozen
class ReplyDone:
    """The whole reply, or what follows the chunks that were sent before it; `offset`, where the CI
    says it, is that of `body` in the whole reply."""

    delivery: int
    body: bytes
    content_type: str
    offset: int | None = None


@frozen
class ReplyFailed:
    """`code` is from the one table: ci_failed, ci_offline, timeout, busy ... `lost` says that the
    CI, or its connection, ended before it had answered."""

    delivery: int
    code: str
    detail: str
    lost: bool = False


@frozen
class BodyDone:
    """What a `BodyAct` asked for is done; `data` is what was read, or which chunks are there.
    `code` is "store" or "busy" if it cannot be."""

    act: str
    name: str
    offset: int = 0
    data: bytes = b""
    code: str = ""


Event = (
    Tick
    | WallClock
    | Stalled
    | Saved
    | StoreTrouble
    | LinkUp
    | LinkDown
    | Received
    | DialFailed
    | PeerRefused
    | PeerSeen
    | RegisterCi
    | HeartbeatCi
    | DeregisterCi
    | Detached
    | CiHealth
    | SetCatalogue
    | SendMessage
    | ChunksTaken
    | CancelCommand
    | TraceRoute
    | PutBlob
    | GetBlob
    | AdmitPeer
    | EvictPeer
    | Govern
    | TakeKeys
    | AskWitnesses
    | AuditState
    | Drain
    | Leave
    | ReplyChunk
    | ReplyDone
    | ReplyFailed
    | BodyDone
)
