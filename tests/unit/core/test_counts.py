"""What a node counts, and the figures that are worked out from it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tektonmesh.core.counts import LATENCY_BOUNDS_S, OUTCOMES, UNCOUNTED, Counts, Histogram
from tektonmesh.core.effects import Send
from tektonmesh.core.events import Received
from tektonmesh.core.intake import Applied
from tektonmesh.core.messages import Delta, Forward, Ping, Want
from tektonmesh.errors import RemoteError
from tests.network import Network
from tests.support import Author, Member, make_env

LINK = 1


def test_every_outcome_of_a_delta_has_a_place() -> None:
    assert sorted(OUTCOMES) == sorted([*(one.value for one in Applied), "broken"])


def test_a_histogram_counts_each_value_under_every_bound_it_fits() -> None:
    histogram = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 3.0):
        histogram.add(value)
    assert histogram.cumulative() == [("0.1", 2.0), ("1.0", 3.0), ("+Inf", 4.0)]
    assert histogram.count == 4
    assert histogram.sum_s == 3.65


def test_a_histogram_knows_the_bound_that_a_part_of_its_values_is_under() -> None:
    histogram = Histogram((0.1, 1.0))
    assert histogram.under_s(0.5) is None
    for value in (0.05, 0.1, 0.5):
        histogram.add(value)
    assert histogram.under_s(0.5) == 0.1
    assert histogram.under_s(0.67) == histogram.under_s(1.0) == 1.0
    histogram.add(3.0)
    assert histogram.under_s(0.75) == 1.0
    assert histogram.under_s(1.0) == float("inf")


def test_redundancy_is_what_was_no_news_for_each_that_was() -> None:
    counts = Counts()
    assert counts.redundancy is None
    counts.heads["stale"] = 3
    assert counts.redundancy is None
    counts.heads["applied"], counts.heads["refreshed"] = 8, 4
    assert counts.redundancy == 0.25


def test_what_is_shown_is_json_with_nothing_left_out() -> None:
    counts = Counts()
    counts.apply_latency.add(0.02)
    counts.apply_latency.add(4000.0)
    shown = counts.shown()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["apply_latency_ms"] == {"count": 2, "p50": 25.0, "p99": None}
    assert {f"heads_{outcome}" for outcome in OUTCOMES} <= set(shown)
    assert (shown["heads_in"], shown["heads_out"], shown["redundancy"]) == (0, 0, None)
    assert Counts().shown()["apply_latency_ms"] == {"count": 0, "p50": None, "p99": None}


def test_messages_are_counted_by_class_when_they_are_sent_and_envelopes_are_not() -> None:
    env = make_env()
    env.emit(Send(LINK, (Want(()), Ping(1, 1, b""))))
    env.emit(Send(LINK, (Want(()),)))
    env.emit(Send(LINK, (Forward(1, b"x"),)))
    env.emit(Send(LINK, ()))
    assert env.counts.sent == {Want: 2, Ping: 1}
    assert env.counts.shown()["messages_out"] == {"Ping": 1, "Want": 2}
    assert Forward in UNCOUNTED


def test_each_head_is_counted_once_by_what_became_of_it() -> None:
    member, author = Member("a"), Author(2)
    first = author.delta({"ci/x": {"a": 1}})
    change = author.delta({"ci/x": {"a": 2}})
    refresh = author.delta()
    for delta in (first, first, change, refresh):
        member.replica.apply(delta, LINK)
    counts = member.env.counts
    assert counts.heads_in == sum(counts.heads.values()) == 4
    assert counts.heads["applied"] == 2
    assert (counts.heads["stale"], counts.heads["refreshed"]) == (1, 1)
    bodies = [len(key) + len(value) for _, key, value in (*first.puts, *first.puts, *change.puts)]
    assert counts.body_bytes_in == sum(bodies)


def test_a_delta_that_breaks_the_protocol_is_counted_as_broken() -> None:
    member, author = Member("a"), Author(2)
    delta = author.delta({"ci/x": {}})
    with pytest.raises(RemoteError):
        member.replica.apply(replace(delta, head=replace(delta.head, sig=bytes(64))), LINK)
    assert member.env.counts.heads["broken"] == member.env.counts.heads_in == 1


def test_the_latency_of_a_change_runs_from_its_signing_and_first_sight_has_none() -> None:
    member, author = Member("a"), Author(2)
    member.replica.apply(author.delta({"ci/x": {}}), LINK)
    assert member.env.counts.apply_latency.count == 0
    change = author.delta({"ci/y": {}})
    member.env.now += 0.2
    member.replica.apply(change, LINK)
    refresh = author.delta()
    member.env.now += 40.0
    member.replica.apply(refresh, LINK)
    latency = member.env.counts.apply_latency
    assert (latency.count, latency.sum_s) == (1, pytest.approx(0.2))
    assert latency.under_s(1.0) == 0.25
    assert 0.25 in LATENCY_BOUNDS_S


def test_a_change_that_was_signed_ahead_of_our_time_took_no_time() -> None:
    member, author = Member("a"), Author(2)
    member.replica.apply(author.delta({"ci/x": {}}), LINK)
    author.hlc += 5000
    member.replica.apply(author.delta({"ci/y": {}}), LINK)
    assert member.env.counts.apply_latency.sum_s == 0.0


def test_a_node_counts_what_its_links_bring_and_who_breaks_the_protocol() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    counts = network["a"].node.env.counts
    assert counts.received[Ping] >= 1 and Forward not in counts.received
    assert counts.strikes == 0
    link = next(iter(network["a"].node.neighbours.links))
    too_many = Want(tuple((bytes(32), None) for _ in range(5000)))
    network.handle(network["a"], Received(link, (too_many,)))
    assert counts.strikes == 1
    assert counts.received[Want] >= 1


def test_a_repair_is_counted_when_it_begins() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    network.passes = lambda _from, _to, message: not isinstance(message, Delta)
    network["b"].register("numa")
    network.settle()
    network.passes = lambda _from, _to, _message: True
    network.run(30.0)
    assert network["a"].node.env.counts.repairs + network["b"].node.env.counts.repairs >= 1
    assert network["a"].node.antientropy.converged() == (True, [])
