"""The next of many instants, against a deadline for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tektonmesh.core import soonest as sn
from tektonmesh.core.machine import Env
from tektonmesh.core.soonest import Soonest
from tektonmesh.core.types import StackId
from tests.support import advance, make_env

CALM = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


class Waits:
    """Owners with instants that a test sets; `came` says who came when, `looks` how often all
    were looked at. An owner that comes is over, or is asked again after `again_s`."""

    def __init__(self, env: Env, again_s: float | None = None) -> None:
        self.env = env
        self.again_s = again_s
        self.instants: dict[StackId, float] = {}
        self.came: list[tuple[StackId, float]] = []
        self.looks = 0
        self.soonest = Soonest(env, "waits", self.instants, self.read, self.due)

    def read(self, owners: Iterable[StackId]) -> Iterator[tuple[float, StackId]]:
        self.looks += owners is self.instants
        for owner in owners:
            if owner in self.instants:
                yield self.instants[owner], owner

    def due(self, owner: StackId) -> float:
        self.came.append((owner, self.env.now))
        if self.again_s is not None:
            return self.env.after(self.again_s)
        del self.instants[owner]
        return inf

    def set(self, owner: StackId, instant: float) -> None:
        self.instants[owner] = instant
        self.soonest.lower(owner, instant)


def make(again_s: float | None = None) -> Waits:
    return Waits(make_env(now=0.0), again_s)


def name(number: int) -> StackId:
    return number.to_bytes(2)


def test_they_come_in_their_order_with_one_deadline() -> None:
    waits = make()
    for number, instant in enumerate((5.0, 3.0, 9.0, 3.0)):
        waits.instants[name(number)] = instant
    waits.soonest.begin()
    assert len(waits.env.deadlines) == 1 and "waits" in waits.env.deadlines
    advance(waits.env, 20.0)
    assert waits.came == [(name(1), 3.0), (name(3), 3.0), (name(0), 5.0), (name(2), 9.0)]
    assert len(waits.env.deadlines) == 0


def test_one_that_moves_to_later_costs_nothing_and_comes_then() -> None:
    waits = make()
    waits.set(b"a", 5.0)
    waits.instants[b"a"] = 8.0
    advance(waits.env, 20.0)
    assert waits.came == [(b"a", 8.0)]


def test_one_that_moves_to_earlier_comes_then_and_once() -> None:
    waits = make()
    waits.set(b"a", 9.0)
    waits.set(b"a", 4.0)
    advance(waits.env, 20.0)
    assert waits.came == [(b"a", 4.0)]


def test_one_that_is_dropped_or_is_no_more_does_not_come() -> None:
    waits = make()
    waits.set(b"a", 4.0)
    waits.set(b"b", 5.0)
    waits.set(b"c", 6.0)
    waits.soonest.drop(b"a")
    waits.soonest.drop(b"z")
    del waits.instants[b"b"]
    advance(waits.env, 20.0)
    assert waits.came == [(b"c", 6.0)]


def test_one_whose_instant_has_passed_comes_at_once() -> None:
    waits = make()
    waits.env.now = 10.0
    waits.set(b"a", 4.0)
    assert waits.env.deadlines.earliest() == 10.0
    advance(waits.env, 0.0)
    assert waits.came == [(b"a", 10.0)]


def test_one_that_stays_due_is_called_again_when_it_said() -> None:
    waits = make(again_s=7.0)
    waits.set(b"a", 5.0)
    advance(waits.env, 20.0)
    assert waits.came == [(b"a", 5.0), (b"a", 12.0), (b"a", 19.0)]


def test_one_that_never_wants_to_be_called_again_comes_when_it_has_moved() -> None:
    waits = make(again_s=inf)
    for number in range(3 * sn.LISTED):
        waits.instants[name(number)] = 5.0
    waits.soonest.begin()
    advance(waits.env, 50.0)
    assert len(waits.came) == 3 * sn.LISTED
    waits.set(name(0), 60.0)
    advance(waits.env, 50.0)
    assert waits.came[3 * sn.LISTED :] == [(name(0), 60.0)]
    waits.set(name(0), 60.0)
    advance(waits.env, 0.0)
    assert waits.came[-1] == (name(0), 100.0)


def test_what_comes_must_be_over_or_say_when_to_call_again() -> None:
    waits = make(again_s=0.0)
    waits.set(b"a", 5.0)
    with pytest.raises(AssertionError):
        advance(waits.env, 20.0)


def test_of_many_owners_few_are_listed_and_all_come() -> None:
    waits = make()
    for number in range(10 * sn.LISTED):
        waits.set(name(number), 100.0 + number)
    assert len(waits.soonest._heap) <= 2 * sn.LISTED
    advance(waits.env, 1000.0)
    assert [owner for owner, _ in waits.came] == [name(n) for n in range(10 * sn.LISTED)]
    assert waits.looks <= 11


def test_what_is_refreshed_in_time_is_seldom_looked_at() -> None:
    waits = make()
    for number in range(10 * sn.LISTED):
        waits.instants[name(number)] = 900.0 + number * 0.1
    waits.soonest.begin()
    for _ in range(10):
        advance(waits.env, 300.0)
        for owner in waits.instants:
            waits.set(owner, waits.instants[owner] + 300.0)
    assert waits.came == []
    assert waits.looks <= 5


def test_moving_one_again_and_again_does_not_fill_the_list() -> None:
    waits = make()
    for number in range(10 * sn.LISTED):
        waits.set(b"a", 10_000.0 - number)
    assert len(waits.soonest._heap) <= 2 * sn.LISTED
    assert waits.soonest.bound_s == 10_001.0 - 10 * sn.LISTED


def test_it_may_begin_with_a_bound_that_somebody_else_found() -> None:
    base = make()
    base.instants[b"a"] = 5.0
    base.soonest.begin()
    waits = make()
    waits.instants[b"a"] = 5.0
    waits.soonest.begin(base.soonest.bound_s)
    assert waits.looks == 0
    advance(waits.env, 20.0)
    assert waits.came == [(b"a", 5.0)]
    assert make().soonest.bound_s == inf


MOVES = st.lists(
    st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, 4), st.booleans()), max_size=60
)


@CALM
@given(moves=MOVES, listed=st.integers(1, 4))
def test_everyone_comes_exactly_when_a_deadline_of_its_own_would(
    moves: list[tuple[int, int, int, bool]], listed: int
) -> None:
    held, sn.LISTED = sn.LISTED, listed
    try:
        waits = make()
        waits.soonest.begin()
        came: list[tuple[StackId, float]] = []
        plain = make_env(now=0.0)
        for number, delay, pause, gone in moves:
            owner, instant = name(number), plain.now + delay
            if gone:
                waits.instants.pop(owner, None)
                waits.soonest.drop(owner)
                plain.deadlines.drop(owner)
            else:
                waits.set(owner, instant)
                plain.deadlines.set(
                    owner, instant, lambda owner=owner: came.append((owner, plain.now))
                )
            advance(waits.env, float(pause))
            advance(plain, float(pause))
        advance(waits.env, 100.0)
        advance(plain, 100.0)
        assert sorted(waits.came) == sorted(came)
        assert [at for _, at in waits.came] == [at for _, at in came]
    finally:
        sn.LISTED = held
