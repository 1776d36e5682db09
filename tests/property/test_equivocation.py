"""Whatever an owner says twice, and in whatever order heads, twins and proofs reach whom: everybody
flags the same owners, keeps the same head and the same proof (the registry's invariant 8)."""

from __future__ import annotations

from itertools import pairwise
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tektonmesh.core.equivocation import contradict, proof_of_heads, proof_of_keydocs
from tektonmesh.core.head import Head
from tektonmesh.core.messages import Delta, Proof
from tektonmesh.wire.codec import Codec
from tests.support import Author, Member, join, talk

NAMES = ("a", "b", "c", "d")
LINK = 9
CALM = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
STEPS = st.lists(
    st.sampled_from(["change", "refresh", "twin", "fork", "epoch", "rotate", "keys"]),
    min_size=1,
    max_size=7,
)


def speak(author: Author, step: str, n: int) -> list[Delta]:
    """What an author says in one step: one snapshot, or two that contradict each other."""
    change = {f"ci/{n % 3}": {"v": n}}
    if step == "refresh":
        return [author.delta(full=True)]
    if step == "epoch":
        author.epoch += 1
        author.ver = author.content_ver = 0
    twin = author.twin()
    said = [author.delta(change, full=True)]
    if step == "twin":
        said.append(twin.delta({"ci/twin": {"v": n}}, full=True))
    elif step == "fork":  # other records under the content version of now, at a later version
        twin.delta({"ci/fork": {"v": n}}, full=True)
        said.append(twin.delta(full=True))
    elif step == "keys":
        twin.rotate(author.key_epoch, 100 + n)
        said.append(twin.delta({"ci/keys": {"v": n}}, full=True))
    elif step == "rotate":
        author.rotate(author.key_epoch + 1, 100 + n)
        said.append(author.delta({"ci/rotated": {"v": n}}, full=True))
    return said


def proofs_in(said: list[Delta]) -> list[Proof]:
    """Every proof that somebody who heard everything could make."""
    heads = [(Head.decode(Codec(), delta.head.head), delta) for delta in said]
    found = []
    for at, (one, first) in enumerate(heads):
        for two, second in heads[:at]:
            if (one.stack_id, one.key_epoch) != (two.stack_id, two.key_epoch):
                continue
            assert first.keydoc is not None and second.keydoc is not None
            if one.keydoc_hash != two.keydoc_hash:
                found.append(proof_of_keydocs(first.keydoc, second.keydoc))
            elif first.head != second.head and contradict(one, two):
                found.append(proof_of_heads(first.head, second.head, first.keydoc))
    return found


def state(member: Member) -> dict[bytes, tuple[object, ...]]:
    """What is held of the authors."""
    return {
        owner: (held.signed, dict(held.records), held.equivocated, held.proof)
        for owner, held in member.replica.owners.items()
        if owner in (Author(50).id, Author(51).id)
    }


def compare(*links: tuple[Member, int, Member, int]) -> None:
    """All talk until they are silent; a while later each end hears the print of the other, as it
    rides on a ping."""
    talk(*links, rounds=200)
    for one, link_one, two, link_two in links:
        for here, link, there in ((one, link_one, two), (two, link_two, one)):
            here.antientropy.on_fingerprint(link, there.replica.fingerprint())
            here.settle()
    for member in dict.fromkeys(end for link in links for end in (link[0], link[2])):
        member.wait(4.0)


@CALM
@given(steps=st.lists(STEPS, min_size=1, max_size=2), count=st.integers(3, 4), seed=st.integers())
def test_everybody_flags_the_same_and_holds_the_same_head_and_proof(
    steps: list[list[str]], count: int, seed: int
) -> None:
    chance = Random(seed)
    said: list[Delta] = []
    for number, its in enumerate(steps):
        author = Author(50 + number)
        said.extend(delta for n, step in enumerate(its) for delta in speak(author, step, n))
    proofs = proofs_in(said)
    members = [Member(name).start() for name in NAMES[:count]]
    for delta in said:  # somebody hears it, or nobody could know
        members[chance.randrange(count)].replica.apply(delta, LINK)
    for member in members:
        heard: list[Delta | Proof] = [*chance.choices(said, k=3), *chance.choices(said, k=3)]
        heard += chance.choices(proofs, k=2) if proofs and chance.random() < 0.5 else []
        chance.shuffle(heard)
        for one in heard:
            if isinstance(one, Proof):
                member.replica.take_proof(one)
            else:
                member.replica.apply(one, LINK)
    links = [join(one, n + 10, two, n + 20) for n, (one, two) in enumerate(pairwise(members))]
    for _ in range(12):
        compare(*links)
    assert len({member.replica.fingerprint() for member in members}) == 1
    assert all(state(member) == state(members[0]) for member in members)


@CALM
@given(steps=STEPS, seed=st.integers())
def test_who_hears_everything_flags_who_contradicts_itself_and_nobody_else(
    steps: list[str], seed: int
) -> None:
    """With all proofs in hand the order means nothing: flagged is whose best proof its newest head
    has not outdone."""
    author, said = Author(50), []
    for n, step in enumerate(steps):
        said.extend(speak(author, step, n))
    proofs = proofs_in(said)
    results = []
    for order in (Random(seed), Random(seed + 1)):
        member = Member("a").start()
        heard: list[Delta | Proof] = [*said, *said, *proofs]
        order.shuffle(heard)
        for one in [*heard, *proofs]:
            if isinstance(one, Proof):
                member.replica.take_proof(one)
            else:
                member.replica.apply(one, LINK)
        results.append((state(member), member.replica.bucket_prints()[author.id[0]]))
    assert results[0] == results[1]
    last_outdoing = max((n for n, s in enumerate(steps) if s in ("epoch", "rotate")), default=-1)
    sinful = {"twin", "fork", "keys"} & set(steps[last_outdoing + 1 :])
    if "keys" not in steps:
        assert state(member)[author.id][2] == bool(sinful)
