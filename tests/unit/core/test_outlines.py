from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import outlines as ol
from tektonmesh.core.antientropy import WINDOW
from tektonmesh.core.messages import Delta, Ihave, Outlines, Vector, VectorEntry, Want, WantOutlines
from tektonmesh.core.types import Scope, Version
from tektonmesh.errors import RemoteError
from tests.support import Author, Member, join, seed_bytes, talk

ONE, TWO = 1, 2
LARGE = {f"ci/{n}": {"about": "x" * 500} for n in range(20)}
"""Records of some 10 kB."""


def large(n: int) -> tuple[Author, Delta]:
    """An author with a name, a link and a large body, and the delta that brings it whole."""
    author = Author(n)
    delta = author.delta({"stack/self": {"name": f"s{n}"}, "link/ab": {"cost": 1}} | LARGE)
    return author, delta


def outline(whole: Delta) -> Delta:
    puts = tuple(put for put in whole.puts if put[0] == Scope.TOPOLOGY)
    return Delta(whole.head, None, puts, (), whole.keydoc)


def holder(count: int, name: str = "a") -> tuple[Member, list[tuple[Author, Delta]]]:
    """A member that holds large authors."""
    member = Member(name).start()
    authors = [large(n) for n in range(50, 50 + count)]
    for _author, delta in authors:
        member.replica.apply(delta, 99)
    return member, authors


def entry(owner: bytes) -> VectorEntry:
    return VectorEntry(owner, Version(0, 5, 1), 1, 0, bytes(8))


def sent(member: Member, link: int, kind: type) -> list[Any]:
    return [message for message in member.taken(link) if isinstance(message, kind)]


def joining(owners: list[bytes]) -> Member:
    """A member with nothing, linked to one that says that it holds these owners."""
    member = Member("b").start()
    member.link(ONE, seed_bytes(1))
    member.taken(ONE)
    member.receive(ONE, Vector((), tuple(entry(owner) for owner in owners), False, False))
    return member


# --- who joins -----------------------------------------------------------------------------------


def test_whoever_joins_knows_all_names_before_the_first_body() -> None:
    one, authors = holder(5)
    two = Member("b").start()
    link = join(one, ONE, two, TWO)
    for message in two.taken(TWO):
        one.receive(ONE, message)
    for message in one.taken(ONE):
        two.receive(TWO, message)
    asked = two.taken(TWO)
    (question,) = [message for message in asked if isinstance(message, WantOutlines)]
    assert {author.id for author, _ in authors} <= set(question.owners)
    for message in asked:
        one.receive(ONE, message)
    for message in one.taken(ONE):
        assert not isinstance(message, Delta)
        two.receive(TWO, message)
    for author, _ in authors:
        held = two.replica.owners[author.id]
        assert held.outlined and sorted(held.records) == ["link/ab", "stack/self"]
    talk(link)
    assert one.replica.fingerprint() == two.replica.fingerprint()
    for author, delta in authors:
        assert two.shown(author.id) == {key: value for _, key, value in delta.puts}


def test_bodies_are_asked_for_when_the_last_answer_has_come() -> None:
    authors = [large(n) for n in range(50, 54)]
    member = joining([author.id for author, _ in authors])
    assert not sent(member, ONE, Want)
    member.receive(ONE, Outlines((outline(authors[0][1]),), True))
    assert not sent(member, ONE, Want)
    member.receive(ONE, Outlines((), False))
    (want,) = sent(member, ONE, Want)
    assert {owner for owner, _ in want.owners} == {author.id for author, _ in authors}
    assert all(base is None for _, base in want.owners)


def test_each_owner_is_asked_for_its_outline_once() -> None:
    owners = [Author(n).id for n in range(50, 50 + WINDOW + 6)]
    member = joining(owners)
    (question,) = sent(member, ONE, WantOutlines)
    assert set(question.owners) == set(owners)
    member.link(TWO, seed_bytes(2))
    member.receive(TWO, Vector((), tuple(map(entry, owners)), False, False))
    member.receive(ONE, Outlines((), False))
    assert not sent(member, TWO, WantOutlines) and not sent(member, ONE, WantOutlines)
    assert not member.antientropy.outliner.waiting


def test_for_few_unknown_owners_nobody_is_kept_waiting() -> None:
    member = joining([Author(n).id for n in range(50, 50 + ol.UNKNOWN_MIN - 1)])
    assert [type(message) for message in member.taken(ONE)] == [Want]


def test_without_an_answer_the_bodies_are_asked_for_all_the_same() -> None:
    owners = [Author(n).id for n in range(50, 54)]
    member = joining(owners)
    member.taken(ONE)
    member.wait(ol.PATIENCE_S - 0.1)
    assert not sent(member, ONE, Want)
    member.wait(0.2)
    (want,) = sent(member, ONE, Want)
    assert {owner for owner, _ in want.owners} == set(owners)


def test_a_link_that_goes_is_not_waited_for() -> None:
    owners = [Author(n).id for n in range(50, 54)]
    member = joining(owners)
    member.link(TWO, seed_bytes(2))
    member.receive(TWO, Vector((), tuple(map(entry, owners)), False, False))
    assert not sent(member, TWO, Want)
    member.unlink(ONE)
    (want,) = sent(member, TWO, Want)
    assert {owner for owner, _ in want.owners} == set(owners)


def test_of_more_owners_than_fit_a_question_the_rest_come_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ol, "OUTLINES_MAX", 4)
    member = joining([Author(n).id for n in range(50, 56)])
    (question,) = sent(member, ONE, WantOutlines)
    assert len(question.owners) == 4


def test_no_more_owners_are_remembered_than_can_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ol, "OWNERS_MAX", 4)
    owners = [Author(n).id for n in range(50, 56)]
    member = joining(owners)
    member.receive(ONE, Outlines((), False))
    member.taken(ONE)
    member.unlink(ONE)
    member.link(TWO, seed_bytes(2))
    member.taken(TWO)
    member.receive(TWO, Vector((), tuple(map(entry, owners)), False, False))
    again = [owner for question in sent(member, TWO, WantOutlines) for owner in question.owners]
    assert len(again) < len(owners)


# --- what is held of an outlined owner -----------------------------------------------------------


def outlined() -> tuple[Member, Author, Delta]:
    """A member that holds one outline."""
    author, whole = large(50)
    member = Member("b").start()
    member.link(ONE, seed_bytes(1))
    member.link(TWO, seed_bytes(2))
    for link in (ONE, TWO):
        member.taken(link)
    member.receive(ONE, Outlines((outline(whole),), False))
    return member, author, whole


def test_an_outlined_owner_is_live_and_counts_as_missing() -> None:
    member, author, _ = outlined()
    assert member.replica.live(author.id)
    assert member.replica.count() == 1, "ourselves"
    assert author.id not in [entry.owner for entry in member.replica.entries(())]
    assert member.replica.fingerprint() == Member("b").start().replica.fingerprint()


def test_an_outline_is_neither_saved_nor_passed_on_nor_served() -> None:
    member, author, _ = outlined()
    assert not [row for row in member.disk if row[1].startswith(author.id)]
    member.receive(TWO, Want(((author.id, None),)))
    member.wait(1.0)
    assert not sent(member, TWO, Delta)
    assert ol.outline_of(member.replica.owners[author.id]) is None


def test_the_whole_owner_takes_the_place_of_its_outline_and_is_saved() -> None:
    member, author, whole = outlined()
    member.receive(ONE, whole)
    held = member.replica.owners[author.id]
    assert not held.outlined and len(held.records) == len(whole.puts)
    assert member.replica.count() == 2
    saved = {row[1] for row in member.disk if row[0] == "record"}
    assert len([key for key in saved if key.startswith(author.id)]) == len(whole.puts)
    member.wait(0.1)
    assert [type(message) for message in member.taken(TWO)] == [Ihave]


def test_a_change_to_an_outlined_owner_makes_us_ask_for_all_of_it() -> None:
    member, author, _ = outlined()
    member.receive(ONE, author.delta({"ci/new": {}}, keydoc=False))
    (want,) = sent(member, ONE, Want)
    assert want.owners == ((author.id, None),)


def test_the_lease_of_an_outlined_owner_runs_out() -> None:
    member, author, _ = outlined()
    member.wait(400.0)
    held = member.replica.owners[author.id]
    assert held.expired and sorted(held.records) == ["stack/self"]


def test_a_proof_against_an_outlined_owner_outlives_its_coming_whole() -> None:
    member, author, whole = outlined()
    twin = author.twin()
    first, second = author.delta({"ci/a": {}}, full=True), twin.delta({"ci/b": {}}, full=True)
    other = Member("c").start()
    for delta in (whole, first, second):
        other.replica.apply(delta, 9)
    proof = other.replica.owners[author.id].proof
    assert proof is not None
    member.replica.take_proof(proof.proof)
    member.receive(ONE, whole)
    assert member.replica.owners[author.id].equivocated


# --- false outlines ------------------------------------------------------------------------------


def test_an_outline_of_a_known_owner_or_of_ourselves_changes_nothing() -> None:
    member, authors = holder(1)
    author, whole = authors[0]
    member.link(ONE, seed_bytes(1))
    own = member.replica.owners[member.id].delta(None, with_keydoc=True)
    member.receive(ONE, Outlines((outline(whole), outline(own)), False))
    assert not member.replica.owners[author.id].outlined
    assert not member.replica.owners[member.id].outlined


def test_an_outline_with_other_records_than_its_head_says_is_refused() -> None:
    _, whole = large(50)
    topology = outline(whole).puts
    more = tuple(sorted((*topology, (int(Scope.MEMBERS), "ci/x", b"\x80"))))
    for puts in (topology[:1], more, whole.puts):
        member = Member("b").start()
        member.link(ONE, seed_bytes(1))
        with pytest.raises(RemoteError, match="do not match the root"):
            member.receive(ONE, Outlines((Delta(whole.head, None, puts, (), whole.keydoc),), False))
        assert len(member.replica.owners) == 1


def test_an_outline_that_breaks_a_rule_of_records_is_refused() -> None:
    _, whole = large(50)
    wrong = ((int(Scope.MEMBERS), "stack/self", b"\x80"),)
    member = Member("b").start()
    member.link(ONE, seed_bytes(1))
    with pytest.raises(RemoteError, match="scope"):
        member.receive(ONE, Outlines((Delta(whole.head, None, wrong, (), whole.keydoc),), False))


def test_an_outline_without_a_key_document_is_left() -> None:
    _, whole = large(50)
    member = Member("b").start()
    member.link(ONE, seed_bytes(1))
    bare = Delta(whole.head, None, outline(whole).puts, (), None)
    member.receive(ONE, Outlines((bare,), False))
    assert len(member.replica.owners) == 1


# --- who is asked --------------------------------------------------------------------------------


def answers(member: Member, owners: list[bytes]) -> list[Outlines]:
    member.taken(ONE)
    member.receive(ONE, WantOutlines(tuple(owners)))
    return sent(member, ONE, Outlines)


def test_only_owners_that_have_much_more_are_outlined() -> None:
    member, authors = holder(2)
    small = Author(90)
    member.replica.apply(small.delta({"stack/self": {}}), 99)
    member.link(ONE, seed_bytes(1))
    ids = [author.id for author, _ in authors]
    (answer,) = answers(member, [small.id, Author(91).id, *ids, *ids])
    assert [it.head for it in answer.outlines] == [whole.head for _, whole in authors]
    assert not answer.more


def test_an_owner_that_the_peer_evicted_is_left_out() -> None:
    member, authors = holder(2)
    member.link(ONE, seed_bytes(1))
    ids = [author.id for author, _ in authors]
    member.dissemination.leave_out(ONE, (ids[0],))
    (answer,) = answers(member, ids)
    assert [it.head for it in answer.outlines] == [authors[1][1].head]


def test_a_long_answer_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ol, "CHUNK_BYTES", 2500)
    member, authors = holder(5)
    member.link(ONE, seed_bytes(1))
    found = answers(member, [author.id for author, _ in authors])
    assert [len(answer.outlines) for answer in found] == [2, 2, 1]
    assert [answer.more for answer in found] == [True, True, False]


def test_a_question_for_too_many_is_refused() -> None:
    member, _ = holder(1)
    member.link(ONE, seed_bytes(1))
    with pytest.raises(RemoteError, match="too many outlines"):
        member.receive(ONE, WantOutlines((bytes(32),) * (ol.OUTLINES_MAX + 1)))


def test_a_link_that_is_gone_is_not_answered() -> None:
    member, _ = holder(1)
    member.receive(ONE, WantOutlines(()))
    assert member.taken(ONE) == []
    assert member.dissemination.left_out(ONE) == {}


# --- news of large owners ------------------------------------------------------------------------


def test_news_of_a_large_owner_are_only_announced_to_a_link_of_which_nothing_is_known() -> None:
    member, authors = holder(1)
    author, _ = authors[0]
    for link in (ONE, TWO):
        member.link(link, seed_bytes(link))
        member.taken(link)
    member.antientropy.on_fingerprint(TWO, member.replica.fingerprint())
    member.replica.apply(author.delta({"ci/new": {}}), 99)
    member.wait(0.1)
    assert [type(it) for it in member.taken(ONE)] == [Ihave]
    assert [type(it) for it in member.taken(TWO)] == [Delta]
