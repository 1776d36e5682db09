"""The records about our own links."""

from __future__ import annotations

from functools import partial
from typing import Any

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ids import show_id
from tektonmesh.core.owner import CI_SIZE_MAX
from tektonmesh.core.ownlinks import SUSPECT, UP, OwnLinks, link_key
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
    links = OwnLinks(member.owner)
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
    links = OwnLinks(member.owner)
    links.set(PEER, (5, UP))
    fill(member)
    member.owner._wanted_size = SET_SIZE_MAX
    links.set(PEER, (5, SUSPECT))
    assert links.get(PEER) is None and member.owner.get(link_key(PEER)) is None
    links.set(PEER, None)
    assert links.get(PEER) is None


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
