"""What two linked nodes say to one another, as values.

`wire/codec` gives each class a number and a packed form; both are final once released. A node
ignores a number it does not know, so later versions may add. `SEND_CLASS` is the class a message
is queued in (docs/design/forwarding.md): 0 control, 1 interactive, 2 normal, 3 bulk.
"""

from __future__ import annotations

from tektonmesh.core.frozen import frozen
from tektonmesh.core.types import ContentVersion, SignedHead, SignedKeyDoc, StackId, Version

BLOB_SIZE_MAX = 1 << 20
"""Bytes of the largest blob: what is larger is more than one thing."""
PIECE_SIZE = 1 << 16
"""A blob has one cutting: every piece but the last has this size, a quarter of the largest
message. It travels in the lowest class, so nothing waits long behind one."""


@frozen
class Ping:
    """`nonce` comes back in `Pong`. `mesh_ms` is the sender's mesh time. `fingerprint` (16 bytes,
    or empty when it does not ride on this one) is that of the sender's whole replica."""

    nonce: int
    mesh_ms: int
    fingerprint: bytes


@frozen
class Pong:
    nonce: int
    mesh_ms: int


@frozen
class Probe:
    """Have you heard from this neighbour of yours of late?"""

    nonce: int
    target: StackId


@frozen
class ProbeAnswer:
    """`heard_ms` since the last frame from the target; -1 when there is no such link."""

    nonce: int
    target: StackId
    heard_ms: int


@frozen
class Bye:
    """The sender closes the link on purpose; `code` is stable, `detail` for people."""

    code: str
    detail: str


@frozen
class Vouch:
    """A membership voucher that the sender issues for the receiver (packed and signed)."""

    voucher: bytes


@frozen
class Delta:
    """The news of one owner. With `base` it holds the changes since that record set; without, it
    is the full snapshot of the common scopes. `keydoc` rides when the receiver may lack it.
    `puts` are (scope, key, value), `deletes` (scope, key), both sorted."""

    head: SignedHead
    base: ContentVersion | None
    puts: tuple[tuple[int, str, bytes], ...]
    deletes: tuple[tuple[int, str], ...]
    keydoc: SignedKeyDoc | None


@frozen
class Want:
    """Send me these owners; `have` is what I hold of each (None: nothing)."""

    owners: tuple[tuple[StackId, ContentVersion | None], ...]


@frozen
class WantOutlines:
    """Send me the outlines of these owners, of whom I hold nothing, before anything else."""

    owners: tuple[StackId, ...]


@frozen
class Outlines:
    """Snapshots that hold the topology scope only: who owners are and which links they have. `more`
    of what was asked for follow. Owners that are no larger than this are left out."""

    outlines: tuple[Delta, ...]
    more: bool


@frozen
class RelayOutlines:
    """Outlines that nobody asked for: all that the receiver is told of these owners, if `only`,
    because it is a relay to the sender; else because the sender is one and has no more."""

    outlines: tuple[Delta, ...]
    only: bool


@frozen
class VectorEntry:
    """`status` tells a left owner apart; `head_hash` (8 bytes) an equivocator's variants; `proof`
    (8 bytes, or empty) which proof of that is held."""

    owner: StackId
    version: Version
    content_ver: int
    status: int
    head_hash: bytes
    proof: bytes = b""


@frozen
class Vector:
    """What the sender holds, for the buckets named (empty: for all). `reply` asks for the
    receiver's own vector of the same buckets. `more` says that another chunk follows."""

    buckets: tuple[int, ...]
    entries: tuple[VectorEntry, ...]
    reply: bool
    more: bool


@frozen
class Buckets:
    """The 256 bucket fingerprints (16 bytes each, joined) of the sender's replica."""

    prints: bytes


@frozen
class Refuses:
    """All ids that the sender evicted (256 at most): neither end tells the other of them, and they
    do not count in the fingerprints of this link."""

    owners: tuple[StackId, ...]


@frozen
class News:
    """A head that somebody holds: the id under which Plumtree knows it. The first 8 bytes of its
    hash tell an equivocator's variants apart."""

    owner: StackId
    version: Version
    head_hash: bytes


@frozen
class Ihave:
    """The sender holds these heads, and sends them to whoever grafts the link."""

    news: tuple[News, ...]


@frozen
class Graft:
    """Send me your news from now on, and those of these owners at once; with the content version
    that is held of each, as in `Want`."""

    owners: tuple[tuple[StackId, ContentVersion | None], ...]


@frozen
class Prune:
    """Only announce your news from now on: they come sooner from somebody else."""


@frozen
class Proof:
    """An owner said two things at once (`core/equivocation`): two heads under one key document, or
    no heads and two key documents. The smaller hash comes first; the key documents come without
    their proofs of membership."""

    heads: tuple[SignedHead, ...]
    keydocs: tuple[SignedKeyDoc, ...]


@frozen
class Forward:
    """One envelope for the next hop. `seq` counts envelopes on this link and direction from 1.
    `envelope` is the packed form of `core/envelope.py`."""

    seq: int
    envelope: bytes


@frozen
class HopAck:
    """Every envelope up to `seq` was received (nothing more)."""

    seq: int


@frozen
class LinkCredit:
    """Envelopes that are not of the control class may begin on this link while less than `limit`
    bytes of such envelopes were sent on it since it came up."""

    limit: int


@frozen
class Settled:
    """These envelopes reached their destination stack; the previous hop may forget them."""

    seqs: tuple[int, ...]


@frozen
class Released:
    """This envelope was certainly not passed on; the previous hop may try its next candidate.
    `visited` are the short ids this hop found to lead nowhere."""

    seq: int
    code: str
    visited: tuple[bytes, ...]


@frozen
class Spread:
    """Several `Forward`s whose envelopes end in the same bytes: copy `i` has number `seqs[i]` and
    is `heads[i] + shared` (`core/joining`)."""

    seqs: tuple[int, ...]
    heads: tuple[bytes, ...]
    shared: bytes


@frozen
class Fetch:
    """Send me the piece at `offset` of the blob that is named by this hash. I do not look for one
    of over `size_max` bytes."""

    hash: bytes
    offset: int
    size_max: int


@frozen
class Piece:
    """A part of a blob of `total` bytes."""

    hash: bytes
    offset: int
    total: int
    data: bytes


@frozen
class Lacking:
    """I do not hold this blob, or it is none that was looked for."""

    hash: bytes


Message = (
    Ping
    | Pong
    | Probe
    | ProbeAnswer
    | Bye
    | Vouch
    | Delta
    | Want
    | WantOutlines
    | Outlines
    | RelayOutlines
    | Vector
    | Buckets
    | Refuses
    | Ihave
    | Graft
    | Prune
    | Proof
    | Forward
    | HopAck
    | LinkCredit
    | Settled
    | Released
    | Spread
    | Fetch
    | Piece
    | Lacking
)

SEND_CLASS: dict[type, int] = {
    Ping: 0,
    Pong: 0,
    Probe: 0,
    ProbeAnswer: 0,
    Bye: 0,
    Vouch: 0,
    HopAck: 0,
    LinkCredit: 0,
    Settled: 0,
    Released: 0,
    Want: 1,
    Delta: 1,
    WantOutlines: 1,
    Outlines: 1,
    RelayOutlines: 1,
    Buckets: 1,
    Refuses: 1,
    Ihave: 1,
    Graft: 1,
    Prune: 1,
    Vector: 1,
    Proof: 1,
    Forward: 2,
    Spread: 2,
    Fetch: 3,
    Piece: 3,
    Lacking: 3,
}
"""`Forward` and `Spread` take the class in their (first) envelope's header."""
