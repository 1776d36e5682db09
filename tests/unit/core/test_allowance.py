from __future__ import annotations

import pytest

from tektonmesh.core.allowance import Allowance
from tests.support import make_env


def test_what_was_saved_up_is_spent_at_once_and_then_so_much_a_second() -> None:
    env = make_env()
    allowance = Allowance(env, 1000, 100)
    assert allowance.take(600) == 0.0
    assert allowance.take(400) == 0.0
    assert allowance.take(500) == pytest.approx(0.5)
    env.now += 0.5
    assert allowance.take(500) == 0.0


def test_at_most_a_second_is_saved_up() -> None:
    env = make_env()
    allowance = Allowance(env, 1000, 100)
    env.now += 60.0
    assert allowance.take(1000) == 0.0
    assert allowance.take(1) > 0.0


def test_a_slow_allowance_still_saves_up_the_least_that_is_spent_at_once() -> None:
    env = make_env()
    allowance = Allowance(env, 10, 100)
    assert allowance.take(100) == 0.0
    assert allowance.take(100) == pytest.approx(10.0)
    env.now += 10.0
    assert allowance.take(100) == 0.0


def test_what_waits_as_long_as_it_was_told_can_be_spent() -> None:
    env = make_env()
    allowance = Allowance(env, 3, 7)
    assert allowance.take(7) == 0.0
    for _ in range(1000):
        wait_s = allowance.take(7)
        assert wait_s > 0.0
        env.now += wait_s
        assert allowance.take(7) == 0.0


def test_what_was_not_spent_can_be_given_back_but_saves_up_no_more() -> None:
    env = make_env()
    allowance = Allowance(env, 1000, 100)
    assert allowance.take(1000) == 0.0
    allowance.give_back(400)
    assert allowance.take(400) == 0.0
    allowance.give_back(5000)
    assert allowance.take(1000) == 0.0
    assert allowance.take(1) > 0.0
