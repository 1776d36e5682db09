"""What of a replica survives its process, through the rows it writes."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core.keydoc import Voucher, write_proof
from tektonmesh.core.types import Saved
from tektonmesh.wire.codec import Codec, pack, unpack
from tests.support import Author, Member, seed_bytes, sign_keydoc

LINK = 1


def filled() -> tuple[Member, Author]:
    member, author = Member("a").start(), Author()
    member.replica.apply(author.delta({"ci/numa": {"v": 1}, "ci/zeno": {}}), LINK)
    member.replica.apply(author.delta({"ci/numa": {"v": 2}}, delete=("ci/zeno",)), LINK)
    member.replica.apply(author.delta(), LINK)
    member.settle()
    return member, author


def shown(member: Member) -> Any:
    return {
        owner: (held.signed, held.records, held.signed_keydoc, held.equivocated, held.expired)
        for owner, held in member.replica.owners.items()
        if owner != member.id
    }


def test_a_restarted_stack_holds_what_it_held() -> None:
    member, author = filled()
    again = Member("a", saved=member.disk)
    assert shown(again) == shown(member)
    assert again.replica.live(author.id)
    again.wait(400)
    assert not again.replica.live(author.id)


def test_our_own_records_are_not_among_it() -> None:
    member, _ = filled()
    assert not Member("a", saved=member.disk).replica.has(member.id)


def test_an_expired_and_a_flagged_owner_are_so_after_a_restart() -> None:
    member, author = filled()
    held = member.replica.owners[author.id]
    other = Author()
    other.records, other.ver, other.content_ver = author.records, 2, 2
    member.replica.apply(other.delta(full=True, instance=b"x"), LINK)
    assert held.equivocated
    member.settle()
    assert shown(Member("a", saved=member.disk)) == shown(member)
    member.wait(400)
    assert held.expired
    again = Member("a", saved=member.disk)
    assert shown(again) == shown(member)
    assert again.replica.count() == 0


def damaged(rows: Saved, table: str, change: Any) -> Saved:
    return {key: change(value) if key[0] == table else value for key, value in rows.items()}


def cut(value: bytes) -> bytes:
    return value[:-1]


def flagged() -> tuple[Member, Author]:
    member, author = filled()
    other = author.twin()
    other.ver -= 1
    member.replica.apply(other.delta(full=True, instance=b"x"), LINK)
    member.settle()
    assert member.replica.owners[author.id].equivocated
    return member, author


PROOF_DAMAGES = [
    cut,
    lambda _: pack([]),
    lambda _: pack([1, 2]),
    lambda _: pack([[1], []]),
    lambda _: pack([[[b"head", 5]], []]),
    lambda _: pack([[[b"head", bytes(64)]] * 2, [[b"doc", bytes(64)]]]),
    lambda value: pack([[[head, bytes(64)] for head, _ in unpack(value)[0]], unpack(value)[1]]),
]


@pytest.mark.parametrize("change", PROOF_DAMAGES)
def test_a_damaged_proof_is_deleted_and_nobody_is_flagged_by_it(change: Any) -> None:
    member, author = flagged()
    again = Member("a", saved=damaged(member.disk, "proof", change))
    again.settle()
    assert again.replica.live(author.id)
    assert [key for key in again.disk if key[0] == "proof"] == []


def test_a_proof_that_belongs_to_another_or_is_outdone_is_deleted_too() -> None:
    member, author = flagged()
    other = Author(3)
    member.replica.apply(other.delta({"ci/x": {}}), LINK)
    author.epoch += 1
    proof = member.disk["proof", author.id]
    member.replica.apply(author.delta({"ci/y": {}}, full=True), LINK)
    member.settle()
    assert ("proof", author.id) not in member.disk
    rows = member.disk | {("proof", author.id): proof, ("proof", other.id): proof}
    again = Member("a", saved=rows)
    again.settle()
    assert again.replica.live(author.id) and again.replica.live(other.id)
    assert [key for key in again.disk if key[0] == "proof"] == []


def test_a_forgotten_owner_leaves_no_proof_behind() -> None:
    member, author = flagged()
    member.replica.drop(author.id)
    member.settle()
    assert [table for table, key in member.disk if key[:32] == author.id] == ["floor"]
    stray = Member("a", saved={("proof", author.id): b"x"})
    stray.settle()
    assert ("proof", author.id) not in stray.disk


def test_an_owner_that_returned_leaves_no_rows_of_before() -> None:
    member, author = filled()
    member.wait(400)
    author.hlc += 400_000
    author.delta({"stack/self": {}}, delete=("ci/numa",))
    member.replica.apply(author.delta({"ci/new": {}}, full=True), LINK)
    member.settle()
    assert shown(Member("a", saved=member.disk)) == shown(member)


def test_a_record_that_moved_to_another_scope_is_moved_on_the_disk() -> None:
    member, author = Member("a"), Author()
    member.replica.apply(author.delta({"mood/now": {}}), LINK)
    moved = [(6, "mood/now", pack({"v": 2}))]
    author.records = author.records.changed(moved, [(5, "mood/now")])
    author.content_ver += 1
    member.replica.apply(author.delta(full=True), LINK)
    member.settle()
    rows = [key for table, key in member.disk if table == "record"]
    assert rows == [author.id + b"\x06mood/now"]
    assert shown(Member("a", saved=member.disk)) == shown(member)


def no_signature(value: bytes) -> bytes:
    row = unpack(value)
    return pack([row[0], bytes(64), *row[2:]])


DAMAGES = [
    ("head", cut),
    ("head", no_signature),
    ("head", lambda _: pack([])),
    ("head", lambda _: pack([1, 2, 3])),
    ("keydoc", cut),
    ("keydoc", no_signature),
    ("record", cut),
    ("record", lambda value: value + bytes(3000)),
]


@pytest.mark.parametrize(("table", "change"), DAMAGES)
def test_an_owner_whose_rows_are_damaged_is_forgotten_and_fetched_again(
    table: str, change: Any
) -> None:
    member, author = filled()
    again = Member("a", saved=damaged(member.disk, table, change))
    assert not again.replica.has(author.id)
    again.settle()
    assert [key for key in again.disk if key[0] in ("head", "keydoc", "record")] == []
    assert again.replica.apply(author.delta({"ci/x": {}}, full=True), LINK).value == "applied"


def test_a_missing_row_is_a_damage_too() -> None:
    for table in ("head", "keydoc", "record"):
        member, author = filled()
        rows = {key: value for key, value in member.disk.items() if key[0] != table}
        assert not Member("a", saved=rows).replica.has(author.id)


def test_rows_under_a_wrong_owner_are_forgotten() -> None:
    member, author = filled()
    wrong = seed_bytes("wrong")
    rows = {
        (table, key.replace(author.id, wrong)): value for (table, key), value in member.disk.items()
    }
    rows["record", b"short"] = b""
    again = Member("a", saved=rows)
    assert again.replica.owners == {}
    again.settle()
    assert [key for key in again.disk if key[0] == "record"] == []


def test_an_owner_that_is_no_member_any_more_is_forgotten() -> None:
    member, author = filled()
    assert not Member("a", saved=member.disk, mesh_key=bytes(32)).replica.has(author.id)
    evicted = Member("a", saved=member.disk)
    evicted.trust.evict(author.id)
    evicted.settle()
    assert not Member("a", saved=evicted.disk).replica.has(author.id)


def test_an_issuer_that_is_read_after_its_subject_still_counts() -> None:
    authors = sorted((Author(2, mesh_key=None), Author(3, mesh_key=None)), key=lambda a: a.id)
    subject, issuer = authors
    member = Member("a", mesh_key=None, allowed_ids=(issuer.id,))
    proof = voucher_by(issuer, subject)
    subject.keydoc = sign_keydoc(subject.keys, proof=proof)
    for author in (issuer, subject):
        member.replica.apply(author.delta({"ci/x": {}}), LINK)
    member.settle()
    assert subject.id < issuer.id
    again = Member("a", saved=member.disk, mesh_key=None, allowed_ids=(issuer.id,))
    assert again.replica.has(subject.id) and again.replica.has(issuer.id)


def voucher_by(issuer: Author, subject: Author) -> bytes:
    mesh = issuer.identity.mesh_id
    said = Voucher(mesh, subject.id, "member", 2**47, issuer.id).sign(Codec(), issuer.keys)
    return write_proof(Codec(), b"", [said])


@pytest.mark.parametrize("row", [b"\xc1", pack([1]), pack(["a", 1, 1, 1]), pack({})])
def test_a_damaged_floor_counts_as_none(row: bytes) -> None:
    author = Author()
    member = Member("a", saved={("floor", author.id): row})
    assert member.replica.apply(author.delta({}), LINK).value == "applied"
