"""The words every machine of the core shares: ids, versions, settings, and what is handed in.

Nothing here decides anything. `Crypto`, `Codec` and `Chance` are the three outside powers a node
needs in mid-decision; `wire` implements the first two, a world may memoise them.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, Protocol

from tektonmesh.core.frozen import frozen

StackId = bytes
"""32 bytes: SHA-256 of a prefix and the root key. The authority; names are labels."""

LinkId = int
"""Names one authenticated connection for the life of the process; never used again."""

ID_SIZE = 32
SHORT_ID_SIZE = 8


def short_id(stack_id: StackId) -> bytes:
    """The first 8 bytes, for traces and record keys; never for a decision of trust."""
    return stack_id[:SHORT_ID_SIZE]


class Version(NamedTuple):
    """The order of one owner's heads. Nothing else in the mesh is ordered."""

    key_epoch: int
    epoch: int
    ver: int


class ContentVersion(NamedTuple):
    """Names one record set of one owner: a refresh keeps it, a change raises `content_ver`."""

    key_epoch: int
    epoch: int
    content_ver: int


class Status(IntEnum):
    """What an owner says of itself in its head."""

    UP = 0
    DRAINING = 1
    LEFT = 2


class StackState(StrEnum):
    """What a node derives about a stack from its replica and the link graph."""

    SELF = "self"
    UP = "up"
    UNREACHABLE = "unreachable"
    DEREGISTERED = "deregistered"
    LEFT = "left"


class Scope(IntEnum):
    """Which root a record counts towards. 16 and up are kept for restricted scopes."""

    TOPOLOGY = 0
    MEMBERS = 1


SCOPE_OF_KIND = {
    "stack": Scope.TOPOLOGY,
    "link": Scope.TOPOLOGY,
    "addr": Scope.TOPOLOGY,
    "ci": Scope.MEMBERS,
    "catalog": Scope.MEMBERS,
}


@frozen
class SignedKeyDoc:
    """A stack's key document as it travels: packed bytes, the root key's signature over them,
    and the packed membership proof (which the signature does not cover)."""

    doc: bytes
    sig: bytes
    proof: bytes


@frozen
class SignedHead:
    """A head as it travels: the packed bytes and the signature of the operational key. It is never
    encoded again."""

    head: bytes
    sig: bytes


@frozen
class Identity:
    """Who this node is for one run. `instance` is random per start."""

    stack_id: StackId
    name: str
    mesh: str
    mesh_id: bytes
    instance: bytes
    keydoc: SignedKeyDoc


@frozen
class SealKey:
    """What is needed to seal to a stack: its static box key (from its key document) and its
    current prekey with the 8-byte id it published for it."""

    static: bytes
    key_id: bytes
    prekey: bytes


class Crypto(Protocol):
    """The node's own keys and the two primitives it must call in mid-decision."""

    def sign(self, context: bytes, data: bytes) -> bytes:
        """Ed25519 by the operational key over `context + data`; 64 bytes."""
        ...

    def vouch(self, context: bytes, data: bytes) -> bytes:
        """As `sign`, for what travels beside the news of new keys and may come before them: for a
        moment after a change still by the key before, as `seal`."""
        ...

    def verify(self, public: bytes, context: bytes, data: bytes, sig: bytes) -> bool: ...

    def prekey(self) -> tuple[bytes, bytes]:
        """`(key_id, public)` of the prekey that is to be published now."""
        ...

    def seal(self, to: SealKey, aad: bytes, plaintext: bytes) -> bytes: ...

    def lock(self, key: bytes, plaintext: bytes) -> bytes:
        """Encrypt with a key of 32 bytes that encrypts nothing else."""
        ...

    def unlock(self, key: bytes, locked: bytes) -> bytes:
        """What was locked. Raises RemoteError if it was not, with that key."""
        ...

    def open(self, sender_static: bytes, key_id: bytes, aad: bytes, sealed: bytes) -> bytes:
        """The plaintext. Raises RemoteError if it was not sealed so, by that sender, with that
        `aad`; LocalError with code `not_found` if `key_id` is not one of ours."""
        ...


class Codec(Protocol):
    """Canonical msgpack. `unpack` refuses whatever `pack` would not have written."""

    def pack(self, value: Any) -> bytes: ...

    def pack_flat(self, value: list[Any]) -> bytes:
        """As `pack`, for our own lists without maps in them, which need no ordering."""
        ...

    def unpack(self, data: bytes) -> Any:
        """Raises RemoteError on anything malformed, not canonical, or over the limits."""
        ...


class Chance(Protocol):
    """The part of `random.Random` that the core uses; the shell and the world each bring one."""

    def random(self) -> float: ...
    def randbytes(self, n: int, /) -> bytes: ...
    def randrange(self, stop: int, /) -> int: ...


Saved = dict[tuple[str, bytes], bytes]
"""What the disk held at start: (table, key) -> value. Tables are named in `core/effects.py`."""


@frozen
class NodeSettings:
    """Every number a node can be told. Units are the last word of each name.

    The defaults are the product's; the simulator draws others. Where a value is a guess, the
    comment says so.
    """

    listen: tuple[str, ...] = ()
    seed_peers: tuple[str, ...] = ()
    seeds_only: bool = False
    mesh_keys: tuple[bytes, ...] = ()
    """HMAC keys derived from the lines of the mesh secret, newest first; empty without a secret."""
    allowed_ids: tuple[StackId, ...] = ()
    share_default: str = "public"
    relay: str = "members"

    # Registry (docs/design/registry.md).
    coalesce_s: float = 0.05
    flood_stacks_max: int = 4
    """Up to here every link gets all news; above, news follow a tree."""
    skeleton_stacks_max: int = 256
    """Up to here refreshes follow a tree of their own (`core/skeleton`). Beyond it something
    changes all the time and keeps the tree of news in shape, and looking at all edges costs more.
    """
    ihave_delay_s: float = 0.02
    """How long announcements wait for others to go along."""
    graft_wait_s: float = 0.06
    """How long news that were announced may take; at least half a round trip."""
    publish_burst: int = 8
    publish_refill_s: float = 0.2
    publish_slow_s: float = 5.0
    refresh_min_s: float = 100.0
    refresh_max_s: float = 300.0
    lease_s: float = 0.0
    """How long a head holds; 0 is three refreshes."""
    fingerprint_interval_s: float = 10.0
    repair_delay_s: float = 2.0
    left_keep_s: float = 1000.0
    forget_s: float = 30 * 86400.0
    chronicle_max: int = 4096
    """Entries of the chronicle, some 400 bytes each; 0 keeps no evidence for people at all."""

    # Liveness and dialling.
    ping_interval_s: float = 3.5
    ping_busy_interval_s: float = 1.0
    suspect_min_s: float = 0.75
    down_after_s: float = 1.0
    restart_grace_s: float = 1.0
    links_full_mesh_max: int = 4
    links_min: int = 3
    links_max: int = 10
    links_accept_max: int = 128
    dial_timeout_s: float = 3.0

    # CIs.
    ci_detach_grace_s: float = 5.0
    ci_heartbeat_s: float = 30.0
    ci_lease_s: float = 90.0
    ci_max: int = 4000

    # Forwarding.
    hop_limit: int = 16
    tries_limit: int = 32
    hop_ack_min_s: float = 0.2
    hop_ack_max_s: float = 2.0
    hop_keep_s: float = 10.0
    answer_delay_s: float = 0.005
    """How long the `Settled` of a message, for which a caller may be waiting, may itself wait for
    something to ride with."""
    ack_delay_s: float = 0.05
    """The same for what nobody waits for: each `HopAck`, and the `Settled` of replies and other
    answers. Well under `hop_ack_min_s`, or every hop would look silent."""
    receipt_wait_s: float = 0.3
    request_timeout_s: float = 60.0
    request_timeout_max_s: float = 900.0
    body_size_max: int = 262_144 - 4096
    padding: bool = False
    """Whether sealed bodies are filled up to a few sizes."""
    window_messages: int = 512
    window_bytes: int = 4 << 20
    relay_queue_bytes: int = 32 << 20
    relay_per_s: float = 0.0
    """Messages per second that one origin of one's own may send through here; 0 is no limit."""
    relay_bytes_per_s: float = 0.0
    foreign_relay_per_s: float = 200.0
    """The same for stacks of others. A guess, like `foreign_rate_per_s`: four destinations."""
    foreign_relay_bytes_per_s: float = 8e6
    dedup_keep_s: float = 3600.0
    dedup_max: int = 100_000
    inbox_per_ci_max: int = 1000
    source_rate_per_s: float = 0.0
    """Messages per second and source stack of one's own; 0 is no limit."""
    foreign_rate_per_s: float = 50.0
    """The same for stacks of others, which share our CIs with whom they do not know. A guess: a
    person and some agents behind each; a burst of four seconds' worth is let through."""

    # Durable messages (docs/design/forwarding.md).
    durable_ttl_s: float = 86_400.0
    durable_ttl_max_s: float = 7 * 86_400.0
    """Prekeys are kept for a day more."""
    outbox_bytes: int = 256 << 20
    outbox_messages: int = 50_000
    outbox_per_stack: int = 10_000
    park_bytes: int = 0
    """What this stack keeps on its disk for others that are away; 0 is nothing."""
    inbox_bytes: int = 256 << 20
    inbox_messages: int = 50_000
    inbox_per_ci: int = 10_000
    marks_max: int = 200_000
    """Messages of which a destination knows that it had them; some 400 bytes each."""
    marks_per_stack: int = 20_000
    """The same of one origin, so that none fills the memory for all."""
    delivery_lease_s: float = 900.0
    """How long a CI may have a durable message before it gets it again."""
    deliveries_max: int = 5
    """A CI that lost a message so often does not get it again."""
    ci_memory_s: float = 86_400.0
    """Messages wait for a CI that was here within this."""

    # Large bodies (docs/design/bodies.md).
    large_body_max: int = 1 << 30
    large_bodies_bytes: int = 4 << 30
    """All that is kept on the disk, of messages from here and for CIs here alike."""

    # Blobs (docs/design/blobs.md).
    blob_bytes: int = 64 << 20
    """All that is kept, on the disk and in memory alike."""
    blob_owner_bytes: int = 4 << 20
    """What is kept on the word of one other owner. A guess: a thousand catalogues of 4 KiB."""
    blob_prefetch_bytes_per_s: int = 256 << 10
    """What nobody waits for is fetched no faster; 0 fetches only what somebody waits for."""
    blob_fetches: int = 4
    """Under way at once, each for one blob from one neighbour."""
    blob_serve_bytes_per_s: int = 1 << 20
    """What one neighbour is sent."""

    extra: dict[str, Any] = field(default_factory=dict)
