"""What the node itself decides: whose fault something is, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.head import MINOR_VERSION
from tektonmesh.core.ids import show_id
from tektonmesh.core.messages import Bye, Delta, Vouch, Want
from tektonmesh.core.offences import NOVELTY_QUIET_S
from tektonmesh.core.types import ContentVersion, SignedHead
from tests.network import Member, Network
from tests.support import Author


def linked() -> tuple[Network, Member, int]:
    """Two stacks with a link; the second one, and the number of the link at both."""
    network = Network("a", "b")
    network.join("a", "b")
    return network, network["a"], link_of(network["a"], network["b"])


def link_of(member: Member, peer: Member) -> int:
    (neighbour,) = [one for one in member.node.neighbours.links.values() if one.stack_id == peer.id]
    return neighbour.link


def receive(member: Member, link: int, *messages: Any) -> list[Any]:
    """A batch comes over a link; what was done in that turn."""
    before = len(member.effects)
    member.network.handle(member, ev.Received(link, messages))
    return member.effects[before:]


def closed(effects: list[Any]) -> list[tuple[int, str]]:
    return [(it.link, it.code) for it in effects if isinstance(it, fx.CloseLink)]


def forged() -> Delta:
    delta = Author(50).delta({"ci/x": {}})
    return replace(delta, head=SignedHead(delta.head.head, bytes(64)))


def break_off(network: Network, count: int) -> None:
    """Member b breaks the protocol on so many links with a."""
    a, b = network["a"], network["b"]
    for _ in range(count):
        network.join("b", "a")
        receive(a, link_of(a, b), forged())


# --- faults --------------------------------------------------------------------------------------


def test_a_fault_closes_the_link_and_is_a_strike() -> None:
    network, a, link = linked()
    effects = receive(a, link, forged(), forged())
    assert closed(effects) == [(link, "protocol")]
    (struck,) = a.notices("peer_struck")
    assert struck["id"] == show_id(network["b"].id) and "signed" in struck["reason"]
    (peer,) = a.node.trust.peers()
    assert (peer["state"], peer["strikes"], peer["held_off_s"]) == ("admitted", 1, 0.0)


def test_what_cannot_even_be_read_as_messages_is_a_strike_too() -> None:
    network, a, link = linked()
    network.handle(a, ev.LinkDown(link, "The msgpack is malformed.", fault=True))
    network.handle(a, ev.LinkDown(99, "The msgpack is malformed.", fault=True))
    assert [it["reason"] for it in a.notices("peer_struck")] == ["The msgpack is malformed."]


def test_an_ordinary_end_of_a_link_is_none() -> None:
    network, a, _link = linked()
    network.cut("a", "b")
    assert a.notices("peer_struck") == []


def test_at_the_fifth_all_links_close_and_new_ones_are_not_wanted() -> None:
    network = Network("a", "b")
    break_off(network, 4)
    network.join("b", "a")
    a, b = network["a"], network["b"]
    effects = receive(a, link_of(a, b), forged())
    assert [code for _, code in closed(effects)] == ["protocol", "held_off"]
    assert a.node.neighbours.edge(b.id) is None
    assert not a.node.judge(b.id, "b", b.node.env.identity.keydoc, True).admitted
    before = len(a.effects)
    network.join("b", "a")
    assert [code for _, code in closed(a.effects[before:])] == ["held_off"]
    assert a.node.neighbours.links == {}
    network.run(61.0)
    network.join("b", "a")
    assert link_of(a, b)


def test_a_peer_that_is_allowed_by_name_or_a_seed_is_struck_as_well() -> None:
    network = Network("a", "b", seed_peers=("b:7700",))
    network.settings = {}
    a = network["a"]
    break_off(network, 5)
    assert a.node.trust.strikes.held_off_s(network["b"].id) > 0.0


def test_a_peer_that_is_held_off_is_dialled_when_that_is_over_and_not_before() -> None:
    network = Network("b")
    a = network.add("a", seed_peers=("b:7700",))
    (dial,) = a.of(fx.Dial)
    network.handle(a, ev.DialFailed(dial.address, dial.expect, "unreachable", ""))
    break_off(network, 5)
    before = len(a.of(fx.Dial))
    network.run(55.0)
    for later in a.of(fx.Dial)[before:]:
        assert later.expect is None, "only an address of nobody in particular may be tried"
    network.run(30.0)
    assert len(a.of(fx.Dial)) > before


def test_people_who_approve_a_peer_forgive_it() -> None:
    network = Network("a", "b")
    break_off(network, 5)
    a, b = network["a"], network["b"]
    a.do(lambda ticket: ev.AdmitPeer(ticket, b.id))
    network.join("b", "a")
    assert link_of(a, b)


def test_what_follows_a_goodbye_in_one_batch_is_held_against_nobody() -> None:
    _network, a, link = linked()
    receive(a, link, Bye("x", "y"), Vouch(b"\xc1"))
    assert a.notices("peer_struck") == []


# --- what is nobody's fault ----------------------------------------------------------------------


def test_something_of_a_later_version_is_passed_over_and_the_rest_of_the_batch_is_not() -> None:
    network, a, link = linked()
    later, author = Author(50), Author(51)
    novel = later.delta({"ci/x": {}}, minor=MINOR_VERSION + 1, roots={0: bytes(32)})
    effects = receive(a, link, novel, novel, author.delta({"ci/x": {}}))
    assert closed(effects) == [] and a.notices("peer_struck") == []
    assert a.node.replica.has(author.id)
    assert len(a.notices("novelty_ignored")) == 1
    network.run(NOVELTY_QUIET_S)
    later.hlc += int(NOVELTY_QUIET_S * 1000)
    receive(a, link, later.delta(full=True, minor=MINOR_VERSION + 1, roots={0: bytes(32)}))
    assert len(a.notices("novelty_ignored")) == 2


BASE = ContentVersion(0, 5, 7)


@pytest.mark.parametrize(
    "make",
    [
        lambda author: Want(((author.id, BASE),)),
        lambda author: replace(author.delta({"ci/y": {}}), base=BASE),
        lambda author: author.delta({"ci/y": {}}, hlc=0, full=True),
        lambda author: Author(60, mesh_key=None).delta({"ci/x": {}}),
    ],
    ids=["another base asked for", "another base told", "not fresh", "no member"],
)
def test_what_hangs_on_clocks_bases_and_whom_we_know_is_nobodys_fault(make: Any) -> None:
    _network, a, link = linked()
    author = Author(50)
    receive(a, link, author.delta({"ci/x": {}}))
    effects = receive(a, link, make(author))
    assert closed(effects) == [] and a.notices("peer_struck") == []
