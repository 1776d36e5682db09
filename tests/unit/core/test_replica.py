"""What a replica shows, says and stores. What it refuses is in test_intake, how owners end in
test_leases, what the disk keeps in test_shelf."""

from __future__ import annotations

from tektonmesh.core.effects import Save
from tektonmesh.core.replica import Applied, Change
from tektonmesh.core.types import ContentVersion, Status
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
    assert member.changes[1] == Change(author.id, "content", ("ci/numa", "ci/x"))


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
