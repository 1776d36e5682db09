from __future__ import annotations

import pytest

from tektonmesh.core.effects import Notice, Save
from tektonmesh.core.head import EPOCH_MAX
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import ANCHOR_MS, MeshTime
from tektonmesh.wire.codec import pack
from tests.support import WALL_S, make_env, only, seed_bytes

WALL_MS = int(WALL_S * 1000)
LOW, HIGH = bytes(32), b"\xff" * 32


def make_clock(saved: bytes | None = None) -> tuple[Env, MeshTime]:
    env = make_env("a")
    rows = {} if saved is None else {("meta", b"hlc"): saved}
    return env, MeshTime(env, rows, WALL_S)


def hear(clock: MeshTime, link: int, peer: bytes, ahead_ms: int) -> None:
    """A peer whose clock is `ahead_ms` before the wall clock of the start."""
    now_ms = int(clock.env.now * 1000) - 1_000_000
    clock.link_up(link, peer)
    clock.on_peer(link, WALL_MS + now_ms + ahead_ms, 0.0)


def test_alone_the_wall_clock_counts() -> None:
    env, clock = make_clock()
    assert clock.now_ms() == WALL_MS
    env.now += 2.5
    assert clock.now_ms() == WALL_MS + 2500
    clock.on_wall(WALL_S + 9)
    assert clock.now_ms() == WALL_MS + 9000


def test_of_two_the_clock_of_the_smaller_id_counts() -> None:
    _, clock = make_clock()
    clock.stop_waiting()
    hear(clock, 1, LOW, 7000)
    assert clock.now_ms() == WALL_MS + 7000
    clock.drop_link(1)
    assert clock.now_ms() == WALL_MS
    hear(clock, 2, HIGH, 7000)
    assert clock.now_ms() == WALL_MS


def test_of_three_the_middle_one_counts() -> None:
    _, clock = make_clock()
    hear(clock, 1, LOW, 3_600_000)
    hear(clock, 2, HIGH, 40)
    assert clock.now_ms() == WALL_MS + 40


def test_two_links_to_one_peer_have_one_vote() -> None:
    _, clock = make_clock()
    hear(clock, 1, HIGH, 5000)
    hear(clock, 2, HIGH, 5000)
    assert clock.now_ms() == WALL_MS


def test_a_peer_s_time_is_half_a_round_trip_old() -> None:
    _, clock = make_clock()
    clock.link_up(1, LOW)
    clock.on_peer(1, WALL_MS, 0.4)
    assert clock.now_ms() == WALL_MS + 200


@pytest.mark.parametrize("mesh_ms", [-1, 2**48, 2**63])
def test_a_time_that_cannot_be_has_no_vote(mesh_ms: int) -> None:
    _, clock = make_clock()
    clock.link_up(1, LOW)
    clock.on_peer(1, mesh_ms, 0.0)
    assert clock.now_ms() == WALL_MS


def test_a_link_that_was_not_announced_has_no_vote() -> None:
    _, clock = make_clock()
    clock.on_peer(9, WALL_MS + 5000, 0.0)
    clock.drop_link(9)
    assert clock.now_ms() == WALL_MS


def test_the_first_word_of_a_link_is_reported_once() -> None:
    _, clock = make_clock()
    heard: list[int] = []
    clock.watch(lambda: heard.append(len(heard)))
    hear(clock, 1, LOW, 0)
    hear(clock, 1, LOW, 5)
    assert heard == [0]


def test_after_the_first_head_it_slews_a_tenth_of_a_second_per_second() -> None:
    env, clock = make_clock()
    clock.note_signed(clock.now_ms())
    hear(clock, 1, LOW, 5000)
    assert clock.now_ms() == WALL_MS
    env.now += 10
    assert clock.now_ms() == WALL_MS + 11_000
    env.now += 100
    assert clock.now_ms() == WALL_MS + 115_000 - ANCHOR_MS


def test_it_slews_back_as_slowly_and_never_runs_backwards() -> None:
    env, clock = make_clock()
    clock.note_signed(clock.now_ms())
    hear(clock, 1, LOW, -5000)
    env.now += 10
    assert clock.now_ms() == WALL_MS + 9000


def test_it_never_falls_below_what_was_signed() -> None:
    env, clock = make_clock()
    clock.note_signed(WALL_MS + 4000)
    assert clock.now_ms() == WALL_MS + 4000
    env.now += 5
    assert clock.now_ms() == WALL_MS + 5000


def test_what_was_signed_is_remembered_across_starts() -> None:
    env, clock = make_clock()
    clock.note_signed(WALL_MS + 4000)
    (save,) = only(env.take(), Save)
    ((table, key, value),) = save.rows
    assert (table, key) == ("meta", b"hlc")
    assert make_clock(value)[1].now_ms() == WALL_MS + 4000


@pytest.mark.parametrize("row", [b"\xc1", pack("text"), pack(True), pack(2**60), pack(-1)])
def test_a_damaged_memory_counts_as_none(row: bytes) -> None:
    assert make_clock(row)[1].now_ms() == WALL_MS


def test_a_head_is_fresh_within_its_lease_and_the_slack_on_both_sides() -> None:
    _, clock = make_clock()
    assert clock.fresh(WALL_MS - 330_000, 300)
    assert not clock.fresh(WALL_MS - 330_001, 300)
    assert clock.fresh(WALL_MS + 30_000, 300)
    assert not clock.fresh(WALL_MS + 30_001, 300)


def test_no_lease_counts_for_more_than_900_seconds() -> None:
    _, clock = make_clock()
    assert clock.fresh(WALL_MS - 930_000, 10**6)
    assert not clock.fresh(WALL_MS - 930_001, 10**6)


def test_more_than_a_minute_off_the_vote_is_an_alarm_until_it_is_made_up() -> None:
    env, clock = make_clock()
    clock.note_signed(clock.now_ms())
    hear(clock, 1, LOW, 61_000)
    hear(clock, 2, HIGH, 61_000)
    assert clock.alarm
    hear(clock, 1, LOW, 61_000)
    (notice,) = only(env.take(), Notice)
    assert (notice.kind, notice.data) == ("clock_alarm", {"disagreement_s": 61.0})
    env.now += 20
    assert not clock.alarm
    hear(clock, 1, LOW, 61_000)
    hear(clock, 2, HIGH, 61_000)
    (notice,) = only(env.take(), Notice)
    assert (notice.kind, notice.data) == ("clock_agrees", {})


def test_a_signed_future_is_an_alarm_too() -> None:
    _, clock = make_clock(pack(WALL_MS + 3_600_000))
    assert clock.alarm
    clock.on_wall(WALL_S + 3590)
    assert not clock.alarm


def test_before_the_first_head_it_steps_and_there_is_no_alarm() -> None:
    _, clock = make_clock()
    hear(clock, 1, LOW, 3_600_000)
    hear(clock, 2, HIGH, 3_600_040)
    assert not clock.alarm
    assert clock.now_ms() == WALL_MS + 3_600_000


@pytest.mark.parametrize("ahead_ms", [60_001, -60_001, 10 * 365 * 86_400_000, 2**48 - 1 - WALL_MS])
def test_one_peer_alone_moves_nobody_over_a_minute_and_that_is_an_alarm(ahead_ms: int) -> None:
    _, clock = make_clock()
    clock.stop_waiting()
    hear(clock, 1, LOW, ahead_ms)
    assert clock.now_ms() == WALL_MS
    assert clock.alarm
    hear(clock, 1, LOW, 60_000)
    assert clock.now_ms() == WALL_MS + 60_000


def test_while_more_peers_are_waited_for_a_single_one_that_differs_moves_nobody() -> None:
    _, clock = make_clock()
    hear(clock, 1, LOW, 45_000)
    assert clock.now_ms() == WALL_MS
    assert clock.disputed and not clock.confirmed
    hear(clock, 2, LOW, 45_000)
    assert clock.disputed
    hear(clock, 3, HIGH, 100)
    assert clock.confirmed and not clock.disputed
    assert clock.now_ms() == WALL_MS + 100


def test_whoever_is_alone_long_enough_goes_by_the_one_peer_there_is() -> None:
    _, clock = make_clock()
    hear(clock, 1, LOW, 45_000)
    clock.stop_waiting()
    assert clock.now_ms() == WALL_MS + 45_000


def test_one_peer_with_our_time_confirms_it() -> None:
    _, clock = make_clock()
    assert not clock.confirmed and not clock.disputed
    hear(clock, 1, HIGH, 5_000)
    assert clock.confirmed


def test_nobody_is_expired_in_the_first_seconds_before_a_peer_confirms_the_clock() -> None:
    env, clock = make_clock()
    assert clock.doubt_s == 10.0
    env.now += 4.0
    assert clock.doubt_s == pytest.approx(6.0)
    env.now += 7.0
    assert clock.doubt_s == 0.0
    env, clock = make_clock()
    hear(clock, 1, LOW, 0)
    assert clock.doubt_s == 0.0
    hear(clock, 1, LOW, 90_000)
    assert clock.alarm and clock.doubt_s == 60.0


def test_two_peers_that_do_not_agree_move_nobody_far() -> None:
    _, clock = make_clock()
    hear(clock, 1, LOW, 3_600_000)
    hear(clock, 2, HIGH, 7_200_000)
    assert clock.now_ms() == WALL_MS


def test_two_links_to_one_peer_are_not_two_that_agree() -> None:
    _, clock = make_clock()
    hear(clock, 1, LOW, 3_600_000)
    hear(clock, 2, LOW, 3_600_000)
    assert clock.now_ms() == WALL_MS


def test_a_memory_more_than_a_day_ahead_is_discarded_and_told() -> None:
    _, kept = make_clock(pack(WALL_MS + 86_400_000))
    assert kept.now_ms() == WALL_MS + 86_400_000
    env, clock = make_clock(pack(WALL_MS + 86_401_000))
    assert clock.now_ms() == WALL_MS
    (notice,) = only(env.take(), Notice)
    assert (notice.kind, notice.data) == ("clock_memory_discarded", {"ahead_s": 86_401})


def test_mesh_time_never_exceeds_what_a_head_may_say() -> None:
    env, clock = make_clock()
    clock.on_wall(2**48 / 1000.0)
    env.now += 10
    assert clock.now_ms() == EPOCH_MAX


def test_nodes_that_hear_each_other_agree() -> None:
    env, clock = make_clock()
    for link in range(8):
        hear(clock, link, seed_bytes(link), 1000 * link)
    assert WALL_MS + 3000 <= clock.now_ms() <= WALL_MS + 4000
    assert not env.take()


# --- steps after the first head ------------------------------------------------------------------


def signed_clock() -> tuple[Env, MeshTime, list[int]]:
    """A clock that has signed something, and a note of its steps."""
    env, clock = make_clock()
    clock.note_signed(WALL_MS)
    steps: list[int] = []
    clock.watch_steps(lambda: steps.append(clock.now_ms()))
    return env, clock, steps


def exchange(clocks: dict[bytes, MeshTime], minutes: int) -> list[float]:
    """Each hears all others every three seconds; how far each is from the right time then, in
    seconds."""
    for _ in range(20 * minutes):
        for clock in clocks.values():
            clock.env.now += 3.0
        for me, clock in clocks.items():
            for peer, other in clocks.items():
                if peer != me:
                    clock.link_up(peer[0], peer)
                    clock.on_peer(peer[0], other.now_ms(), 0.0)
    right = [WALL_MS + (clock.env.now - 1000.0) * 1000.0 for clock in clocks.values()]
    return [(c.now_ms() - at) / 1000.0 for c, at in zip(clocks.values(), right, strict=True)]


def test_what_all_clocks_are_ahead_by_fades_if_the_wall_clocks_are_right() -> None:
    clocks = {bytes([n]) * 32: make_clock()[1] for n in range(4)}
    for clock in clocks.values():
        clock._offset += 45_000.0  # as liars that are gone may have left it
        clock.note_signed(clock.now_ms())
    apart = exchange(clocks, minutes=15)
    assert max(map(abs, apart)) <= 1.0


def test_a_wall_clock_that_is_wrong_stays_within_a_second_of_the_others() -> None:
    clocks = {bytes([n]) * 32: make_clock()[1] for n in range(4)}
    for at, clock in enumerate(clocks.values()):
        clock.note_signed(WALL_MS)
        clock.on_wall(WALL_S + (20.0 if at == 1 else 0.0))
    apart = exchange(clocks, minutes=5)
    assert max(map(abs, apart)) <= 1.1


def test_by_what_the_machine_slept_the_clock_steps_at_once() -> None:
    _, clock, steps = signed_clock()
    hear(clock, 1, LOW, 0)
    clock.suspended(8 * 3600.0)
    assert clock.now_ms() == WALL_MS + 8 * 3_600_000
    assert steps == [clock.now_ms()]
    assert not clock.alarm
    clock.on_wall(WALL_S + 8 * 3600.0)
    assert clock.now_ms() == WALL_MS + 8 * 3_600_000


def test_what_peers_said_before_a_sleep_still_holds_after_it() -> None:
    env, clock, _ = signed_clock()
    hear(clock, 1, LOW, 4000)
    env.now += 100.0
    clock.suspended(3600.0)
    clock.on_wall(WALL_S + 3700.0)
    env.now += 100.0
    assert clock.now_ms() == WALL_MS + 200_000 + 3_600_000 + 4000 - ANCHOR_MS


def test_a_nap_is_caught_up_with_and_nobody_is_told() -> None:
    _, clock, steps = signed_clock()
    clock.suspended(20.0)
    assert clock.now_ms() == WALL_MS + 20_000
    assert steps == []


def test_a_machine_that_was_stopped_unnoticed_steps_when_its_wall_clock_and_two_peers_agree() -> (
    None
):
    env, clock, steps = signed_clock()
    behind = 8 * 3_600_000
    hear(clock, 1, LOW, behind)
    hear(clock, 2, HIGH, behind + 300)
    env.now += 1.0
    assert clock.now_ms() < WALL_MS + 1200 and clock.alarm, "peers alone only make it slew"
    clock.on_wall(WALL_S + 8 * 3600.0 + 1.0)
    assert clock.now_ms() == pytest.approx(WALL_MS + behind + 1000, abs=1500)
    assert len(steps) == 1 and not clock.alarm


def test_no_single_clock_makes_it_step_and_none_makes_it_step_back() -> None:
    env, clock, steps = signed_clock()
    clock.on_wall(WALL_S + 3600.0)
    hear(clock, 1, LOW, 3_600_000)
    env.now += 1.0
    assert clock.now_ms() < WALL_MS + 1200
    clock.drop_link(1)
    for link, peer in ((2, LOW), (3, HIGH)):
        hear(clock, link, peer, -3_600_000)
    clock.on_wall(WALL_S - 3600.0)
    assert steps == [] and clock.now_ms() >= WALL_MS


def test_what_the_slack_of_a_head_covers_is_slewed_even_if_all_agree() -> None:
    env, clock, steps = signed_clock()
    for link, peer in ((1, LOW), (2, HIGH)):
        hear(clock, link, peer, 29_000)
    clock.on_wall(WALL_S + 29.0)
    env.now += 1.0
    assert clock.now_ms() == WALL_MS + 1100 and steps == []


def test_a_clock_too_far_behind_to_take_a_head_of_two_peers_steps() -> None:
    _, clock, steps = signed_clock()
    for link, peer in ((1, LOW), (2, HIGH)):
        hear(clock, link, peer, 37_000)
    assert clock.now_ms() == WALL_MS + 37_000 - ANCHOR_MS
    assert len(steps) == 1
    assert clock.fresh(WALL_MS + 37_000, 60)


def test_two_peers_that_are_further_apart_than_the_slack_make_no_clock_step() -> None:
    _, clock, steps = signed_clock()
    hear(clock, 1, LOW, 38_000)
    hear(clock, 2, HIGH, -7_000)
    hear(clock, 3, bytes(31) + b"\x01", 999_999_000)
    assert steps == [] and clock.now_ms() == WALL_MS
