"""The records about our own links."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.damping import REST_MAX_S
from tektonmesh.core.ids import show_id
from tektonmesh.core.owner import CI_SIZE_MAX
from tektonmesh.core.ownlinks import DAMPED_MS, SUSPECT, UP, OwnLinks, link_key
from tektonmesh.core.record import SET_SIZE_MAX
from tests.network import Member as NetworkMember
from tests.network import Network, spec
from tests.support import Member, seed_bytes

PEER = seed_bytes("peer")


def fill(member: Member) -> None:
    """Use the room of all records to the last few bytes."""
    for kind, most in (("ci", CI_SIZE_MAX), ("addr", SET_SIZE_MAX)):
        n = 0
        while (left := most - member.owner._wanted_size) > 60:
            member.owner.put(f"{kind}/{n}", {"d": "x" * min(2000, left - 50)})
            n += 1


def test_a_link_without_room_for_its_record_is_told_once_and_raises_nothing() -> None:
    member = Member("a").start()
    links = OwnLinks(member.owner, lambda _stack: False)
    seen: list[bytes] = []
    links.watch(seen.append)
    fill(member)
    links.set(PEER, (5, UP))
    links.set(PEER, (6, UP))
    member.settle()
    (notice,) = member.notices("link_not_published")
    assert notice["stack"] == show_id(PEER)
    assert links.get(PEER) is None and member.owner.get(link_key(PEER)) is None
    assert seen == [PEER, PEER]
    member.owner.delete("addr/0")
    links.set(PEER, (7, UP))
    assert links.get(PEER) == (7, UP)


def test_a_record_that_cannot_be_changed_is_withdrawn() -> None:
    member = Member("a").start()
    links = OwnLinks(member.owner, lambda _stack: False)
    links.set(PEER, (5, UP))
    fill(member)
    member.owner._wanted_size = SET_SIZE_MAX
    links.set(PEER, (5, SUSPECT))
    assert links.get(PEER) is None and member.owner.get(link_key(PEER)) is None
    links.set(PEER, None)
    assert links.get(PEER) is None


@pytest.mark.parametrize(("reachable", "expected"), [(True, 1), (False, 3)])
def test_links_to_where_other_ways_lead_share_a_head(reachable: bool, expected: int) -> None:
    member = Member("a").start()
    links = OwnLinks(member.owner, lambda _stack: reachable)
    before = heads(member)
    for name in ("one", "two", "three"):
        links.set(seed_bytes(name), (5, UP))
        member.wait(0.01)
    member.wait(0.1)
    assert heads(member) - before == expected
    links.set(seed_bytes("one"), (5, SUSPECT))
    member.settle()
    assert heads(member) - before == expected + 1, "a changed state does not wait"


# --- damping -------------------------------------------------------------------------------------


def heads(member: Member) -> int:
    """How many heads of its own a member has published."""
    return sum(change.owner == member.id for change in member.changes)


def shown(member: Member) -> str | None:
    """The state in the record about the peer."""
    record = member.owner.get(link_key(PEER))
    return None if record is None else record["state"]


def cost(member: Member) -> int | None:
    """The cost in the record about the peer."""
    record = member.owner.get(link_key(PEER))
    return None if record is None else record["cost"]


def flapping(*states: str | None, times: int, every_s: float) -> tuple[Member, OwnLinks]:
    """A link that goes through these states again and again."""
    member = Member("a").start()
    links = OwnLinks(member.owner, lambda _stack: False)
    for _ in range(times):
        for state in states:
            links.set(PEER, None if state is None else (5, state))
            member.wait(every_s)
    return member, links


@pytest.mark.parametrize("states", [(UP, SUSPECT), (UP, None), (UP, SUSPECT, None)])
def test_a_link_that_flaps_does_not_publish_each_change(states: tuple[str | None, ...]) -> None:
    member, links = flapping(*states, times=60, every_s=0.5)
    assert heads(member) <= 14
    assert cost(member) in (None, DAMPED_MS)
    links.set(PEER, (5, UP))
    assert links.get(PEER) == (5, UP), "what is so is still known here"
    member.wait(REST_MAX_S + 0.1)
    assert (cost(member), shown(member)) == (5, UP)
    assert heads(member) <= 15


def test_a_loss_or_two_are_told_at_once_as_is_the_return() -> None:
    member, links = flapping(times=0, every_s=0.0)
    links.set(PEER, (5, UP))
    for _ in range(2):
        for state in (SUSPECT, UP):
            member.wait(1.0)
            links.set(PEER, (5, state))
            member.settle()
            assert shown(member) == state


def test_a_damped_link_gets_worse_at_once_and_no_better() -> None:
    member, links = flapping(UP, SUSPECT, times=3, every_s=0.5)
    assert shown(member) == SUSPECT
    links.set(PEER, (7, UP))
    assert (cost(member), shown(member)) == (DAMPED_MS, UP)
    links.set(PEER, (7, SUSPECT))
    assert (cost(member), shown(member)) == (DAMPED_MS, UP)
    links.set(PEER, None)
    assert shown(member) is None and links.get(PEER) is None
    links.set(PEER, (7, SUSPECT))
    assert shown(member) is None
    member.wait(REST_MAX_S)
    assert shown(member) == SUSPECT


def test_a_link_that_is_gone_at_the_end_of_its_rest_shows_nothing() -> None:
    member, links = flapping(UP, SUSPECT, times=3, every_s=0.5)
    links.set(PEER, (7, UP))
    links.set(PEER, None)
    member.wait(REST_MAX_S)
    assert shown(member) is None


def flap(network: Network, one: str, other: str, times: int) -> None:
    for _ in range(times):
        network.cut(one, other)
        network.run(0.3)
        network._join(one, other)
        network.run(0.7)


def test_who_has_no_other_link_is_still_reached_over_one_that_flaps() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network["a"].register("numa")
    network["a"].echo()
    network.run(1.0)
    flap(network, "a", "b", 8)
    ticket = network["c"].send("numa@a")
    network.run(0.1)
    assert network["c"].result(ticket)["body"] == b"hello"


def test_any_other_way_is_better_than_a_link_that_flaps() -> None:
    network = Network("a", "b", "c", "d", "e")
    network.join("a", "b", "c")
    network.join("a", "d", "e", "c")
    network.run(1.0)
    path = network["c"].node.paths.path
    a, b = network["a"].id, network["b"].id
    assert path(a) == [network["c"].id, b, a]
    flap(network, "a", "b", 8)
    assert path(a) == [network[name].id for name in "ceda"]
    network.run(REST_MAX_S + 1.0)
    assert path(a) == [network["c"].id, b, a]


def test_one_link_that_flaps_takes_nothing_from_another() -> None:
    member, links = flapping(UP, SUSPECT, times=9, every_s=0.5)
    other = seed_bytes("other")
    links.set(other, (5, UP))
    assert member.owner.get(link_key(other)) == {"peer": other, "cost": 5, "state": UP}


def register_all(a: NetworkMember, name: str, **changes: Any) -> dict[str, Any]:
    """Register CIs until one is refused; the error."""
    for n in range(1000):
        made = spec(f"{name}{n}", how={"kind": "none"}, persist=True, share="public", **changes)
        answer = a.answer(
            a.do(partial(ev.RegisterCi, spec=made, connection=None, token=None, trusted=False))
        )
        if isinstance(answer, fx.AnswerFailed):
            return answer.error
    raise AssertionError("there is always room")


def test_a_stack_full_of_cis_still_links_and_starts_again() -> None:
    network = Network("a", "b")
    a = network["a"]
    words = [f"{n:02}" + "x" * 60 for n in range(18)]
    error = register_all(a, "large", capabilities=words, description="d" * 300)
    assert error["code"] == "busy"
    register_all(a, "s")
    network.join("a", "b")
    assert a.node.graph.reachable(network["b"].id)
    listen = tuple(f"192.168.100.{n}:7700" for n in range(8))
    again = Network().add("a", a.saved, listen=listen)
    assert len(again.node.cis.all()) == len(a.node.cis.all()) > 500
    assert not again.notices("ci_not_published")
