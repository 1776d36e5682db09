"""For whom a stack passes envelopes on, and how much of each origin."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import relaying
from tektonmesh.core.envelope import Envelope, Header, Kind, SendClass
from tektonmesh.core.messages import Forward, HopAck, Message, Released
from tektonmesh.core.relaying import Relaying
from tektonmesh.core.types import StackId
from tests.network import Network


def chain(**settings: Any) -> Network:
    """a - m - b, where m has these settings; `echo` at b."""
    network = Network("a", "b")
    network.add("m", **settings)
    network.join("a", "m", "b")
    network["b"].register("echo", share="public")
    network["b"].echo()
    network.run(2.0)
    return network


def machine(network: Network) -> Relaying:
    return network["m"].node.forwarding.relaying


def packed(
    network: Network, size: int = 100, *, source: StackId = b"", control: bool = False
) -> bytes:
    header = Header(
        kind=Kind.REQUEST,
        msg_id=bytes(16),
        source=source or network["a"].id,
        destination=network["b"].id,
        created_ms=0,
        ttl_ms=1000,
        size=0,
        send_class=SendClass.CONTROL if control else SendClass.NORMAL,
    )
    return Envelope(header, header.pack(), bytes(size)).pack(16, 32)


def afforded(network: Network, count: int, **about: Any) -> int:
    """How many of so many envelopes at once are within the quota."""
    found = machine(network)
    found.env.now = network.now
    return sum(found.affords(packed(network, **about)) for _ in range(count))


def test_ones_own_stacks_have_no_quota_unless_the_settings_say_so() -> None:
    assert afforded(chain(), 5000) == 5000
    assert afforded(chain(relay_per_s=10.0), 5000) == 40


def test_stacks_of_others_have_one() -> None:
    network = chain()
    machine(network).is_own = lambda _stack: False
    machine(network).graph_changed()
    assert afforded(network, 5000) == 800
    network.run(1.0)
    assert afforded(network, 5000) == 200


def test_each_origin_has_its_own_quota() -> None:
    network = chain(relay_per_s=10.0)
    assert afforded(network, 100) == 40
    assert afforded(network, 100, source=network["b"].id) == 40


def test_bytes_count_as_well_and_what_is_refused_takes_nothing() -> None:
    network = chain(relay_bytes_per_s=1e6)
    assert 15 <= afforded(network, 100, size=250_000) <= 16
    assert afforded(network, 100, size=100) > 0
    assert afforded(chain(relay_bytes_per_s=1.0), 10, size=200_000) == 5


def test_control_is_never_held_back() -> None:
    network = chain(relay_per_s=1.0)
    assert afforded(network, 100) == 4
    assert afforded(network, 100, control=True) == 100


def test_what_is_over_the_quota_goes_back_by_its_code_and_is_counted_and_told() -> None:
    network = chain(relay_per_s=1.0)
    said: list[Message] = []

    def look(here: str, _there: str, message: Message) -> None:
        if here == "m" and isinstance(message, (Released, HopAck)):
            said.append(message)

    network.on_message = look
    a, m = network["a"], network["m"]
    tickets = [a.send("echo@b", timeout_s=5.0) for _ in range(10)]
    network.run(0.1)
    codes = [message.code for message in said if isinstance(message, Released)]
    assert codes == ["quota"] * 6
    relayed = machine(network)
    assert relayed.refused == {"quota": 6} and relayed.over == {a.id: 6}
    assert m.node.forwarding.relayed >= 4
    assert len(m.notices("relay_over_quota")) == 1
    network.run(6.0)
    ended = [a.answer(ticket) for ticket in tickets]
    assert all(answer is not None for answer in ended)
    failed = [
        a.error(t)["code"] for t, e in zip(tickets, ended, strict=True) if hasattr(e, "error")
    ]
    assert failed and set(failed) == {"busy"}


def test_another_way_takes_what_is_over_the_quota_of_the_first() -> None:
    network = Network("a", "c", "f", "b")
    network.add("m", relay_per_s=1.0)
    network.join("a", "m", "b")
    network.join("a", "c", "f", "b")
    network["b"].register("echo")
    network["b"].echo()
    network.run(2.0)
    a = network["a"]
    tickets = [a.send("echo@b", timeout_s=5.0) for _ in range(20)]
    network.run(2.0)
    paths = [tuple(a.result(ticket)["path"]) for ticket in tickets]
    assert sorted(dict.fromkeys(paths)) == [("a", "c", "f", "b"), ("a", "m", "b")]


def test_the_smooth_way_pays_as_well() -> None:
    network = chain(relay_per_s=10.0)
    a = network["a"]
    network["m"].node.env.now = network.now
    before = network["m"].node.forwarding.relayed
    link = next(lane.link for lane in network["m"].node.forwarding.lanes() if lane.stack_id == a.id)
    for number in range(60):
        header = packed(network)[:126]
        data = header[:6] + number.to_bytes(16) + header[22:]
        envelope = data + packed(network)[126:]
        network["m"].node.forwarding.on_forward(link, Forward(number + 1 << 2 | 2, envelope))
    assert network["m"].node.forwarding.relayed - before == 40
    assert machine(network).refused == {"quota": 20}


def test_people_hear_of_an_origin_once_a_minute() -> None:
    network = chain()
    found, m = machine(network), network["m"]
    for at in (0.0, 1.0, 61.0):
        found.env.now = network.now + at
        found.refuse("quota", network["a"].id)
        found.refuse("no_path", network["a"].id)
    notices = [e for e in m.node.env.take() if getattr(e, "kind", "") == "relay_over_quota"]
    assert len(notices) == 2
    assert found.refused == {"quota": 3, "no_path": 3}


def test_what_is_remembered_of_origins_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "KNOWN_MAX", 2)
    network = chain(relay_per_s=10.0)
    found = machine(network)
    found.graph_changed()
    for number in range(5):
        source = bytes([number]) * 32
        found.affords(packed(network, source=source))
        found.refuse("quota", source)
    assert len(found._limits) == len(found.over) == len(found._said) == 2
