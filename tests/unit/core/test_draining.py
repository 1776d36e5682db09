"""A stack that is about to leave: what it still does, what it takes no more, who passes it by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core import views
from tektonmesh.core.draining import LOOK_S, QUIET_S, Draining
from tektonmesh.core.types import Status
from tests.network import Member, Network
from tests.support import advance, make_env


class Counts:
    """What a stack holds, and how much has passed through it."""

    def __init__(self) -> None:
        self.env = make_env()
        self.open = self.passed = 0
        self.told: list[dict[str, Any]] = []
        self.draining = Draining(
            self.env, {"requests": lambda: self.open, "nothing": lambda: 0}, lambda: self.passed
        )

    def begin(self, within_s: float) -> None:
        self.draining.begin(within_s, self.told.append)


# --- how long it takes ---------------------------------------------------------------------------


def test_who_holds_nothing_is_done_after_a_moment_of_quiet() -> None:
    it = Counts()
    assert not it.draining.active
    it.begin(5.0)
    assert it.draining.active
    advance(it.env, QUIET_S - 0.01)
    assert it.told == []
    advance(it.env, LOOK_S + 0.01)
    assert it.told == [{}]
    assert it.env.deadlines.earliest() == float("inf")


def test_who_holds_something_waits_for_it() -> None:
    it = Counts()
    it.open = 3
    it.begin(5.0)
    advance(it.env, 2.0)
    assert it.told == [] and it.draining.held() == {"requests": 3}
    it.open = 0
    advance(it.env, LOOK_S)
    assert it.told == [{}]


def test_what_passes_through_puts_the_end_off() -> None:
    it = Counts()
    it.begin(5.0)
    for _ in range(10):
        it.passed += 1
        advance(it.env, 0.1)
    assert it.told == []
    advance(it.env, QUIET_S + LOOK_S)
    assert it.told == [{}]


def test_when_the_time_is_over_what_is_left_is_told() -> None:
    it = Counts()
    it.open = 2
    it.begin(1.0)
    advance(it.env, 0.99)
    assert it.told == []
    advance(it.env, 0.01)
    assert it.told == [{"requests": 2}]


def test_asked_twice_it_ends_at_the_earlier_end_and_tells_both() -> None:
    it = Counts()
    it.open = 1
    it.begin(9.0)
    it.begin(1.0)
    advance(it.env, 1.0)
    assert it.told == [{"requests": 1}] * 2


# --- between nodes -------------------------------------------------------------------------------


def diamond() -> Network:
    """a - b - c and a - d - c; the CI `numa` at b and at c."""
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "c", "d", "a")
    for name in ("b", "c"):
        network[name].register("numa", specialties=["talk"])
    network.run(1.0)
    return network


def drain(network: Network, name: str, within_s: float = 3.0) -> int:
    ticket = network[name].do(lambda t: ev.Drain(t, within_s))
    network.run(0.1)
    return ticket


def relayed(network: Network) -> dict[str, int]:
    return {name: network[name].node.forwarding.relayed for name in ("b", "d")}


def test_everybody_hears_of_it_and_it_is_still_up() -> None:
    network = diamond()
    drain(network, "b")
    for name in ("a", "c", "d"):
        node, b = network[name].node, network["b"].id
        assert node.replica.owners[b].head.status is Status.DRAINING
        row = views.stack(node, b)
        assert (row["state"], row["draining"]) == ("up", True)
        assert "It says that it is about to leave." in row["why"]
        assert not views.stack(node, network["c"].id)["draining"]


def test_it_shows_itself_what_it_still_holds() -> None:
    network = diamond()
    b = network["b"]
    assert not views.status(b.node)["draining"]
    network["a"].send("numa@b")
    network.run(0.2)
    drain(network, "b")
    assert views.status(b.node)["draining"]
    assert "It is about to leave; it still holds deliveries 1." in views.stack(b.node, b.id)["why"]
    b.reply(b.deliveries()[0], b"done")
    network.run(0.3)
    assert "it still holds nothing." in views.stack(b.node, b.id)["why"]


def test_others_send_nothing_through_it() -> None:
    network = diamond()
    network["c"].echo()
    drain(network, "b")
    before = relayed(network)
    for _ in range(20):
        network["a"].send("numa@c")
    network.run(1.0)
    after = relayed(network)
    assert after["b"] == before["b"] and after["d"] > before["d"]


def test_where_there_is_no_other_way_it_still_relays() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network["c"].register("numa")
    network["c"].echo()
    network.run(1.0)
    drain(network, "b")
    ticket = network["a"].send("numa@c")
    network.run(0.5)
    assert network["a"].result(ticket)["body"] == b"hello"


def test_its_cis_finish_what_they_have() -> None:
    network = diamond()
    a, b = network["a"], network["b"]
    ticket = a.send("numa@b", stream=True)
    network.run(0.2)
    done = drain(network, "b")
    b.chunk(b.deliveries()[0], b"one ")
    network.run(1.0)
    assert b.answer(done) is None
    b.reply(b.deliveries()[0], b"two")
    network.run(0.5)
    assert b"".join(a.streamed(ticket)) + a.result(ticket)["body"] == b"one two"
    assert b.result(done) == {"held": {}}


def test_its_own_callers_get_the_replies_they_wait_for() -> None:
    network = diamond()
    b, c = network["b"], network["c"]
    ticket = b.send("numa@c")
    network.run(0.2)
    done = drain(network, "b")
    c.reply(c.deliveries()[0], b"late")
    network.run(0.5)
    assert b.result(ticket)["body"] == b"late" and b.result(done) == {"held": {}}


def test_messages_that_wait_for_their_turn_still_have_it() -> None:
    network = Network("a", "b", window_messages=1)
    network.join("a", "b")
    network["b"].register("numa")
    network.run(1.0)
    tickets = [network["a"].send("numa@b") for _ in range(2)]
    network.run(0.01)
    network["a"].do(lambda t: ev.Drain(t, 3.0))
    network["b"].echo()
    network["b"].reply(network["b"].deliveries()[0], b"hello")
    network.run(0.5)
    assert [network["a"].result(t)["body"] for t in tickets] == [b"hello"] * 2


@pytest.mark.parametrize("target", ["numa@c", "numa"])
def test_its_own_callers_can_send_nothing_new(target: str) -> None:
    network = diamond()
    drain(network, "b")
    assert network["b"].error(network["b"].send(target))["code"] == "leaving"
    assert network["b"].error(network["b"].send(target, durable=True))["code"] == "leaving"


def test_messages_for_its_cis_are_refused_by_its_own_word() -> None:
    network = diamond()
    drain(network, "b")
    ticket = network["a"].send("numa@b")
    network.run(0.5)
    error = network["a"].error(ticket)
    assert (error["code"], error["outcome"]) == ("leaving", "released")
    assert network["b"].deliveries() == []


def test_a_message_that_nobody_answers_stays_where_it_came_from() -> None:
    network = diamond()
    drain(network, "b")
    ticket = network["a"].send("numa@b", no_reply=True, timeout_s=20.0)
    network.run(1.0)
    assert network["a"].answer(ticket) is None
    assert network["b"].deliveries() == []


def test_a_durable_message_waits_on_the_disk_for_the_next_run() -> None:
    network = diamond()
    a, b = network["a"], network["b"]
    done = drain(network, "b")
    ticket = a.send("numa@b", durable=True)
    network.run(1.0)
    assert a.result(ticket)["accepted"] and b.result(done) == {"held": {}}
    assert b.deliveries() == [] and len(b.node.durable.inbox) == 1
    again = network.restart("b", "a", "c")
    again.register("numa")
    network.run(2.0)
    assert [delivery.body for delivery in again.deliveries()] == [b"hello"]


def chosen(network: Network, *, hear: bool) -> str:
    """Where a message to whoever talks goes while b drains; `hear` says that a knows of it."""
    a = network["a"]
    if not hear:
        network.passes = lambda _from, to, message: (
            to != "a" or type(message).__name__ not in ("Delta", "Ihave", "Vector")
        )
    drain(network, "b")
    network["c"].echo()
    tickets = [a.send("specialty:talk") for _ in range(12)]
    network.run(1.0)
    results = [a.result(ticket) for ticket in tickets]
    assert {result["to"] for result in results} == {"numa@c"}
    return ",".join(sorted({one["code"] for result in results for one in result["tried"]}))


def test_nobody_chooses_a_ci_of_a_stack_that_drains() -> None:
    assert chosen(diamond(), hear=True) == ""


def test_whoever_chose_one_before_the_news_came_goes_on_to_the_next() -> None:
    assert chosen(diamond(), hear=False) == "leaving"


def left_after(network: Network, name: str, act: Callable[[Member], None]) -> dict[str, Any]:
    """What is left when a stack's time to drain is over."""
    act(network[name])
    network.run(0.2)
    ticket = drain(network, name, within_s=1.0)
    network.run(1.0)
    return network[name].result(ticket)


def test_a_ci_that_does_not_finish_in_time_is_told_of_as_left() -> None:
    network = diamond()
    network["a"].send("numa@b")
    assert left_after(network, "b", lambda _b: None) == {"held": {"deliveries": 1}}
    network["b"].do(ev.Leave)
    network.run(1.0)
    assert [e.reason for e in network["b"].effects if type(e).__name__ == "CancelDelivery"]


def test_draining_twice_is_said_once() -> None:
    network = diamond()
    b = network["b"]
    network["a"].send("numa@b")
    network.run(0.2)
    tickets = [drain(network, "b", within_s=1.0) for _ in range(2)]
    head = b.node.replica.owners[b.id].version
    drain(network, "b", within_s=1.0)
    assert b.node.replica.owners[b.id].version == head
    network.run(1.0)
    assert [b.result(ticket) for ticket in tickets] == [{"held": {"deliveries": 1}}] * 2


def test_a_stack_that_has_published_nothing_drains_silently() -> None:
    network = Network()
    member = network.add("a", seed_peers=("x:1",))
    ticket = drain(network, "a")
    network.run(0.3)
    assert not member.node.owner.published and member.result(ticket) == {"held": {}}
