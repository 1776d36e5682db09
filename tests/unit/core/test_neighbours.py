"""Signs of life: when a link is up, suspect or gone, and which of two links stays."""

import pytest

from tektonmesh.core.events import LinkDown, LinkUp
from tektonmesh.core.linkcost import cost_ms
from tektonmesh.core.messages import Bye, Ping, Pong, Probe, ProbeAnswer
from tektonmesh.core.ownlinks import DAMPED_MS
from tests.liveness import Rig, by_id, closes, id_of, notices, pings, sent
from tests.support import make_keys, number_of

SMALL, LARGE = by_id("a", "b")
"""Of two stacks the one with the smaller id decides about double links."""


def up(rig: Rig, name: str = "b", *, rtt_s: float = 0.001) -> int:
    """A link whose first ping was answered after `rtt_s`."""
    rig.take()
    link = rig.link_up(name)
    (ping,) = pings(rig.take(), link)
    rig.advance(rtt_s)
    answer(rig, link, ping)
    rig.take()
    return link


def answer(rig: Rig, link: int, ping: Ping) -> None:
    assert rig.neighbours.heard(link)
    rig.neighbours.on_pong(link, Pong(ping.nonce, ping.mesh_ms))


def states(rig: Rig) -> dict[int, str]:
    return {link: neighbour.state for link, neighbour in rig.neighbours.links.items()}


# --- links come and go ---------------------------------------------------------------------------


def test_a_new_link_is_published_with_the_full_id_of_the_peer() -> None:
    rig = Rig()
    rig.link_up("b")
    assert rig.record("b") == {"peer": id_of("b"), "cost": 3, "state": "up"}
    assert rig.neighbours.edge(id_of("b")) == (3, "up")
    assert "link_up" in notices(rig.take())


def test_a_new_link_is_pinged_at_the_end_of_its_turn() -> None:
    rig = Rig()
    link = rig.link_up("b")
    assert len(pings(rig.take(), link)) == 1


def test_the_link_to_use_is_found_by_stack() -> None:
    rig = Rig()
    link = rig.link_up("b")
    found = rig.neighbours.link_to(id_of("b"))
    assert found is not None
    assert found.link == link
    assert rig.neighbours.link_to(id_of("c")) is None


def test_whoever_watches_hears_of_every_change_of_an_edge() -> None:
    rig = Rig()
    heard: list[bytes] = []
    rig.neighbours.watch(heard.append)
    link = rig.link_up("b")
    rig.link_down(link)
    assert heard == [id_of("b"), id_of("b")]


def test_a_lost_link_is_suspect_at_once_and_gone_after_the_grace() -> None:
    rig = Rig()
    link = up(rig)
    assert rig.link_down(link)
    record = rig.record("b")
    assert record is not None
    assert record["state"] == "suspect"
    assert rig.neighbours.edge(id_of("b")) == (3, "suspect")
    rig.advance(0.9)
    assert rig.record("b") is not None
    rig.advance(0.2)
    assert rig.record("b") is None
    assert rig.neighbours.edge(id_of("b")) is None


def test_a_peer_that_is_back_within_the_grace_keeps_its_record() -> None:
    rig = Rig()
    rig.link_down(up(rig))
    rig.advance(0.9)
    rig.link_up("b", instance=b"run 2")
    effects = rig.advance(0.5)
    record = rig.record("b")
    assert record is not None
    assert record["state"] == "up"
    assert closes(effects) == []


def test_a_link_that_flaps_once_a_second_is_told_a_few_times_and_then_after_a_rest() -> None:
    rig = Rig()
    changes: list[str] = []
    rig.replica.watch(lambda change: changes.append(change.kind))
    rig.owner.start()
    rig.owner.saved(1)
    rig.advance(2.0)
    changes.clear()
    for n in range(60):
        link = rig.link_up("b", instance=b"run %d" % n)
        rig.advance(0.5)
        rig.link_down(link)
        rig.advance(0.5)
    assert 0 < len(changes) <= 10
    link, seen = rig.link_up("b"), []
    for _ in range(30):
        rig.advance(0.5)
        rig.neighbours.heard(link)
        record = rig.record("b")
        assert record is not None and rig.neighbours.edge(id_of("b")) == (3, "up")
        seen.append(record["cost"])
    rested = seen.index(3)
    assert 20 < rested < 28 and seen == [DAMPED_MS] * rested + [3] * (30 - rested)


def test_the_end_of_an_unknown_link_means_nothing() -> None:
    rig = Rig()
    assert not rig.neighbours.link_down(LinkDown(77, "reset"))


def test_closing_a_stack_closes_all_its_links_without_a_grace() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.close(id_of("b"), "evicted", "This stack was evicted.")
    assert closes(rig.take()) == [(link, "evicted")]
    assert rig.record("b") is None
    assert rig.neighbours.links == {}


def test_closing_a_stack_ends_the_grace_of_a_lost_link() -> None:
    rig = Rig()
    rig.link_down(up(rig))
    rig.neighbours.close(id_of("b"), "evicted", "This stack was evicted.")
    assert rig.record("b") is None
    rig.advance(5.0)
    assert rig.record("b") is None


def test_a_link_that_we_closed_is_known_until_its_end_and_heard_no_more() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.close(id_of("b"), "evicted", "This stack was evicted.")
    assert not rig.neighbours.heard(link)
    assert rig.link_down(link)
    assert not rig.link_down(link)


def test_a_link_to_ourselves_is_closed() -> None:
    rig = Rig()
    link = rig.link_up("b", stack_id=rig.me)
    assert closes(rig.take()) == [(link, "self")]
    assert rig.neighbours.links == {}


def test_a_second_peer_with_the_same_short_id_is_refused() -> None:
    rig = Rig()
    rig.link_up("b")
    forged = id_of("b")[:8] + bytes(24)
    link = rig.link_up("c", stack_id=forged)
    assert (link, "refused") in closes(rig.take())
    assert rig.record("b") is not None


def test_links_over_the_limit_are_refused_unless_we_dialled() -> None:
    rig = Rig(links_accept_max=1)
    rig.link_up("b")
    refused = rig.link_up("c", outbound=False)
    assert closes(rig.take()) == [(refused, "busy")]
    taken = rig.link_up("d", outbound=True)
    assert taken in rig.neighbours.links


def test_a_peer_that_is_linked_may_dial_again_over_the_limit() -> None:
    rig = Rig(links_accept_max=1)
    rig.link_up("b")
    again = rig.link_up("b", outbound=False, instance=b"run 2")
    assert list(rig.neighbours.links) == [again]


# --- two links to one stack ----------------------------------------------------------------------


@pytest.mark.parametrize("own_dial_first", [True, False])
def test_the_smaller_id_keeps_its_own_dial_of_two_at_once(own_dial_first: bool) -> None:
    rig = Rig(SMALL)
    first = rig.link_up(LARGE, outbound=own_dial_first)
    second = rig.link_up(LARGE, outbound=not own_dial_first)
    stays, goes = (first, second) if own_dial_first else (second, first)
    assert list(rig.neighbours.links) == [stays]
    assert closes(rig.take()) == [(goes, "duplicate")]


@pytest.mark.parametrize("own_dial_first", [True, False])
def test_the_larger_id_waits_for_the_smaller_to_decide(own_dial_first: bool) -> None:
    rig = Rig(LARGE)
    first = rig.link_up(SMALL, outbound=own_dial_first)
    second = rig.link_up(SMALL, outbound=not own_dial_first)
    assert list(rig.neighbours.links) == [first, second]
    assert closes(rig.take()) == []
    used = rig.neighbours.link_to(id_of(SMALL))
    assert used is not None
    assert used.outbound is False


def test_the_loser_ends_without_a_trace_in_the_records() -> None:
    rig = Rig(LARGE, suspect_min_s=10.0)
    rig.link_up(SMALL, outbound=False)
    loser = rig.link_up(SMALL, outbound=True)
    rig.neighbours.on_bye(loser, Bye("duplicate", "Another link stays."))
    rig.link_down(loser)
    rig.advance(2.0)
    record = rig.record(SMALL)
    assert record is not None
    assert record["state"] == "up"


def test_of_two_dials_of_one_end_the_older_stays() -> None:
    rig = Rig(SMALL)
    first = rig.link_up(LARGE)
    rig.link_up(LARGE)
    assert list(rig.neighbours.links) == [first]


def test_a_late_second_link_shows_that_the_first_lost_its_faith() -> None:
    rig = Rig(SMALL, ping_interval_s=100.0)
    first = up(rig, LARGE)
    rig.advance(6.0)
    second = rig.link_up(LARGE, outbound=False)
    assert list(rig.neighbours.links) == [second]
    assert (first, "duplicate") in closes(rig.take())


def test_a_second_link_beats_a_suspect_one() -> None:
    rig = Rig(SMALL)
    first = rig.link_up(LARGE)
    rig.advance(0.8)
    assert states(rig) == {first: "suspect"}
    second = rig.link_up(LARGE, outbound=False)
    assert states(rig) == {second: "up"}


def test_a_link_of_a_newer_run_replaces_the_old_ones() -> None:
    rig = Rig(LARGE)
    old = [rig.link_up(SMALL, outbound=False), rig.link_up(SMALL)]
    new = rig.link_up(SMALL, instance=b"run 2")
    assert list(rig.neighbours.links) == [new]
    assert sorted(closes(rig.take())) == [(link, "replaced") for link in old]


def test_a_third_link_is_not_waited_for() -> None:
    rig = Rig(LARGE)
    rig.link_up(SMALL, outbound=False)
    rig.link_up(SMALL, outbound=True)
    third = rig.link_up(SMALL, outbound=True)
    assert third not in rig.neighbours.links
    assert closes(rig.take()) == [(third, "duplicate")]


def test_a_third_link_may_replace_a_worse_one() -> None:
    rig = Rig(LARGE)
    first = rig.link_up(SMALL, outbound=True)
    second = rig.link_up(SMALL, outbound=True)
    third = rig.link_up(SMALL, outbound=False)
    assert sorted(rig.neighbours.links) == [second, third]
    assert (first, "duplicate") in closes(rig.take())


def test_the_cost_of_a_replaced_link_holds_until_the_new_one_is_measured() -> None:
    rig = Rig()
    up(rig, rtt_s=0.080)
    rig.link_up("b", instance=b"run 2")
    record = rig.record("b")
    assert record is not None
    assert record["cost"] == 92


# --- pings ---------------------------------------------------------------------------------------


def test_a_ping_is_answered_in_the_same_turn() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.heard(link)
    rig.neighbours.on_ping(link, Ping(4711, rig.clock.now_ms(), b""))
    (pong,) = sent(rig.take(), Pong, link)
    assert pong == Pong(4711, rig.clock.now_ms())


def test_a_peers_time_counts_with_half_the_round_trip() -> None:
    rig = Rig()
    link = up(rig, rtt_s=0.200)
    ours = rig.clock.now_ms()
    rig.neighbours.on_ping(link, Ping(1, ours + 10_000, b""))
    # Of two voters the smaller id's clock counts; before the first publish it may step.
    expected = ours if rig.me < id_of("b") else ours + 10_100
    assert abs(rig.clock.now_ms() - expected) <= 1


def test_a_ping_before_the_first_round_trip_does_not_move_the_clock() -> None:
    rig = Rig(LARGE)
    ours = rig.clock.now_ms()
    link = rig.link_up(SMALL)
    rig.neighbours.on_ping(link, Ping(1, ours + 10_000, b""))
    assert rig.clock.now_ms() == ours


def test_a_fingerprint_that_differs_is_noticed() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.on_ping(link, Ping(1, rig.clock.now_ms(), bytes(range(16))))
    converged, diverged = rig.antientropy.converged()
    assert not converged
    assert diverged == [id_of("b")]


def test_the_round_trip_is_that_of_the_newest_ping() -> None:
    rig = Rig()
    link = up(rig, rtt_s=0.040)
    assert rig.neighbours.links[link].rtt_s == pytest.approx(0.040)
    rig.neighbours.on_pong(link, Pong(987654, 0))
    assert rig.neighbours.links[link].rtt_s == pytest.approx(0.040)


def test_a_pong_counts_once() -> None:
    rig = Rig()
    link = rig.link_up("b")
    (ping,) = pings(rig.take(), link)
    rig.advance(0.040)
    answer(rig, link, ping)
    rig.advance(0.500)
    answer(rig, link, ping)
    assert rig.neighbours.links[link].rtt_s == pytest.approx(0.040)


def test_the_first_round_trip_sets_the_cost_at_once() -> None:
    rig = Rig()
    up(rig, rtt_s=0.080)
    record = rig.record("b")
    assert record is not None
    assert record["cost"] == 92


def test_an_idle_link_is_pinged_about_every_interval() -> None:
    rig = Rig()
    link = up(rig)
    assert pings(rig.advance(3.1), link) == []
    assert len(pings(rig.advance(0.8), link)) == 1


def test_whoever_hears_a_ping_does_not_send_one_of_its_own() -> None:
    rig = Rig()
    link = up(rig)
    for _ in range(3):
        assert pings(rig.advance(3.0), link) == []
        rig.neighbours.heard(link)


def test_a_busy_link_is_pinged_all_the_same() -> None:
    rig = Rig()
    link = up(rig)
    count = 0
    for _ in range(120):
        count += len(pings(rig.advance(0.1), link))
        rig.neighbours.heard(link)
    assert count == 1


def test_a_ping_without_an_answer_is_repeated() -> None:
    rig = Rig(suspect_min_s=10.0)
    link = rig.link_up("b")
    assert len(pings(rig.advance(3.5), link)) == 4


def test_messages_on_links_not_in_use_are_ignored() -> None:
    rig = Rig()
    neighbours = rig.neighbours
    assert not neighbours.heard(5)
    neighbours.on_ping(5, Ping(1, 1, b""))
    neighbours.on_pong(5, Pong(1, 1))
    neighbours.on_probe(5, Probe(1, id_of("b")))
    neighbours.on_probe_answer(5, ProbeAnswer(1, id_of("b"), 3))
    neighbours.on_bye(5, Bye("leaving", "bye"))
    assert rig.take() == []


# --- suspicion -----------------------------------------------------------------------------------


def test_silence_after_a_ping_makes_a_link_suspect() -> None:
    rig = Rig()
    link = rig.link_up("b")
    rig.advance(0.7)
    assert states(rig) == {link: "up"}
    effects = rig.advance(0.1)
    assert states(rig) == {link: "suspect"}
    assert "link_suspect" in notices(effects)
    assert rig.neighbours.link_to(id_of("b")) is None
    assert rig.neighbours.edge(id_of("b")) == (3, "suspect")
    record = rig.record("b")
    assert record is not None
    assert record["state"] == "suspect"


def test_a_slow_link_has_four_round_trips_to_answer() -> None:
    rig = Rig()
    link = up(rig, rtt_s=0.500)
    effects = rig.advance(4.0)
    assert len(pings(effects, link)) == 1
    rig.advance(1.1)
    assert states(rig) == {link: "up"}
    rig.advance(0.8)
    assert states(rig) == {link: "suspect"}


def test_any_message_clears_a_suspicion() -> None:
    rig = Rig()
    link = rig.link_up("b")
    rig.advance(0.8)
    assert rig.neighbours.heard(link)
    assert states(rig) == {link: "up"}
    record = rig.record("b")
    assert record is not None
    assert record["state"] == "up"
    assert closes(rig.advance(2.0)) == []


def test_a_suspect_that_stays_silent_is_closed_and_withdrawn() -> None:
    rig = Rig()
    link = rig.link_up("b")
    effects = rig.advance(1.8)
    assert closes(effects) == [(link, "silent")]
    assert rig.record("b") is None
    assert rig.neighbours.links == {}


def test_a_frozen_neighbour_is_down_within_six_seconds() -> None:
    for seed in range(20):
        rig = Rig(rng_seed=seed)
        link = up(rig)
        assert closes(rig.advance(5.7)) == [(link, "silent")]


def asked(rig: Rig, names: tuple[str, ...]) -> list[int]:
    """Let the link to b fall silent; the links on which witnesses were asked about it."""
    rig.publish("b", dict.fromkeys(("a", *names), 3))
    for name in names:
        rig.publish(name, {"a": 3, "b": 3})
    rig.link_up("b")
    links = [rig.link_up(name) for name in names]
    probed = []
    for _ in range(8):
        effects = rig.advance(0.1)
        for link in links:
            probed += [link for probe in sent(effects, Probe, link) if probe.target == id_of("b")]
            rig.neighbours.heard(link)
    return probed


def test_witnesses_are_neighbours_with_an_edge_to_the_suspect() -> None:
    assert asked(Rig(), ("c",)) == [2]


def test_at_most_three_witnesses_are_asked_each_once() -> None:
    probed = asked(Rig(), ("c", "d", "e", "f"))
    assert len(probed) == len(dict.fromkeys(probed)) == 3


def test_a_suspect_without_common_neighbours_is_not_asked_about() -> None:
    assert asked(Rig(), ()) == []


def suspected(rig: Rig) -> int:
    """A link that is suspect since this instant; its ping is 0.75 s old."""
    link = rig.link_up("b")
    rig.advance(0.75)
    assert states(rig)[link] == "suspect"
    rig.take()
    return link


def test_a_witness_that_heard_the_suspect_since_the_ping_wins_it_a_second_once() -> None:
    rig = Rig()
    suspect = suspected(rig)
    rig.neighbours.on_probe_answer(9, ProbeAnswer(1, id_of("b"), 100))
    rig.neighbours.on_probe_answer(9, ProbeAnswer(1, id_of("b"), 100))
    assert closes(rig.advance(1.9)) == []
    assert closes(rig.advance(0.2)) == [(suspect, "silent")]


@pytest.mark.parametrize("heard_ms", [-1, 750, 60_000])
def test_a_witness_that_heard_nothing_since_the_ping_wins_it_nothing(heard_ms: int) -> None:
    rig = Rig()
    suspect = suspected(rig)
    rig.neighbours.on_probe_answer(9, ProbeAnswer(1, id_of("b"), heard_ms))
    assert closes(rig.advance(1.1)) == [(suspect, "silent")]


def test_an_answer_about_a_link_that_is_up_changes_nothing() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.on_probe_answer(9, ProbeAnswer(1, id_of("b"), 5))
    assert states(rig) == {link: "up"}


def test_a_probe_is_answered_from_the_last_message_and_pings_the_target() -> None:
    rig = Rig()
    asker, target = up(rig, "b"), up(rig, "c")
    rig.advance(0.500)
    rig.neighbours.on_probe(asker, Probe(5, id_of("c")))
    effects = rig.take()
    assert sent(effects, ProbeAnswer, asker) == [ProbeAnswer(5, id_of("c"), 500)]
    assert len(pings(effects, target)) == 1


def test_a_probe_for_a_stranger_is_answered_with_minus_one() -> None:
    rig = Rig()
    asker = up(rig, "b")
    rig.neighbours.on_probe(asker, Probe(5, id_of("z")))
    assert sent(rig.take(), ProbeAnswer, asker) == [ProbeAnswer(5, id_of("z"), -1)]


def test_a_doubt_pings_at_once_but_not_over_and_over() -> None:
    rig = Rig()
    link = up(rig)
    rig.advance(1.0)
    rig.neighbours.doubt(id_of("b"))
    (ping,) = pings(rig.take(), link)
    rig.neighbours.doubt(id_of("b"))
    answer(rig, link, ping)
    rig.neighbours.doubt(id_of("b"))
    assert pings(rig.take(), link) == []


def test_a_doubt_finds_a_frozen_neighbour_early() -> None:
    rig = Rig()
    link = up(rig)
    rig.advance(1.0)
    rig.neighbours.doubt(id_of("b"))
    rig.advance(0.8)
    assert states(rig) == {link: "suspect"}


def test_a_suspicion_that_another_publishes_pings_our_own_neighbour() -> None:
    rig = Rig()
    link = up(rig)
    rig.publish("b", {"a": 3, "c": 3})
    rig.publish("c", {"b": 3})
    rig.advance(1.0)
    assert rig.neighbours.heard(link), "the ping with the changed print was answered"
    rig.take()
    rig.publish("c", {"b": (3, "suspect")})
    assert len(pings(rig.take(), link)) == 1


def test_a_neighbour_that_suspects_us_is_pinged() -> None:
    rig = Rig()
    link = up(rig)
    rig.publish("b", {"a": 3})
    rig.advance(1.0)
    assert rig.neighbours.heard(link), "the ping with the changed print was answered"
    rig.take()
    rig.publish("b", {"a": (3, "suspect")})
    assert len(pings(rig.take(), link)) == 1


# --- ends on purpose -----------------------------------------------------------------------------


def test_a_peer_that_leaves_is_withdrawn_at_once() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.on_bye(link, Bye("leaving", "This stack leaves."))
    assert rig.record("b") is None
    assert closes(rig.take()) == [(link, "bye")]
    assert not rig.neighbours.heard(link)


def test_a_peer_that_has_links_enough_is_not_waited_for() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.on_bye(link, Bye("excess", "Both ends have links enough."))
    assert rig.record("b") is None
    assert rig.neighbours.edge(id_of("b")) is None


def test_a_peer_that_closes_for_another_reason_has_the_grace() -> None:
    rig = Rig()
    link = up(rig)
    rig.neighbours.on_bye(link, Bye("overflow", "Too much was queued."))
    assert rig.neighbours.edge(id_of("b")) == (3, "suspect")
    assert rig.link_down(link)
    assert rig.record("b") is not None
    rig.advance(1.1)
    assert rig.record("b") is None


def test_leaving_on_one_of_two_links_keeps_the_other() -> None:
    rig = Rig(LARGE)
    first = rig.link_up(SMALL, outbound=False)
    second = rig.link_up(SMALL, outbound=True)
    rig.neighbours.on_bye(second, Bye("leaving", "This stack leaves."))
    assert list(rig.neighbours.links) == [first]
    record = rig.record(SMALL)
    assert record is not None
    assert record["state"] == "up"


# --- going on ------------------------------------------------------------------------------------


def resume(rig: Rig, name: str, rtt_s: float) -> int:
    _keys, identity = make_keys(number_of(name), name=name)
    event = LinkUp(
        link=number_of(name),
        stack_id=identity.stack_id,
        name=name,
        keydoc=identity.keydoc,
        instance=b"run 1",
        addresses=(),
        address=f"{name}:1",
        outbound=True,
    )
    rig.neighbours.resume_link(event, rtt_s)
    return event.link


def test_a_link_that_goes_on_has_its_cost_at_once_and_is_not_announced() -> None:
    rig = Rig()
    link = resume(rig, "b", 0.05)
    assert rig.neighbours.rtt_s(link) == 0.05
    edge = rig.neighbours.edge(id_of("b"))
    assert edge == (cost_ms(0.05), "up")
    assert "link_up" not in notices(rig.take())


def test_links_that_go_on_are_not_all_pinged_at_once_but_each_within_the_interval() -> None:
    rig = Rig(ping_interval_s=2.5)
    links = [resume(rig, name, 0.001) for name in "bcdefgh"]
    first: dict[int, float] = {}
    start = rig.env.now
    for _ in range(100):
        effects = rig.advance(0.05)
        for link in links:
            if pings(effects, link):
                first.setdefault(link, rig.env.now - start)
    assert sorted(first) == sorted(links)
    assert max(first.values()) <= 4.0
    assert max(first.values()) - min(first.values()) > 0.5


# --- our own pauses ------------------------------------------------------------------------------


def test_after_a_pause_of_our_own_nobody_is_accused() -> None:
    rig = Rig()
    link = rig.link_up("b")
    rig.take()
    effects = rig.pause(30.0)
    assert states(rig) == {link: "up"}
    assert closes(effects) == []
    (ping,) = pings(effects, link)
    answer(rig, link, ping)
    assert closes(rig.advance(1.0)) == []


def test_a_suspect_gets_the_whole_time_again_after_a_pause() -> None:
    rig = Rig()
    link = suspected(rig)
    effects = rig.pause(10.0)
    assert closes(effects) == []
    assert len(pings(effects, link)) == 1
    assert closes(rig.advance(1.7)) == []
    assert closes(rig.advance(2.0)) == [(link, "silent")]


def test_a_lost_peer_gets_its_grace_again_after_a_pause() -> None:
    rig = Rig()
    rig.link_down(up(rig))
    rig.pause(20.0)
    assert rig.record("b") is not None
    rig.advance(1.1)
    assert rig.record("b") is None


def test_a_stall_that_the_shell_reports_counts_the_same() -> None:
    rig = Rig()
    link = rig.link_up("b")
    rig.advance(0.7)
    rig.neighbours.stalled(0.5)
    rig.advance(0.7)
    assert states(rig) == {link: "up"}


def test_an_idle_link_keeps_its_timer_through_a_stall() -> None:
    rig = Rig()
    link = up(rig)
    rig.advance(3.0)
    rig.neighbours.stalled(0.5)
    assert len(pings(rig.advance(0.9), link)) == 1


def test_local_health_rises_with_stalls_and_decays() -> None:
    rig = Rig()
    assert rig.neighbours.local_health == 0.0
    rig.neighbours.stalled(0.5)
    assert rig.neighbours.local_health == pytest.approx(0.5)
    rig.neighbours.stalled(5.0)
    assert rig.neighbours.local_health == 1.0
    rig.advance(15.0)
    assert rig.neighbours.local_health == pytest.approx(0.5)
    rig.advance(30.0)
    assert rig.neighbours.local_health == 0.0


def test_bad_local_health_doubles_the_time_of_a_suspect() -> None:
    rig = Rig()
    rig.neighbours.stalled(10.0)
    rig.link_up("b")
    assert closes(rig.advance(0.75 + 1.8)) == []
    assert len(closes(rig.advance(0.3))) == 1
