"""Frames on a link: cutting messages into them, and putting messages together again.

Header, 16 bytes, big-endian: `payload length u32 | zero u16 | kind u8 | class u8 | message length
u32 | offset u32`. A frame with its header is at most 16 KiB. Within a class the frames of one
message follow one another; those of other classes may come between, so a ping never waits for a
megabyte. A message has one cutting: every frame but the last is full. What a kind means and who
goes first is left to others.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

from tektonmesh.errors import RemoteError
from tektonmesh.wire import limits
from tektonmesh.wire.limits import CLASSES, HEADER_SIZE, PAYLOAD_SIZE_MAX

_HEADER = struct.Struct(">IHBBII")
_pack_header = _HEADER.pack
_unpack_header = _HEADER.unpack_from


def cut(kind: int, send_class: int, body: bytes) -> list[bytes]:
    """The frames of one message, in order. `body` is not empty."""
    total = len(body)
    assert body and 0 <= send_class < CLASSES
    if total <= PAYLOAD_SIZE_MAX:
        return [_pack_header(total, 0, kind, send_class, total, 0) + body]
    frames = []
    for offset in range(0, total, PAYLOAD_SIZE_MAX):
        payload = body[offset : offset + PAYLOAD_SIZE_MAX]
        header = _pack_header(len(payload), 0, kind, send_class, total, offset)
        frames.append(header + payload)
    return frames


class Assembler:
    """Turns the bytes of a link into `(kind, body)`; holds at most one open message per class."""

    def __init__(self, size_max: Callable[[int], int]) -> None:
        """`size_max(kind)` is the longest body of a kind, in bytes."""
        self._size_max = size_max
        self._rest = b""
        self._open: dict[int, _Open] = {}

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """All messages that `data` completes, in order. Raises RemoteError; then the assembler is
        of no further use."""
        if self._rest:
            data = self._rest + data
        messages: list[tuple[int, bytes]] = []
        at, end = 0, len(data)
        while end - at >= HEADER_SIZE:
            length, zero, kind, send_class, total, offset = _unpack_header(data, at)
            if not 0 < length <= PAYLOAD_SIZE_MAX or zero or send_class >= CLASSES:
                raise _refused(length, zero, send_class)
            start = at + HEADER_SIZE
            at_next = start + length
            if at_next > end:
                break
            at = at_next
            if total == length and not offset and send_class not in self._open:
                messages.append((kind, data[start:at]))
                continue
            whole = self._join(kind, send_class, total, offset, data[start:at])
            if whole is not None:
                messages.append((kind, whole))
        self._rest = data[at:]
        return messages

    def _join(
        self, kind: int, send_class: int, total: int, offset: int, payload: bytes
    ) -> bytes | None:
        """Add one frame of a longer message; the body once it is whole."""
        held = self._open.get(send_class)
        if held is None:
            if total > self._size_max(kind):
                raise RemoteError(f"A message of {total} bytes is over the limit of its kind.")
            held = self._open[send_class] = _Open(kind, total)
        if (held.kind, held.total, len(held.body)) != (kind, total, offset):
            raise RemoteError("A frame does not continue the open message of its class.")
        if len(payload) != min(PAYLOAD_SIZE_MAX, total - offset):
            raise RemoteError("A frame is not full, or it goes beyond its message.")
        held.body += payload
        if len(held.body) < total:
            return None
        del self._open[send_class]
        return bytes(held.body)


class _Open:
    """A message of which more frames are to come."""

    __slots__ = ("body", "kind", "total")

    def __init__(self, kind: int, total: int) -> None:
        self.kind = kind
        self.total = total
        self.body = bytearray()


def take_first(data: bytes) -> tuple[int, bytes, bytes] | None:
    """`(kind, body, rest)` of the one small frame a stranger may send, or None while it is cut.
    Raises RemoteError as soon as the header says that it is not one."""
    if len(data) < HEADER_SIZE:
        return None
    length, zero, kind, send_class, total, offset = _unpack_header(data)
    if not 0 < length <= limits.HELLO_SIZE_MAX or (zero, send_class, offset) != (0, 0, 0):
        raise _refused(length, zero, send_class)
    if total != length:
        raise RemoteError("A first message comes in one frame.")
    end = HEADER_SIZE + length
    return None if len(data) < end else (kind, data[HEADER_SIZE:end], data[end:])


def _refused(length: int, zero: int, send_class: int) -> RemoteError:
    return RemoteError(f"A frame header is malformed ({length}, {zero}, {send_class}).")


_SHARES = (limits.LINK_QUEUE_BYTES_MAX, 32_768, 16_384, 8_192)
"""Bytes of one batch that each class may take before the next has its turn. Control goes first
and whole; no class starves, for a delta must arrive while messages pour."""


class SendQueue:
    """Frames that wait for one link, by class. `size` counts their bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._lanes: tuple[deque[bytes], ...] = tuple(deque() for _ in range(CLASSES))

    def push(self, kind: int, send_class: int, body: bytes) -> None:
        """Queue one message behind the others of its class."""
        frames = cut(kind, send_class, body)
        self._lanes[send_class].extend(frames)
        self.size += len(body) + HEADER_SIZE * len(frames)

    def take(self) -> bytes:
        """The next batch to write, about 64 KiB at most; empty when nothing waits."""
        picked: list[bytes] = []
        left = limits.WRITE_BATCH_BYTES
        while left > 0 and any(self._lanes):
            for lane, share in zip(self._lanes, _SHARES, strict=True):
                left -= _move(lane, min(share, left), picked)
        batch = picked[0] if len(picked) == 1 else b"".join(picked)
        self.size -= len(batch)
        return batch

    def clear(self) -> None:
        """Forget everything that waits."""
        for lane in self._lanes:
            lane.clear()
        self.size = 0


def _move(lane: deque[bytes], share: int, picked: list[bytes]) -> int:
    """Move frames until `share` is used up; the last may go beyond it. Returns the bytes moved."""
    moved = 0
    while lane and moved < share:
        frame = lane.popleft()
        moved += len(frame)
        picked.append(frame)
    return moved
