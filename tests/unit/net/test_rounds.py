"""When writers are called that queue bytes for a connection."""

import pytest

from tektonmesh.net.rounds import Rounds


def test_outside_a_round_a_writer_is_called_at_once() -> None:
    called: list[str] = []
    Rounds().at_end(lambda: called.append("a"))
    assert called == ["a"]


def test_within_a_round_each_writer_is_called_once_in_the_order_of_asking() -> None:
    rounds, called = Rounds(), list[str]()

    def first() -> None:
        called.append("first")

    def second() -> None:
        called.append("second")

    with rounds:
        for act in (first, second, first):
            rounds.at_end(act)
        assert called == []
    assert called == ["first", "second"]


def test_a_round_inside_a_round_ends_with_the_outer_one() -> None:
    rounds, called = Rounds(), list[str]()
    with rounds:
        with rounds:
            rounds.at_end(lambda: called.append("a"))
        assert called == []
    assert called == ["a"]


def test_what_a_writer_asks_for_is_done_at_once() -> None:
    rounds, called = Rounds(), list[str]()
    with rounds:
        rounds.at_end(lambda: rounds.at_end(lambda: called.append("a")))
    assert called == ["a"]


def test_a_fault_inside_a_round_loses_no_write() -> None:
    rounds, called = Rounds(), list[str]()

    def fail() -> None:
        with rounds:
            rounds.at_end(lambda: called.append("a"))
            raise ValueError("fault")

    with pytest.raises(ValueError, match="fault"):
        fail()
    assert called == ["a"]
