"""The window of a body that is pulled: it yields to whatever else is on the way."""

from __future__ import annotations

from tektonmesh.core.pullrate import BASE_S, PARTS_MAX, PullRate


def test_it_doubles_while_nothing_has_to_wait() -> None:
    rate, now = PullRate(0.0), 0.0
    for _ in range(40):
        now += 0.01
        rate.came(0.05, now)
    assert rate.parts == 42
    for _ in range(40):
        rate.came(0.05, now)
    assert rate.parts == PARTS_MAX


def test_it_shrinks_to_one_part_while_parts_wait_long() -> None:
    rate = PullRate(0.0)
    for _ in range(10):
        rate.came(0.01, 1.0)
    for _ in range(200):
        rate.came(0.06, 2.0)
    assert rate.parts == 1


def test_it_settles_where_the_wait_is_what_it_may_be() -> None:
    """A link that takes 10 ms for a part and 20 ms both ways: two are enough to fill it."""
    rate, now, waits = PullRate(0.0), 0.0, []
    for _ in range(2000):
        took = max(0.030, 0.010 * rate.window)
        now += took / rate.window
        rate.came(took, now)
        waits.append(took - 0.030)
    assert 3.0 <= rate.window <= 4.0
    assert sum(waits[1000:]) / 1000 < 0.006


def test_silence_halves_it_and_never_ends_it() -> None:
    rate = PullRate(0.0)
    for _ in range(14):
        rate.came(0.01, 0.1)
    rate.silent()
    assert rate.parts == 8
    for _ in range(9):
        rate.silent()
    assert rate.parts == 1
    rate.came(0.01, 0.2)
    assert rate.window == 2.0 and not rate.silent()
    assert rate.window == 1.0


def test_a_way_that_became_longer_is_the_measure_after_a_while() -> None:
    rate = PullRate(0.0)
    rate.came(0.01, 0.1)
    for at in (1.0, BASE_S + 1.0, 2 * BASE_S + 2.0):
        rate.came(0.1, at)
    before = rate.window
    rate.came(0.1, 2 * BASE_S + 3.0)
    assert rate.window > before
