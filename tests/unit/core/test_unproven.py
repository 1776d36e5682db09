"""Stacks that nothing proves to be members here: left out on both ends, and for how long."""

from __future__ import annotations

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.machine import Env
from tektonmesh.core.unproven import AGAIN_S, SETTLE_S, UNPROVEN_MAX, Unproven
from tests.network import Member, Network
from tests.support import advance, make_env, seed_bytes

ONE, TWO = seed_bytes("one"), seed_bytes("two")


class Told:
    """What a node's peers are told to leave out, each time that it changes."""

    def __init__(self, **settings: object) -> None:
        self.env: Env = make_env(**settings)  # type: ignore[arg-type]
        self.said: list[tuple[bytes, ...]] = []
        self.unproven = Unproven(self.env, lambda: self.said.append(self.unproven.left_out))


def test_a_stack_is_left_out_when_no_proof_has_come_for_a_moment() -> None:
    told = Told()
    told.unproven.came(ONE)
    told.unproven.came(ONE)
    advance(told.env, SETTLE_S - 0.1)
    assert told.said == [] and told.unproven.left_out == ()
    told.unproven.came(TWO)
    advance(told.env, 0.2)
    assert told.said == [(ONE,)]
    advance(told.env, SETTLE_S)
    assert told.said == [(ONE,), tuple(sorted((ONE, TWO)))]


def test_one_whose_proof_came_in_time_is_never_left_out() -> None:
    told = Told()
    told.unproven.came(ONE)
    told.unproven.believe(ONE)
    advance(told.env, 10 * SETTLE_S)
    assert told.said == []


def test_in_a_mesh_with_a_secret_it_is_for_as_long_as_people_here_decide() -> None:
    told = Told()
    told.unproven.came(ONE)
    advance(told.env, 2 * AGAIN_S)
    told.unproven.believe(TWO)
    assert told.unproven.left_out == (ONE,)
    told.unproven.believe(ONE)
    assert told.said == [(ONE,), ()]


def test_where_members_vouch_a_new_member_or_half_an_hour_opens_the_question_again() -> None:
    told = Told(mesh_key=None)
    told.unproven.came(ONE)
    advance(told.env, SETTLE_S)
    told.unproven.believe(TWO)
    assert told.said == [(ONE,), ()]
    told.unproven.believe(TWO)
    told.unproven.came(ONE)
    advance(told.env, AGAIN_S - 1.0)
    assert told.unproven.left_out == (ONE,)
    advance(told.env, 2.0)
    assert told.unproven.left_out == () and told.said == [(ONE,), (), (ONE,), ()]


def test_there_is_a_bound() -> None:
    told = Told()
    for n in range(UNPROVEN_MAX + 5):
        told.unproven.came(seed_bytes(n))
    advance(told.env, SETTLE_S)
    assert len(told.unproven.left_out) == UNPROVEN_MAX


# --- a guest in a mesh with a secret -------------------------------------------------------------


def converged(*members: Member) -> bool:
    return all(it.node.antientropy.converged() == (True, []) for it in members)


@pytest.fixture
def guest() -> Network:
    """Members a and b prove the secret; g does not, and is let in by a alone."""
    network = Network("a", "b")
    network.add("g", mesh_keys=(), proves=False)
    a, g = network["a"], network["g"]
    a.do(lambda t: ev.AdmitPeer(t, g.id))
    g.do(lambda t: ev.AdmitPeer(t, a.id))
    for name in "abg":
        network[name].register(f"ci-{name}")
    network.join("a", "b")
    network.join("a", "g")
    network.run(40.0)
    return network


def test_a_guest_and_the_mesh_know_of_one_another_only_by_who_admitted_it(guest: Network) -> None:
    a, b, g = (guest[name] for name in "abg")
    assert list(map(sorted, (a.node.replica.owners, b.node.replica.owners))) == [
        sorted((a.id, b.id, g.id)),
        sorted((a.id, b.id)),
    ]
    assert sorted(g.node.replica.owners) == sorted((a.id, g.id))
    assert a.node.rights.guests() == [g.id] and g.node.rights.guests() == []
    assert b.node.antientropy.unproven.left_out == (g.id,)
    assert converged(a, b, g)
    assert a.node.divergence.gaps() == g.node.divergence.gaps() == {}


def test_a_guest_that_is_admitted_by_another_member_too_is_known_there(guest: Network) -> None:
    a, b, g = (guest[name] for name in "abg")
    b.do(lambda t: ev.AdmitPeer(t, g.id))
    g.do(lambda t: ev.AdmitPeer(t, b.id))
    guest.join("b", "g")
    guest.run(40.0)
    assert g.node.replica.owners[b.id].whole and b.node.replica.owners[g.id].whole
    assert b.node.antientropy.unproven.left_out == ()
    assert converged(a, b, g)


def test_what_a_guest_says_later_still_reaches_who_admitted_it(guest: Network) -> None:
    a, b, g = (guest[name] for name in "abg")
    g.register("later")
    b.register("later")
    guest.run(10.0)
    assert "ci/later" in a.node.replica.owners[g.id].records
    assert "ci/later" in a.node.replica.owners[b.id].records
    assert converged(a, b, g)
