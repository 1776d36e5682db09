"""Messages that a relay keeps for a stack that is away; between real nodes."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import parking
from tektonmesh.core.envelope import Flags, Kind, parse
from tektonmesh.core.messages import Forward, Message
from tektonmesh.core.rows import pack_row
from tektonmesh.core.sealing import Copy
from tektonmesh.core.views_message import explain_message
from tests.network import Member, Network


def three(park_bytes: int = 1 << 20, **more: Any) -> Network:
    """a - m - b, where m parks; `echo` at b was seen, and b is away now."""
    network = Network("a", "b")
    network.add("m", park_bytes=park_bytes, **more)
    network.join("a", "m", "b")
    network["b"].register("echo", persist=True)
    network["b"].echo()
    network.run(2.0)
    network.cut("m", "b")
    network.run(2.0)
    return network


def post(network: Network, body: bytes = b"hello", **options: Any) -> str:
    a = network["a"]
    ticket = a.send("echo@b", body, durable=True, may_park=True, **options)
    network.run(0.1)
    return str(a.result(ticket)["id"])


def states(member: Member, msg_id: str) -> list[str]:
    shown = member.node.durable.outbox.history(bytes.fromhex(msg_id))
    assert shown is not None
    return [step["state"] for step in shown["transitions"]]


def rows(member: Member, table: str) -> list[bytes]:
    return [key for name, key in member.saved if name == table]


def nothing_parked(*members: Member) -> None:
    for member in members:
        found = member.node.durable.parking
        assert len(found) == found.held_bytes == 0
        assert not (found._watched or found._handed or found._by_id or found._per_origin)
        assert rows(member, "parked") == rows(member, "maypark") == []


def test_a_parked_message_arrives_once_though_its_origin_is_gone() -> None:
    network = three()
    msg_id = post(network)
    network.run(5.0)
    assert states(network["a"], msg_id) == ["accepted", "parked"]
    m, b = network["m"], network["b"]
    assert len(m.node.durable.parking) == 1 and len(rows(m, "parked")) == 1
    network.cut("a", "m")
    network.run(1.0)
    network._join("m", "b")
    network.run(5.0)
    [delivery] = b.deliveries()
    assert (delivery.msg_id.hex(), delivery.body, delivery.sender) == (msg_id, b"hello", "a")
    nothing_parked(m, b)
    network._join("a", "m")
    network.run(15.0)
    assert states(network["a"], msg_id)[-1] == "answered"
    assert len(b.deliveries()) == 1
    nothing_parked(network["a"], m, b)


def test_a_parker_and_an_origin_that_restart_go_on() -> None:
    network = three()
    msg_id = post(network)
    network.run(5.0)
    network.settings["park_bytes"] = 1 << 20
    network.restart("m", "a")
    network.restart("a", "m")
    network.run(1.0)
    m = network["m"]
    assert len(m.node.durable.parking) == 1
    network._join("m", "b")
    network.run(20.0)
    [delivery] = network["b"].deliveries()
    assert delivery.msg_id.hex() == msg_id
    nothing_parked(m)


def test_a_message_that_is_to_be_parked_is_so_after_a_restart_of_its_origin() -> None:
    network = three()
    network.cut("a", "m")
    network.run(1.0)
    msg_id = post(network)
    network.run(5.0)
    network.restart("a", "m")
    network.run(15.0)
    assert "parked" in states(network["a"], msg_id)
    nothing_parked(network["a"])


def test_without_the_wish_the_consent_or_the_need_nothing_is_parked() -> None:
    network = three()
    network["a"].send("echo@b", durable=True)
    network.run(15.0)
    assert len(network["m"].node.durable.parking) == 0
    network = three(park_bytes=0)
    post(network)
    network.run(15.0)
    assert rows(network["m"], "parked") == []
    network = three()
    network._join("m", "b")
    network.run(1.0)
    msg_id = post(network)
    network.run(15.0)
    assert states(network["a"], msg_id)[-1] == "answered"
    assert "parked" not in states(network["a"], msg_id)
    nothing_parked(*(network[name] for name in "amb"))


def test_what_a_parker_keeps_is_bounded_in_all_and_of_one_origin() -> None:
    network = three(park_bytes=40_000)
    for _ in range(5):
        post(network, bytes(4000))
    network.run(10.0)
    m = network["m"].node.durable.parking
    assert len(m) == 2 and m.held_bytes <= 40_000 // parking.ORIGIN_PART


def test_another_parker_takes_what_the_first_has_no_room_for() -> None:
    network = three(park_bytes=1000)
    network.add("n", park_bytes=1 << 20)
    network.join("m", "n")
    network.run(2.0)
    msg_id = post(network)
    network.run(8.0)
    assert "parked" in states(network["a"], msg_id)
    assert len(network["n"].node.durable.parking) == 1
    assert len(network["m"].node.durable.parking) == 0


def test_a_parked_message_whose_time_is_over_goes() -> None:
    network = three()
    msg_id = post(network, ttl_s=20.0)
    network.run(5.0)
    assert len(network["m"].node.durable.parking) == 1
    network.run(30.0)
    nothing_parked(network["m"], network["a"])
    assert states(network["a"], msg_id)[-1] == "expired"


def test_what_is_too_large_for_a_second_seal_is_not_parked() -> None:
    network = three(park_bytes=8 << 20)
    size = network["a"].node.env.settings.body_size_max
    msg_id = post(network, bytes(size))
    network.run(10.0)
    assert "parked" not in states(network["a"], msg_id)


def test_a_disk_that_refuses_keeps_nothing() -> None:
    network = three()
    m = network["m"]
    m.disk_stuck = True
    post(network)
    network.run(4.0)
    assert len(m.node.durable.parking) == 1
    m.node.env.now = network.now
    m.node.durable.commits.trouble(True)
    assert len(m.node.durable.parking) == 0
    network.run(15.0)
    assert len(m.node.durable.parking) == 0


def test_a_parker_that_does_not_answer_is_asked_again() -> None:
    network = three()

    def passes(here: str, _there: str, message: Message) -> bool:
        kind = parse(message.envelope).header.kind if isinstance(message, Forward) else None
        return not (here == "m" and kind == Kind.RECEIPT)

    network.passes = passes
    msg_id = post(network)
    network.run(15.0)
    assert "parked" not in states(network["a"], msg_id)
    network.passes = lambda *_: True
    network.run(25.0)
    assert "parked" in states(network["a"], msg_id)
    assert len(network["m"].node.durable.parking) == 1


def test_explain_at_the_parker_says_for_whom_it_keeps_it() -> None:
    network = three()
    msg_id = bytes.fromhex(post(network))
    network.run(5.0)
    m = network["m"]
    m.node.env.now = network.now
    found = explain_message(m.node, msg_id)
    assert found is not None
    [kept] = found["relay"]
    assert (kept["from"], kept["to"], kept["via"]) == ("a", "b", "m")
    assert kept["waits"]["for"] == "a way" and kept["left_s"] > 1000


# --- who lies ------------------------------------------------------------------------------------


def park(network: Network, inner: bytes, *, to: str = "m", source: str = "a") -> None:
    """`source` hands `to` this to be parked."""
    member = network[source]
    member.node.env.now = network.now
    sealer = member.node.deliveries.sealer
    body = {"in": inner, "left": 60_000}
    envelope = sealer.seal(Kind.PARK, network[to].id, body, ttl_s=60.0)
    member.node.forwarding.send(envelope)
    network.run(0.5)


def sealed(network: Network, *, source: str = "a", flags: int = Flags.MAY_PARK) -> bytes:
    sealer = network[source].node.deliveries.sealer
    body = {"to": "echo", "from": "", "ct": "", "body": b"x", "left": 60_000, "du": True}
    envelope = sealer.seal(
        Kind.REQUEST, network["b"].id, body, ttl_s=60.0, copy=Copy(bytes(16), flags=flags)
    )
    return envelope.pack(16, 32)


def test_only_what_an_origin_itself_wants_parked_is_kept() -> None:
    network = three()
    m = network["m"].node.durable.parking
    for inner in (b"", b"too short", sealed(network, flags=0), sealed(network, source="m")):
        park(network, inner)
        assert len(m) == 0
    park(network, sealed(network))
    assert len(m) == 1
    m._is_own = lambda _stack: False
    m.let_go(next(iter(m._parked.values())))
    park(network, sealed(network))
    assert len(m) == 0


def test_a_parker_cannot_bring_what_no_origin_wrote() -> None:
    network = three()
    network._join("m", "b")
    network.run(2.0)
    forged = sealed(network, source="m")
    a, m = network["a"].id, network["m"].id
    at = forged.index(m)
    park(network, forged[:at] + a + forged[at + 32 :], to="b", source="m")
    assert network["b"].deliveries() == []
    good = sealed(network)
    for _ in range(3):
        park(network, good, to="b", source="m")
    assert len(network["b"].deliveries()) == 1


@pytest.mark.parametrize("words", [[], [b"short", 1, 1], [bytes(32), 1], ["text", 1, 1]])
def test_rows_that_mean_nothing_are_dropped(words: list[Any]) -> None:
    network = three()
    network.settings["park_bytes"] = 1 << 20
    m = network["m"]
    m.saved["parked", bytes(48)] = pack_row(m.node.env, words, b"")
    network.restart("m", "a")
    assert rows(network["m"], "parked") == []
