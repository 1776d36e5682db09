"""What a replica shows, says and stores. What it refuses is in test_intake, how owners end in
test_leases, what the disk keeps in test_shelf."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core.effects import Save
from tektonmesh.core.equivocation import proof_of_heads, proof_of_keydocs
from tektonmesh.core.head import hash_head
from tektonmesh.core.messages import Delta, Proof
from tektonmesh.core.replica import Applied, Change
from tektonmesh.core.types import ContentVersion, SignedHead, Status
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import pack
from tests.support import Author, Member, only

LINK = 1


def test_every_change_is_reported_after_it_was_made() -> None:
    member, author = Member("a"), Author()
    seen: list[tuple[str, dict[str, bytes] | None]] = []
    member.replica.watch(lambda change: seen.append((change.kind, member.shown(change.owner))))
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    member.replica.apply(author.delta({"ci/x": {}}, delete=("ci/numa",)), LINK)
    member.replica.apply(author.delta(), LINK)
    author.delta({}, delete=("ci/x",))
    member.replica.apply(author.delta(full=True, status=Status.LEFT, lease_s=900), LINK)
    assert seen == [
        ("new", {"ci/numa": pack({})}),
        ("content", {"ci/x": pack({})}),
        ("refresh", {"ci/x": pack({})}),
        ("left", {}),
    ]
    assert member.changes[1] == Change(author.id, "content", ("ci/numa", "ci/x"), 1)


def test_a_status_that_changes_alone_is_more_than_a_refresh() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    member.replica.apply(author.delta(status=Status.DRAINING), LINK)
    member.replica.apply(author.delta(status=Status.LEFT, lease_s=900), LINK)
    assert [change.kind for change in member.changes] == ["new", "content", "left"]


def test_a_refresh_keeps_the_content_version_and_the_fingerprint() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    content = member.replica.owners[author.id].content_version
    before = member.replica.fingerprint(), member.replica.bucket_prints()
    assert member.replica.apply(author.delta(), LINK) is Applied.REFRESHED
    assert member.replica.owners[author.id].content_version == content
    assert (member.replica.fingerprint(), member.replica.bucket_prints()) == before


def test_a_change_changes_the_print_of_its_bucket() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    before = member.replica.bucket_prints()
    member.replica.apply(author.delta({"ci/x": {}}), LINK)
    after = member.replica.bucket_prints()
    assert [n for n in range(256) if before[n] != after[n]] == [author.id[0]]


def test_the_entries_say_what_is_held() -> None:
    member, author = Member("a").start(), Author()
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    member.replica.apply(author.delta(status=Status.DRAINING), LINK)
    held = member.replica.owners[author.id]
    assert {entry.owner for entry in member.replica.entries(())} == {member.id, author.id}
    (entry,) = member.replica.entries((author.id[0],))
    assert entry.version == held.version and entry.content_ver == 1
    assert (entry.status, entry.head_hash) == (1, held.head_hash)
    assert member.replica.count() == 2


def test_a_delta_is_stored_as_one_write() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({"ci/numa": {}, "ci/x": {}}), LINK)
    (save,) = only(member.env.take(), Save)
    assert [row[0] for row in save.rows] == ["keydoc", "head", "record", "record"]
    member.replica.apply(author.delta({"ci/numa": {"v": 2}}, delete=("ci/x",)), LINK)
    (save,) = only(member.env.take(), Save)
    prefix = author.id + b"\x01"
    assert [row[:2] for row in save.rows] == [
        ("head", author.id),
        ("record", prefix + b"ci/numa"),
        ("record", prefix + b"ci/x"),
    ]
    assert save.rows[2][2] is None


def test_our_own_news_need_no_disk() -> None:
    member = Member("a").start()
    member.owner.put("ci/numa", {})
    member.wait(1)
    assert sorted({table for table, _ in member.disk}) == ["meta"]
    assert member.replica.live(member.id)


def test_deltas_are_built_from_what_the_receiver_holds() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    base = member.replica.owners[author.id].content_version
    member.replica.apply(author.delta({"ci/x": {}}), LINK)
    delta = member.replica.delta_for(author.id, base, with_keydoc=False)
    assert delta.puts == ((1, "ci/x", pack({})),)
    snapshot = member.replica.delta_for(author.id, ContentVersion(9, 9, 9), with_keydoc=True)
    assert snapshot.base is None and len(snapshot.puts) == 2


def test_nobody_unknown_is_live() -> None:
    member = Member("a")
    assert not member.replica.live(Author().id)
    assert not member.replica.has(Author().id)


def test_heads_that_came_twice_are_read_once_and_heads_that_differ_anew() -> None:
    member, author = Member("a"), Author()
    one, two = author.sign(), author.sign(ver=9)
    assert member.replica.read_head(one) is member.replica.read_head(one)
    assert member.replica.read_head(two).ver == 9


def test_losing_twice_against_the_same_head_is_said_once() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    kept = member.replica.owners[author.id].signed
    for n in range(30):
        liar = Author()
        delta = liar.delta({"ci/numa": {"n": n}})
        member.replica.apply(delta, LINK)
        if member.replica.owners[author.id].signed == kept:
            continue
        kept = member.replica.owners[author.id].signed
    member.settle()
    assert len(member.notices("stack_equivocated")) == 1


def test_a_change_names_the_link_that_brought_it_and_is_the_same_without() -> None:
    member, author = Member("a").start(), Author()
    member.replica.apply(author.delta({"ci/x": {}}), LINK)
    member.replica.apply(author.delta({"ci/y": {}}), LINK + 1)
    twin = Author()
    member.replica.apply(twin.delta({"ci/x": {}}), LINK + 2)
    member.wait(400.0)
    links = [change.link for change in member.changes if change.owner == author.id]
    assert links[:2] == [LINK, LINK + 1] and links[-1] is None
    assert {change.link for change in member.changes if change.owner == member.id} == {None}
    assert Change(author.id, "new", (), LINK) == Change(author.id, "new", ())


def test_who_contradicts_itself_is_named_if_it_says_a_name() -> None:
    for about, shown in (({"name": "west"}, "west"), ({"name": 5}, ""), ({}, "")):
        member = Member("a")
        for values in ({"stack/self": about}, {"stack/self": about, "ci/x": {}}):
            author = Author()
            member.replica.apply(author.delta(values), LINK)
        member.settle()
        (notice,) = member.notices("stack_equivocated")
        assert notice["name"] == shown


def test_the_age_of_a_head_runs_from_its_signing_and_never_below_nothing() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({}), LINK)
    member.env.now += 12.0
    assert member.replica.age_s(member.replica.owners[author.id]) == 12.0
    author.hlc += 20_000
    member.replica.apply(author.delta({}), LINK)
    assert member.replica.age_s(member.replica.owners[author.id]) == 0.0


# --- proofs --------------------------------------------------------------------------------------


def proof_of(author: Author, **more: Any) -> Proof:
    """That an author said two things at once just now."""
    return proof_of_heads(author.sign(), author.sign(instance=b"twin", **more), author.keydoc)


def holding() -> tuple[Member, Author]:
    member, author = Member("a").start(), Author()
    member.replica.apply(author.delta({"ci/numa": {}}), LINK)
    return member, author


def test_a_proof_flags_an_owner_of_whom_only_one_head_was_seen() -> None:
    member, author = holding()
    before = member.replica.fingerprint()
    member.replica.take_proof(proof_of(author))
    assert not member.replica.live(author.id)
    assert member.replica.fingerprint() != before
    assert member.changes[-1] == Change(author.id, "flagged", ())
    member.settle()
    assert len(member.notices("stack_equivocated")) == 1


def test_a_smaller_proof_replaces_a_larger_one_and_no_other_way_round() -> None:
    member, author = holding()
    proofs = [proof_of(author, lease_s=lease_s) for lease_s in range(301, 309)]
    held = member.replica.owners[author.id]
    digests = []
    for proof in proofs * 2:
        member.replica.take_proof(proof)
        digests.append(held.proof_digest)
    assert digests == sorted(digests, reverse=True) and len(set(digests)) > 1
    assert len(set(digests[len(proofs) :])) == 1
    member.settle()
    assert len(member.notices("stack_equivocated")) == 1


def test_a_proof_about_a_stranger_or_of_what_is_outdone_is_passed_over() -> None:
    member, author = holding()
    member.replica.take_proof(proof_of(Author(3)))
    old = proof_of(author)
    author.epoch += 1
    member.replica.apply(author.delta({"ci/x": {}}, full=True), LINK)
    member.replica.take_proof(old)
    assert member.replica.live(author.id) and not member.replica.has(Author(3).id)


def test_a_proof_of_an_epoch_that_is_still_to_come_waits_for_it() -> None:
    member, author = holding()
    author.epoch += 1
    member.replica.take_proof(proof_of(author))
    assert not member.replica.live(author.id)
    member.replica.apply(author.delta({"ci/x": {}}, full=True), LINK)
    assert not member.replica.live(author.id)
    author.epoch += 1
    member.replica.apply(author.delta({"ci/y": {}}, full=True), LINK)
    assert member.replica.live(author.id)


def test_a_proof_about_key_documents_stays_until_a_newer_key_epoch() -> None:
    member, author = holding()
    other = author.twin().rotate(0, 30)
    member.replica.take_proof(proof_of_keydocs(author.keydoc, other.keydoc))
    author.epoch += 1
    member.replica.apply(author.delta({"ci/x": {}}, full=True), LINK)
    assert not member.replica.live(author.id)
    author.rotate(1, 31)
    member.replica.apply(author.delta({"ci/y": {}}, full=True), LINK)
    assert member.replica.live(author.id)


def test_a_proof_outlives_the_lease_of_its_owner_and_its_return_in_the_same_epoch() -> None:
    member, author = holding()
    member.replica.take_proof(proof_of(author))
    member.wait(400)
    assert member.replica.owners[author.id].expired
    author.hlc += 400_000
    member.replica.apply(author.delta({"ci/x": {}}, full=True), LINK)
    assert member.replica.owners[author.id].equivocated
    assert member.replica.count() == 2
    member.wait(400)
    author.epoch += 1
    author.hlc += 400_000
    member.replica.apply(author.delta({"ci/y": {}}, full=True), LINK)
    member.settle()
    assert member.replica.live(author.id)
    assert [key for key in member.disk if key[0] == "proof"] == []


def test_a_proof_against_an_expired_owner_counts_in_no_print() -> None:
    member, author = holding()
    member.wait(400)
    before = member.replica.fingerprint()
    member.replica.take_proof(proof_of(author))
    assert member.replica.owners[author.id].equivocated
    assert member.replica.fingerprint() == before


def test_what_proves_nothing_is_refused_and_changes_nothing() -> None:
    member, author = holding()
    good = proof_of(author)
    unsigned = SignedHead(good.heads[0].head, bytes(64))
    with pytest.raises(RemoteError, match="signed"):
        member.replica.take_proof(Proof((unsigned, good.heads[1]), good.keydocs))
    assert member.replica.live(author.id)


def test_a_flagged_owner_cannot_make_us_look_at_the_twins_that_lose() -> None:
    member, author = holding()
    member.replica.take_proof(proof_of(author))
    kept = author.sign()
    twins = [author.sign(lease_s=301 + n) for n in range(9)]
    losing = [head for head in twins if hash_head(head.head) > hash_head(kept.head)]
    author.keys.verify = pytest.fail
    member.env.crypto = author.keys
    for head in losing:
        delta = Delta(head, None, author.records.puts(), (), author.keydoc)
        assert member.replica.apply(delta, LINK) is Applied.STALE
    assert losing
