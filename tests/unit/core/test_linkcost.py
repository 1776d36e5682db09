"""What a link costs, and when a new cost is worth a new head."""

import pytest

from tektonmesh.core.linkcost import (
    BUCKETS_MS,
    COSTS_PAUSE_S,
    HOP_MS,
    PATIENCE_MAX_S,
    PAUSE_S,
    WINDOW_S,
    CostNews,
    LinkCost,
    cost_ms,
)
from tests.support import advance, make_env


@pytest.mark.parametrize(
    ("rtt_ms", "cost"), [(0.0, 3), (0.4, 3), (1.0, 3), (1.1, 4), (12.0, 14), (13.0, 20)]
)
def test_the_cost_is_the_upper_bound_of_the_bucket_and_two_for_the_hop(
    rtt_ms: float, cost: int
) -> None:
    assert cost_ms(rtt_ms / 1000.0) == cost


def test_a_link_slower_than_every_bucket_costs_as_much_as_the_slowest() -> None:
    assert cost_ms(60.0) == BUCKETS_MS[-1] + HOP_MS


def test_an_unmeasured_link_costs_as_much_as_the_fastest() -> None:
    cost = LinkCost()
    assert not cost.measured
    assert cost.ms == cost_ms(0.0)


def test_the_first_sample_counts_at_once() -> None:
    cost = LinkCost()
    assert cost.sample(0.020, 0.0)
    assert cost.measured
    assert cost.srtt_s == 0.020
    assert cost.ms == 29


def test_a_first_sample_in_the_assumed_bucket_changes_nothing() -> None:
    assert not LinkCost().sample(0.0005, 0.0)


def test_later_samples_move_the_round_trip_by_an_eighth() -> None:
    cost = LinkCost()
    cost.sample(0.080, 0.0)
    cost.sample(0.160, 1.0)
    assert cost.srtt_s == pytest.approx(0.090)


def follow(cost: LinkCost, rtt_s: float, start: float, seconds: int) -> list[float]:
    """Feed one sample a second; the instants at which the cost changed."""
    instants = [start + second for second in range(seconds)]
    return [instant for instant in instants if cost.sample(rtt_s, instant)]


def test_a_link_that_became_slower_is_dearer_when_no_sample_of_half_a_minute_says_otherwise() -> (
    None
):
    cost = LinkCost()
    cost.sample(0.001, 0.0)
    assert follow(cost, 0.100, 1.0, 60) == [WINDOW_S + 1.0]
    assert cost.ms == cost_ms(0.100)


def test_one_fast_sample_in_half_a_minute_keeps_a_link_cheap() -> None:
    cost = LinkCost()
    cost.sample(0.001, 0.0)
    for second in range(1, 200):
        assert not cost.sample(0.001 if second % 25 == 0 else 0.080, float(second))
    assert cost.ms == 3


def test_a_link_that_became_faster_is_cheaper_within_ten_seconds() -> None:
    cost = LinkCost()
    cost.sample(0.100, 0.0)
    assert follow(cost, 0.001, 1.0, 60) == [PAUSE_S]
    assert cost.ms == cost_ms(0.001)


def test_two_changes_are_ten_seconds_apart() -> None:
    cost = LinkCost()
    cost.sample(0.400, 0.0)
    assert follow(cost, 0.100, 1.0, 10) == [PAUSE_S]
    assert follow(cost, 0.001, 11.0, 30) == [2 * PAUSE_S]


def test_wavering_about_a_bound_is_not_followed() -> None:
    cost = LinkCost()
    cost.sample(0.0009, 0.0)
    for second in range(1, 100):
        assert not cost.sample(0.0008 if second % 2 else 0.0012, float(second))


def test_an_answer_may_take_four_round_trips_of_a_steady_link() -> None:
    cost = LinkCost()
    follow(cost, 0.100, 0.0, 60)
    assert cost.patience_s == pytest.approx(0.400)


def test_an_answer_may_take_longer_on_a_link_whose_round_trips_vary() -> None:
    steady, varying = LinkCost(), LinkCost()
    for second in range(60):
        steady.sample(0.100, float(second))
        varying.sample(0.100 if second % 4 else 0.900, float(second))
    assert varying.patience_s > 1.0 > steady.patience_s


def test_an_answer_may_not_take_for_ever() -> None:
    cost = LinkCost()
    follow(cost, 30.0, 0.0, 60)
    assert cost.patience_s == PATIENCE_MAX_S


def test_later_costs_of_all_links_are_told_together_every_twenty_seconds() -> None:
    env, told = make_env(), list[bytes]()
    news = CostNews(env, lambda: [b"b", b"c"], told.append)
    news.changed()
    advance(env, 0.0)
    assert told == [b"b", b"c"]
    news.changed()
    news.changed()
    advance(env, COSTS_PAUSE_S - 0.1)
    assert told == [b"b", b"c"]
    advance(env, 0.2)
    assert told == [b"b", b"c", b"b", b"c"]
