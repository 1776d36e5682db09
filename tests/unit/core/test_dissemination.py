from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core import dissemination as ds
from tektonmesh.core import linknews
from tektonmesh.core.keydoc import Voucher, write_proof
from tektonmesh.core.messages import Delta, Graft, Ihave, News, Prune, VectorEntry, Want
from tektonmesh.core.replica import Applied
from tektonmesh.core.types import ContentVersion, SignedHead, Version
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import Codec
from tests.support import Author, Member, advance, join, seed_bytes, sign_keydoc, talk

ONE, TWO, THREE = 1, 2, 3


def linked(*links: int, **more: Any) -> Member:
    """A started member with links that are up and were told nothing but our vector."""
    member = Member("a", **more).start()
    for link in links:
        member.dissemination.link_up(link, seed_bytes(link))
    return member


def deltas(member: Member, link: int) -> list[Delta]:
    return [message for message in member.taken(link) if isinstance(message, Delta)]


def wants(member: Member, link: int) -> list[Want]:
    return [message for message in member.taken(link) if isinstance(message, Want)]


def owners(sent: list[Delta], member: Member) -> list[bytes]:
    return [member.replica.read_head(delta.head).stack_id for delta in sent]


# --- flooding ------------------------------------------------------------------------------------


def test_news_go_to_every_link_but_the_one_they_came_from() -> None:
    member, author = linked(ONE, TWO, THREE), Author()
    member.receive(TWO, author.delta({"ci/numa": {}}))
    assert owners(deltas(member, ONE), member) == [author.id]
    assert owners(deltas(member, THREE), member) == [author.id]
    assert deltas(member, TWO) == []


def test_what_changes_in_one_turn_goes_in_one_piece() -> None:
    member, author = linked(ONE, TWO), Author()
    for n in range(3):
        member.dissemination.on_delta(ONE, author.delta({f"ci/{n}": {}}))
    member.settle()
    (sent,) = deltas(member, TWO)
    assert sent.base is None and len(sent.puts) == 3


def test_a_link_that_holds_the_version_before_gets_what_changed() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    (first,) = deltas(member, TWO)
    assert first.base is None and first.keydoc == author.keydoc
    member.receive(ONE, author.delta({"ci/x": {}}))
    (second,) = deltas(member, TWO)
    assert second.base == ContentVersion(0, 5, 1)
    assert [key for _, key, _ in second.puts] == ["ci/x"]
    assert second.keydoc is None


def test_news_that_the_other_end_sends_first_are_not_sent_back() -> None:
    member, author = linked(ONE, TWO), Author()
    delta = author.delta({"ci/numa": {}})
    member.dissemination.on_delta(ONE, delta)
    member.dissemination.on_delta(TWO, delta)
    member.settle()
    assert deltas(member, ONE) == deltas(member, TWO) == []


def test_a_new_proof_of_membership_rides_along() -> None:
    member, author = linked(ONE, TWO, mesh_key=None), Author(mesh_key=None)
    member.trust.admit(author.id)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    deltas(member, TWO)
    author.keydoc = sign_keydoc(author.keys, proof=write_proof(Codec(), b"", []))
    member.receive(ONE, author.delta({"ci/x": {}}))
    (sent,) = deltas(member, TWO)
    assert sent.keydoc == author.keydoc


def test_heads_that_only_refresh_wait_and_go_together() -> None:
    member = linked(ONE, TWO)
    authors = [Author(n) for n in (2, 3)]
    for author in authors:
        member.receive(ONE, author.delta({"ci/numa": {}}))
    deltas(member, TWO)
    for author in authors:
        member.receive(ONE, author.delta())
        member.wait(1.5)
    assert deltas(member, TWO) == []
    member.wait(0.6)
    sent = deltas(member, TWO)
    assert sorted(owners(sent, member)) == sorted(author.id for author in authors)
    assert all(delta.puts == () and delta.base is not None for delta in sent)


def test_a_change_takes_the_waiting_refresh_along() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.receive(ONE, author.delta())
    member.receive(ONE, author.delta({"ci/x": {}}))
    assert len(deltas(member, TWO)) == 2
    member.wait(5)
    assert deltas(member, TWO) == []


def test_a_refresh_behind_a_change_that_waits_does_not_hold_it_up() -> None:
    member, author = linked(ONE, TWO), Author()
    member.dissemination.on_delta(ONE, author.delta({"ci/numa": {}}))
    member.dissemination.on_delta(ONE, author.delta())
    member.settle()
    (sent,) = deltas(member, TWO)
    assert member.replica.read_head(sent.head).ver == 2


def test_a_refresh_that_the_other_end_has_meanwhile_is_not_sent() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    deltas(member, TWO)
    refresh = author.delta()
    member.receive(ONE, refresh)
    member.receive(TWO, refresh)
    member.wait(5)
    assert deltas(member, TWO) == []


def test_an_owner_that_no_link_takes_news_from_unasked_announces_its_refresh() -> None:
    member = linked(ONE, TWO, flood_stacks_max=0, skeleton_stacks_max=0)
    member.wait(1.0)
    member.receive(ONE, Prune())
    member.wait(113.0)
    assert owners(deltas(member, TWO), member)[-1] == member.id
    member.receive(TWO, Prune())
    member.taken(ONE)
    member.wait(113.0)
    for link in (ONE, TWO):
        (told,) = member.taken(link)
        assert isinstance(told, Ihave) and told.news[0].owner == member.id


def test_a_link_that_is_gone_gets_nothing() -> None:
    member, author = linked(ONE, TWO), Author()
    member.dissemination.on_delta(ONE, author.delta({"ci/numa": {}}))
    member.dissemination.on_delta(ONE, author.delta())
    member.dissemination.link_down(TWO)
    member.dissemination.link_down(9)
    member.wait(5)
    assert deltas(member, TWO) == []
    member.receive(TWO, author.delta({"ci/late": {}}))
    member.receive(TWO, Want(((author.id, None),)))
    assert "ci/late" not in (member.shown(author.id) or {})
    assert member.dissemination.known(TWO, author.id) is None


def test_a_large_queue_goes_in_parts_small_owners_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ds, "FLUSH_BYTES", 3000)
    member = linked(ONE, TWO)
    sizes = {2: 2, 3: 0, 4: 1}
    ids = {}
    for n, size in sizes.items():
        author = Author(n)
        ids[size] = author.id
        values = {f"ci/{at}": b"\xc5\x05\xdc" + bytes(1500) for at in range(size)}
        member.dissemination.on_delta(ONE, author.delta({"stack/self": {}, **values}))
    member.settle()
    first = deltas(member, TWO)
    assert owners(first, member) == [ids[0], ids[1]]
    late = Author(5)
    member.receive(ONE, late.delta({}))
    assert deltas(member, TWO) == [], "the pause holds for later news too"
    member.wait(0.25)
    assert set(owners(deltas(member, TWO), member)) == {ids[2], late.id}


def test_what_expired_or_was_forgotten_is_not_sent() -> None:
    member, author = linked(ONE, TWO), Author()
    member.dissemination.on_delta(ONE, author.delta({"ci/numa": {}}))
    member.replica.drop(author.id)
    member.settle()
    assert deltas(member, TWO) == []
    assert member.dissemination.known(ONE, author.id) is None


# --- answers -------------------------------------------------------------------------------------


def test_what_was_asked_for_is_sent_from_what_the_asker_holds() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    base = ContentVersion(0, 5, 1)
    member.receive(ONE, author.delta({"ci/x": {}}))
    deltas(member, TWO)
    member.receive(TWO, Want(((author.id, base), (seed_bytes("nobody"), None))))
    (sent,) = deltas(member, TWO)
    assert sent.base == base and sent.keydoc == author.keydoc
    member.receive(TWO, Want(((author.id, None),)))
    (sent,) = deltas(member, TWO)
    assert sent.base is None and len(sent.puts) == 2


def test_an_expired_owner_is_not_told() -> None:
    member, author = linked(ONE), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.wait(400)
    member.receive(ONE, Want(((author.id, None),)))
    assert author.id not in owners(deltas(member, ONE), member)


def test_a_want_for_too_many_breaks_the_protocol() -> None:
    member = linked(ONE)
    with pytest.raises(RemoteError, match="too many"):
        member.receive(ONE, Want(((bytes(32), None),) * 4097))


def test_a_missing_base_is_asked_for_with_what_is_held() -> None:
    member, author = linked(ONE), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    author.delta({"ci/missed": {}})
    member.receive(ONE, author.delta({"ci/x": {}}))
    assert wants(member, ONE) == [Want(((author.id, ContentVersion(0, 5, 1)),))]
    stranger = Author(3)
    member.receive(ONE, stranger.delta({"ci/x": {}}, keydoc=False))
    assert wants(member, ONE) == [Want(((stranger.id, None),))]


def test_whoever_sends_something_older_gets_ours() -> None:
    member, author = linked(ONE, TWO), Author()
    old = author.delta({"ci/numa": {}})
    member.receive(ONE, author.delta({"ci/x": {}}, full=True))
    deltas(member, TWO)
    member.dissemination.link_up(THREE, seed_bytes(3))
    member.receive(THREE, old)
    (sent,) = deltas(member, THREE)
    assert member.replica.read_head(sent.head).ver == 2


def test_whoever_sends_a_head_that_is_not_fresh_gets_nothing_back() -> None:
    member, author = linked(ONE), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    author.hlc += 10**7
    member.receive(ONE, author.delta({"ci/x": {}}))
    assert deltas(member, ONE) == []


def test_a_refused_owner_is_not_remembered() -> None:
    member, author = linked(ONE), Author()
    member.trust.evict(author.id)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    assert member.dissemination.known(ONE, author.id) is None


def test_every_answer_is_reported() -> None:
    member, author = linked(ONE), Author()
    heard: list[tuple[int, bytes, Applied]] = []
    member.dissemination.watch_answers(lambda *told: heard.append(told))
    delta = author.delta({"ci/numa": {}})
    member.receive(ONE, delta)
    member.receive(ONE, delta)
    assert heard == [(ONE, author.id, Applied.APPLIED), (ONE, author.id, Applied.STALE)]


def test_a_broken_delta_breaks_the_protocol() -> None:
    member, author = linked(ONE), Author()
    delta = author.delta({"ci/numa": {}})
    for broken in (
        replace(delta, head=SignedHead(b"\xc1", bytes(64))),
        replace(delta, head=SignedHead(delta.head.head, bytes(64))),
        replace(delta, puts=()),
    ):
        with pytest.raises(RemoteError):
            member.receive(ONE, broken)
    assert not member.replica.has(author.id)


# --- what vectors teach --------------------------------------------------------------------------


def entry_of(author: Author) -> VectorEntry:
    head = author.head()
    digest = ds.hash_head(author.sign().head)[:8]
    return VectorEntry(author.id, head.version, head.content_ver, 0, digest)


def test_what_a_link_said_it_holds_is_not_sent_to_it() -> None:
    member, author = linked(ONE, TWO), Author()
    delta = author.delta({"ci/numa": {}})
    member.dissemination.learned(TWO, entry_of(author))
    member.receive(ONE, delta)
    assert deltas(member, TWO) == []


def test_from_what_a_link_said_changes_are_built() -> None:
    member, author = linked(ONE, TWO), Author()
    member.dissemination.on_delta(ONE, author.delta({"ci/numa": {}}))
    member.dissemination.learned(TWO, entry_of(author))
    member.receive(ONE, author.delta({"ci/x": {}}))
    (sent,) = deltas(member, TWO)
    assert sent.base == ContentVersion(0, 5, 1)


def test_a_vector_that_crossed_our_news_does_not_undo_them() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    before = entry_of(author)
    member.receive(ONE, author.delta({"ci/x": {}}))
    member.dissemination.learned(TWO, before)
    known = member.dissemination.known(TWO, author.id)
    assert known is not None and known.version == Version(0, 5, 2)


def test_what_strangers_claim_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linknews, "KNOWN_MAX", 4)
    member = linked(ONE)
    ids = [seed_bytes(n) for n in range(9)]
    for owner in ids:
        member.dissemination.learned(ONE, VectorEntry(owner, Version(0, 1, 1), 1, 0, bytes(8)))
    known = [owner for owner in ids if member.dissemination.known(ONE, owner) is not None]
    assert known == ids[5:], "what was heard last is remembered"
    member.dissemination.learned(9, VectorEntry(ids[0], Version(0, 1, 1), 1, 0, bytes(8)))
    assert member.dissemination.known(9, ids[0]) is None


# --- contradictions and vouchers -----------------------------------------------------------------


def test_both_sides_of_a_contradiction_end_with_the_same_head() -> None:
    one, two = Member("a").start(), Member("b").start()
    said = [Author(3).delta({key: {}}) for key in ("ci/one", "ci/two")]
    for member, delta in zip((one, two), said, strict=True):
        member.replica.apply(delta, 9)
    link = join(one, ONE, two, TWO)
    talk(link)
    owner = Author(3).id
    assert one.replica.owners[owner].signed == two.replica.owners[owner].signed
    assert not one.replica.live(owner) and not two.replica.live(owner)
    assert one.replica.fingerprint() == two.replica.fingerprint()


def voucher_by(issuer: Author, subject: Author) -> bytes:
    mesh = issuer.identity.mesh_id
    said = Voucher(mesh, subject.id, "member", 2**47, issuer.id).sign(Codec(), issuer.keys)
    return write_proof(Codec(), b"", [said])


def test_an_owner_whose_issuer_comes_later_is_asked_for_again() -> None:
    issuer, subject = Author(2, mesh_key=None), Author(3, mesh_key=None)
    subject.keydoc = sign_keydoc(subject.keys, proof=voucher_by(issuer, subject))
    member = linked(ONE, TWO, mesh_key=None, allowed_ids=(issuer.id,))
    told = subject.delta({"ci/numa": {}})
    member.receive(ONE, told)
    assert not member.replica.has(subject.id)
    member.receive(TWO, issuer.delta({"ci/x": {}}))
    assert wants(member, ONE) == [Want(((subject.id, None),))]
    member.receive(ONE, told)
    assert member.replica.has(subject.id)


def test_an_unproven_owner_of_a_link_that_is_gone_is_not_asked_for() -> None:
    subject, other = Author(3, mesh_key=None), Author(2, mesh_key=None)
    member = linked(ONE, TWO, mesh_key=None, allowed_ids=(other.id,))
    member.receive(ONE, subject.delta({"ci/numa": {}}))
    member.dissemination.link_down(ONE)
    member.receive(TWO, other.delta({}))
    assert wants(member, ONE) == wants(member, TWO) == []


def test_the_unproven_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ds, "UNPROVEN_MAX", 2)
    other = Author(2, mesh_key=None)
    member = linked(ONE, mesh_key=None, allowed_ids=(other.id,))
    for n in range(3, 8):
        member.receive(ONE, Author(n, mesh_key=None).delta({}))
    member.receive(ONE, other.delta({}))
    assert len(wants(member, ONE)) == 2


# --- the tree ------------------------------------------------------------------------------------


def tree(*links: int, **more: Any) -> Member:
    """A member of a mesh that is too large for flooding and for a skeleton."""
    return linked(*links, flood_stacks_max=0, **{"skeleton_stacks_max": 0} | more)


def lazy(member: Member, *links: int) -> None:
    for link in links:
        member.receive(link, Prune())


def of_kind(member: Member, link: int, kind: type) -> list[Any]:
    return [message for message in member.taken(link) if isinstance(message, kind)]


def announce(author: Author) -> Ihave:
    """What somebody says who holds the newest head of this author."""
    digest = ds.hash_head(author.sign().head)[:8]
    return Ihave((News(author.id, author.head().version, digest),))


def test_every_link_is_eager_at_first() -> None:
    member, author = tree(ONE, TWO, THREE), Author()
    assert all(member.dissemination.is_eager(link) for link in (ONE, TWO, THREE))
    assert not member.dissemination.is_eager(9), "an unknown link is none"
    member.receive(ONE, author.delta({"ci/numa": {}}))
    assert len(deltas(member, TWO)) == len(deltas(member, THREE)) == 1


def test_a_second_copy_makes_the_link_that_brought_it_lazy_at_both_ends() -> None:
    member, author = tree(ONE, TWO), Author()
    delta = author.delta({"ci/numa": {}})
    member.receive(ONE, delta)
    assert of_kind(member, ONE, Prune) == []
    member.receive(TWO, delta)
    assert of_kind(member, TWO, Prune) == [Prune()]
    assert member.dissemination.is_eager(ONE) and not member.dissemination.is_eager(TWO)
    member.receive(TWO, delta)
    assert of_kind(member, TWO, Prune) == [], "it is said once"


def test_a_second_copy_that_was_asked_for_prunes_nothing() -> None:
    member, author = tree(ONE, TWO), Author()
    delta = author.delta({"ci/numa": {}})
    member.receive(ONE, delta)
    member.dissemination.want(TWO, [(author.id, None)])
    member.receive(TWO, delta)
    assert of_kind(member, TWO, Prune) == []
    member.receive(TWO, delta)
    assert of_kind(member, TWO, Prune) == [Prune()], "one copy was asked for, not two"


def test_a_second_copy_of_a_refresh_prunes_only_where_nothing_has_changed_for_a_minute() -> None:
    member, author = tree(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    refresh = author.delta()
    member.receive(ONE, refresh)
    member.receive(TWO, refresh)
    assert of_kind(member, TWO, Prune) == [], "which copy of a refresh is late is chance"
    advance(member.env, ds.QUIET_S + 1.0)
    refresh = author.delta()
    member.receive(ONE, refresh)
    member.receive(TWO, refresh)
    assert of_kind(member, TWO, Prune) == [Prune()], "refreshes are all there is to learn from"


def test_up_to_four_stacks_nothing_is_pruned_and_everything_flooded() -> None:
    member, author = linked(ONE, TWO), Author()
    delta = author.delta({"ci/numa": {}})
    member.receive(ONE, delta)
    member.receive(TWO, delta)
    assert of_kind(member, TWO, Prune) == []
    lazy(member, TWO)
    assert member.dissemination.is_eager(TWO)
    member.receive(ONE, author.delta({"ci/x": {}}))
    assert len(deltas(member, TWO)) == 1
    for n in (3, 4, 5):
        assert member.dissemination.is_eager(TWO)
        member.receive(ONE, Author(n).delta({}))
    assert not member.dissemination.is_eager(TWO), "five stacks are a tree"


def test_a_lazy_link_gets_one_announcement_of_all_that_changed_in_a_moment() -> None:
    member = tree(ONE, TWO, ihave_delay_s=0.02)
    lazy(member, TWO)
    authors = [Author(n) for n in (2, 3)]
    for author in authors:
        member.receive(ONE, author.delta({"ci/numa": {}}))
        member.wait(0.008)
    assert member.taken(TWO) == []
    member.wait(0.005)
    (told,) = member.taken(TWO)
    assert isinstance(told, Ihave)
    assert told.news == tuple(announce(author).news[0] for author in authors)
    member.wait(1.0)
    assert member.taken(TWO) == []


def test_what_the_other_end_announces_first_is_not_announced_back() -> None:
    member, author = tree(ONE, TWO, THREE), Author()
    lazy(member, TWO, THREE)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.receive(TWO, announce(author))
    member.wait(1.0)
    assert member.taken(TWO) == []
    assert of_kind(member, THREE, Ihave) == [announce(author)]


def test_an_owner_that_is_forgotten_meanwhile_is_not_announced() -> None:
    member, author = tree(ONE, TWO), Author()
    lazy(member, TWO)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    assert member.dissemination.queued() == 1
    member.replica.drop(author.id)
    assert member.dissemination.queued() == 0
    member.wait(1.0)
    assert member.taken(TWO) == []


def test_announcements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ds, "IHAVE_MAX", 2)
    member = tree(ONE, TWO)
    lazy(member, TWO)
    authors = [Author(n) for n in range(2, 5)]
    for author in authors:
        member.receive(ONE, author.delta({}))
    member.wait(0.1)
    assert [len(told.news) for told in of_kind(member, TWO, Ihave)] == [2, 1]
    with pytest.raises(RemoteError, match="too much"):
        member.receive(TWO, Ihave(tuple(announce(author).news[0] for author in authors)))


def test_what_is_announced_and_does_not_come_is_asked_for_and_grafts_the_link() -> None:
    member, author = tree(ONE, TWO, graft_wait_s=0.1), Author()
    lazy(member, TWO)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.wait(0.05)
    member.taken(TWO)
    missed = author.delta({"ci/x": {}})
    member.receive(TWO, announce(author))
    member.wait(0.09)
    assert of_kind(member, TWO, Graft) == []
    member.wait(0.02)
    assert of_kind(member, TWO, Graft) == [Graft(((author.id, ContentVersion(0, 5, 1)),))]
    assert member.dissemination.is_eager(TWO)
    member.receive(TWO, missed)
    assert "ci/x" in (member.shown(author.id) or {})


def test_a_stranger_that_is_announced_is_asked_for_whole() -> None:
    member, author = tree(ONE), Author()
    author.delta({"ci/numa": {}})
    member.receive(ONE, announce(author))
    member.wait(0.2)
    assert of_kind(member, ONE, Graft) == [Graft(((author.id, None),))]


def test_what_comes_in_time_is_not_asked_for() -> None:
    member, author = tree(ONE, TWO), Author()
    delta = author.delta({"ci/numa": {}})
    member.receive(TWO, announce(author))
    member.receive(ONE, delta)
    member.wait(1.0)
    assert of_kind(member, TWO, Graft) == []


def test_what_is_held_or_refused_is_not_waited_for() -> None:
    member, author, evicted = tree(ONE, TWO), Author(), Author(3)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.trust.evict(evicted.id)
    member.receive(TWO, announce(author))
    member.receive(TWO, announce(evicted))
    member.receive(9, announce(Author(4)))
    member.wait(1.0)
    assert of_kind(member, TWO, Graft) == []


def test_a_far_link_has_half_a_round_trip_to_bring_what_it_announced() -> None:
    member, author = tree(ONE, graft_wait_s=0.1), Author()
    member.dissemination.rtt_s = {ONE: 0.8}.__getitem__
    author.delta({"ci/numa": {}})
    member.receive(ONE, announce(author))
    member.wait(0.39)
    assert of_kind(member, ONE, Graft) == []
    member.wait(0.02)
    assert len(of_kind(member, ONE, Graft)) == 1


def test_a_graft_is_answered_and_makes_the_link_eager() -> None:
    member, author = tree(ONE, TWO), Author()
    lazy(member, TWO)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.wait(0.1)
    assert deltas(member, TWO) == []
    member.receive(TWO, Graft(((author.id, None),)))
    assert owners(deltas(member, TWO), member) == [author.id]
    member.receive(ONE, author.delta({"ci/x": {}}))
    assert len(deltas(member, TWO)) == 1
    with pytest.raises(RemoteError, match="too many"):
        member.receive(TWO, Graft(((bytes(32), None),) * (ds.WANT_MAX + 1)))


def test_messages_of_the_tree_on_links_that_are_gone_do_nothing() -> None:
    member, author = tree(ONE), Author()
    member.receive(ONE, author.delta({}))
    for message in (Prune(), Graft(((author.id, None),)), announce(Author(3))):
        member.receive(9, message)
    member.dissemination.graft(9, [])
    member.dissemination.agreed(9)
    member.wait(1.0)
    assert member.taken(9) == []


def test_refreshes_go_along_eager_links_only() -> None:
    member, author = tree(ONE, TWO, THREE), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    lazy(member, TWO)
    deltas(member, THREE)
    member.wait(0.1)
    member.taken(TWO)
    member.receive(ONE, author.delta())
    member.wait(5.0)
    assert member.taken(TWO) == []
    assert len(deltas(member, THREE)) == 1


def test_in_a_small_mesh_refreshes_go_along_the_skeleton_and_prune_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    member, author = tree(ONE, TWO, THREE, skeleton_stacks_max=256), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    skeleton = member.dissemination.skeleton
    monkeypatch.setattr(skeleton, "carries", lambda peer: peer == seed_bytes(TWO))
    lazy(member, TWO)
    deltas(member, THREE)
    member.wait(ds.QUIET_S + 1.0)
    member.taken(TWO)
    refresh = author.delta()
    member.receive(ONE, refresh)
    member.wait(5.0)
    assert len(deltas(member, TWO)) == 1 and member.taken(THREE) == []
    member.receive(THREE, refresh)
    assert of_kind(member, THREE, Prune) == []


def test_a_refresh_of_what_is_to_be_announced_is_announced() -> None:
    member, author = tree(ONE, TWO), Author()
    lazy(member, TWO)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.receive(ONE, author.delta())
    member.wait(0.1)
    assert of_kind(member, TWO, Ihave) == [announce(author)]


def test_what_is_to_be_announced_is_not_sent_as_a_refresh_too() -> None:
    member, author = tree(ONE, TWO), Author()
    lazy(member, TWO)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.receive(TWO, Graft(()))
    member.receive(ONE, author.delta())
    member.wait(5.0)
    assert member.taken(TWO) == [announce(author)]


# --- what a link is assumed to hold --------------------------------------------------------------


def test_a_link_that_agreed_gets_what_changed_since_without_a_key_document() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.dissemination.link_up(THREE, seed_bytes(THREE))
    member.dissemination.agreed(THREE)
    member.receive(ONE, author.delta({"ci/x": {}}))
    (sent,) = deltas(member, THREE)
    assert sent.base == ContentVersion(0, 5, 1) and sent.keydoc is None
    assert [key for _, key, _ in sent.puts] == ["ci/x"]


def test_a_link_that_did_not_agree_gets_all() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.dissemination.link_up(THREE, seed_bytes(THREE))
    member.receive(ONE, author.delta({"ci/x": {}}))
    (sent,) = deltas(member, THREE)
    assert sent.base is None and sent.keydoc == author.keydoc


def test_a_link_that_agreed_gets_a_new_owner_whole() -> None:
    member, author = linked(ONE, TWO), Author()
    member.dissemination.agreed(TWO)
    member.receive(ONE, author.delta({"ci/numa": {}}))
    (sent,) = deltas(member, TWO)
    assert sent.base is None and sent.keydoc == author.keydoc


def test_agreeing_makes_what_was_noted_out_of_date() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    assert member.dissemination.known(TWO, author.id) is not None
    member.dissemination.agreed(TWO)
    assert member.dissemination.known(TWO, author.id) is None


def test_what_a_link_asked_for_counts_for_more_than_that_it_agreed() -> None:
    member, author = linked(ONE, TWO), Author()
    member.receive(ONE, author.delta({"ci/numa": {}}))
    member.receive(ONE, author.delta({"ci/x": {}}))
    deltas(member, TWO)
    member.dissemination.agreed(TWO)
    member.receive(TWO, Want(((author.id, None),)))
    (sent,) = deltas(member, TWO)
    assert sent.base is None and len(sent.puts) == 2
