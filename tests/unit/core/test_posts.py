"""Answers that are posted until they are settled; between real nodes."""

import pytest

from tektonmesh.core import posts
from tektonmesh.core.envelope import Kind, parse
from tektonmesh.core.messages import Forward, Message
from tektonmesh.core.types import short_id
from tektonmesh.errors import LocalError
from tests.network import Network


def pair() -> Network:
    network = Network("a", "b")
    network.join("a", "b")
    return network


def watch(network: Network) -> list[tuple[float, int]]:
    """(instant, attempt) of every nack on its way."""
    seen: list[tuple[float, int]] = []
    start = network.now

    def look(_here: str, _there: str, message: Message) -> None:
        if isinstance(message, Forward) and message.envelope[1] == Kind.NACK:
            attempt = parse(message.envelope).header.attempt
            seen.append((round(network.now - start, 2), attempt))

    network.on_message = look
    return seen


def post(network: Network, within_s: float = 20.0, body: bytes = b"") -> posts.Posts:
    a, b = network["a"], network["b"]
    a.node.env.now = network.now
    box = a.node.deliveries.posts
    box.send(Kind.NACK, b.id, bytes(16), {"code": "busy", "body": body}, within_s=within_s)
    network.run(0.0)
    return box


def test_a_post_ends_when_it_is_settled() -> None:
    network = pair()
    seen = watch(network)
    box = post(network)
    assert len(box) == 1
    network.run(30.0)
    assert len(box) == 0
    assert [attempt for _, attempt in seen] == [0]


def test_an_unsettled_post_is_sent_again_with_growing_pauses_until_its_time_is_over() -> None:
    network = pair()
    network.passes = lambda here, _t, _m: here != "b"
    seen = watch(network)
    box = post(network, within_s=5.0)
    network.run(0.9)
    network.passes = lambda *_: True
    network.run(30.0)
    assert len(box) == 0
    assert [attempt for _, attempt in seen][:2] == [0, 1]


def test_a_post_whose_time_is_over_is_given_up() -> None:
    network = pair()
    network.passes = lambda _h, _t, m: not isinstance(m, Forward)
    box = post(network, within_s=5.0)
    network.run(4.0)
    assert len(box) == 1
    network.run(9.0)
    assert len(box) == 0


def test_a_post_without_a_way_leaves_as_soon_as_there_is_one() -> None:
    network = pair()
    network.cut("a", "b")
    network.run(2.0)
    seen = watch(network)
    box = post(network)
    assert (len(box), seen) == (1, [])
    network.run(1.0)
    network._join("a", "b")
    network.run(0.2)
    assert len(box) == 0
    assert len(seen) == 1


def test_a_post_to_a_stack_whose_keys_are_not_known_waits() -> None:
    network = pair()
    held = network["a"].node.replica.owners[network["b"].id]
    held._values["stack/self"] = {}
    box = post(network)
    network.run(0.5)
    assert len(box) == 1
    held._values.clear()
    network.run(5.0)
    assert len(box) == 0


def test_what_waits_is_bounded_in_number_and_bytes() -> None:
    network = pair()
    network.passes = lambda _h, _t, m: not isinstance(m, Forward)
    for _ in range(260):
        box = post(network, body=bytes(1 << 17))
    assert len(box) == posts.BYTES_MAX >> 17
    assert box._bytes == posts.BYTES_MAX


def test_a_settlement_after_the_end_changes_nothing() -> None:
    network = pair()
    network.passes = lambda here, _t, _m: here != "b"
    box = post(network, within_s=0.1)
    network.run(0.5)
    assert len(box) == 0
    [lane] = network["a"].node.forwarding._lanes.values()
    for kept in list(lane.kept.values()):
        kept.done("settled")  # type: ignore[misc]
    assert (len(box), box._bytes) == (0, 0)


@pytest.mark.parametrize("detail", ["half of a pair: \ud83d", "too large " * 30_000])
def test_what_can_never_be_sent_is_not_kept(detail: str) -> None:
    network = pair()
    box = network["a"].node.deliveries.posts
    with pytest.raises(LocalError):
        box.send(Kind.NACK, network["b"].id, bytes(16), {"detail": detail}, within_s=5.0)
    box.graph_changed()
    assert len(box) == 0


def test_a_post_that_is_to_avoid_every_way_takes_one_all_the_same() -> None:
    network = Network("a", "m", "b")
    network.join("a", "m", "b")
    a, b = network["a"], network["b"]
    box = a.node.deliveries.posts
    a.node.env.now = network.now
    middle = short_id(network["m"].id)
    box.send(Kind.NACK, b.id, bytes(16), {"code": "busy"}, within_s=5.0, avoid=middle)
    network.run(0.2)
    assert len(box) == 0


def test_a_post_whose_way_round_ends_nowhere_takes_the_old_one_next_time() -> None:
    network = Network("a", "m", "n", "b")
    network.join("a", "m", "b")
    network.join("a", "n", "m")
    a, b = network["a"], network["b"]
    box = a.node.deliveries.posts
    a.node.env.now = network.now
    middle = short_id(network["m"].id)
    box.send(Kind.NACK, b.id, bytes(16), {"code": "busy"}, within_s=5.0, avoid=middle)
    network.run(0.1)
    assert len(box) == 1  # n knows no way that avoids m
    network.run(0.5)
    assert len(box) == 0
