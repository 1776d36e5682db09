"""The envelope: how a message looks on its way, and which part of it who may read or change.

Three parts. The clear header is fixed when the origin seals and is the seal's associated data, so
no relay can redirect or relabel. The mutable part (budgets, age, trace, avoid) is rewritten at
every hop. The body is sealed for the destination; names of CIs, content types and text are only in
there. This module decides the bytes and nothing else; `forwarding` decides where they go.

Layout, big endian (docs/design/forwarding.md):

    header   version 1 | kind 1 | class 1 | flags 1 | attempt 2 | msg_id 16 | source 32 |
             destination 32 | reply_to 16 | created_ms 8 | ttl_ms 4 | size 4 | key_id 8
    mutable  hops_left 1 | tries_left 1 | age_ms 4 | n_trace 1 | n_avoid 1 |
             n_trace * (short id 8, dwell_ms 2) | n_avoid * short id 8
    body     the rest
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from tektonmesh.core.types import SHORT_ID_SIZE, StackId
from tektonmesh.errors import RemoteError

VERSION = 1
NO_ID = bytes(16)
NO_KEY = bytes(8)

_HEADER = struct.Struct(">BBBBH16s32s32s16sQII8s")
_MUTABLE = struct.Struct(">BBIBB")
_ENTRY = struct.Struct(">8sH")
_REPORT = struct.Struct(">II")

HEADER_SIZE = _HEADER.size
MUTABLE_AT = HEADER_SIZE
TRACE_AT = HEADER_SIZE + _MUTABLE.size
ENTRY_SIZE = _ENTRY.size
REPORT_SIZE = _REPORT.size

pack_mutable = _MUTABLE.pack


def unpack_mutable(data: bytes) -> tuple[int, int, int, int, int]:
    """(hops_left, tries_left, age_ms, n_trace, n_avoid), unchecked; the caller knows the size."""
    return _MUTABLE.unpack_from(data, MUTABLE_AT)


CLASS_AT = 2
KIND_AT = 1
# (attempt, msg_id, source), what a relay remembers; (source, destination), what it routes by.
KEY = slice(4, 54)
FLOW = slice(22, 86)
SOURCE = slice(22, 54)
DESTINATION = slice(54, 86)
TTL = slice(110, 114)

ENTRIES_MAX = 64
"""Of trace and of avoid each. Twice the tries of a message; more is nonsense or an attack."""
SIZE_MAX = 262_144 - 8
"""A packed envelope: a link closes over a message above 256 KiB, and `Forward` adds its 8 bytes of
`seq` (tests/unit/core/test_envelope.py holds this against the wire's own limits)."""
GROWTH_MAX = ENTRY_SIZE + ENTRIES_MAX * SHORT_ID_SIZE + REPORT_SIZE
"""What one hop adds at most: its entry, what it tried, its report in a trace."""
RELAY_SIZE_MAX = SIZE_MAX - GROWTH_MAX
"""Beyond this a relay could make an envelope that costs it its link to the next hop."""
START_SIZE_MAX = RELAY_SIZE_MAX - ENTRIES_MAX * (ENTRY_SIZE + SHORT_ID_SIZE + REPORT_SIZE)
"""An origin starts nothing that could reach `RELAY_SIZE_MAX` on the longest way."""
DWELL_MAX_MS = 0xFFFF
AGE_MAX_MS = 0xFFFF_FFFF


class Kind(IntEnum):
    """What an envelope is. Numbers are final; a destination ignores one it does not know."""

    REQUEST = 1
    REPLY = 2
    CHUNK = 3
    RECEIPT = 4
    NACK = 5
    CANCEL = 6
    RESEND = 7
    TRACE = 8
    TRACE_REPLY = 9
    SHARED = 10
    """A request of which the body is shared with others (`core/joining`)."""
    CREDIT = 11
    PULL = 12
    PART = 13
    PARK = 14
    """A durable message inside another envelope (`core/parking`)."""
    SHARE = 16
    WITNESS = 17


class Flags(IntFlag):
    """Of the clear header. DURABLE and MAY_PARK stand in what is parked, the others are unused."""

    NONE = 0
    DURABLE = 1
    IDEMPOTENT = 2
    AUDIT = 4
    MAY_PARK = 8


class SendClass(IntEnum):
    """The class of the link's queue; a message of a lower class overtakes."""

    CONTROL = 0
    INTERACTIVE = 1
    NORMAL = 2
    BULK = 3


class Hop(NamedTuple):
    """One entry of a trace: who had the envelope and for how long."""

    short: bytes
    dwell_ms: int


CONTROL_KINDS = (Kind.RECEIPT, Kind.NACK, Kind.CANCEL, Kind.RESEND, Kind.CREDIT)
CONTROL_SIZE_MAX = 4096
"""Packed. What is control needs no credit and no quota, so it must not carry much."""
_CONTROL = {bytes((kind, SendClass.CONTROL)): None for kind in CONTROL_KINDS}


def is_control(data: bytes) -> bool:
    """Whether a packed envelope, or what is meant to be one, may travel without credit."""
    return len(data) <= CONTROL_SIZE_MAX and data[KIND_AT : CLASS_AT + 1] in _CONTROL


def is_labelled_control(data: bytes) -> bool:
    """Whether a link would treat it as control, by the low bits of its class."""
    return len(data) > CLASS_AT and data[CLASS_AT] & 3 == SendClass.CONTROL


class Header(NamedTuple):
    """The clear header. `size` is that of the body before it was sealed; `key_id` names the
    destination's prekey (zero for an unsealed trace); `ttl_ms` counts against the envelope's
    accumulated age, so no common clock is needed."""

    kind: int
    msg_id: bytes
    source: StackId
    destination: StackId
    created_ms: int
    ttl_ms: int
    size: int
    key_id: bytes = NO_KEY
    reply_to: bytes = NO_ID
    attempt: int = 0
    send_class: int = SendClass.NORMAL
    flags: int = Flags.NONE

    def pack(self) -> bytes:
        """The bytes that travel and that the seal covers as associated data."""
        assert len(self.msg_id) == len(self.reply_to) == 16, "struct would pad or cut it"
        assert len(self.source) == len(self.destination) == 32, "struct would pad or cut it"
        return _HEADER.pack(
            VERSION,
            self.kind,
            self.send_class,
            self.flags,
            self.attempt,
            self.msg_id,
            self.source,
            self.destination,
            self.reply_to,
            self.created_ms,
            self.ttl_ms,
            self.size,
            self.key_id,
        )


class Envelope(NamedTuple):
    """An envelope as its two ends see it. `head` are the header's bytes as they came or go."""

    header: Header
    head: bytes
    body: bytes
    trace: bytes = b""
    avoid: bytes = b""
    age_ms: int = 0

    def pack(self, hops_left: int, tries_left: int) -> bytes:
        """The packed form with a fresh budget, as the origin hands it to forwarding."""
        n_trace, n_avoid = len(self.trace) // ENTRY_SIZE, len(self.avoid) // SHORT_ID_SIZE
        assert n_trace <= ENTRIES_MAX and n_avoid <= ENTRIES_MAX
        mutable = _MUTABLE.pack(hops_left, tries_left, self.age_ms, n_trace, n_avoid)
        return b"".join((self.head, mutable, self.trace, self.avoid, self.body))


class Mutable(NamedTuple):
    """The mutable part as a relay reads it; `trace_end` and `body_at` are offsets."""

    hops_left: int
    tries_left: int
    age_ms: int
    n_trace: int
    n_avoid: int
    trace_end: int
    body_at: int


def read_mutable(data: bytes) -> Mutable:
    """Check the frame of a packed envelope and read its mutable part.

    Raises RemoteError for what only the previous hop can have broken: every hop checks this much,
    so an honest relay never passes on what would cost it its own link.
    """
    if len(data) < TRACE_AT:
        raise RemoteError("The envelope is cut short.")
    hops_left, tries_left, age_ms, n_trace, n_avoid = _MUTABLE.unpack_from(data, MUTABLE_AT)
    trace_end = TRACE_AT + ENTRY_SIZE * n_trace
    body_at = trace_end + SHORT_ID_SIZE * n_avoid
    if n_trace > ENTRIES_MAX or n_avoid > ENTRIES_MAX or body_at > len(data):
        raise RemoteError("The envelope's trace or avoid list does not fit.")
    return Mutable(hops_left, tries_left, age_ms, n_trace, n_avoid, trace_end, body_at)


def pass_on(
    data: bytes, mutable: Mutable, *, tries_left: int, age_ms: int, entry: bytes, avoid: bytes
) -> bytes:
    """The envelope for the next hop: one hop less, `entry` added to the trace, `avoid` to the
    avoid list (cut to what still fits). Header and body are copied, never read."""
    assert mutable.hops_left > 0 and len(entry) == ENTRY_SIZE
    room = ENTRIES_MAX - mutable.n_avoid
    if len(avoid) > room * SHORT_ID_SIZE:
        avoid = avoid[: room * SHORT_ID_SIZE]
    packed = _MUTABLE.pack(
        mutable.hops_left - 1,
        tries_left,
        age_ms if age_ms < AGE_MAX_MS else AGE_MAX_MS,
        mutable.n_trace + 1,
        mutable.n_avoid + len(avoid) // SHORT_ID_SIZE,
    )
    trace = data[TRACE_AT : mutable.trace_end]
    return b"".join((data[:MUTABLE_AT], packed, trace, entry, avoid, data[mutable.trace_end :]))


def grow_old(packed: bytes, ms: int) -> bytes:
    """The envelope for the next hop after it waited here `ms` longer than it says: both its age and
    the dwell time of this hop, the last entry of its trace."""
    hops_left, tries_left, age_ms, n_trace, n_avoid = unpack_mutable(packed)
    assert n_trace > 0, "this hop is in the trace"
    at = TRACE_AT + ENTRY_SIZE * (n_trace - 1)
    short, dwell_ms = _ENTRY.unpack_from(packed, at)
    age_ms = min(age_ms + ms, AGE_MAX_MS)
    mutable = _MUTABLE.pack(hops_left, tries_left, age_ms, n_trace, n_avoid)
    entry = trace_entry(short, dwell_ms + ms)
    trace = packed[TRACE_AT:at]
    return b"".join((packed[:MUTABLE_AT], mutable, trace, entry, packed[at + ENTRY_SIZE :]))


def parse(data: bytes) -> Envelope:
    """Read a whole envelope at its destination. Raises RemoteError as `read_mutable` does."""
    mutable = read_mutable(data)
    fields = _HEADER.unpack_from(data)
    _, kind, send_class, flags, attempt, msg_id, source, destination = fields[:8]
    reply_to, created_ms, ttl_ms, size, key_id = fields[8:]
    # By position: names would double what this costs at a busy destination.
    past = (key_id, reply_to, attempt, send_class, flags)
    header = Header(kind, msg_id, source, destination, created_ms, ttl_ms, size, *past)
    return Envelope(
        header,
        data[:HEADER_SIZE],
        data[mutable.body_at :],
        data[TRACE_AT : mutable.trace_end],
        data[mutable.trace_end : mutable.body_at],
        mutable.age_ms,
    )


def join_parts(own: bytes, shared: bytes) -> bytes:
    """The body of a SHARED envelope: the part that is sealed for one, and the part of all."""
    assert len(own) <= 0xFFFF
    return b"".join((len(own).to_bytes(2), own, shared))


def parts_of(body: bytes) -> tuple[bytes, bytes]:
    """Both parts of the body of a SHARED envelope. Raises RemoteError if it has none."""
    at = 2 + int.from_bytes(body[:2])
    if len(body) < at:
        raise RemoteError("The parts of a shared message do not fit.")
    return body[2:at], body[at:]


def shared_at(data: bytes, mutable: Mutable) -> int:
    """Where in a packed envelope the part begins that others may share; its end if there is none
    (only the origin and the destination know whether the parts make sense)."""
    at = mutable.body_at + 2 + int.from_bytes(data[mutable.body_at : mutable.body_at + 2])
    return min(at, len(data))


def trace_entry(short: bytes, dwell_ms: int) -> bytes:
    """One packed entry of a trace; a dwell beyond 65 s is shown as that."""
    assert len(short) == SHORT_ID_SIZE and dwell_ms >= 0
    return _ENTRY.pack(short, min(dwell_ms, DWELL_MAX_MS))


def read_trace(trace: bytes) -> list[Hop]:
    """The entries of a packed trace, origin first. A ragged end is ignored."""
    whole = len(trace) - len(trace) % ENTRY_SIZE
    return [Hop(*entry) for entry in _ENTRY.iter_unpack(trace[:whole])]


def shorts_of(packed: bytes) -> list[bytes]:
    """A packed avoid list as short ids."""
    return [packed[at : at + SHORT_ID_SIZE] for at in range(0, len(packed), SHORT_ID_SIZE)]


def report(queue_bytes: int, rtt_s: float) -> bytes:
    """What a hop adds to the body of a trace envelope: its queue, and the round trip of the link
    it sends it on."""
    return _REPORT.pack(min(queue_bytes, 0xFFFF_FFFF), min(int(rtt_s * 1e6), 0xFFFF_FFFF))


def read_reports(body: bytes) -> list[tuple[int, float]]:
    """`(queue_bytes, rtt_ms)` of each hop, origin first."""
    whole = len(body) - len(body) % _REPORT.size
    return [(queue, rtt_us / 1000.0) for queue, rtt_us in _REPORT.iter_unpack(body[:whole])]
