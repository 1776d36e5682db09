"""Cutting messages into frames, joining them, and who goes first."""

from __future__ import annotations

import struct

import pytest

from tektonmesh.errors import RemoteError
from tektonmesh.wire.frames import Assembler, SendQueue, cut, take_first
from tektonmesh.wire.limits import (
    FRAME_SIZE_MAX,
    HEADER_SIZE,
    HELLO_SIZE_MAX,
    PAYLOAD_SIZE_MAX,
    WRITE_BATCH_BYTES,
)

LIMIT = 262_144
HEADER = struct.Struct(">IHBBII")


def assembler() -> Assembler:
    return Assembler(lambda kind: LIMIT)


def header(
    length: int, *, zero: int = 0, kind: int = 7, send_class: int = 1, total: int, offset: int = 0
) -> bytes:
    return HEADER.pack(length, zero, kind, send_class, total, offset)


def test_a_small_message_is_one_frame_of_16_bytes_and_its_body() -> None:
    (frame,) = cut(48, 2, b"body")
    assert frame == bytes.fromhex("00000004 0000 30 02 00000004 00000000") + b"body"


@pytest.mark.parametrize("size", [1, PAYLOAD_SIZE_MAX, PAYLOAD_SIZE_MAX + 1, LIMIT])
def test_a_message_of_any_size_survives_its_frames(size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    frames = cut(7, 3, body)
    assert max(map(len, frames)) <= FRAME_SIZE_MAX
    assert assembler().feed(b"".join(frames)) == [(7, body)]


@pytest.mark.hostile("broken-frames")
def test_bytes_may_come_one_at_a_time() -> None:
    joined = assembler()
    stream = b"".join([*cut(1, 0, b"a"), *cut(2, 1, b"bb"), *cut(3, 2, b"ccc")])
    got = [message for i in range(len(stream)) for message in joined.feed(stream[i : i + 1])]
    assert got == [(1, b"a"), (2, b"bb"), (3, b"ccc")]


def test_transfers_of_different_classes_may_interleave() -> None:
    long, other = b"l" * 40_000, b"o" * 20_000
    first, second, third = cut(7, 3, long)
    left, right = cut(8, 2, other)
    joined = assembler()
    assert joined.feed(first + left + b"".join(cut(9, 0, b"ping")) + second) == [(9, b"ping")]
    assert joined.feed(right + third) == [(8, other), (7, long)]


REFUSED_HEADERS = {
    "length 0": header(0, total=0),
    "length 0xFFFFFFFF": header(0xFFFFFFFF, total=0xFFFFFFFF),
    "a frame over 16 KiB": header(PAYLOAD_SIZE_MAX + 1, total=PAYLOAD_SIZE_MAX + 1),
    "a bit that means nothing": header(1, zero=1, total=1),
    "class 4": header(1, send_class=4, total=1),
}


@pytest.mark.parametrize("start", REFUSED_HEADERS.values(), ids=REFUSED_HEADERS.keys())
@pytest.mark.hostile("broken-frames")
def test_a_malformed_header_is_refused_before_its_payload_comes(start: bytes) -> None:
    with pytest.raises(RemoteError, match="header"):
        assembler().feed(start)


FULL = bytes(PAYLOAD_SIZE_MAX)
REFUSED_FRAMES = {
    "a message over its limit": header(len(FULL), total=LIMIT + 1) + FULL,
    "a first frame that begins in the middle": header(1, total=2, offset=1) + b"x",
    "a last frame that goes beyond": header(2, total=1) + b"xx",
    "a first frame that is not full": header(1, total=PAYLOAD_SIZE_MAX + 1) + b"x",
    "an offset behind a whole message": header(1, total=1, offset=1) + b"x",
}


@pytest.mark.parametrize("frames", REFUSED_FRAMES.values(), ids=REFUSED_FRAMES.keys())
def test_a_message_has_one_way_of_being_cut(frames: bytes) -> None:
    with pytest.raises(RemoteError):
        assembler().feed(frames)


@pytest.mark.parametrize(
    "second",
    [
        header(1, total=1) + b"x",
        header(10, kind=8, total=len(FULL) + 10, offset=len(FULL)) + bytes(10),
        header(10, total=len(FULL) + 11, offset=len(FULL)) + bytes(10),
        header(10, total=len(FULL) + 10, offset=len(FULL) + 1) + bytes(10),
        header(9, total=len(FULL) + 10, offset=len(FULL)) + bytes(9),
        header(len(FULL), total=len(FULL) + 10, offset=0) + FULL,
    ],
    ids=["new message", "other kind", "other total", "gap", "not full", "again"],
)
def test_a_frame_continues_the_open_message_of_its_class_or_is_refused(second: bytes) -> None:
    joined = assembler()
    assert joined.feed(header(len(FULL), total=len(FULL) + 10) + FULL) == []
    with pytest.raises(RemoteError):
        joined.feed(second)


# --- the first frame -----------------------------------------------------------------------------


def test_a_first_frame_is_taken_with_what_follows_it() -> None:
    (frame,) = cut(1, 0, b"hello")
    assert take_first(frame + b"rest") == (1, b"hello", b"rest")
    assert all(take_first(frame[:size]) is None for size in range(len(frame)))


@pytest.mark.parametrize(
    "start",
    [
        header(HELLO_SIZE_MAX + 1, send_class=0, total=HELLO_SIZE_MAX + 1),
        header(0, send_class=0, total=0),
        header(0xFFFFFFFF, send_class=0, total=0xFFFFFFFF),
        header(5, send_class=1, total=5),
        header(5, send_class=0, total=6),
        header(5, send_class=0, total=5, offset=1),
        header(5, send_class=0, total=5, zero=1),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["large", "empty", "huge", "class", "more to come", "offset", "zero", "http"],
)
@pytest.mark.hostile("broken-frames")
def test_a_stranger_may_send_one_small_frame_and_nothing_else(start: bytes) -> None:
    with pytest.raises(RemoteError):
        take_first(start)


# --- the queue -----------------------------------------------------------------------------------


def test_a_queue_gives_back_what_was_pushed_in_the_order_of_a_class() -> None:
    queue = SendQueue()
    queue.push(7, 2, b"one")
    queue.push(7, 2, b"two")
    assert queue.size == 2 * (HEADER_SIZE + 3)
    assert assembler().feed(queue.take()) == [(7, b"one"), (7, b"two")]
    assert queue.size == 0
    assert queue.take() == b""


def test_control_overtakes_all_that_waits() -> None:
    queue = SendQueue()
    queue.push(7, 3, bytes(200_000))
    queue.push(8, 1, b"interactive")
    queue.push(9, 0, b"ping")
    assert assembler().feed(queue.take())[:2] == [(9, b"ping"), (8, b"interactive")]


def test_no_class_starves_while_others_pour() -> None:
    queue = SendQueue()
    for send_class in (1, 2, 3):
        for _ in range(20):
            queue.push(send_class, send_class, bytes(PAYLOAD_SIZE_MAX))
    kinds = [kind for kind, _ in assembler().feed(queue.take())]
    assert {1, 2, 3} == set(kinds)
    assert kinds.count(1) >= kinds.count(2) >= kinds.count(3)


def test_a_batch_is_bounded_and_the_batches_together_are_everything() -> None:
    queue, joined = SendQueue(), assembler()
    bodies = [bytes([i]) * 50_000 for i in range(8)]
    for body in bodies:
        queue.push(7, 2, body)
    got = []
    while batch := queue.take():
        assert len(batch) <= WRITE_BATCH_BYTES + FRAME_SIZE_MAX
        got += joined.feed(batch)
    assert got == [(7, body) for body in bodies]


def test_a_cleared_queue_is_empty() -> None:
    queue = SendQueue()
    queue.push(7, 2, b"one")
    queue.clear()
    assert (queue.size, queue.take()) == (0, b"")
