"""The window of a body that is pulled: it yields to whatever else is on the way."""

from __future__ import annotations

from tektonmesh.core.large import CHUNK_SIZE
from tektonmesh.core.pullrate import BASE_S, LATEST, UNIT, WINDOW_MAX, WINDOW_MIN, PullRate


def come(rate: PullRate, times: int, took_s: float, now: float) -> None:
    for _ in range(times):
        rate.came(rate.part, took_s, now)


def test_it_doubles_while_nothing_has_to_wait() -> None:
    rate = PullRate(0.0)
    come(rate, 10, 0.05, 0.1)
    assert rate.window == 14 * UNIT
    come(rate, 400, 0.05, 0.2)
    assert rate.window == WINDOW_MAX


def test_it_shrinks_to_a_few_small_parts_while_parts_wait_long() -> None:
    rate = PullRate(0.0)
    come(rate, 10, 0.01, 1.0)
    come(rate, 400, 0.06, 2.0)
    assert (rate.window, rate.part) == (WINDOW_MIN, UNIT)


def test_a_part_that_was_late_alone_is_no_queue() -> None:
    rate = PullRate(0.0)
    come(rate, 4, 0.01, 1.0)
    before = rate.window
    for _ in range(20):
        come(rate, LATEST - 1, 0.06, 2.0)
        come(rate, 1, 0.01, 2.0)
    assert rate.window > before


def test_it_settles_where_the_wait_is_what_it_may_be() -> None:
    """A link that takes 2.6 ms for a small part and 10 ms both ways."""
    rate, now, waits = PullRate(0.0), 0.0, []
    for _ in range(4000):
        took = max(0.010, 0.0026 * rate.window / UNIT)
        now += took * UNIT / rate.window
        rate.came(UNIT, took, now)
        waits.append(took - 0.010)
    assert 4.0 <= rate.window / UNIT <= 7.0
    assert 0.003 < sum(waits[2000:]) / 2000 < 0.007


def test_parts_are_chunks_while_the_window_is_wide() -> None:
    rate = PullRate(0.0)
    come(rate, 11, 0.05, 0.1)
    assert rate.part == UNIT
    come(rate, 1, 0.05, 0.1)
    assert rate.part == CHUNK_SIZE
    rate.silent()
    assert rate.window >= 8 * UNIT and rate.part == CHUNK_SIZE
    rate.silent()
    assert rate.part == UNIT


def test_a_chunk_may_take_as_long_as_its_four_quarters() -> None:
    rate = PullRate(0.0)
    come(rate, 12, 0.001, 0.1)
    assert rate.part == CHUNK_SIZE
    before = rate.window
    rate.came(CHUNK_SIZE, 0.004, 0.2)
    assert rate.window > before
    come(rate, LATEST, 0.02, 0.3)
    before = rate.window
    come(rate, 1, 0.02, 0.3)
    assert rate.window < before


def test_silence_halves_it_and_never_ends_it() -> None:
    rate = PullRate(0.0)
    come(rate, 12, 0.01, 0.1)
    rate.silent()
    assert rate.window == 8 * UNIT
    for _ in range(9):
        rate.silent()
    assert rate.window == WINDOW_MIN
    rate.came(UNIT, 0.01, 0.2)
    assert rate.window > WINDOW_MIN


def test_a_way_that_became_longer_is_the_measure_after_a_while() -> None:
    rate = PullRate(0.0)
    come(rate, 4, 0.01, 0.1)
    for at in (1.0, BASE_S + 1.0, 2 * BASE_S + 2.0):
        come(rate, LATEST + 1, 0.1, at)
    before = rate.window
    come(rate, LATEST + 1, 0.1, 2 * BASE_S + 3.0)
    assert rate.window > before
