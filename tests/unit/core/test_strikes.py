"""Faults add up, fade, and hold a peer off for a while; never for ever."""

from __future__ import annotations

from tektonmesh.core.ids import show_id
from tektonmesh.core.strikes import (
    FORGOTTEN_S,
    HOLD_MAX_S,
    HOLD_S,
    STRUCK_MAX,
    WINDOW_S,
    Strikes,
)
from tests.support import make_env, seed_bytes

PEER = seed_bytes("peer")


def test_a_strike_counts_for_ten_minutes() -> None:
    env = make_env()
    strikes = Strikes(env)
    assert strikes.count(PEER) == 0
    assert strikes.strike(PEER, "bad") == 0.0
    env.now += 300.0
    assert strikes.strike(PEER, "bad") == 0.0
    assert strikes.count(PEER) == 2
    env.now += 299.0
    assert strikes.count(PEER) == 2
    env.now += 1.0
    assert strikes.count(PEER) == 1 and WINDOW_S == 600.0


def test_five_within_ten_minutes_hold_a_peer_off_for_a_minute() -> None:
    env = make_env()
    strikes = Strikes(env)
    offs = []
    for _ in range(5):
        env.now += 149.0
        offs.append(strikes.strike(PEER, "bad"))
    assert offs == [0.0, 0.0, 0.0, 0.0, HOLD_S] and HOLD_S == 60.0
    assert strikes.held_off_s(PEER) == 60.0
    assert strikes.held_off_s(seed_bytes("other")) == 0.0
    env.now += 59.0
    assert strikes.held_off_s(PEER) == 1.0
    env.now += 1.0
    assert strikes.held_off_s(PEER) == 0.0


def test_a_fault_now_and_then_holds_nobody_off() -> None:
    env = make_env()
    strikes = Strikes(env)
    for _ in range(200):
        env.now += 151.0
        assert strikes.strike(PEER, "bad") == 0.0


def test_the_time_doubles_up_to_an_hour_while_the_faults_go_on_and_starts_anew_after_a_rest() -> (
    None
):
    env = make_env()
    strikes = Strikes(env)
    offs = [strikes.strike(PEER, "bad") for _ in range(5)][4:]
    for _ in range(9):
        env.now += strikes.held_off_s(PEER) + 1.0
        assert strikes.held_off_s(PEER) == 0.0, "nobody is held off for ever"
        offs.append(strikes.strike(PEER, "bad"))
    assert offs == [60, 120, 240, 480, 960, 1920, *[HOLD_MAX_S] * 4]
    env.now += HOLD_MAX_S + FORGOTTEN_S - 1.0
    assert [strikes.strike(PEER, "bad") for _ in range(5)][4] == HOLD_MAX_S
    env.now += HOLD_MAX_S + FORGOTTEN_S
    assert [strikes.strike(PEER, "bad") for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 60.0]


def test_no_strike_grows_old_while_a_peer_is_held_off_and_one_then_adds_no_time() -> None:
    env = make_env()
    strikes = Strikes(env)
    for _ in range(5):
        strikes.strike(PEER, "bad")
    env.now += 20.0
    assert strikes.strike(PEER, "bad") == strikes.held_off_s(PEER) == 40.0
    env.now += 639.0
    assert strikes.count(PEER) == 4
    env.now += 1.0
    assert strikes.count(PEER) == 0


def test_each_strike_is_told_with_its_reason() -> None:
    env = make_env()
    strikes = Strikes(env)
    for _ in range(5):
        strikes.strike(PEER, "A head is not signed by its owner.")
    notices = [effect.data for effect in env.take()]
    assert [notice["strikes"] for notice in notices] == [1, 2, 3, 4, 5]
    assert notices[4] == {
        "id": show_id(PEER),
        "reason": "A head is not signed by its owner.",
        "strikes": 5,
        "held_off_s": 60.0,
    }


def test_people_can_forgive() -> None:
    strikes = Strikes(make_env())
    for _ in range(5):
        strikes.strike(PEER, "bad")
    strikes.forgive(PEER)
    strikes.forgive(PEER)
    assert strikes.held_off_s(PEER) == strikes.count(PEER) == 0.0


def test_what_has_faded_is_forgotten_and_the_rest_is_bounded() -> None:
    env = make_env()
    strikes = Strikes(env)
    for n in range(STRUCK_MAX + 10):
        strikes.strike(seed_bytes("peer", n), "bad")
    assert len(strikes._records) == STRUCK_MAX
    assert strikes.count(seed_bytes("peer", 0)) == 0
    assert strikes.count(seed_bytes("peer", STRUCK_MAX)) == 1
    env.now += FORGOTTEN_S
    strikes.strike(PEER, "bad")
    assert len(strikes._records) == 1
