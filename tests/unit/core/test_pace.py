from __future__ import annotations

from itertools import pairwise

from tektonmesh.core.machine import Env
from tektonmesh.core.pace import Pace
from tests.support import make_env


def taken(env: Env, pace: Pace, seconds: float) -> list[float]:
    """The instants at which somebody who always wants to publish may, from now on."""
    instants = []
    end = env.now + seconds
    while env.now < end:
        wait_s = pace.take()
        if wait_s == 0.0:
            instants.append(env.now)
        env.now += wait_s
    env.now = end
    return instants


def test_a_burst_goes_at_once() -> None:
    env = make_env("a")
    assert taken(env, Pace(env), 0.1) == [1000.0] * 8


def test_after_the_burst_the_pauses_grow_to_the_slowest() -> None:
    env = make_env("a")
    instants = taken(env, Pace(env), 120.0)[7:]
    pauses = [b - a for a, b in pairwise(instants)]
    assert 0.2 <= pauses[0] <= 0.3
    assert pauses == sorted(pauses)
    assert abs(pauses[-1] - 5.0) < 0.1
    assert len(instants) < 40


def test_after_a_rest_a_burst_goes_again() -> None:
    env = make_env("a")
    pace = Pace(env)
    taken(env, pace, 60.0)
    env.now += 60.0
    assert len(taken(env, pace, 0.1)) == 8


def test_a_lone_change_now_and_then_never_waits() -> None:
    env = make_env("a")
    pace = Pace(env)
    for _ in range(50):
        assert pace.take() == 0.0
        env.now += 0.25
