"""A peer that breaks the protocol loses its link, and after five times all of them for a while."""

from __future__ import annotations

from tektonmesh.core import effects as fx
from tektonmesh.core.offences import NOVELTY_QUIET_S
from tektonmesh.core.strikes import HELD_OFF, LIMIT
from tektonmesh.core.types import LinkId
from tektonmesh.errors import NoveltyError, RemoteError
from tests.network import Member, Network


def linked() -> tuple[Network, Member, Member, LinkId]:
    """Two members and the link of the first to the second."""
    network = Network("one", "other")
    one, other = network["one"], network["other"]
    network.join("one", "other")
    network.run(2.0)
    (link,) = one.node.neighbours.links
    one.node.env.take()
    return network, one, other, link


def test_a_broken_protocol_closes_the_link_and_is_a_strike_that_people_hear_of() -> None:
    _network, one, other, link = linked()
    node = one.node
    node.offences.on_link(link, RemoteError("A head without a signature."))
    told, closed, struck = node.env.take()
    assert closed == fx.CloseLink(link, "protocol", "A head without a signature.")
    assert isinstance(told, fx.Notice) and told.kind == "link_error"
    assert isinstance(struck, fx.Notice) and struck.kind == "peer_struck"
    assert node.trust.strikes.count(other.id) == 1 == node.env.counts.strikes


def test_what_comes_on_a_link_that_is_gone_is_nobodys() -> None:
    _network, one, other, link = linked()
    one.node.offences.on_link(LinkId(link + 99), RemoteError("Too late."))
    assert one.node.trust.strikes.count(other.id) == 0


def test_a_fault_from_afar_leaves_the_links_until_there_are_too_many() -> None:
    _network, one, other, link = linked()
    node = one.node
    for _ in range(LIMIT - 1):
        node.offences.afar(other.id, "A reply to nothing.")
    assert link in node.neighbours.links
    assert not node.offences.refuse(LinkId(7), other.id)
    node.offences.afar(other.id, "A reply to nothing.")
    assert link not in node.neighbours.links
    node.env.take()
    assert node.offences.refuse(LinkId(7), other.id)
    (closed,) = node.env.take()
    assert isinstance(closed, fx.CloseLink) and closed.code == HELD_OFF


def test_news_of_a_later_version_are_told_once_in_ten_minutes_and_are_no_fault() -> None:
    _network, one, other, link = linked()
    node = one.node
    for _ in range(3):
        node.offences.pass_over(link, NoveltyError("A message of kind 99."))
    node.env.now += NOVELTY_QUIET_S
    node.offences.pass_over(link, NoveltyError("A message of kind 99."))
    told = [it for it in node.env.take() if isinstance(it, fx.Notice)]
    assert [it.kind for it in told] == ["novelty_ignored"] * 2
    assert node.trust.strikes.count(other.id) == 0 and link in node.neighbours.links
