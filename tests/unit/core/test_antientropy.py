from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tektonmesh.core import antientropy as ae
from tektonmesh.core import events as ev
from tektonmesh.core.messages import (
    Buckets,
    Delta,
    Graft,
    Outlines,
    Prune,
    Refuses,
    Vector,
    VectorEntry,
    Want,
)
from tektonmesh.core.types import ContentVersion, Status, Version
from tektonmesh.errors import RemoteError
from tests.network import Network
from tests.support import Author, Member, join, seed_bytes, talk

ONE, TWO, THREE = 1, 2, 3


def member_with(count: int = 0, name: str = "a", **more: Any) -> tuple[Member, list[Author]]:
    """A started member that holds some authors."""
    member = Member(name, **more).start()
    authors = [Author(n) for n in range(50, 50 + count)]
    for author in authors:
        member.replica.apply(author.delta({"ci/numa": {}}), 99)
    return member, authors


def entry(owner: bytes, version: int = 1, content: int = 1) -> VectorEntry:
    return VectorEntry(owner, Version(0, 5, version), content, 0, bytes(8))


def tell(member: Member, link: int, *entries: VectorEntry, reply: bool = False) -> None:
    """What a peer holds. It has no outlines to send (`test_outlines.py`)."""
    member.receive(link, Vector((), tuple(entries), reply, False))
    if member.antientropy.outliner.waiting:
        member.receive(link, Outlines((), False))


def sent(member: Member, link: int, kind: type) -> list[Any]:
    return [message for message in member.taken(link) if isinstance(message, kind)]


def wanted(member: Member, link: int) -> list[bytes]:
    return [owner for want in sent(member, link, Want) for owner, _ in want.owners]


# --- at the start of a link ----------------------------------------------------------------------


def test_at_the_start_of_a_link_we_say_what_we_hold() -> None:
    member, authors = member_with(3)
    member.link(ONE, seed_bytes(1))
    (vector,) = sent(member, ONE, Vector)
    assert (vector.buckets, vector.reply, vector.more) == ((), False, False)
    assert {entry.owner for entry in vector.entries} == {a.id for a in authors} | {member.id}


def test_two_stacks_that_meet_end_with_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for most in (256, 0):
        monkeypatch.setattr(ae, "VECTOR_MAX", most)
        one, _ = member_with(5, "a")
        two, _ = member_with(0, "b")
        for n in range(3):
            two.replica.apply(Author(90 + n).delta({"ci/x": {}}), 99)
        talk(join(one, ONE, two, TWO))
        assert one.replica.fingerprint() == two.replica.fingerprint()
        assert len(one.replica.owners) == 10


def test_a_stack_with_few_owners_meets_one_with_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ae, "VECTOR_MAX", 3)
    one, _ = member_with(6, "a")
    two, _ = member_with(1, "b")
    talk(join(one, ONE, two, TWO))
    assert one.replica.fingerprint() == two.replica.fingerprint()


def test_what_both_hold_is_not_sent() -> None:
    one, _ = member_with(5, "a")
    two, _ = member_with(5, "b")
    link = join(one, ONE, two, TWO)
    messages = [*one.taken(ONE), *two.taken(TWO)]
    assert [type(message) for message in messages] == [Vector, Vector]
    for member, at, message in ((one, ONE, messages[1]), (two, TWO, messages[0])):
        member.receive(at, message)
    talk(link)
    assert one.replica.count() == two.replica.count() == 7


def test_many_entries_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ae, "CHUNK", 4)
    member, _ = member_with(9)
    member.link(ONE, seed_bytes(1))
    vectors = sent(member, ONE, Vector)
    assert [len(vector.entries) for vector in vectors] == [4, 4, 2]
    assert [vector.more for vector in vectors] == [True, True, False]


def test_an_empty_replica_has_nothing_to_say_at_the_start() -> None:
    member = Member("a")
    member.link(ONE, seed_bytes(1))
    assert member.taken(ONE) == []
    tell(member, ONE, reply=True)
    assert member.taken(ONE) == []


def test_an_answer_is_sent_once_and_again_when_something_changed() -> None:
    member, _ = member_with(2)
    member.link(ONE, seed_bytes(1))
    assert len(sent(member, ONE, Vector)) == 1
    tell(member, ONE, reply=True)
    assert sent(member, ONE, Vector) == []
    author = Author(80)
    member.replica.apply(author.delta({}), 99)
    tell(member, ONE, reply=True)
    (vector,) = sent(member, ONE, Vector)
    bucket = [e.owner for e in vector.entries if e.owner[0] == author.id[0]]
    assert author.id in bucket and all(e.owner[0] == author.id[0] for e in vector.entries)
    member.wait(3)
    tell(member, ONE, reply=True)
    (vector,) = sent(member, ONE, Vector)
    assert len(vector.entries) == 4


def test_only_the_last_chunk_of_a_vector_asks_for_an_answer() -> None:
    member, _ = member_with(2)
    member.link(ONE, seed_bytes(1))
    member.wait(3)
    member.taken(ONE)
    member.receive(ONE, Vector((), (), True, True))
    assert member.taken(ONE) == []
    member.receive(ONE, Vector((), (), True, False))
    assert len(member.taken(ONE)) == 1


def test_of_buckets_that_differ_the_vectors_are_exchanged() -> None:
    member, authors = member_with(3)
    member.link(ONE, seed_bytes(1))
    member.wait(3)
    member.taken(ONE)
    prints = member.replica.bucket_prints()
    member.receive(ONE, Buckets(b"".join(prints)))
    assert member.taken(ONE) == []
    bucket = authors[0].id[0]
    prints[bucket] = bytes(16)
    member.receive(ONE, Buckets(b"".join(prints)))
    (vector,) = sent(member, ONE, Vector)
    assert vector.buckets == (bucket,) and vector.reply
    assert authors[0].id in [entry.owner for entry in vector.entries]


def test_messages_of_unknown_links_and_wrong_sizes_are_ignored() -> None:
    member, _ = member_with(1)
    member.receive(9, Buckets(bytes(4096)))
    tell(member, 9, entry(seed_bytes(1)), reply=True)
    member.antientropy.on_fingerprint(9, bytes(16))
    member.link(ONE, seed_bytes(1))
    member.taken(ONE)
    member.antientropy.on_buckets(ONE, Buckets(b"short"))
    member.antientropy.on_fingerprint(ONE, b"short")
    member.settle()
    assert member.taken(9) == member.taken(ONE) == []
    assert member.antientropy.fingerprint_for_ping(9) == b""
    member.unlink(9)


# --- asking --------------------------------------------------------------------------------------


def test_what_is_lacking_is_asked_for_with_what_is_held() -> None:
    member, (author,) = member_with(1)
    member.link(ONE, seed_bytes(1))
    member.taken(ONE)
    tell(member, ONE, entry(author.id, 2, 2), entry(seed_bytes("new")))
    (want,) = sent(member, ONE, Want)
    assert want.owners == ((author.id, ContentVersion(0, 5, 1)), (seed_bytes("new"), None))


def test_what_is_held_refused_or_gone_is_not_asked_for() -> None:
    member, (author, gone) = member_with(2)
    evicted = seed_bytes("evicted")
    member.trust.evict(evicted)
    held = member.replica.owners[gone.id]
    held.expired = True
    member.link(ONE, seed_bytes(1))
    member.taken(ONE)
    version = member.replica.owners[author.id].version
    same = VectorEntry(author.id, version, 1, 0, member.replica.owners[author.id].head_hash)
    tell(member, ONE, same, entry(author.id, 0, 0), entry(evicted), entry(gone.id))
    assert wanted(member, ONE) == []


def test_an_owner_is_asked_for_on_one_link_and_another_when_that_fails() -> None:
    member, _ = member_with()
    owners = [seed_bytes("owner", n) for n in range(4)]
    for link in (ONE, TWO):
        member.link(link, seed_bytes(link))
        member.taken(link)
        tell(member, link, *map(entry, owners))
    assert wanted(member, ONE) == owners
    assert wanted(member, TWO) == []
    member.unlink(ONE)
    assert wanted(member, TWO) == owners


def test_a_link_that_does_not_answer_loses_what_was_asked_of_it() -> None:
    member, _ = member_with()
    authors = [Author(n) for n in (2, 3)]
    told = [author.delta({"ci/x": {}}) for author in authors]
    for link in (ONE, TWO):
        member.link(link, seed_bytes(link))
        member.taken(link)
        tell(member, link, *(entry(author.id) for author in authors))
    assert len(wanted(member, ONE)) == 2
    member.wait(9)
    member.receive(ONE, told[0])
    member.wait(9)
    assert wanted(member, TWO) == []
    member.wait(2)
    assert wanted(member, TWO) == [authors[1].id]
    member.receive(ONE, told[1])
    assert member.replica.has(authors[1].id), "a late answer is welcome"


def test_a_joining_stack_asks_its_links_for_different_owners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ae, "WINDOW", 4)
    member, _ = member_with()
    authors = [Author(n) for n in range(2, 12)]
    told = {author.id: author.delta({"ci/x": {}}) for author in authors}
    for link in (ONE, TWO):
        member.link(link, seed_bytes(link))
        member.taken(link)
        tell(member, link, *(entry(author.id) for author in authors))
    first, second = wanted(member, ONE), wanted(member, TWO)
    assert len(first) == len(second) == 4 and not set(first) & set(second)
    member.receive(ONE, told[first[0]])
    assert wanted(member, ONE) == [], "the window is filled again when half of it is answered"
    member.receive(ONE, told[first[1]])
    more = wanted(member, ONE)
    assert len(more) == 2 and not set(more) & set(first + second)
    for owner in first[2:] + second + more:
        member.receive(TWO, told[owner])
    assert len(member.replica.owners) == 11
    assert "wants" not in [key[0] for key in member.env.deadlines._live if type(key) is tuple]


def test_what_came_from_elsewhere_is_not_asked_for_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ae, "WINDOW", 1)
    member, _ = member_with()
    first, second = Author(2), Author(3)
    member.link(ONE, seed_bytes(1))
    member.taken(ONE)
    tell(member, ONE, entry(first.id), entry(second.id))
    assert wanted(member, ONE) == [first.id]
    second.delta({})
    member.replica.apply(second.delta({}, full=True), 99)
    member.receive(ONE, first.delta({}))
    assert wanted(member, ONE) == []


def test_news_that_nobody_asked_for_are_welcome() -> None:
    member, _ = member_with()
    author = Author(2)
    member.link(ONE, seed_bytes(1))
    member.receive(ONE, author.delta({}))
    assert member.replica.has(author.id)


def test_a_claim_about_a_forgotten_owner_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ae, "WINDOW", 1)
    member, (held,) = member_with(1)
    first = Author(2)
    member.link(ONE, seed_bytes(1))
    member.taken(ONE)
    tell(member, ONE, entry(first.id), entry(held.id, 2, 2))
    assert wanted(member, ONE) == [first.id]
    member.replica.drop(held.id)
    member.receive(ONE, first.delta({}))
    assert wanted(member, ONE) == []


def test_an_answer_that_needs_another_base_keeps_its_place() -> None:
    member, (author,) = member_with(1)
    member.link(ONE, seed_bytes(1))
    member.taken(ONE)
    author.delta({"ci/missed": {}})
    later = author.delta({"ci/x": {}})
    tell(member, ONE, entry(author.id, 3, 3))
    member.receive(ONE, later)
    assert wanted(member, ONE) == [author.id, author.id]
    member.receive(ONE, author.delta({}, full=True))
    assert "ci/x" in (member.shown(author.id) or {})


# --- prints --------------------------------------------------------------------------------------


def pings(member: Member, seconds: float, every: float = 2.5) -> list[bytes]:
    """What rides on the pings of some time."""
    rode = []
    for _ in range(int(seconds / every)):
        member.wait(every)
        rode.append(member.antientropy.fingerprint_for_ping(ONE))
    return rode


def test_the_print_rides_now_and_then_and_when_it_changed() -> None:
    member, _ = member_with(1)
    member.link(ONE, seed_bytes(1))
    own = member.replica.fingerprint()
    assert member.antientropy.fingerprint_for_ping(ONE) == own
    assert pings(member, 10) == [b"", b"", b"", own]
    member.replica.apply(Author(70).delta({}), 99)
    assert pings(member, 5) == [member.replica.fingerprint(), b""]


def test_while_prints_differ_ours_rides_on_every_ping() -> None:
    member, _ = member_with(1)
    member.link(ONE, seed_bytes(1))
    pings(member, 2.5)
    member.antientropy.on_fingerprint(ONE, bytes(16))
    assert pings(member, 5) == [member.replica.fingerprint()] * 2


def test_converged_is_who_last_said_the_same() -> None:
    member, _ = member_with(1)
    assert member.antientropy.converged() == (True, [])
    member.link(ONE, seed_bytes(1))
    member.link(TWO, seed_bytes(2))
    member.antientropy.on_fingerprint(ONE, member.replica.fingerprint())
    assert member.antientropy.converged() == (False, [seed_bytes(2)])
    member.antientropy.on_fingerprint(TWO, member.replica.fingerprint())
    assert member.antientropy.converged() == (True, [])
    member.replica.apply(Author(70).delta({}), 99)
    assert member.antientropy.converged() == (True, []), "there was no time to compare"
    member.wait(ae.UNTOLD_S)
    assert member.antientropy.converged() == (False, sorted([seed_bytes(1), seed_bytes(2)]))


def test_a_changed_print_is_told_once_soon_after_the_last_change() -> None:
    member, _ = member_with(1)
    told: list[int] = []
    member.antientropy.watch_prints(told.append)
    member.link(ONE, seed_bytes(1))
    member.antientropy.fingerprint_for_ping(ONE)
    member.wait(1)
    told.clear()
    member.wait(5)
    assert told == []
    for n in range(3):
        member.replica.apply(Author(70 + n).delta({}), 99)
        member.wait(ae.SETTLE_S - 0.1)
    assert told == []
    member.wait(0.2)
    assert told == [ONE]
    member.antientropy.fingerprint_for_ping(ONE)
    member.wait(5)
    assert told == [ONE]


def hear(member: Member, theirs: bytes = bytes(16)) -> list[Any]:
    """A print comes; returns the vectors and bucket prints that this made us send."""
    member.taken(ONE)
    member.antientropy.on_fingerprint(ONE, theirs)
    member.settle()
    return [message for message in member.taken(ONE) if isinstance(message, Vector | Buckets)]


def test_prints_that_differ_twice_with_a_rest_in_between_start_a_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for most, kind in ((256, Vector), (0, Buckets)):
        monkeypatch.setattr(ae, "VECTOR_MAX", most)
        member, _ = member_with(1)
        member.link(ONE, seed_bytes(1))
        member.wait(5)
        assert hear(member) == []
        member.wait(1.9)
        assert hear(member) == []
        member.wait(0.2)
        (message,) = hear(member)
        assert isinstance(message, kind)


def test_news_on_their_way_start_no_repair() -> None:
    member, _ = member_with(1)
    member.link(ONE, seed_bytes(1))
    assert hear(member) == []
    member.wait(2.5)
    member.replica.apply(Author(70).delta({}), 99)
    assert hear(member) == []
    member.wait(2.5)
    assert hear(member, member.replica.fingerprint()) == []
    member.wait(2.5)
    assert hear(member) == []


def test_sustained_churn_does_not_starve_the_repair() -> None:
    member, _ = member_with(1)
    member.link(ONE, seed_bytes(1))
    repairs = 0
    for n in range(40):
        member.replica.apply(Author(200 + n).delta({}), 99)
        repairs += len(hear(member)) > 0
        member.wait(1.0)
    assert repairs == 1


def test_a_repair_that_does_not_help_is_told_and_tried_ever_more_slowly() -> None:
    member, _ = member_with(1)
    member.link(ONE, seed_bytes(1))
    repairs = []
    for n in range(1200):
        if hear(member):
            repairs.append(n)
        member.wait(1.0)
    pauses = [b - a for a, b in pairwise(repairs)]
    assert pauses[0] <= 6 and pauses[:6] == sorted(pauses[:6])
    assert all(265 <= pause <= 335 for pause in pauses[7:])
    assert len(member.notices("not_converged")) == 1
    hear(member, member.replica.fingerprint())
    member.settle()
    assert len(member.notices("converged")) == 1


def test_a_lost_delta_is_mended_by_the_repair() -> None:
    one, (author,) = member_with(1, "a")
    two, _ = member_with(0, "b")
    link = join(one, ONE, two, TWO)
    talk(link)
    one.replica.apply(author.delta({"ci/lost": {}}), 99)
    one.settle()
    assert len(sent(one, ONE, Delta)) == 1
    for _ in range(3):
        for member, at, other, to in ((one, ONE, two, TWO), (two, TWO, one, ONE)):
            told = member.antientropy.fingerprint_for_ping(at)
            other.antientropy.on_fingerprint(to, told)
            one.wait(2.5)
            two.wait(2.5)
        talk(link)
    assert two.shown(author.id) == one.shown(author.id)


# --- leases --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("most", "first"), [(0, Graft), (256, Want)])
def test_with_half_the_lease_gone_two_links_are_asked(most: int, first: type) -> None:
    """Refreshes that have a skeleton say nothing of the tree of news: then none is grafted."""
    member, (author,) = member_with(1, skeleton_stacks_max=most)
    for link in (ONE, TWO, THREE):
        member.link(link, seed_bytes(link))
        member.taken(link)
    member.wait(149)
    assert [wanted(member, link) for link in (ONE, TWO, THREE)] == [[], [], []]
    member.wait(2)
    asked = [member.taken(link) for link in (ONE, TWO, THREE)]
    owners = ((author.id, ContentVersion(0, 5, author.content_ver)),)
    assert sorted(map(str, asked)) == sorted(map(str, [[], [first(owners)], [Want(owners)]]))


def test_a_refresh_that_stays_missing_is_asked_for_until_the_lease_is_over() -> None:
    member, (author,) = member_with(1)
    member.link(ONE, seed_bytes(1))
    member.wait(149)
    member.taken(ONE)
    for _ in range(5):
        member.wait(37.6)
        assert wanted(member, ONE) == [author.id]
    member.wait(200)
    assert wanted(member, ONE) == []


def test_who_gets_the_missing_refresh_asks_no_more() -> None:
    member, (author,) = member_with(1)
    member.link(ONE, seed_bytes(1))
    member.wait(151)
    assert wanted(member, ONE) == [author.id]
    author.hlc += 150_000
    member.receive(ONE, author.delta())
    member.wait(100)
    assert wanted(member, ONE) == []


def test_after_a_refresh_nobody_is_asked() -> None:
    member, (author,) = member_with(1)
    member.link(ONE, seed_bytes(1))
    for _ in range(3):
        member.wait(100)
        author.hlc += 100_000
        member.replica.apply(author.delta(), 99)
    assert wanted(member, ONE) == []


def test_a_left_or_ended_owner_is_not_asked_for() -> None:
    member, (author, other) = member_with(2)
    member.link(ONE, seed_bytes(1))
    left = author.delta({}, full=True, status=Status.LEFT, lease_s=900)
    member.replica.apply(left, 99)
    member.replica.apply(Author(70).delta({}, status=Status.LEFT, lease_s=900), 99)
    member.replica.drop(other.id)
    member.taken(ONE)
    member.wait(600)
    assert wanted(member, ONE) == []


def test_without_links_nobody_is_asked() -> None:
    member, _ = member_with(1)
    member.wait(200)
    assert member.sent == {}


def test_owners_that_the_disk_remembered_are_watched_too() -> None:
    member, (author,) = member_with(1)
    member.settle()
    again = Member("a", saved=member.disk).start()
    again.link(ONE, seed_bytes(1))
    again.taken(ONE)
    again.wait(151)
    assert wanted(again, ONE) == [author.id]


def test_an_owner_that_equivocates_changes_nothing_here() -> None:
    member, (author,) = member_with(1)
    liar = Author(50)
    member.replica.apply(liar.delta({"ci/other": {}}), 99)
    assert member.replica.owners[author.id].equivocated
    assert member.changes[-1].kind == "flagged"


# --- bounds --------------------------------------------------------------------------------------


def test_what_a_link_may_still_be_asked_for_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ae, "TODO_MAX", 250)
    member, _ = member_with()
    member.link(ONE, seed_bytes(1))
    for part in range(10):
        tell(member, ONE, *(entry(seed_bytes(part, n)) for n in range(100)))
    assert len(member.antientropy._links[ONE].todo) == 250


# --- evicted owners ------------------------------------------------------------------------------


def evict(member: Member, owner: bytes) -> None:
    member.trust.evict(owner)
    member.replica.drop(owner)
    member.antientropy.left_out()
    member.settle()


def test_the_refused_are_named_at_the_start_of_a_link_and_on_every_eviction() -> None:
    member, (one, two) = member_with(2)
    member.link(ONE, seed_bytes(1))
    assert not sent(member, ONE, Refuses)
    evict(member, one.id)
    assert sent(member, ONE, Refuses) == [Refuses((one.id,))]
    evict(member, two.id)
    both = Refuses(tuple(sorted((one.id, two.id))))
    assert sent(member, ONE, Refuses) == [both]
    member.link(TWO, seed_bytes(2))
    assert isinstance(member.taken(TWO)[0], Refuses)


def test_an_evicted_peer_is_not_told_so_on_its_last_link() -> None:
    member, (one,) = member_with(1)
    member.link(ONE, one.id)
    evict(member, one.id)
    assert not sent(member, ONE, Refuses)


def test_two_stacks_agree_though_one_evicted_an_owner_that_the_other_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for most in (256, 0):
        monkeypatch.setattr(ae, "VECTOR_MAX", most)
        one, (gone, kept) = member_with(2, "a")
        two, _ = member_with(2, "b")
        evict(one, gone.id)
        link = join(one, ONE, two, TWO)
        talk(link)
        for here, at, there, to in (link, (two, TWO, one, ONE)):
            there.antientropy.on_fingerprint(to, here.antientropy.fingerprint_for_ping(at))
        assert one.antientropy.converged() == two.antientropy.converged() == (True, [])
        assert one.replica.fingerprint() != two.replica.fingerprint()
        assert two.replica.has(gone.id) and one.replica.has(kept.id)


def test_news_of_an_owner_are_not_sent_to_a_peer_that_refuses_it() -> None:
    member, (one, two) = member_with(2)
    member.link(ONE, seed_bytes(1))
    tell(member, ONE, entry(one.id, 9))
    member.receive(ONE, Refuses((one.id,)))
    member.taken(ONE)
    for author in (one, two):
        member.replica.apply(author.delta({"ci/x": {}}), 99)
    member.settle()
    (delta,) = sent(member, ONE, Delta)
    assert member.replica.read_head(delta.head).stack_id == two.id
    tell(member, ONE, entry(one.id, 9), reply=True)
    assert not wanted(member, ONE)
    member.wait(200)
    assert one.id not in wanted(member, ONE)


def test_a_list_of_refused_owners_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    member, authors = member_with(3)
    member.link(ONE, seed_bytes(1))
    too_many = Refuses(tuple(seed_bytes(n) for n in range(257)))
    with pytest.raises(RemoteError):
        member.receive(ONE, too_many)
    member.receive(TWO, Refuses((seed_bytes(1),)))
    monkeypatch.setattr(ae, "REFUSES_MAX", 2)
    member.taken(ONE)
    for author in authors:
        evict(member, author.id)
    told = [len(refuses.owners) for refuses in sent(member, ONE, Refuses)]
    assert told[:2] == [1, 2] and max(told) == 2


def test_a_mesh_converges_after_an_eviction() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network.run(15)
    a, b = network["a"], network["b"]
    a.do(lambda ticket: ev.EvictPeer(ticket, network["c"].id))
    network.run(120)
    assert a.node.antientropy.converged() == (True, [])
    assert b.node.antientropy.converged() == (True, [])
    assert not a.notices("not_converged") and b.node.graph.reachable(network["c"].id)


# --- the tree and warm starts --------------------------------------------------------------------


def grafted(member: Member, link: int) -> list[bytes]:
    """The owners that a link was asked for by grafting it."""
    return [owner for graft in sent(member, link, Graft) for owner, _ in graft.owners]


def test_with_half_the_lease_gone_a_link_that_was_pruned_is_grafted_and_asked() -> None:
    member, (author,) = member_with(1, flood_stacks_max=0, skeleton_stacks_max=0)
    member.link(ONE, seed_bytes(1))
    member.receive(ONE, Prune())
    member.wait(149)
    assert grafted(member, ONE) == [] and not member.dissemination.is_eager(ONE)
    member.wait(2)
    assert author.id in grafted(member, ONE)
    assert member.dissemination.is_eager(ONE)


def test_a_refresh_that_only_the_other_link_had_grafts_that_one_too() -> None:
    member, (author,) = member_with(1, flood_stacks_max=0, skeleton_stacks_max=0)
    for link in (ONE, TWO):
        member.link(link, seed_bytes(link))
        member.receive(link, Prune())
    member.wait(151)
    (other,) = [link for link in (ONE, TWO) if author.id not in grafted(member, link)]
    assert not member.dissemination.is_eager(other)
    author.hlc += 151_000
    member.receive(other, author.delta())
    assert sent(member, other, Graft) == [Graft(())]
    assert member.dissemination.is_eager(other)


def test_a_refresh_that_came_in_time_grafts_nothing() -> None:
    member, (author,) = member_with(1, flood_stacks_max=0, skeleton_stacks_max=0)
    member.link(ONE, seed_bytes(1))
    member.receive(ONE, Prune())
    member.wait(100)
    author.hlc += 100_000
    member.receive(ONE, author.delta())
    member.wait(60)
    assert sent(member, ONE, Graft) == []


def test_an_answer_over_a_link_that_was_grafted_grafts_it_no_second_time() -> None:
    member, (author,) = member_with(1, flood_stacks_max=0, skeleton_stacks_max=0)
    member.link(ONE, seed_bytes(1))
    member.wait(151)
    assert author.id in grafted(member, ONE)
    author.hlc += 151_000
    member.receive(ONE, author.delta())
    assert sent(member, ONE, Graft) == []


def prints_told(count: int) -> list[int]:
    """The links that are told of a change at once, in a mesh of some authors and two more."""
    member, _ = member_with(count)
    member.link(ONE, seed_bytes(1))
    told: list[int] = []
    member.antientropy.watch_prints(told.append)
    member.replica.apply(Author(40).delta({}), 99)
    member.wait(ae.SETTLE_S)
    return told


def test_in_a_large_mesh_a_changed_print_waits_for_the_next_ping() -> None:
    assert prints_told(ae.TELL_STACKS_MAX - 2) == [ONE]
    assert prints_told(ae.TELL_STACKS_MAX - 1) == []


def test_of_a_peer_that_agreed_once_buckets_that_changed_a_moment_ago_are_let_rest() -> None:
    for agreed in (True, False):
        member, authors = member_with(1)
        member.wait(3)
        member.link(ONE, seed_bytes(1))
        if agreed:
            member.antientropy.on_fingerprint(ONE, member.replica.fingerprint())
        theirs = Buckets(b"".join(member.replica.bucket_prints()))
        member.taken(ONE)
        member.replica.apply(authors[0].delta({"ci/x": {}}), 99)
        member.receive(ONE, theirs)
        assert bool(sent(member, ONE, Vector)) is not agreed
        member.wait(2.1)
        member.taken(ONE)
        member.receive(ONE, theirs)
        assert len(sent(member, ONE, Vector)) == 1


def test_a_link_between_two_that_agree_begins_in_silence() -> None:
    member, _ = member_with(3)
    member.dissemination.link_up(ONE, seed_bytes(1))
    member.antientropy.link_up(ONE, seed_bytes(1), agreed=True)
    member.settle()
    assert member.taken(ONE) == []
    assert member.antientropy.fingerprint_for_ping(ONE) == b""
    member.wait(2)
    assert member.antientropy.converged() == (True, [])
    member.replica.apply(Author(80).delta({}), 99)
    assert member.antientropy.fingerprint_for_ping(ONE) == member.replica.fingerprint()


def test_who_resumes_watches_over_the_leases_all_the_same() -> None:
    member = Member("a")
    member.replica.apply(Author().delta({"ci/numa": {}}), 99)
    member.env.deadlines.drop("half-leases")
    member.antientropy.resume()
    member.link(ONE, seed_bytes(1))
    member.wait(149)
    assert wanted(member, ONE) == []
    member.wait(2)
    assert wanted(member, ONE) == [Author().id]
