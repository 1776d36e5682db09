"""What a link costs, and when a new cost is worth a new head."""

from itertools import pairwise

import pytest

from tektonmesh.core.linkcost import BUCKETS_MS, HOP_MS, SLACK_S, LinkCost, cost_ms


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


def test_a_lasting_change_is_followed_after_ten_seconds() -> None:
    cost = LinkCost()
    cost.sample(0.001, 0.0)
    changes = follow(cost, 0.100, 1.0, 60)
    # The smoothed value leaves the bucket with the first sample; ten seconds later it counts.
    assert changes[0] == 11.0
    assert cost_ms(0.060) <= cost.ms <= cost_ms(0.100)
    assert all(later - sooner >= 10.0 for sooner, later in pairwise(changes))


def test_a_short_spike_is_not_followed() -> None:
    cost = LinkCost()
    cost.sample(0.001, 0.0)
    assert follow(cost, 0.010, 1.0, 5) == []
    assert follow(cost, 0.001, 6.0, 60) == []
    assert cost.ms == 3


def test_a_spike_starts_the_ten_seconds_anew() -> None:
    cost = LinkCost()
    cost.sample(0.001, 0.0)
    follow(cost, 0.010, 1.0, 5)
    follow(cost, 0.001, 6.0, 2)
    assert follow(cost, 0.100, 8.0, 10) == []
    assert cost.sample(0.100, 18.0)


def test_wavering_about_a_bound_is_not_followed() -> None:
    cost = LinkCost()
    cost.sample(0.0009, 0.0)
    for second in range(1, 100):
        assert not cost.sample(0.0008 if second % 2 else 0.0012, float(second))


def test_a_link_that_becomes_faster_becomes_cheaper() -> None:
    cost = LinkCost()
    cost.sample(0.100, 0.0)
    assert follow(cost, 0.001, 1.0, 90)
    assert cost.ms <= 1 + HOP_MS + 1000 * SLACK_S + 1
