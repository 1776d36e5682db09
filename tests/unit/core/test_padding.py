"""Bodies as long as many others."""

from __future__ import annotations

import pytest

from tektonmesh.core.padding import LEAST, bucket, pack_padded
from tektonmesh.core.sealing import PADDED_MAX
from tektonmesh.wire.codec import Codec
from tests.network import Network

PACK = Codec().pack


def padded(size: int, size_max: int = 258_000) -> bytes:
    return pack_padded(PACK, {"to": "numa", "body": bytes(size)}, size_max)


def test_small_bodies_all_have_one_size() -> None:
    assert {len(padded(size)) for size in range(200)} == {LEAST}


@pytest.mark.parametrize(
    "sizes", [range(230, 700), range(65_000, 66_500, 7), range(130_000, 131_200, 3)]
)
def test_every_body_is_filled_up_to_its_bucket_whatever_the_length_field_takes(
    sizes: range,
) -> None:
    for size in sizes:
        empty = len(PACK({"to": "numa", "body": bytes(size), "_": b""}))
        assert len(padded(size)) == bucket(empty, 258_000)


def test_a_bucket_adds_at_most_12_percent_and_there_are_few() -> None:
    found = {bucket(size, 1 << 30) for size in range(LEAST, 1 << 16, 13)}
    assert all(bucket(size, 1 << 30) <= 1.12 * size for size in range(LEAST, 1 << 16, 13))
    assert len(found) < 130
    assert bucket(LEAST, 1 << 30) == LEAST


def test_what_fits_is_never_made_too_large() -> None:
    assert len(padded(990, size_max=1020)) == 1020
    assert padded(2000, size_max=1000) == PACK({"to": "numa", "body": bytes(2000)})
    assert bucket(1000, 1000) == 1000


def test_the_filling_is_there_for_nobody() -> None:
    body = Codec().unpack(padded(10))
    assert isinstance(body, dict)
    filling = [key for key in body if not key.strip("_")]
    assert len(filling) == 1 and not any(body[filling[0]])


def test_with_the_setting_messages_of_all_small_sizes_look_alike_on_their_way() -> None:
    network = Network("b")
    network.add("a", padding=True)
    network.join("a", "b")
    network["b"].register("echo")
    network["b"].echo()
    network.run(1.0)
    a = network["a"]
    sealer, there = a.node.deliveries.sealer, network["b"].id
    sizes = set()
    for text in (b"", b"yes", b"a longer answer with a reason in it"):
        envelope = sealer.seal(1, there, {"body": text}, ttl_s=5.0)  # type: ignore[arg-type]
        sizes.add((envelope.header.size, len(envelope.body)))
    assert len(sizes) == 1
    ticket = a.send("echo@b", b"yes")
    network.run(0.5)
    assert a.result(ticket)["body"] == b"yes"


def test_the_largest_message_still_leaves_with_its_filling() -> None:
    network = Network("b")
    network.add("a", padding=True)
    network.join("a", "b")
    network["b"].register("echo")
    network["b"].echo()
    network.run(1.0)
    a = network["a"]
    largest = bytes(a.node.env.settings.body_size_max)
    tickets = [a.send("echo@b", largest, timeout_s=20.0), a.send("echo@b", largest[:-9])]
    network.run(10.0)
    assert [len(a.result(ticket)["body"]) for ticket in tickets] == [258_048, 258_039]
    assert PADDED_MAX > 258_048 - 1024


def test_what_is_shared_by_many_is_filled_up_as_well() -> None:
    network = Network("a", padding=True)
    sealer = network["a"].node.deliveries.sealer
    locked = {len(sealer.share(bytes(16), bytes(size), "text/plain").locked) for size in (1, 99)}
    assert len(locked) == 1
