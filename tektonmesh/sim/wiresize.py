"""Messages through the real codec, and what a batch of them weighs on the wire.

The weight is the packed frames plus what TLS 1.3, TCP and IPv4 add; nobody measures a real wire
here, so figures from worlds are estimates of the real daemon's.
"""

from __future__ import annotations

from tektonmesh.core.messages import SEND_CLASS, Message
from tektonmesh.wire import frames, limits
from tektonmesh.wire.codec import KIND, decode_message, encode_message, size_max

TLS_BYTES = 22
"""A record's header, content type and tag (RFC 8446, 5.2)."""
SEGMENT_BYTES = 52
"""IPv4 and TCP headers with timestamps."""
ACK_BYTES = 26
"""Half of a bare acknowledgement: about every second one rides on an answer."""

IP_BYTES, UDP_BYTES = 20, 8
"""Headers of an IPv4 packet, and of UDP within the first."""
FRAGMENT_MAX = 1480
"""What a packet of 1,500 bytes carries besides its IPv4 header."""


def through_wire(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Pack, cut into frames, put together and unpack, as two daemons would."""
    assembler = frames.Assembler(size_max)
    out: list[Message] = []
    for message in messages:
        kind = KIND[type(message)]
        cut = frames.cut(kind, SEND_CLASS[type(message)], encode_message(message))
        for number, body in assembler.feed(b"".join(cut)):
            read = decode_message(number, body)
            assert read == message, "the codec gives back what it was given"
            out.append(read)
    return tuple(out)


def wire_bytes(messages: tuple[Message, ...]) -> int:
    """Bytes on the wire for one batch that leaves in one write."""
    return stream_bytes(
        sum(len(encode_message(message)) + limits.HEADER_SIZE for message in messages)
    )


def stream_bytes(size: int, *, tls: bool = True) -> int:
    """What `size` bytes that leave in one write weigh on a TCP stream."""
    records = -(-size // limits.FRAME_SIZE_MAX)
    return size + records * ((TLS_BYTES if tls else 0) + SEGMENT_BYTES) + ACK_BYTES


def datagram_bytes(size: int) -> int:
    """What `size` bytes weigh as one UDP datagram."""
    return size + UDP_BYTES + fragments(size) * IP_BYTES


def fragments(size: int) -> int:
    """In how many packets a datagram with `size` bytes travels; if one is lost, all are."""
    return -(-(size + UDP_BYTES) // FRAGMENT_MAX)
