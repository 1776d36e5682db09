"""Parsers of what comes on a connection between stacks: frames, and the handshake before them."""

from __future__ import annotations

import copy
import struct
from collections.abc import Iterator
from functools import cache, partial

from scripts.fuzzing import material
from scripts.fuzzing.parser import Parser
from tektonmesh.core import messages as msg
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.net.addresses import split_address
from tektonmesh.wire import limits
from tektonmesh.wire.codec import KIND, pack, size_max, unpack
from tektonmesh.wire.frames import Assembler, cut, take_first
from tektonmesh.wire.handshake import Handshake, Kind, Refused, Role, State

_HEADER = struct.Struct(">IHBBII")
BYTEWISE_MAX = 200
"""Longer streams are fed by kibibytes instead of single bytes."""
HEADERS_MAX = 24
Messages = list[tuple[int, bytes]]

# --- frames --------------------------------------------------------------------------------------


def check_frames(stream: bytes) -> bool:
    """A stream gives the same messages however it is cut, and they are those that its headers
    spell; each was cut in the one way."""
    step = 1 if len(stream) <= BYTEWISE_MAX else 1021
    parts = [stream[at : at + step] for at in range(0, len(stream), step)]
    whole, refused = _fed([stream])
    piecemeal, also = _fed(parts)
    assert refused == also, "whether a stream is refused depends on how it arrives"
    if refused:
        return False
    assert whole == piecemeal, "what a stream says depends on how it arrives"
    messages, lanes = _spelt(stream)
    assert whole == messages, "the messages are not what the headers spell"
    for lane in lanes:
        frames = b"".join(frame for kind, body in lane.done for frame in cut(*kind, body))
        assert lane.frames.startswith(frames), "a message has another cutting"
    return bool(whole)


def _fed(parts: list[bytes]) -> tuple[Messages, bool]:
    assembler, messages = Assembler(size_max), []
    try:
        for part in parts:
            messages += assembler.feed(part)
    except RemoteError:
        return messages, True
    return messages, False


class _Lane:
    """One class of an accepted stream: all its frames, the body so far, the messages done."""

    def __init__(self) -> None:
        self.frames = self.body = b""
        self.done: list[tuple[tuple[int, int], bytes]] = []


def _spelt(stream: bytes) -> tuple[Messages, list[_Lane]]:
    """The messages of a stream that was accepted, read without any check."""
    lanes, messages, at = [_Lane() for _ in range(limits.CLASSES)], [], 0
    while len(stream) - at >= limits.HEADER_SIZE:
        length, _, kind, send_class, total, _ = _HEADER.unpack_from(stream, at)
        end = at + limits.HEADER_SIZE + length
        if end > len(stream):
            break
        lane = lanes[send_class]
        lane.frames += stream[at:end]
        lane.body += stream[at + limits.HEADER_SIZE : end]
        if len(lane.body) == total:
            messages.append((kind, lane.body))
            lane.done.append(((kind, send_class), lane.body))
            lane.body = b""
        at = end
    return messages, lanes


def check_headers(data: bytes) -> bool:
    """The input is headers only; payloads as long as these say are put between, so that a few
    bytes make messages of many frames."""
    return check_frames(_with_payloads(data))


def _with_payloads(data: bytes) -> bytes:
    parts = []
    for at in range(0, len(data), limits.HEADER_SIZE)[:HEADERS_MAX]:
        header = data[at : at + limits.HEADER_SIZE]
        length = int.from_bytes(header[:4], "big")
        parts += [header, bytes(length if length <= limits.PAYLOAD_SIZE_MAX else 0)]
    return b"".join(parts)


def check_first(data: bytes) -> bool:
    """The first frame of a stranger: what is read is cut again to the same bytes."""
    try:
        first = take_first(data)
    except RemoteError:
        return False
    if first is None:
        return False
    kind, body, rest = first
    assert cut(kind, 0, body) == [data[: len(data) - len(rest)]]
    assert len(body) <= limits.HELLO_SIZE_MAX
    assert take_first(data[: len(data) - len(rest) - 1]) is None, "a cut frame was taken"
    return True


def _frame_seeds() -> list[bytes]:
    small = cut(KIND[msg.Ping], 0, pack([1, 2, b""]))[0] + cut(KIND[msg.Want], 1, b"w" * 40)[0]
    return [small, small[:-1], b"".join(cut(255, 3, b"b"))]


def _header_seeds() -> list[bytes]:
    """The headers of long messages, alone and with those of other classes between."""
    delta = _headers(KIND[msg.Delta], 1, 100_000)
    forward = _headers(KIND[msg.Forward], 2, 40_000)
    ping = _headers(KIND[msg.Ping], 0, 5)
    mixed = [delta[0], forward[0], *ping, delta[1], forward[1], forward[2], *delta[2:]]
    return [b"".join(one) for one in (delta, forward, ping, mixed, forward[:1] * 2)]


def _headers(kind: int, send_class: int, size: int) -> list[bytes]:
    return [frame[: limits.HEADER_SIZE] for frame in cut(kind, send_class, bytes(size))]


def _heavy_frames() -> list[bytes]:
    """The largest message, every class with an open one, and a read full of the smallest."""
    largest = cut(KIND[msg.Delta], 1, bytes(limits.DELTA_SIZE_MAX))
    opened = [cut(16 + n, n, bytes(limits.MESSAGE_SIZE_MAX))[:-1] for n in range(limits.CLASSES)]
    smallest = cut(KIND[msg.HopAck], 0, b"\x91")[0]
    return [
        b"".join(largest),
        b"".join(frame for frames in zip(*opened, strict=True) for frame in frames),
        smallest * (limits.READ_BATCH_BYTES // len(smallest)),
        smallest[:16] * 4096,
    ]


# --- the handshake -------------------------------------------------------------------------------


def check_stream(role: Role, data: bytes) -> bool:
    """Any bytes in place of a HELLO or WELCOME, at once and bit by bit."""
    whole, piecemeal = _due(role), _due(role)
    due = whole.state
    _receive(whole, data)
    step = 1 if len(data) <= BYTEWISE_MAX else 97
    fed = 0
    while fed < len(data) and piecemeal.state is due:
        _receive(piecemeal, data[fed : fed + step])
        fed += step
    if fed < len(data):
        assert whole.state is State.REFUSED, "more than a first frame was taken"
    else:
        assert whole.state is piecemeal.state, "how a handshake ends depends on how it arrives"
    return whole.state in (State.ACCEPT_DUE, State.DONE)


def _receive(machine: Handshake, data: bytes) -> None:
    """Give it these bytes. What is refused is told in one frame that the peer can read."""
    refused = _refusal(machine, data)
    if refused is None:
        return
    assert machine.state is State.REFUSED
    if refused.by_peer:
        assert not refused.reply
        return
    taken = take_first(refused.reply)
    assert taken is not None and taken[0] == Kind.REFUSED and not taken[2]
    code, told, _ = unpack(taken[1], nodes_max=limits.HELLO_NODES_MAX)
    assert code == refused.code and len(told) <= limits.REFUSED_DETAIL_MAX


def _refusal(machine: Handshake, data: bytes) -> Refused | None:
    try:
        machine.receive(data)
    except Refused as refused:
        return refused
    return None


def check_claim(role: Role, data: bytes) -> bool:
    """Any claim that its sender signed: what is admitted has addresses that can be dialled or are
    refused as such."""
    body = material.signed_claim(role, data)
    if len(body) > limits.HELLO_SIZE_MAX:
        return False
    kind = Kind.HELLO if role is Role.CLIENT else Kind.WELCOME
    machine = _due(role)
    _receive(machine, cut(kind, 0, body)[0])
    if machine.state is State.REFUSED:
        return False
    _check_peer(machine)
    return True


def check_accept(data: bytes) -> bool:
    """Any body of the last frame."""
    machine = copy.copy(_waiting_for_accept())
    _receive(machine, _last(Kind.ACCEPT, data))
    if machine.state is not State.DONE:
        return False
    _check_peer(machine)
    return True


def _last(kind: Kind, data: bytes) -> bytes:
    """A frame of the handshake with this body, or with one byte if there is none."""
    return cut(kind, 0, data[: limits.HELLO_SIZE_MAX] or b"\0")[0]


def _check_peer(machine: Handshake) -> None:
    peer = machine.peer
    assert peer is not None and len(peer.addresses) <= limits.ADDRESSES_MAX
    assert 0 < len(peer.name) <= limits.NAME_SIZE_MAX and peer.name.isascii()
    for address in peer.addresses:
        try:
            host, port = split_address(address)
        except LocalError:
            continue
        assert host and 0 <= port <= 65535


def check_refused(data: bytes) -> bool:
    """Any body of a refusal: its words are shown to people, so they hold nothing unprintable."""
    refused = _refusal(_due(Role.SERVER), _last(Kind.REFUSED, data))
    assert refused is not None, "a refusal went unnoticed"
    assert len(refused.detail) <= limits.REFUSED_DETAIL_MAX
    assert refused.detail.isprintable() and refused.code.isascii()
    return refused.by_peer


@cache
def _started(role: Role) -> Handshake:
    return material.begun(role.other)[0]


def _due(role: Role) -> Handshake:
    """A machine at the other end of one of `role`, which waits for its first frame."""
    return copy.copy(_started(role))


@cache
def _waiting_for_accept() -> Handshake:
    machine = _due(Role.CLIENT)
    machine.receive(first_of(Role.CLIENT))
    return machine


def first_of(role: Role) -> bytes:
    """The HELLO of the client, or the server's WELCOME in answer to it."""
    hello = material.begun(Role.CLIENT)[1]
    return hello if role is Role.CLIENT else material.begun(Role.SERVER)[0].receive(hello)


def _stream_seeds(role: Role) -> list[bytes]:
    first = first_of(role)
    refused = cut(Kind.REFUSED, 0, pack(["mesh", "Another mesh.", 0]))[0]
    return [first, first + b"x", first[:-1], refused]


def _claim_seeds(role: Role) -> list[bytes]:
    taken = take_first(first_of(role))
    assert taken is not None
    [claim, _] = unpack(taken[1])
    versions, *rest = unpack(claim)
    later = [[versions[0], 9], *rest, "what a later version adds"]
    return [claim, pack(later)]


def accept_seeds() -> list[bytes]:
    """Bodies of ACCEPT."""
    return [pack([list(material.ADDRESSES)]), pack([[]]), pack([["a:1"] * 8, "later"])]


def refused_seeds() -> list[bytes]:
    """Bodies of REFUSED."""
    said = [("mesh", "Another mesh.", 0), ("stale_leaf", "Old.", 2**63), ("later", "\x1b[2J", -1)]
    return [pack(list(one)) for one in said]


def _heavy_first() -> list[bytes]:
    full = limits.HELLO_SIZE_MAX
    bodies = [b"\xdd\x00\x00\x00\x40" * (full // 5), b"\x91" * full, bytes(full)]
    return [cut(kind, 0, body)[0] for body in bodies for kind in Kind]


def _fed_whole(data: bytes) -> Messages:
    return Assembler(size_max).feed(data)


def _fed_headers(data: bytes) -> Messages:
    return _fed_whole(_with_payloads(data))


def _begun_with(role: Role, data: bytes) -> None:
    _due(role).receive(data)


def _begun_with_claim(role: Role, data: bytes) -> None:
    kind = Kind.HELLO if role is Role.CLIENT else Kind.WELCOME
    _due(role).receive(cut(kind, 0, material.signed_claim(role, data[:3500]))[0])


def _ended_with(data: bytes) -> None:
    copy.copy(_waiting_for_accept()).receive(_last(Kind.ACCEPT, data))


def _refused_with(data: bytes) -> None:
    _due(Role.SERVER).receive(_last(Kind.REFUSED, data))


def parsers() -> Iterator[Parser]:
    """Those of this module."""
    yield Parser("frames", check_frames, _fed_whole, _frame_seeds, _heavy_frames, share=3)
    yield Parser(
        "frame-headers", check_headers, _fed_headers, _header_seeds, share=0.5, size_max=384
    )
    yield Parser("first-frame", check_first, take_first, _frame_seeds, _heavy_first, share=2)
    for name, role in (("hello", Role.CLIENT), ("welcome", Role.SERVER)):
        yield Parser(
            name,
            partial(check_stream, role),
            partial(_begun_with, role),
            partial(_stream_seeds, role),
            _heavy_first,
            share=0.2,
        )
        yield Parser(
            f"{name}-claim",
            partial(check_claim, role),
            partial(_begun_with_claim, role),
            partial(_claim_seeds, role),
            share=0.3,
            packed=True,
        )
    yield Parser("accept", check_accept, _ended_with, accept_seeds, packed=True)
    yield Parser("refused", check_refused, _refused_with, refused_seeds, packed=True)
