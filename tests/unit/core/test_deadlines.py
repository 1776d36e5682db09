"""The heap of named deadlines."""

from math import inf

from tektonmesh.core.deadlines import DEAD_MAX, Deadlines


def test_an_empty_heap_shows_infinity() -> None:
    assert Deadlines().earliest() == inf


def test_the_earliest_deadline_is_shown_and_run_first() -> None:
    deadlines, ran = Deadlines(), []
    deadlines.set("late", 20.0, lambda: ran.append("late"))
    deadlines.set("early", 10.0, lambda: ran.append("early"))
    assert deadlines.earliest() == 10.0
    deadlines.run_due(15.0)
    assert ran == ["early"]
    assert deadlines.earliest() == 20.0


def test_setting_a_key_again_moves_it() -> None:
    deadlines, ran = Deadlines(), []
    deadlines.set("ping", 10.0, lambda: ran.append("old"))
    deadlines.set("ping", 30.0, lambda: ran.append("new"))
    deadlines.run_due(20.0)
    assert ran == []
    assert deadlines.earliest() == 30.0
    deadlines.run_due(30.0)
    assert ran == ["new"]


def test_set_earlier_never_postpones() -> None:
    deadlines, ran = Deadlines(), []
    deadlines.set_earlier("flush", 10.0, lambda: ran.append("first"))
    deadlines.set_earlier("flush", 12.0, lambda: ran.append("second"))
    assert deadlines.earliest() == 10.0
    deadlines.set_earlier("flush", 5.0, lambda: ran.append("third"))
    deadlines.run_due(11.0)
    assert ran == ["third"]


def test_a_dropped_deadline_never_runs() -> None:
    deadlines, ran = Deadlines(), []
    deadlines.set("x", 1.0, lambda: ran.append("x"))
    assert "x" in deadlines
    deadlines.drop("x")
    deadlines.drop("never set")
    assert "x" not in deadlines
    deadlines.run_due(2.0)
    assert (ran, len(deadlines), deadlines.earliest()) == ([], 0, inf)


def test_ties_run_in_the_order_they_were_set() -> None:
    deadlines, ran = Deadlines(), []
    for name in "abc":
        deadlines.set(name, 1.0, lambda name=name: ran.append(name))
    deadlines.run_due(1.0)
    assert ran == ["a", "b", "c"]


def test_what_a_deadline_sets_for_now_runs_in_the_next_turn() -> None:
    deadlines, ran = Deadlines(), []

    def again() -> None:
        ran.append(len(ran))
        deadlines.set("again", 1.0, again)

    deadlines.set("again", 1.0, again)
    deadlines.run_due(1.0)
    assert ran == [0]
    deadlines.run_due(1.0)
    assert ran == [0, 1]


def test_what_was_set_and_dropped_far_ahead_takes_no_room() -> None:
    deadlines = Deadlines()
    for n in range(10_000):
        deadlines.set(n, 1000.0 + n, lambda: None)
        if n % 10:
            deadlines.drop(n)
    assert len(deadlines) == 1000
    assert len(deadlines._heap) <= 2 * len(deadlines) + DEAD_MAX
    assert deadlines.earliest() == 1000.0


def test_those_that_stay_run_in_their_order_whatever_was_cleared_away() -> None:
    deadlines, ran = Deadlines(), list[int]()
    for n in range(2000):
        deadlines.set(n, float(n // 500), lambda n=n: ran.append(n))
        if n % 100:
            deadlines.drop(n)
    deadlines.run_due(10.0)
    assert ran == list(range(0, 2000, 100))
