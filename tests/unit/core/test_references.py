"""Which owners refer to which blobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core.messages import BLOB_SIZE_MAX
from tektonmesh.core.references import PER_OWNER_MAX, Blob, References
from tektonmesh.core.types import Status
from tests.support import Author, Member, seed_bytes

LINK = 1
A, B = seed_bytes("blob", 1), seed_bytes("blob", 2)


def about(blob: Any, length: Any = 10) -> dict[str, Any]:
    return {"hash": blob, "length": length, "tools": 3}


class Shown:
    """A replica with the references that are read from it, and what each change told."""

    def __init__(self) -> None:
        self.member = Member("a").start()
        self.references = References(self.member.replica, self.member.id)
        self.told: list[tuple[list[Blob], list[Blob]]] = []
        self.member.replica.watch(
            lambda change: self.told.append(self.references.on_change(change))
        )

    def apply(self, author: Author, *args: Any, **more: Any) -> tuple[list[Blob], list[Blob]]:
        self.told.clear()
        self.member.replica.apply(author.delta(*args, **more), LINK)
        [told] = self.told
        return told


def test_a_catalog_record_refers_to_a_blob() -> None:
    shown, author = Shown(), Author()
    assert shown.apply(author, {"catalog/numa": about(A), "ci/numa": about(B)}) == ([], [A])
    assert shown.references.to(A) == {author.id: 10}
    assert shown.references.of(author.id) == {A: 10}
    assert shown.references.blobs() == [A]
    assert shown.references.size_max(A) == 10


def test_what_nobody_refers_to_may_have_any_length() -> None:
    shown = Shown()
    assert shown.references.to(A) == {}
    assert shown.references.of(A) == {}
    assert shown.references.size_max(A) == BLOB_SIZE_MAX


def test_of_several_claims_the_longest_is_to_be_expected() -> None:
    shown, author, other = Shown(), Author(2), Author(3)
    shown.apply(author, {"catalog/x": about(A, 10)})
    shown.apply(other, {"catalog/x": about(A, 30)})
    assert shown.references.size_max(A) == 30
    shown.apply(other, {}, delete=("catalog/x",))
    assert shown.references.size_max(A) == 10


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"hash": A},
        {"length": 5},
        about("text"),
        about(A[:31]),
        about(A, 0),
        about(A, -1),
        about(A, BLOB_SIZE_MAX + 1),
        about(A, 5.0),
        about(A, True),
    ],
    ids=repr,
)
def test_a_record_that_makes_no_sense_refers_to_nothing(value: dict[str, Any]) -> None:
    shown, author = Shown(), Author()
    assert shown.apply(author, {"catalog/x": value, "catalog/y": about(B)}) == ([], [B])


def test_the_longest_blob_can_be_referred_to() -> None:
    shown, author = Shown(), Author()
    shown.apply(author, {"catalog/x": about(A, BLOB_SIZE_MAX)})
    assert shown.references.size_max(A) == BLOB_SIZE_MAX


def test_a_change_tells_what_is_gone_and_what_is_new() -> None:
    shown, author = Shown(), Author()
    shown.apply(author, {"catalog/x": about(A)})
    assert shown.apply(author, {"catalog/y": about(A), "catalog/z": about(B)}) == ([], [B])
    assert shown.apply(author, {}, delete=("catalog/x",)) == ([], [])
    assert shown.apply(author, {"catalog/y": about(B, 11)}) == ([A], [])
    assert shown.apply(author, {"catalog/y": {}, "catalog/z": about(B, 12)}) == ([B], [B])
    assert shown.references.to(B) == {author.id: 12}


def test_a_change_of_other_records_tells_nothing() -> None:
    shown, author = Shown(), Author()
    shown.apply(author, {"catalog/x": about(A)})
    assert shown.apply(author, {"ci/numa": {}}) == ([], [])
    assert shown.apply(author) == ([], [])
    assert shown.references.to(A) == {author.id: 10}


def test_an_owner_that_is_not_live_refers_to_nothing() -> None:
    shown, author = Shown(), Author()
    shown.apply(author, {"catalog/x": about(A)})
    assert shown.apply(author, {}, status=Status.LEFT, lease_s=900) == ([A], [])
    assert shown.references.to(A) == {}
    assert shown.references.of(author.id) == {}


def test_an_owner_whose_lease_ends_refers_to_nothing_until_it_is_back() -> None:
    shown, author = Shown(), Author()
    shown.apply(author, {"catalog/x": about(A)})
    shown.member.wait(400)
    assert [told for told in shown.told if told != ([], [])][-1] == ([A], [])
    author.hlc += 400_000
    assert shown.apply(author, {"ci/numa": {}}, full=True) == ([], [A])


def test_an_owner_that_contradicted_itself_refers_to_nothing_until_its_next_epoch() -> None:
    shown, author, twin = Shown(), Author(), Author()
    shown.apply(author, {"catalog/x": about(A)})
    twin.records, twin.content_ver = author.records, author.content_ver
    assert shown.apply(twin, full=True, instance=b"x") == ([A], [])
    base = author.head().content_version
    author.epoch += 1
    changed = replace(author.delta({"ci/numa": {}}), base=base)
    shown.told.clear()
    shown.member.replica.apply(changed, LINK)
    shown.member.replica.apply(author.delta(full=True), LINK)
    assert [told for told in shown.told if told != ([], [])] == [([], [A])]
    assert shown.references.to(A) == {author.id: 10}


def test_an_owner_with_a_record_that_cannot_be_read_refers_to_nothing() -> None:
    shown, author = Shown(), Author()
    shown.apply(author, {"catalog/x": about(A)})
    assert shown.apply(author, {"catalog/y": b"\xc1"}) == ([A], [])
    assert shown.apply(author, {"catalog/y": about(B)}) == ([], [A, B])


def test_of_other_owners_only_so_many_references_count() -> None:
    shown, author = Shown(), Author()
    blobs = [seed_bytes("many", n) for n in range(PER_OWNER_MAX + 5)]
    records = {f"catalog/{n:04}": about(blob) for n, blob in enumerate(blobs)}
    assert shown.apply(author, records) == ([], blobs[:PER_OWNER_MAX])
    assert shown.apply(author, {}, delete=("catalog/0000",)) == ([blobs[0]], [blobs[PER_OWNER_MAX]])


def test_all_of_our_own_references_count() -> None:
    shown = Shown()
    for n in range(PER_OWNER_MAX + 5):
        shown.member.owner.put(f"catalog/{n:04}", about(seed_bytes("many", n)))
    shown.member.wait(1.0)
    assert len(shown.references.of(shown.member.id)) == PER_OWNER_MAX + 5


def test_what_the_disk_remembered_of_live_owners_is_read_at_the_start() -> None:
    shown, author, gone = Shown(), Author(2), Author(3)
    shown.apply(author, {"catalog/x": about(A)})
    shown.apply(gone, {"catalog/x": about(B)})
    shown.apply(gone, {}, status=Status.LEFT, lease_s=900)
    shown.member.settle()
    again = Member("a", saved=shown.member.disk)
    references = References(again.replica, again.id)
    assert references.blobs() == [A]
