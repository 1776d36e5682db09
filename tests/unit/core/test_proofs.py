"""How proofs spread: each link is told once, nobody waits for the twin itself."""

from __future__ import annotations

from tektonmesh.core.messages import Delta, Proof, Vector
from tektonmesh.core.proofs import PAUSE_S
from tests.support import Author, Member, join, seed_bytes, talk

ONE, TWO, THREE = 1, 2, 3


def linked(name: str = "a") -> Member:
    member = Member(name).start()
    for link in (ONE, TWO, THREE):
        member.link(link, seed_bytes("peer", link))
        member.taken(link)
    return member


def said_twice(author: Author, n: int = 0) -> tuple[Delta, Delta]:
    """Two snapshots of the next version."""
    twin = author.twin()
    return author.delta({"ci/one": {}}, full=True), twin.delta({"ci/two": {"n": n}}, full=True)


def proofs_to(member: Member, link: int) -> list[Proof]:
    return [message for message in member.taken(link) if isinstance(message, Proof)]


def test_who_finds_an_owner_out_tells_every_link_once() -> None:
    member, author = linked(), Author(50)
    for delta in said_twice(author):
        member.receive(ONE, delta)
    told = [proofs_to(member, link) for link in (ONE, TWO, THREE)]
    assert [len(proofs) for proofs in told] == [1, 1, 1]
    assert told[0] == told[1] == told[2]
    member.wait(5 * PAUSE_S)
    assert not any(proofs_to(member, link) for link in (ONE, TWO, THREE))


def test_who_is_shown_the_proof_flags_the_owner_and_passes_it_on_but_not_back() -> None:
    source, member, author = linked("b"), linked(), Author(50)
    one, two = said_twice(author)
    for delta in (one, two):
        source.receive(ONE, delta)
    (proof,) = proofs_to(source, ONE)
    member.receive(TWO, one)
    assert member.replica.live(author.id)
    member.receive(ONE, proof)
    assert not member.replica.live(author.id)
    assert proofs_to(member, ONE) == []
    assert proofs_to(member, TWO) == proofs_to(member, THREE) == [proof]
    member.receive(THREE, proof)
    member.wait(5 * PAUSE_S)
    assert not any(proofs_to(member, link) for link in (ONE, TWO, THREE))


def test_a_flood_of_smaller_and_smaller_proofs_is_passed_on_once_in_a_while() -> None:
    source, member, author = linked("b"), linked(), Author(50)
    member.receive(ONE, said_twice(author)[0])
    seen = []
    for n in range(60):
        fresh = Member("c")
        fresh.link(ONE, source.id)
        twin = Author(50)
        for delta in said_twice(twin, n):
            fresh.receive(ONE, delta)
        seen.extend(proofs_to(fresh, ONE))
    for proof in seen:
        member.receive(ONE, proof)
        member.wait(0.01)
    member.wait(PAUSE_S)
    assert len(proofs_to(member, TWO)) == 2


def test_an_owner_that_is_forgotten_meanwhile_is_not_told_of() -> None:
    member, first, second = linked(), Author(50), Author(51)
    for delta in said_twice(first):
        member.receive(ONE, delta)
    proofs_to(member, TWO)
    for delta in said_twice(second):
        member.receive(ONE, delta)
    member.trust.evict(second.id)
    member.replica.drop(second.id)
    member.wait(2 * PAUSE_S)
    assert proofs_to(member, TWO) == []


def test_a_proof_that_is_outdone_meanwhile_is_not_told() -> None:
    member, first, second = linked(), Author(50), Author(51)
    for delta in (*said_twice(first), *said_twice(second)):
        member.receive(ONE, delta)
    member.wait(PAUSE_S)
    assert len(proofs_to(member, TWO)) == 2
    for delta in said_twice(Author(53)):
        member.receive(ONE, delta)
    third = Author(52)
    for delta in said_twice(third):
        member.receive(ONE, delta)
    third.epoch += 1
    member.receive(ONE, third.delta({"ci/x": {}}, full=True))
    assert member.replica.live(third.id)
    member.wait(2 * PAUSE_S)
    assert len(proofs_to(member, TWO)) == 1


def test_a_link_that_is_gone_is_told_nothing() -> None:
    member, author = linked(), Author(50)
    member.unlink(TWO)
    for delta in said_twice(author):
        member.receive(ONE, delta)
    assert proofs_to(member, TWO) == [] and len(proofs_to(member, THREE)) == 1


def test_replicas_of_which_one_knows_the_proof_differ_and_are_mended() -> None:
    one, two, author = Member("a").start(), Member("b").start(), Author(50)
    said = said_twice(author)
    for delta in said:
        one.replica.apply(delta, 9)
    held = one.replica.owners[author.id]
    two.replica.apply(held.delta(None, with_keydoc=True), 9)
    assert two.replica.live(author.id)
    assert one.replica.owners[author.id].signed == two.replica.owners[author.id].signed
    assert one.replica.bucket_prints() != two.replica.bucket_prints()
    talk(join(one, ONE, two, ONE))
    assert two.replica.owners[author.id].proof == held.proof
    assert one.replica.fingerprint() == two.replica.fingerprint()


def test_a_vector_is_answered_with_the_proof_that_its_sender_lacks_and_with_no_other() -> None:
    member, author = linked(), Author(50)
    for delta in said_twice(author):
        member.receive(ONE, delta)
    member.wait(1.0)
    for link in (ONE, TWO, THREE):
        member.taken(link)
    (entry,) = member.replica.entries((author.id[0],))
    held = member.replica.owners[author.id].proof
    assert held is not None and entry.proof == held.digest
    member.receive(ONE, Vector((), (entry,), False, False))
    assert proofs_to(member, ONE) == []
    lacking = type(entry)(*[getattr(entry, name) for name in entry.__slots__[:-1]])
    member.receive(ONE, Vector((), (lacking,), False, False))
    assert proofs_to(member, ONE) == [held.proof]
