"""The checks between a link and the replica, through `Replica.apply`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core import intake
from tektonmesh.core.head import MINOR_VERSION
from tektonmesh.core.keydoc import hash_doc
from tektonmesh.core.messages import Delta
from tektonmesh.core.replica import Applied
from tektonmesh.core.types import ContentVersion, SignedHead, SignedKeyDoc, Status
from tektonmesh.errors import NoveltyError, RemoteError
from tektonmesh.wire.codec import Codec, pack
from tests.support import WALL_S, Author, Member, join, make_keys, sign_keydoc, talk

NOW_MS = int(WALL_S * 1000)
LINK = 1


def state(member: Member) -> Any:
    """All of a replica that a refused delta must not change."""
    return [
        (owner, held.signed, dict(held.records), held.equivocated, held.expired)
        for owner, held in sorted(member.replica.owners.items())
    ]


def refuse(member: Member, delta: Delta, why: str) -> None:
    before = state(member), member.replica.fingerprint()
    with pytest.raises(RemoteError, match=why) as caught:
        member.replica.apply(delta, LINK)
    assert not isinstance(caught.value, NoveltyError)
    assert (state(member), member.replica.fingerprint()) == before


def holding(*values: str) -> tuple[Member, Author]:
    """A member that holds the first delta of an author."""
    member, author = Member("a"), Author()
    first = author.delta({key: {"v": 1} for key in values or ("ci/numa",)})
    assert member.replica.apply(first, LINK) is Applied.APPLIED
    return member, author


# --- what is taken -------------------------------------------------------------------------------


def test_a_snapshot_a_change_and_a_refresh_are_taken() -> None:
    member, author = holding("ci/numa", "ci/zeno")
    change = author.delta({"ci/numa": {"v": 2}}, delete=("ci/zeno",), keydoc=False)
    assert member.replica.apply(change, LINK) is Applied.APPLIED
    assert member.shown(author.id) == {"ci/numa": pack({"v": 2})}
    assert member.replica.apply(author.delta(keydoc=False), LINK) is Applied.REFRESHED
    assert member.replica.owners[author.id].version.ver == 3


def test_a_snapshot_over_an_older_one_removes_what_is_gone() -> None:
    member, author = holding("ci/numa", "ci/zeno")
    author.delta({}, delete=("ci/zeno",))
    assert member.replica.apply(author.delta({"ci/x": {}}, full=True), LINK) is Applied.APPLIED
    assert sorted(member.shown(author.id) or {}) == ["ci/numa", "ci/x"]


def test_a_snapshot_of_what_is_held_is_a_refresh() -> None:
    member, author = holding()
    assert member.replica.apply(author.delta(full=True), LINK) is Applied.REFRESHED


def test_a_record_of_an_unknown_kind_is_kept_and_told() -> None:
    member, author = holding("mood/today")
    told = member.replica.delta_for(author.id, None, with_keydoc=True)
    assert told.puts == ((5, "mood/today", pack({"v": 1})),)


def test_unknown_keys_of_a_head_travel_on() -> None:
    member, author = Member("a"), Author()
    delta = author.delta({"ci/numa": {}}, extra={77: "later"})
    member.replica.apply(delta, LINK)
    assert member.replica.delta_for(author.id, None, with_keydoc=False).head == delta.head


# --- size and form -------------------------------------------------------------------------------


def test_a_malformed_head_is_refused() -> None:
    member, author = holding()
    refuse(member, replace(author.delta(), head=SignedHead(b"\xc1", bytes(64))), "malformed")


def test_a_head_of_another_mesh_is_refused() -> None:
    member, author = holding()
    refuse(member, author.delta(mesh_id=bytes(8)), "mesh")


@pytest.mark.hostile("over-quota")
def test_too_many_changes_are_refused() -> None:
    member, author = holding()
    many = tuple((1, f"ci/{n:05}") for n in range(4097))
    puts = tuple((scope, key, b"") for scope, key in many)
    refuse(member, replace(author.delta(), deletes=many), "more changes")
    refuse(member, replace(author.delta(), puts=puts), "more changes")


@pytest.mark.hostile("over-quota")
def test_too_many_bytes_are_refused() -> None:
    member, author = holding()
    puts = tuple((1, f"ci/{n:05}", bytes(2048)) for n in range(600))
    refuse(member, replace(author.delta(), puts=puts), "size quota")


def test_records_that_are_doubled_or_out_of_order_are_refused() -> None:
    member, author = holding()
    for keys in (("ci/b", "ci/a"), ("ci/a", "ci/a")):
        puts = tuple((1, key, b"") for key in keys)
        refuse(member, replace(author.delta(), puts=puts), "order")


def test_a_record_that_breaks_a_rule_is_refused() -> None:
    member, author = holding()
    for put in ((0, "ci/x", b""), (1, "CI/x", b""), (1, "ci/x", bytes(2049)), (16, "x/y", b"")):
        refuse(member, replace(author.delta(full=True), puts=(put,)), "A record")


# --- quota and admission -------------------------------------------------------------------------


@pytest.mark.hostile("over-quota")
def test_a_full_replica_takes_no_new_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "OWNERS_MAX", 1)
    member, author = holding()
    assert member.replica.apply(Author(3).delta({}), LINK) is Applied.REFUSED
    assert member.replica.apply(author.delta({"ci/x": {}}), LINK) is Applied.APPLIED


def test_an_evicted_owner_is_refused() -> None:
    member, author = holding()
    member.trust.evict(author.id)
    before = state(member)
    assert member.replica.apply(author.delta({"ci/x": {}}), LINK) is Applied.REFUSED
    assert state(member) == before


def test_an_owner_without_a_proof_of_membership_is_not_taken() -> None:
    member, author = Member("a"), Author(mesh_key=None)
    assert member.replica.apply(author.delta({}), LINK) is Applied.UNPROVEN
    assert not member.replica.has(author.id)


def test_a_stripped_proof_does_not_undo_the_one_that_counted() -> None:
    member, author = holding()
    proof = author.keydoc
    author.keydoc = sign_keydoc(author.keys)
    assert member.replica.apply(author.delta({"ci/x": {}}), LINK) is Applied.APPLIED
    assert member.replica.owners[author.id].signed_keydoc == proof


def test_a_new_proof_of_a_known_owner_is_kept() -> None:
    member, author = Member("a", mesh_key=None), Author(mesh_key=None)
    member.trust.admit(author.id)
    member.replica.apply(author.delta({}), LINK)
    author.keydoc = sign_keydoc(author.keys, proof=pack({"mac": b"new"}))
    member.replica.apply(author.delta({"ci/x": {}}), LINK)
    assert member.replica.owners[author.id].signed_keydoc.proof == pack({"mac": b"new"})


def test_a_missing_key_document_is_asked_for() -> None:
    member, author = Member("a"), Author()
    delta = author.delta({"ci/x": {}}, keydoc=False)
    assert member.replica.apply(delta, LINK) is Applied.NEED
    assert member.replica.apply(replace(delta, keydoc=author.keydoc), LINK) is Applied.APPLIED
    unknown = author.delta({"ci/y": {}}, keydoc=False, key_epoch=1, keydoc_hash=bytes(32))
    assert member.replica.apply(unknown, LINK) is Applied.NEED


def test_a_key_document_that_does_not_belong_to_the_head_is_refused() -> None:
    member, author = holding()
    other = make_keys(3)[1].keydoc
    refuse(member, replace(author.delta(), keydoc=other), "another key document")
    refuse(member, replace(author.delta(keydoc_hash=hash_doc(other.doc)), keydoc=other), "together")


def test_a_head_under_another_key_epoch_than_its_document_is_refused() -> None:
    member, author = Member("a"), Author()
    refuse(member, author.delta({}, key_epoch=1), "together")
    member, author = holding()
    refuse(member, author.delta(key_epoch=1), "together")
    refuse(member, author.delta(key_epoch=1, keydoc=False), "together")


def test_a_forged_key_document_is_refused() -> None:
    member, author = Member("a"), Author()
    forged = replace(author.keydoc, sig=bytes(64))
    refuse(member, replace(author.delta({}), keydoc=forged), "root key")


# --- newer and fresh -----------------------------------------------------------------------------


def test_what_is_not_newer_changes_nothing() -> None:
    member, author = holding()
    old = author.delta({"ci/x": {}}, full=True)
    new = author.delta({"ci/y": {}}, full=True)
    member.replica.apply(new, LINK)
    before = state(member)
    assert member.replica.apply(new, LINK) is Applied.STALE
    assert member.replica.apply(old, LINK) is Applied.STALE
    assert state(member) == before


def test_a_newer_epoch_beats_any_version() -> None:
    member, author = holding()
    author.epoch, author.ver, author.content_ver = 6, 0, 0
    assert member.replica.apply(author.delta({"ci/x": {}}, full=True), LINK) is Applied.APPLIED
    author.epoch, author.ver = 5, 999
    assert member.replica.apply(author.delta({"ci/y": {}}, full=True), LINK) is Applied.STALE


def test_what_is_too_old_or_of_the_future_is_not_taken() -> None:
    for hlc in (NOW_MS - 330_001, NOW_MS + 30_001):
        member, author = Member("a"), Author()
        author.hlc = hlc
        assert member.replica.apply(author.delta({}), LINK) is Applied.STALE
        assert not member.replica.has(author.id)


def test_age_is_judged_before_the_signature_is_checked() -> None:
    member, author = Member("a"), Author()
    author.hlc = NOW_MS - 10_000_000
    delta = author.delta({})
    unsigned = replace(delta, head=SignedHead(delta.head.head, bytes(64)))
    assert member.replica.apply(unsigned, LINK) is Applied.STALE


# --- signature and root --------------------------------------------------------------------------


def test_a_head_signed_by_another_is_refused() -> None:
    member, author = holding()
    delta = author.delta({"ci/x": {}})
    sig = make_keys(3)[0].sign(b"tektonmesh/head/1\0", delta.head.head)
    refuse(member, replace(delta, head=SignedHead(delta.head.head, sig)), "signed by its owner")


def test_records_that_do_not_match_the_root_are_refused() -> None:
    member, author = holding()
    delta = author.delta({"ci/x": {}}, full=True)
    refuse(member, replace(delta, puts=delta.puts[1:]), "root")
    refuse(member, replace(delta, puts=(*delta.puts[1:], (1, "ci/z", b""))), "root")


def test_after_a_wrong_root_on_a_matching_base_only_a_snapshot_will_do() -> None:
    member, author = holding()
    delta = author.delta({"ci/x": {}})
    before = member.shown(author.id)
    wrong = replace(delta, puts=((1, "ci/x", b"other"),))
    assert member.replica.apply(wrong, LINK) is Applied.NEED
    assert member.shown(author.id) == before
    assert member.replica.apply(delta, LINK) is Applied.NEED
    assert member.replica.owners[author.id].base is None
    snapshot = replace(delta, base=None, puts=author.records.puts())
    assert member.replica.apply(snapshot, LINK) is Applied.APPLIED
    assert member.replica.apply(author.delta({"ci/y": {}}), LINK) is Applied.APPLIED


def test_after_a_refresh_with_another_root_only_a_snapshot_will_do() -> None:
    member, author = holding()
    assert member.replica.apply(author.delta(roots={0: bytes(32)}), LINK) is Applied.NEED
    assert member.replica.owners[author.id].base is None
    refuse(member, author.delta(full=True, roots={0: bytes(32)}), "root")


def test_an_equivocator_does_not_make_honest_stacks_strike_each_other() -> None:
    one, two = Member("a").start(), Member("b").start()
    liar, twin = Author(50), Author(50)
    one.replica.apply(liar.delta({"ci/x": {"v": 1}}, full=True), 9)
    twin.ver = 1  # two heads of two versions, and other records under one content version
    two.replica.apply(twin.delta({"ci/x": {"v": 2}}, full=True), 9)
    talk(join(one, 1, two, 2))
    assert one.shown(liar.id) == two.shown(liar.id)
    assert one.replica.fingerprint() == two.replica.fingerprint()
    assert not one.replica.live(liar.id)


def test_a_change_to_a_base_that_is_not_held_is_asked_for_and_nobody_is_struck() -> None:
    member, author = holding()
    author.delta({"ci/missed": {}})
    assert member.replica.apply(author.delta({"ci/x": {}}), LINK) is Applied.NEED
    other = replace(author.delta({"ci/y": {}}), base=ContentVersion(0, 0, 0))
    assert Member("c").replica.apply(other, LINK) is Applied.NEED


def test_the_quota_of_an_owner_holds_for_the_result() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({f"ci/{n}": b"" for n in range(4096)}), LINK)
    over = replace(author.delta(), puts=((1, "ci/more", b""),))
    assert member.replica.apply(over, LINK) is Applied.NEED
    refuse(member, replace(over, base=None, puts=(*author.records.puts(), *over.puts)), "more")


def test_a_change_that_breaks_a_rule_over_our_base_only_is_nobodys_fault() -> None:
    """An equivocator shows us one record set and an honest stack another, which may change it in a
    way that ours cannot be changed."""
    member, liar = Member("a"), Author()
    twin = liar.twin()
    member.replica.apply(liar.delta({"mood/x": {}}), LINK)
    twin.delta({"ci/numa": {}})
    change = replace(twin.delta({"ci/x": {}}), puts=((6, "mood/x", pack({})),))
    assert member.replica.apply(change, LINK) is Applied.NEED
    assert member.replica.owners[liar.id].base is None


# --- later versions ------------------------------------------------------------------------------


def novel(delta: Delta) -> None:
    member = holding()[0]
    before = state(member)
    with pytest.raises(NoveltyError):
        member.replica.apply(delta, LINK)
    assert state(member) == before


def test_what_a_later_version_may_allow_is_passed_over_and_nobodys_fault() -> None:
    author = Author()
    author.delta({"ci/numa": {}})
    later: dict[str, Any] = {"minor": MINOR_VERSION + 1}
    many = tuple((1, f"ci/{n:05}", b"") for n in range(4097))
    large = tuple((1, f"ci/{n:05}", bytes(2048)) for n in range(600))
    novel(replace(author.delta(**later), puts=many))
    novel(replace(author.delta(**later), puts=large))
    novel(replace(author.delta({"ci/a": {}}, **later), base=None, puts=((1, "x", b""),)))
    novel(author.delta({"ci/b": {}}, full=True, roots={0: bytes(32)}, **later))
    novel(author.delta({"ci/c": {}}, full=True, roots={300: bytes(32)}, **later))


def test_a_format_of_a_later_version_is_passed_over_and_nobodys_fault() -> None:
    author = Author()
    delta = author.delta({"ci/numa": {}})
    shown = Codec().unpack(delta.head.head)
    novel(replace(delta, head=SignedHead(pack(shown | {0: 2}), bytes(64))))
    doc = pack(Codec().unpack(author.keydoc.doc) | {0: 2})
    author.keydoc = SignedKeyDoc(doc, bytes(64), author.keydoc.proof)
    novel(author.delta(full=True))


def test_no_version_excuses_a_wrong_signature() -> None:
    member, author = holding()
    delta = author.delta(minor=MINOR_VERSION + 1)
    refuse(member, replace(delta, head=SignedHead(delta.head.head, bytes(64))), "signed")
    for told in (0, "2", None):
        head = pack(Codec().unpack(delta.head.head) | {0: told})
        refuse(member, replace(delta, head=SignedHead(head, bytes(64))), "format")


# --- contradictions ------------------------------------------------------------------------------


def twins() -> tuple[Author, Delta, Delta]:
    """An author and two snapshots of one version; the first has the smaller hash."""
    author = Author()
    author.delta({"ci/base": {}})
    said = []
    for key in ("ci/one", "ci/two"):
        liar = Author()
        liar.records, liar.ver, liar.content_ver = author.records, author.ver, author.content_ver
        said.append(liar.delta({key: {}}, full=True))
    said.sort(key=lambda delta: intake.hash_head(delta.head.head))
    author.ver = author.content_ver = 2
    return author, said[0], said[1]


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_heads_of_one_version_the_smaller_hash_wins_in_any_order(swapped: bool) -> None:
    author, small, large = twins()
    member = Member("a")
    first, second = (large, small) if swapped else (small, large)
    assert member.replica.apply(first, LINK) is Applied.APPLIED
    assert member.replica.live(author.id)
    expected = Applied.APPLIED if swapped else Applied.CONTRADICTED
    assert member.replica.apply(second, LINK) is expected
    assert member.replica.owners[author.id].signed == small.head
    assert not member.replica.live(author.id)
    member.settle()
    assert len(member.notices("stack_equivocated")) == 1
    assert [change.kind for change in member.changes].count("flagged") == 1


def test_one_head_under_two_signatures_is_no_contradiction_and_nobodys_fault() -> None:
    """A key can sign one head in many ways, and show each half of the mesh another one."""
    member, author = holding()
    held = member.replica.owners[author.id]
    again = replace(
        held.delta(None, with_keydoc=True), head=SignedHead(held.signed.head, bytes(64))
    )
    assert member.replica.apply(again, LINK) is Applied.STALE
    assert member.replica.live(author.id)


def test_a_forged_twin_flags_nobody() -> None:
    author, small, large = twins()
    member = Member("a")
    member.replica.apply(small, LINK)
    forged = replace(large, head=SignedHead(large.head.head, bytes(64)))
    refuse(member, forged, "signed")
    assert member.replica.live(author.id)


def test_the_flag_stays_until_a_newer_epoch() -> None:
    author, small, large = twins()
    member = Member("a")
    member.replica.apply(small, LINK)
    member.replica.apply(large, LINK)
    member.replica.apply(large, LINK)
    assert member.replica.apply(author.delta({"ci/x": {}}), LINK) is Applied.NEED
    assert member.replica.apply(author.delta(full=True), LINK) is Applied.APPLIED
    assert not member.replica.live(author.id)
    author.epoch += 1
    assert member.replica.apply(author.delta({"ci/y": {}}, full=True), LINK) is Applied.APPLIED
    assert member.replica.live(author.id)


def test_other_records_under_one_content_version_flag_their_owner() -> None:
    member, author = holding()
    author.delta({"ci/x": {}})
    author.content_ver = 1
    assert member.replica.apply(author.delta(full=True), LINK) is Applied.APPLIED
    assert not member.replica.live(author.id)


def test_a_newer_key_epoch_beats_any_version() -> None:
    member, author = holding()
    new = Author().rotate(1, 30)
    delta = new.delta({"ci/x": {}})
    assert member.replica.apply(delta, LINK) is Applied.APPLIED
    assert member.replica.live(author.id)
    author.epoch = 10**6
    assert member.replica.apply(author.delta({"ci/y": {}}, full=True), LINK) is Applied.STALE


def test_of_two_key_documents_of_one_epoch_the_smaller_hash_wins_in_any_order() -> None:
    one, two = Author(), Author().rotate(0, 30)
    small, large = sorted((one, two), key=lambda author: hash_doc(author.keydoc.doc))
    large.epoch = 10**6
    said = small.delta({"ci/small": {}}), large.delta({"ci/large": {}})
    for order in (said, said[::-1]):
        member = Member("a")
        for delta in order:
            member.replica.apply(delta, LINK)
        held = member.replica.owners[one.id]
        assert held.signed == said[0].head
        assert not member.replica.live(one.id)


# --- our own heads -------------------------------------------------------------------------------


def own_author(member: Member) -> Author:
    author = Author(1)
    assert author.id == member.id
    author.epoch = 2**47
    return author


def test_our_own_head_from_elsewhere_is_reported_and_never_stored() -> None:
    member = Member("a").start()
    seen: list[int] = []
    member.replica.watch_own(lambda head: seen.append(head.epoch))
    before = state(member)
    assert member.replica.apply(own_author(member).delta({}), LINK) is Applied.STALE
    assert seen == [2**47]
    assert state(member) == before


def test_our_newest_head_coming_back_is_nothing() -> None:
    member = Member("a").start()
    seen: list[int] = []
    member.replica.watch_own(lambda head: seen.append(head.epoch))
    echo = member.replica.delta_for(member.id, None, with_keydoc=True)
    assert member.replica.apply(echo, LINK) is Applied.STALE
    assert seen == []


def test_a_head_that_claims_to_be_ours_is_refused() -> None:
    member = Member("a").start()
    delta = own_author(member).delta({})
    refuse(member, replace(delta, head=SignedHead(delta.head.head, bytes(64))), "our id")


def test_our_head_under_other_keys_is_passed_over() -> None:
    member = Member("a").start()
    author = own_author(member).rotate(1, 30)
    assert member.replica.apply(author.delta({}), LINK) is Applied.STALE


def test_a_stack_that_left_stays_left() -> None:
    member, author = holding()
    old = author.delta({"ci/x": {}}, full=True)
    left = author.delta(full=True, status=Status.LEFT, lease_s=900)
    assert member.replica.apply(left, LINK) is Applied.APPLIED
    assert not member.replica.live(author.id)
    assert member.replica.apply(old, LINK) is Applied.STALE
    assert member.replica.owners[author.id].left
