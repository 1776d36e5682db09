"""Which links come and go too often."""

from __future__ import annotations

from tektonmesh.core.damping import CEILING, CUT, HALF_LIFE_S, REST_MAX_S, REUSE, Damping
from tests.support import make_env, seed_bytes

PEER, OTHER = seed_bytes("peer"), seed_bytes("other")


def test_a_link_that_is_lost_twice_or_rarely_is_trusted() -> None:
    env = make_env()
    damping = Damping(env)
    for _ in range(2):
        damping.lost(PEER)
    assert damping.rest_s(PEER) == 0.0
    env.now += 60.0
    for _ in range(100):
        env.now += 2 * HALF_LIFE_S
        damping.lost(PEER)
        assert damping.rest_s(PEER) == 0.0


def test_a_link_that_is_lost_once_a_second_is_damped_at_the_third_time() -> None:
    env = make_env()
    damping = Damping(env)
    rests = []
    for _ in range(60):
        damping.lost(PEER)
        rests.append(damping.rest_s(PEER))
        env.now += 1.0
    assert rests[:2] == [0.0, 0.0]
    assert rests[2:] == sorted(rests[2:]) and rests[2] > 3.0
    assert 11.0 < rests[-1] < 13.0
    assert damping.rest_s(OTHER) == 0.0


def test_it_is_damped_until_it_has_rested_and_at_most_so_long() -> None:
    env = make_env()
    damping = Damping(env)
    for _ in range(1000):
        damping.lost(PEER)
    rest_s = damping.rest_s(PEER)
    assert rest_s == REST_MAX_S and CEILING > CUT > REUSE
    env.now += rest_s - 0.1
    assert 0.0 < damping.rest_s(PEER) < 0.11
    env.now += 0.11
    assert damping.rest_s(PEER) == 0.0
    damping.lost(PEER)
    assert damping.rest_s(PEER) == 0.0


def test_between_the_thresholds_a_damped_link_stays_so_and_another_does_not_become_so() -> None:
    env = make_env()
    damping = Damping(env)
    for _ in range(3):
        damping.lost(PEER)
    for _ in range(2):
        damping.lost(OTHER)
    env.now += 1.0
    assert damping.rest_s(PEER) > 0.0 and damping.rest_s(OTHER) == 0.0


def test_what_has_rested_for_long_is_forgotten() -> None:
    env = make_env()
    damping = Damping(env)
    for n in range(100):
        for _ in range(3):
            damping.lost(seed_bytes(n))
    env.now += 100.0
    damping.lost(PEER)
    assert list(damping._merits) == [PEER] and damping._damped == {}
