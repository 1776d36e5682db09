"""Floods: what closes a link, what is dropped until repair, and that an owner that changes too fast
is late and never lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core import messages as msg
from tektonmesh.core import quotas
from tektonmesh.core.intake import OWNERS_MAX
from tektonmesh.core.messages import SEND_CLASS, Delta, Outlines, Ping, Pong, Proof, Want
from tektonmesh.core.quotas import (
    BYTES_BURST,
    CONTROL_BURST,
    CONTROL_PER_S,
    NEWS_BURST,
    OWNER_BURST,
    OWNER_PER_S,
    REPAIR_BURST,
    UNCHARGED,
    Buckets,
    Quotas,
)
from tektonmesh.core.record import SET_SIZE_MAX
from tektonmesh.core.types import SignedHead, Version
from tektonmesh.errors import RemoteError
from tests.network import Network
from tests.support import Author, Member, only, seed_bytes

PEER, OTHER = seed_bytes("peer"), seed_bytes("other")
LINK, LINK_2, LINK_3 = 1, 2, 3
PING = Ping(1, 2, b"")


class Door:
    """A member whose messages pass the quotas first, as `Node` lets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch | None = None, **sizes: float) -> None:
        for name, value in sizes.items():
            assert monkeypatch is not None
            monkeypatch.setattr(quotas, name, value)
        self.member = Member("a").start()
        self.quotas = Quotas(self.member.env, self.member.replica)
        self.member.replica.watch(self.quotas.on_change)
        for link, peer in ((LINK, PEER), (LINK_2, OTHER), (LINK_3, PEER)):
            self.member.link(link, peer)
            self.quotas.link_up(link, peer)
            self.member.taken(link)

    def receive(self, message: Any, link: int = LINK) -> bool:
        """Whether the message was dealt with."""
        admitted = self.quotas.admits(link, message)
        if admitted:
            self.member.receive(link, message)
        return admitted

    def flood(self, message: Any, link: int = LINK) -> int:
        """How often a message is admitted in one moment before its link closes."""
        return next(n for n in range(10**6) if self._refuses(message, link))

    def _refuses(self, message: Any, link: int) -> bool:
        try:
            self.quotas.admits(link, message)
        except RemoteError as error:
            return error.code.name == "busy"
        return False


# --- the buckets ---------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_at_once_and_its_rate_after_that() -> None:
    buckets = Buckets(10.0, 50.0)
    assert sum(buckets.take(PEER, 1.0, 100.0) for _ in range(80)) == 50
    taken = sum(buckets.take(PEER, 1.0, 100.0 + n / 1000.0) for n in range(1, 3001))
    assert taken == 30
    assert buckets.take(OTHER, 50.0, 100.0)
    assert sum(buckets.take(PEER, 1.0, 200.0) for _ in range(80)) == 50


def test_more_than_a_whole_bucket_takes_a_whole_one() -> None:
    buckets = Buckets(10.0, 50.0)
    assert buckets.take(PEER, 1e9, 0.0)
    assert not buckets.take(PEER, 1.0, 0.05)
    assert buckets.tokens(PEER, 1.0) == pytest.approx(10.0)


def test_a_bucket_that_is_overdrawn_says_when_there_is_a_token_again() -> None:
    buckets = Buckets(10.0, 2.0)
    assert buckets.ready_in(PEER, 7.0) == 0.0
    for _ in range(5):
        buckets.charge(PEER, 1.0, 7.0)
    assert buckets.tokens(PEER, 7.0) == pytest.approx(-3.0)
    assert buckets.ready_in(PEER, 7.0) == pytest.approx(0.4)


def test_full_buckets_are_not_remembered() -> None:
    buckets = Buckets(10.0, 50.0)
    for n in range(1000):
        buckets.charge(seed_bytes("peer", n), 1.0, 0.0)
    assert len(buckets) == 1000
    for n in range(1000):
        buckets.charge(PEER, 1.0, 1.0 + n)
    assert len(buckets) == 1


# --- peers ---------------------------------------------------------------------------------------


def test_every_kind_of_message_is_bounded_here_or_by_forwarding() -> None:
    assert set(quotas._CHARGES) | set(UNCHARGED) == set(SEND_CLASS)
    assert not set(quotas._CHARGES) & set(UNCHARGED)


@pytest.mark.parametrize(
    "message",
    [
        PING,
        Pong(1, 2),
        msg.Probe(1, OTHER),
        msg.ProbeAnswer(1, OTHER, 5),
        msg.Vouch(b""),
        msg.Bye("x", "y"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_flood_of_control_messages_closes_the_link(message: Any) -> None:
    door = Door()
    assert door.flood(message) == CONTROL_BURST
    door.member.env.now += 1.0
    assert door.flood(message) == pytest.approx(CONTROL_PER_S, abs=1)


def test_comparisons_are_counted_by_the_owners_they_name() -> None:
    owners = tuple((seed_bytes(n), None) for n in range(99))
    entry = msg.VectorEntry(OTHER, Version(0, 1, 1), 1, 0, bytes(8))
    assert Door().flood(Want(owners)) == int(REPAIR_BURST // 100)
    assert Door().flood(msg.Vector((), (entry,) * 99, False, False)) == int(REPAIR_BURST // 100)
    assert Door().flood(msg.Refuses((OTHER,) * 99)) == int(REPAIR_BURST // 100)
    assert Door().flood(msg.Buckets(bytes(4096))) == int(REPAIR_BURST // 256)
    assert REPAIR_BURST >= 4 * OWNERS_MAX


def test_dialling_again_and_a_second_link_fill_no_bucket() -> None:
    door = Door()
    door.flood(PING)
    door.quotas.link_down(LINK)
    door.quotas.link_up(7, PEER)
    assert door.flood(PING, 7) == door.flood(PING, LINK_3) == 0
    assert door.flood(PING, LINK_2) == CONTROL_BURST


def test_what_comes_on_no_link_and_what_forwarding_bounds_is_let_through() -> None:
    door = Door()
    door.flood(PING)
    assert door.quotas.admits(99, PING)
    assert all(door.quotas.admits(LINK, msg.HopAck(n)) for n in range(5000))


def test_news_beyond_the_rate_are_dropped_and_a_flood_of_them_closes_the_link(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch, NEWS_BURST=20.0, NEWS_PER_S=10.0)
    authors = [Author(n) for n in range(50, 80)]
    taken = [door.receive(author.delta({"ci/x": {}})) for author in authors]
    assert taken == [True] * 20 + [False] * 10
    door.member.env.now += 1.0
    assert door.receive(authors[20].delta({"ci/y": {}}, full=True))
    assert door.flood(authors[21].delta({"ci/y": {}}, full=True)) >= CONTROL_BURST
    assert NEWS_BURST >= OWNERS_MAX


def test_proofs_are_news() -> None:
    assert Door().flood(Proof((), ())) == NEWS_BURST + CONTROL_BURST


def test_news_are_counted_by_their_bytes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(monkeypatch, BYTES_BURST=1e6, BYTES_PER_S=1e5)
    large = {f"ci/{n:03}": bytes(2000) for n in range(200)}
    assert [door.receive(Author(n).delta(large)) for n in (50, 51, 52)] == [True, True, False]
    assert not door.receive(Author(53).delta(large))
    assert door.receive(Author(54).delta({"ci/x": {}}))
    author = Author(50)
    author.delta(large)
    many = author.delta({}, delete=tuple(large))
    bytes_left = door.quotas._bytes.tokens(PEER, door.member.env.now)
    door.receive(many)
    used = bytes_left - door.quotas._bytes.tokens(PEER, door.member.env.now)
    assert used > 6 * len(large)
    assert BYTES_BURST >= 16 * SET_SIZE_MAX


def test_outlines_are_charged_like_the_news_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(monkeypatch, NEWS_BURST=3.0, NEWS_PER_S=0.001)
    author = Author(50)
    whole = author.delta({"stack/self": {"name": "x"}})
    assert door.receive(Outlines((whole, whole), True))
    assert not door.receive(Outlines((whole, whole), True))
    assert door.receive(Outlines((), False))
    assert not door.receive(Outlines((whole,), False))


# --- owners --------------------------------------------------------------------------------------


def change(author: Author, n: int) -> Delta:
    return author.delta({"ci/x": {"n": n}})


def wants(door: Door, link: int = LINK) -> list[Want]:
    return only(door.member.taken(link), Want)


def test_an_owner_that_changes_too_fast_is_asked_for_its_newest_when_it_has_a_token() -> None:
    door, author = Door(), Author(50)
    taken = [door.receive(change(author, n)) for n in range(70)]
    assert sum(taken) == OWNER_BURST
    assert wants(door) == []
    door.member.wait(1.01 / OWNER_PER_S)
    held = door.member.replica.owners[author.id]
    assert wants(door) == [Want(((author.id, held.base),))]
    newest = replace(author.delta(), base=None, puts=author.records.puts())
    assert door.receive(newest)
    assert door.member.shown(author.id) == author.records.records
    door.member.wait(5.0)
    assert wants(door) == []


def test_under_a_lasting_flood_its_news_are_taken_at_the_rate_and_passed_on_no_faster() -> None:
    door, author = Door(), Author(50)
    for n in range(1000):
        door.receive(change(author, n))
        for _want in wants(door):
            door.receive(author.delta(full=True))
        door.member.wait(0.01)
    taken = len(door.member.changes) - 1
    assert OWNER_BURST + 9 * OWNER_PER_S <= taken <= OWNER_BURST + 11 * OWNER_PER_S
    sent = only(door.member.taken(LINK_2), Delta)
    assert len(sent) <= taken


def test_an_owner_in_a_flood_takes_nothing_from_the_others() -> None:
    door, author = Door(), Author(50)
    for n in range(70):
        door.receive(change(author, n))
    assert all(door.receive(Author(n).delta({"ci/x": {}})) for n in range(51, 81))


def test_forgeries_cannot_use_up_what_an_owner_may_say() -> None:
    door, author = Door(), Author(50)
    door.receive(change(author, 0))
    for n in range(200):
        delta = change(author.twin(), n + 1)
        forged = replace(delta, head=SignedHead(delta.head.head, bytes(64)))
        with pytest.raises(RemoteError, match="signed"):
            door.receive(forged)
    assert door.receive(change(author, 1))
    assert door.member.shown(author.id) == author.records.records


def test_of_several_links_that_bring_a_fast_owner_the_last_two_are_asked() -> None:
    door, author = Door(), Author(50)
    for n in range(int(OWNER_BURST)):
        door.receive(change(author, n))
    late = change(author, 99)
    for link in (LINK_3, LINK, LINK_2, LINK):
        assert not door.receive(late, link)
    door.quotas.link_down(LINK_2)
    door.member.wait(1.0)
    assert [len(wants(door, link)) for link in (LINK, LINK_2, LINK_3)] == [1, 0, 0]


def test_who_was_forgotten_meanwhile_is_not_asked_for() -> None:
    door, author = Door(), Author(50)
    for n in range(70):
        door.receive(change(author, n))
    door.member.trust.evict(author.id)
    door.member.replica.drop(author.id)
    door.member.wait(1.0)
    assert wants(door) == []


def test_our_own_news_are_not_charged() -> None:
    door = Door()
    for n in range(200):
        door.member.owner.put(f"link/{n}", {}, urgent=True)
        door.member.settle()
    assert len(door.quotas._owners) == 0


# --- in a node -----------------------------------------------------------------------------------


def test_a_peer_that_floods_loses_its_link_and_is_struck() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    a = network["a"]
    (link,) = a.node.neighbours.links
    network.handle(a, ev.Received(link, (PING,) * int(CONTROL_BURST + 1)))
    assert [close.code for close in a.of(fx.CloseLink)] == ["busy"]
    assert len(a.notices("peer_struck")) == 1


def test_an_owner_in_a_flood_reaches_everybody_with_its_last_word_soon_after() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    a, b, c = (network[name] for name in "abc")
    for n in range(300):
        a.node.owner.put("link/x", {"n": n}, urgent=True)
        network.run(0.01)
    heads: list[int] = []
    c.node.replica.watch(lambda change: heads.append(1) if change.owner == a.id else None)
    network.run(0.5)
    assert c.node.replica.owners[a.id].value("link/x") == {"n": 299}
    assert b.notices("peer_struck") == c.notices("peer_struck") == []
