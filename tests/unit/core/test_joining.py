"""Copies that share their body, joined for a link and taken apart behind it."""

import pytest

from tektonmesh.core.envelope import CLASS_AT, SIZE_MAX, Envelope, Header, Kind, join_parts
from tektonmesh.core.joining import COPIES_MAX, join
from tektonmesh.core.messages import Forward, HopAck, Message, Spread
from tektonmesh.errors import RemoteError
from tests.network import Network

ONE, TWO = b"1" * 32, b"2" * 32


def copy(seq: int, own: bytes, shared: bytes, *, kind: Kind = Kind.SHARED) -> Forward:
    header = Header(kind, bytes([seq % 256]) * 16, ONE, TWO, 0, 1000, 0)
    body = join_parts(own, shared) if kind == Kind.SHARED else own + shared
    return Forward(seq, Envelope(header, header.pack(), body).pack(16, 32))


def apart(messages: list[Message]) -> list[Message]:
    """What the next hop makes of them."""
    out: list[Message] = []
    for message in messages:
        if isinstance(message, Spread):
            pairs = zip(message.seqs, message.heads, strict=True)
            out += [Forward(seq, head + message.shared) for seq, head in pairs]
        else:
            out.append(message)
    return out


def test_neighbours_that_share_their_body_become_one_and_come_apart_as_they_were() -> None:
    copies: list[Message] = [copy(n, b"own" * n, b"x" * 5000) for n in range(1, 6)]
    joined = join(copies)
    assert [type(message) for message in joined] == [Spread]
    assert apart(joined) == copies
    assert isinstance(joined[0], Spread) and len(joined[0].shared) == 5000


def test_the_order_of_everything_is_kept() -> None:
    messages: list[Message] = [
        HopAck(3),
        copy(1, b"a", b"x" * 100),
        copy(2, b"b", b"x" * 100),
        copy(3, b"plain", b"x" * 100, kind=Kind.REQUEST),
        copy(4, b"c", b"x" * 100),
        copy(5, b"d", b"y" * 100),
        copy(6, b"e", b"y" * 100),
    ]
    joined = join(messages)
    kinds = [type(message) for message in joined]
    assert kinds == [HopAck, Spread, Forward, Forward, Spread]
    assert apart(joined) == messages


def test_one_copy_alone_stays_an_envelope() -> None:
    assert join([copy(1, b"a", b"x")]) == [copy(1, b"a", b"x")]


def test_copies_of_different_classes_stay_apart() -> None:
    bulk = copy(2, b"b", b"x" * 100)
    data = bytearray(bulk.envelope)
    data[CLASS_AT] = 3
    joined = join([copy(1, b"a", b"x" * 100), Forward(2, bytes(data))])
    assert [type(message) for message in joined] == [Forward, Forward]


def test_what_is_joined_fits_into_a_message_and_has_64_copies_at_most() -> None:
    many: list[Message] = [copy(n, b"k" * 200, b"x" * 100) for n in range(1, 100)]
    joined = join(many)
    assert [len(m.seqs) for m in joined if isinstance(m, Spread)] == [COPIES_MAX, 99 - COPIES_MAX]
    large: list[Message] = [copy(n, b"k" * 30_000, b"x" * 60_000) for n in range(1, 19)]
    for message in join(large):
        assert isinstance(message, Spread)
        assert sum(map(len, message.heads)) + len(message.shared) <= SIZE_MAX
    assert apart(join(large)) == large


def test_parts_that_make_no_sense_are_not_shared() -> None:
    """A relay does not look into a body; it must not stumble over a forged one either."""
    header = Header(Kind.SHARED, bytes(16), ONE, TWO, 0, 1000, 0)
    forged = Forward(4, Envelope(header, header.pack(), b"\xff\xff short").pack(16, 32))
    assert join([forged, forged]) == [forged, forged]


@pytest.mark.parametrize(
    "spread",
    [
        Spread((), (), b"x"),
        Spread((1, 2), (b"x",), b"x"),
        Spread(tuple(range(65)), (b"x",) * 65, b"x"),
        Spread((5,), (b"x",), b"short"),
    ],
)
def test_a_spread_that_no_honest_neighbour_sends_breaks_the_protocol(spread: Spread) -> None:
    network = Network("a", "b")
    network.join("a", "b")
    node = network["a"].node
    link = next(iter(node.neighbours.links))
    with pytest.raises(RemoteError):
        node._messages[Spread](link, spread)
