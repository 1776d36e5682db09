"""What is held, for whom, and what goes when room is needed."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core.messages import BLOB_SIZE_MAX
from tektonmesh.core.references import Blob, References
from tektonmesh.core.stash import AGE, GRACE_S, KEEP_S, OVERHEAD, Rank, Stash, hash_blob
from tektonmesh.core.types import Saved
from tests.support import Author, Member, seed_bytes

LINK = 1
SIZE = 1000
COST = SIZE + OVERHEAD


def blob_of(n: int, size: int = SIZE) -> bytes:
    """Bytes that differ for every `n`."""
    return (seed_bytes("bytes", n) * (size // 32 + 1))[:size]


class Shown:
    """A stash for `room` blobs of 1,000 bytes, `share` of them for one owner, over a replica."""

    def __init__(self, *, room: int = 4, share: int = 2, saved: Saved | None = None) -> None:
        settings = {"blob_bytes": room * COST, "blob_owner_bytes": share * COST}
        self.member = Member("a", saved=saved, **settings).start()
        self.env = self.member.env
        self.references = References(self.member.replica, self.member.id)
        self.dropped: list[Blob] = []
        self.stash = Stash(self.env, self.references, self.dropped.append)
        self.stash.read_back(saved or {})
        self.authors = {n: Author(n) for n in (2, 3, 4)}
        self.member.replica.watch(self._follow)

    def _follow(self, change: Any) -> None:
        gone, fresh = self.references.on_change(change)
        for blob in [*gone, *fresh]:
            self.stash.review(blob)

    def refer(self, n: int, *blobs: int, length: int = SIZE) -> None:
        """From now on author `n` refers to these blobs and no others."""
        author = self.authors[n]
        held = [key for key in author.records.records if key.startswith("catalog/")]
        records = {
            f"catalog/{blob}": {"hash": hash_blob(blob_of(blob)), "length": length}
            for blob in blobs
        }
        delete = tuple(key for key in held if key not in records)
        self.member.replica.apply(author.delta({"ci/x": {"n": n}, **records}, delete=delete), LINK)

    def put(self, n: int, **more: Any) -> bool:
        return self.stash.put(hash_blob(blob_of(n)), blob_of(n), **more)

    def rank(self, n: int) -> Rank | None:
        return self.stash.rank(hash_blob(blob_of(n)))

    def held(self) -> list[int]:
        return [n for n in range(40) if hash_blob(blob_of(n)) in self.stash]

    def has_room(self, n: int, *, asked: bool = False) -> bool:
        return self.stash.has_room(hash_blob(blob_of(n)), asked=asked)

    @property
    def rows(self) -> list[int]:
        """The blobs whose rows are on the disk."""
        self.member.settle()
        blobs = {hash_blob(blob_of(n)): n for n in range(40)}
        return sorted(blobs[key] for table, key in self.member.disk if table == "blob")


def test_what_was_put_in_is_held_and_saved_under_its_hash() -> None:
    shown = Shown()
    assert shown.put(1)
    assert shown.stash.get(hash_blob(blob_of(1))) == blob_of(1)
    assert (len(shown.stash), shown.stash.size) == (1, COST)
    shown.member.settle()
    assert shown.member.disk["blob", hash_blob(blob_of(1))] == blob_of(1)
    assert shown.stash.get(hash_blob(blob_of(2))) is None
    assert shown.rank(2) is None


def test_putting_in_what_is_held_changes_nothing() -> None:
    shown = Shown()
    assert shown.put(1)
    shown.member.settle()
    assert shown.put(1)
    assert shown.stash.size == COST
    assert shown.env.take() == []


def test_what_does_not_have_its_hash_is_never_held() -> None:
    shown = Shown()
    with pytest.raises(AssertionError):
        shown.stash.put(hash_blob(b"one"), b"other")
    assert len(shown.stash) == 0


def test_a_blob_is_held_for_whoever_refers_to_it() -> None:
    shown = Shown()
    shown.refer(2, 1)
    for n in (1, 2):
        shown.put(n)
    shown.put(3, ours=True)
    assert [shown.rank(n) for n in (1, 2, 3)] == [Rank.OTHERS, Rank.NOBODY, Rank.US]
    shown.refer(2, 2)
    assert [shown.rank(n) for n in (1, 2, 3)] == [Rank.NOBODY, Rank.OTHERS, Rank.US]


def test_a_false_length_holds_nothing() -> None:
    shown = Shown()
    shown.refer(2, 1, length=SIZE + 1)
    shown.put(1)
    assert shown.rank(1) is Rank.NOBODY
    shown.member.owner.put("catalog/x", {"hash": hash_blob(blob_of(1)), "length": SIZE - 1})
    shown.member.wait(1.0)
    assert shown.rank(1) is Rank.NOBODY


# --- the quota -----------------------------------------------------------------------------------


def test_the_quota_is_never_exceeded_and_the_least_recently_used_goes() -> None:
    shown = Shown(room=3)
    for n in range(3):
        assert shown.put(n)
    shown.stash.get(hash_blob(blob_of(0)))
    assert shown.put(3)
    assert shown.held() == [0, 2, 3]
    assert shown.dropped == [hash_blob(blob_of(1))]
    assert shown.stash.size == 3 * COST
    assert shown.rows == [0, 2, 3]


def test_what_nobody_refers_to_goes_before_what_was_used_longer_ago() -> None:
    shown = Shown(room=2)
    shown.refer(2, 1)
    assert shown.put(1)
    assert shown.put(2)
    assert shown.put(3)
    assert shown.held() == [1, 3]


def test_what_is_fetched_ahead_makes_nothing_go_that_others_refer_to() -> None:
    shown = Shown(room=2, share=2)
    shown.refer(2, 1, 2)
    shown.refer(3, 3)
    assert shown.put(1) and shown.put(2)
    assert not shown.put(3)
    assert not shown.put(4)
    assert shown.held() == [1, 2]
    assert shown.dropped == []
    assert shown.rows == [1, 2]


def test_what_somebody_waits_for_makes_the_least_recently_used_of_others_go() -> None:
    shown = Shown(room=2, share=2)
    shown.refer(2, 1, 2)
    shown.refer(3, 3)
    assert shown.put(1) and shown.put(2)
    assert shown.put(3, wanted=True)
    assert shown.held() == [2, 3]


def test_what_nobody_refers_to_makes_nothing_of_others_go_though_it_is_waited_for() -> None:
    shown = Shown(room=1)
    shown.refer(2, 1)
    assert shown.put(1)
    assert not shown.put(2, wanted=True)
    assert shown.held() == [1]


def test_what_is_ours_makes_all_others_go_and_never_goes_itself() -> None:
    shown = Shown(room=2)
    shown.refer(2, 1)
    assert shown.put(1) and shown.put(2)
    assert shown.put(3, ours=True) and shown.put(4, ours=True)
    assert shown.held() == [3, 4]
    assert not shown.put(5, ours=True)
    assert not shown.put(6, wanted=True)
    assert shown.held() == [3, 4]


def test_a_blob_larger_than_the_quota_makes_nothing_go() -> None:
    shown = Shown(room=2)
    assert shown.put(1)
    large = blob_of(9, 3 * SIZE)
    assert not shown.stash.put(hash_blob(large), large, ours=True)
    assert shown.held() == [1]


def test_one_owner_fills_no_more_than_its_share() -> None:
    shown = Shown(room=4, share=2)
    shown.refer(2, 1, 2, 3)
    for n in (1, 2, 3):
        assert shown.put(n)
    assert [shown.rank(n) for n in (1, 2, 3)] == [Rank.OTHERS, Rank.OTHERS, Rank.NOBODY]


def test_what_an_owner_has_no_share_for_is_held_for_another_that_refers_to_it() -> None:
    shown = Shown(room=4, share=1)
    shown.refer(2, 1, 2)
    shown.refer(3, 2)
    assert shown.put(1) and shown.put(2)
    assert [shown.rank(n) for n in (1, 2)] == [Rank.OTHERS, Rank.OTHERS]
    shown.refer(3)
    assert [shown.rank(n) for n in (1, 2)] == [Rank.OTHERS, Rank.NOBODY]


def test_there_is_room_for_what_would_be_held_for_its_owner() -> None:
    shown = Shown(room=3, share=2)
    shown.refer(2, 1, 2, 3)
    shown.refer(3, 4, 5)
    assert not shown.has_room(9), "nobody refers to it"
    assert shown.has_room(1)
    assert shown.put(1) and shown.put(2)
    assert not shown.has_room(3), "its owner has its share"
    assert shown.has_room(4)
    assert shown.put(8), "what nobody refers to takes no room"
    assert shown.has_room(4)
    assert shown.put(4)
    assert not shown.has_room(5), "the quota is full"


def test_what_a_neighbour_asks_for_needs_no_share_but_room() -> None:
    shown = Shown(room=2, share=1)
    shown.refer(2, 1, 2)
    shown.refer(3, 3)
    assert shown.put(1)
    assert not shown.has_room(2)
    assert shown.has_room(2, asked=True)
    assert shown.put(3)
    assert not shown.has_room(2, asked=True)


def test_for_our_own_there_is_room_as_long_as_others_can_go() -> None:
    shown = Shown(room=1)
    shown.member.owner.put("catalog/x", {"hash": hash_blob(blob_of(2)), "length": SIZE})
    shown.member.wait(1.0)
    shown.refer(2, 1)
    assert shown.put(1)
    assert shown.has_room(2)
    assert shown.put(2)
    assert (shown.held(), shown.rank(2)) == ([2], Rank.US)
    shown.member.owner.put("catalog/y", {"hash": hash_blob(blob_of(3)), "length": SIZE})
    shown.member.wait(1.0)
    assert not shown.has_room(3)


# --- age -----------------------------------------------------------------------------------------


def test_what_was_put_in_here_is_ours_until_its_record_had_time_to_come() -> None:
    shown = Shown()
    shown.put(1, ours=True)
    shown.member.wait(GRACE_S - 1.0)
    assert shown.rank(1) is Rank.US
    shown.put(2, ours=True)
    shown.member.wait(1.5)
    assert [shown.rank(n) for n in (1, 2)] == [Rank.NOBODY, Rank.US]
    shown.put(1, ours=True)
    shown.member.wait(GRACE_S - 2.0)
    assert [shown.rank(n) for n in (1, 2)] == [Rank.US, Rank.US]


def test_what_our_own_record_refers_to_is_ours_for_ever() -> None:
    shown = Shown()
    shown.put(1, ours=True)
    shown.member.owner.put("catalog/x", {"hash": hash_blob(blob_of(1)), "length": SIZE})
    shown.member.wait(2 * KEEP_S)
    assert shown.rank(1) is Rank.US
    assert AGE not in shown.env.deadlines
    shown.member.owner.delete("catalog/x")
    shown.member.wait(1.0)
    assert shown.rank(1) is Rank.NOBODY


def test_what_nobody_refers_to_goes_in_the_end() -> None:
    shown = Shown()
    shown.put(1)
    shown.member.wait(10.0)
    shown.put(2)
    shown.member.wait(KEEP_S - 10.0)
    assert shown.held() == [2]
    shown.stash.get(hash_blob(blob_of(2)))
    shown.member.wait(KEEP_S - 1.0)
    assert shown.held() == [2], "it was used"
    shown.member.wait(1.0)
    assert shown.held() == []
    assert shown.rows == []
    assert AGE not in shown.env.deadlines


# --- restart -------------------------------------------------------------------------------------


def test_a_restarted_stack_holds_what_it_held() -> None:
    before = Shown()
    before.refer(2, 1)
    before.put(1)
    before.put(2)
    before.put(3, ours=True)
    before.member.settle()
    again = Shown(saved=before.member.disk)
    assert again.held() == [1, 2, 3]
    assert [again.rank(n) for n in (1, 2, 3)] == [Rank.OTHERS, Rank.NOBODY, Rank.NOBODY]
    assert again.stash.get(hash_blob(blob_of(1))) == blob_of(1)


def test_a_damaged_row_is_dropped_and_deleted() -> None:
    before = Shown()
    before.put(1)
    before.put(2)
    before.member.settle()
    saved = before.member.disk
    saved["blob", hash_blob(blob_of(1))] = blob_of(1)[:-1] + b"?"
    saved["blob", hash_blob(b"")] = b""
    large = bytes(BLOB_SIZE_MAX + 1)
    saved["blob", hash_blob(large)] = large
    saved["blob", b"no hash"] = b"bytes"
    again = Shown(saved=saved, room=2000)
    assert again.held() == [2]
    again.member.settle()
    assert [key for table, key in again.member.disk if table == "blob"] == [hash_blob(blob_of(2))]


def test_after_the_quota_was_lowered_what_does_not_fit_is_deleted() -> None:
    before = Shown(room=4)
    before.refer(2, 1)
    for n in (1, 2, 3, 4):
        before.put(n)
    before.member.settle()
    again = Shown(room=2, saved=before.member.disk)
    assert again.stash.size == 2 * COST
    assert 1 in again.held()
    assert again.rows == again.held()
