"""Frames over cuts, orders and bytes that nobody thought of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tektonmesh.errors import RemoteError
from tektonmesh.wire.frames import Assembler, SendQueue, cut

SIZES = st.integers(1, 100) | st.integers(16_300, 16_400) | st.integers(40_000, 70_000)
MESSAGES = st.lists(st.tuples(st.integers(0, 255), st.integers(0, 3), SIZES), max_size=12)


def assembler() -> Assembler:
    return Assembler(lambda kind: 262_144)


def bodies(messages: list[tuple[int, int, int]]) -> list[tuple[int, int, bytes]]:
    return [
        (kind, send_class, bytes([number % 256]) * size)
        for number, (kind, send_class, size) in enumerate(messages)
    ]


@given(MESSAGES, st.data())
def test_messages_survive_any_cutting_of_the_stream_in_the_order_of_their_class(
    messages: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    queue, sent = SendQueue(), bodies(messages)
    for kind, send_class, body in sent:
        queue.push(kind, send_class, body)
    stream = b""
    while batch := queue.take():
        stream += batch
    joined, got, at = assembler(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, 40_000))
        got += joined.feed(stream[at : at + step])
        at += step
    for send_class in range(4):
        mine = [(kind, body) for kind, its_class, body in sent if its_class == send_class]
        numbers = {body[:1] for _, body in mine}
        assert [(kind, body) for kind, body in got if body[:1] in numbers] == mine
    assert len(got) == len(sent)


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused_and_never_another_error(data: bytes) -> None:
    try:
        assembler().feed(data)
    except RemoteError:
        return


@given(st.data())
def test_a_changed_header_never_makes_another_body(data: st.DataObject) -> None:
    frames = bytearray(b"".join(cut(7, 2, b"x" * 20_000)))
    at = data.draw(st.integers(0, 15))
    frames[at] ^= data.draw(st.integers(1, 255))
    try:
        got = assembler().feed(bytes(frames))
    except RemoteError:
        return
    assert all(body == b"x" * len(body) for _, body in got)
