"""By how much linked replicas differ, as far as is known."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import divergence as dv
from tektonmesh.core.divergence import Divergence, Gap
from tektonmesh.core.events import Received
from tektonmesh.core.messages import Delta, Ping, Refuses, Vector, VectorEntry
from tektonmesh.core.types import Status, Version
from tests.network import Network
from tests.support import Author, Member, seed_bytes

ONE, TWO = 1, 2
PEER = seed_bytes("peer")
OTHER_PRINT = bytes(range(16))


class Compared(Member):
    """A member with three owners and a link whose peer is played by the test."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("a", **settings)
        self.divergence = Divergence(self.env, self.replica, self.antientropy)
        self.authors = [Author(n) for n in (50, 51, 52)]
        for author in self.authors:
            self.replica.apply(author.delta({"ci/numa": {}}), 99)
        self.open(ONE)

    def open(self, link: int) -> None:
        self.link(link, PEER)
        self.divergence.link_up(link, PEER)

    def said(self, author: Author, **changes: Any) -> VectorEntry:
        """What somebody says that holds what we hold of an author, with changes."""
        (held,) = [e for e in self.replica.entries(()) if e.owner == author.id]
        fields = {name: getattr(held, name) for name in VectorEntry.__slots__} | changes
        return VectorEntry(**fields)

    def hear(self, *entries: VectorEntry, more: bool = False, link: int = ONE) -> None:
        self.divergence.on_vector(link, Vector((), entries, False, more))

    def hear_print(self, theirs: bytes, link: int = ONE) -> None:
        """As `Node` does for a print on a ping."""
        self.antientropy.on_fingerprint(link, theirs)
        self.divergence.on_print(link, theirs)

    def owners(self) -> int | None:
        return self.divergence.gaps()[PEER].owners


def test_a_link_that_said_nothing_yet_differs_by_an_unknown_number() -> None:
    member = Compared()
    assert member.divergence.gaps() == {PEER: Gap(None, member.env.now)}


def test_while_only_prints_are_known_the_number_is_unknown_and_the_time_runs() -> None:
    member = Compared()
    member.hear_print(member.replica.fingerprint())
    assert member.divergence.gaps() == {}
    since = member.env.now = member.env.now + 10.0
    member.hear_print(OTHER_PRINT)
    member.env.now += 12.0
    member.hear_print(OTHER_PRINT)
    assert member.divergence.gaps() == {PEER: Gap(None, since)}


def test_what_the_peer_holds_otherwise_is_counted() -> None:
    member = Compared()
    one, two, three = member.authors
    newer = member.said(one, version=Version(0, 5, 9), content_ver=2)
    left = member.said(two, status=int(Status.LEFT))
    twin = member.said(three, head_hash=bytes(8))
    member.hear(newer, left, twin)
    assert member.owners() == 3
    member.hear(member.said(one), member.said(two), twin)
    assert member.owners() == 1


def test_a_head_that_only_refreshes_makes_no_difference() -> None:
    member = Compared()
    refreshed = member.said(member.authors[0], version=Version(0, 5, 9), head_hash=bytes(8))
    member.hear(refreshed, *map(member.said, member.authors[1:]))
    assert member.owners() is None


def test_what_only_one_of_the_two_has_is_counted() -> None:
    member = Compared()
    one, two, _three = member.authors
    stranger = VectorEntry(Author(60).id, Version(0, 1, 1), 1, 0, bytes(8))
    member.hear(stranger, *map(member.said, member.authors))
    assert member.owners() == 1
    # Of a bucket that is named all is named, so what is missing there is lacked.
    beside = VectorEntry(two.id[:1] + bytes(31), Version(0, 1, 1), 1, 0, bytes(8))
    member.hear(beside, member.said(one))
    assert member.owners() == 3, "two is lacked, beside and the stranger are not known here"


def test_a_bucket_that_is_not_named_says_nothing() -> None:
    member = Compared()
    member.hear(member.said(member.authors[0]))
    member.hear()
    assert member.owners() is None


def test_a_bucket_may_be_cut_by_the_end_of_a_chunk() -> None:
    member = Compared()
    one = member.authors[0]
    beside = VectorEntry(one.id[:1] + bytes(31), Version(0, 1, 1), 1, 0, bytes(8))
    member.hear(beside, more=True)
    assert member.owners() == 1
    member.hear(member.said(one))
    assert member.owners() == 1


def test_what_came_since_counts_no_more() -> None:
    member = Compared()
    late = Author(60)
    delta = late.delta({"ci/x": {}})
    twin = Member("b")
    twin.replica.apply(delta, 99)
    (entry,) = [e for e in twin.replica.entries(()) if e.owner == late.id]
    member.hear(entry)
    assert member.owners() == 1
    member.replica.apply(delta, ONE)
    assert member.owners() is None


def test_an_owner_whose_lease_ran_out_here_counts_while_the_peer_has_it() -> None:
    member = Compared()
    entry = member.said(member.authors[0])
    member.wait(400.0)
    member.hear(entry)
    assert member.owners() == 1


def test_the_evicted_of_either_end_do_not_count() -> None:
    member = Compared()
    one, two, three = member.authors
    newer = [member.said(a, version=Version(0, 6, 1)) for a in (one, two, three)]
    member.hear(*newer)
    assert member.owners() == 3
    member.divergence.on_refuses(ONE, Refuses((one.id,)))
    assert member.owners() == 2
    member.trust.evict(two.id)
    member.hear(*newer)
    assert member.owners() == 1


def test_the_evicted_are_left_out_of_the_print_as_the_repair_does() -> None:
    member = Compared()
    one, two, _three = member.authors
    member.receive(ONE, Refuses((one.id,)))
    member.divergence.on_refuses(ONE, Refuses((one.id,)))
    member.hear(member.said(two, version=Version(0, 6, 1)))
    member.hear_print(member.replica.fingerprint((one.id,)))
    assert member.divergence.gaps() == {}
    member.hear_print(OTHER_PRINT)
    member.hear(member.said(one, version=Version(0, 6, 1)))
    assert member.owners() is None, "agreeing prints end the count, and what is refused stays so"


def test_our_own_news_make_a_gap_that_begins_when_somebody_asks() -> None:
    member = Compared()
    member.hear_print(member.replica.fingerprint())
    member.replica.apply(member.authors[0].delta({"ci/new": {}}), 99)
    member.wait(5.0)
    assert member.divergence.gaps() == {PEER: Gap(None, member.env.now)}


def test_more_owners_than_are_noted_are_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dv, "NOTED_MAX", 2)
    member = Compared()
    newer = [member.said(a, version=Version(0, 6, 1)) for a in member.authors]
    member.hear(*newer)
    member.hear(*newer)
    assert member.owners() == 3
    assert Compared(chronicle_max=0).divergence._noted_max == 0


def test_an_endless_vector_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dv, "NAMED_MAX", 10)
    member = Compared()
    for n in range(100):
        owner = seed_bytes("owner", n)
        member.hear(VectorEntry(owner, Version(0, 1, 1), 1, 0, bytes(8)), more=True)
        named = member.divergence._links[ONE].named
        assert sum(map(len, named.values())) <= 11


def test_of_two_links_the_one_that_knows_more_speaks() -> None:
    member = Compared()
    member.open(TWO)
    member.hear(member.said(member.authors[0], version=Version(0, 6, 1)), link=TWO)
    assert member.owners() == 1
    member.divergence.link_down(TWO)
    assert member.owners() is None


def test_what_comes_on_a_link_that_is_gone_is_ignored() -> None:
    member = Compared()
    member.divergence.link_down(ONE)
    member.divergence.link_down(ONE)
    member.hear(member.said(member.authors[0], version=Version(0, 6, 1)))
    member.divergence.on_print(ONE, OTHER_PRINT)
    member.divergence.on_refuses(ONE, Refuses(()))
    assert member.owners() is None


# --- in a node -----------------------------------------------------------------------------------


def test_a_node_that_missed_news_knows_in_how_many_stacks_it_differs_until_they_come() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    cut = {"a"}
    network.passes = lambda _from, to, message: not (isinstance(message, Delta) and to in cut)
    network["c"].register("numa")
    network.run(12.0)
    (gap,) = network["a"].node.divergence.gaps().values()
    assert gap.owners == 1
    assert 0.0 < network.now - gap.since <= 12.0
    cut.clear()
    network.run(30.0)
    assert network["a"].node.divergence.gaps() == network["b"].node.divergence.gaps() == {}


def test_a_ping_without_a_print_compares_nothing() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    a = network["a"]
    (link,) = a.node.neighbours.links
    network.handle(a, Received(link, (Ping(1, 0, OTHER_PRINT),)))
    (gap,) = a.node.divergence.gaps().values()
    began = network.now
    network.now += 0.1
    network.handle(a, Received(link, (Ping(2, 0, b""),)))
    assert a.node.divergence.gaps() == {network["b"].id: Gap(gap.owners, began)}
