"""How busy CIs seem."""

import pytest

from tektonmesh.core.loads import CIS_MAX, HINT_S, UNKNOWN_MS, Loads
from tests.support import make_env

KEY = (b"s" * 32, "numa")


def test_a_ci_of_which_nothing_is_known_is_taken_for_an_ordinary_idle_one() -> None:
    assert Loads(make_env()).wait_ms(KEY) == UNKNOWN_MS


def test_what_is_open_there_multiplies_the_time_it_takes() -> None:
    loads = Loads(make_env())
    loads.begun(KEY)
    loads.ended(KEY, 10.0, answered=True)
    assert loads.wait_ms(KEY) == 10.0
    loads.begun(KEY)
    loads.begun(KEY)
    assert loads.wait_ms(KEY) == 30.0


def test_the_mean_follows_what_answers_take_and_failures_tell_nothing() -> None:
    loads = Loads(make_env())
    for ms in (10.0, 30.0):
        loads.begun(KEY)
        loads.ended(KEY, ms, answered=True)
    loads.begun(KEY)
    loads.ended(KEY, 0.0, answered=False)
    assert loads.wait_ms(KEY) == pytest.approx(15.0)


def test_what_its_stack_says_counts_and_grows_old() -> None:
    env = make_env()
    loads = Loads(env)
    loads.told(KEY, 9)
    assert loads.wait_ms(KEY) == 10 * UNKNOWN_MS
    env.now += HINT_S / 3
    assert loads.wait_ms(KEY) == pytest.approx(7 * UNKNOWN_MS)
    env.now += HINT_S
    assert loads.wait_ms(KEY) == UNKNOWN_MS


def test_an_end_without_a_beginning_changes_nothing_below_zero() -> None:
    loads = Loads(make_env())
    loads.ended(KEY, 1.0, answered=False)
    assert loads.wait_ms(KEY) == UNKNOWN_MS


def test_the_cis_not_used_for_longest_are_forgotten() -> None:
    loads = Loads(make_env())
    loads.told(KEY, 5)
    for n in range(CIS_MAX):
        loads.begun((b"s" * 32, f"ci{n}"))
    assert loads.wait_ms(KEY) == UNKNOWN_MS
