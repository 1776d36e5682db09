"""Whom a node dials, when, and how often again."""

from itertools import pairwise

import pytest

from tektonmesh.core.dialling import ADRIFT_MAX, DIALS_BURST, DIALS_MAX, DIALS_PER_S
from tektonmesh.core.effects import Dial, Save
from tektonmesh.core.events import AdmitPeer, EvictPeer, PeerSeen
from tektonmesh.core.messages import Bye
from tektonmesh.core.overlay import links_wanted
from tektonmesh.core.types import Saved, Status
from tests.liveness import Rig, by_id, closes, dials, id_of

SMALL, LARGE = by_id("a", "b")
QUIET: dict[str, float] = {
    "ping_interval_s": 1e6,
    "suspect_min_s": 1e6,
    "ping_busy_interval_s": 1e6,
}
"""Links that nobody pings, so that only dialling is seen."""


def seeded(*seeds: str, name: str = "a", **settings: object) -> Rig:
    """A node that has started with these seeds."""
    rig = Rig(name, seed_peers=seeds, **QUIET, **settings)
    rig.dialling.start()
    return rig


def seen(rig: Rig, *addresses: str, source: str = "mdns", who: str = "") -> list[str]:
    """Somebody is seen; what is dialled at once."""
    rig.take()
    rig.dialling.on_seen(PeerSeen(addresses, source, id_of(who) if who else None))
    return dials(rig.advance(0.0))


def crowd(rig: Rig, *names: str, addresses: bool = True) -> None:
    """Stacks become known through gossip; their dials all fail."""
    for name in names:
        rig.publish(name, addresses=[f"{name}:1"] if addresses else ())


# --- the number of links -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stacks", "links"), [(1, 3), (2, 3), (4, 3), (5, 3), (16, 3), (32, 4), (1000, 8), (10**5, 10)]
)
def test_the_number_of_links_grows_with_the_logarithm_of_the_stacks(
    stacks: int, links: int
) -> None:
    assert links_wanted(stacks, full_mesh=4, least=3, most=10) == links


# --- seeds ---------------------------------------------------------------------------------------


def test_all_seeds_are_dialled_at_the_start_whoever_they_are() -> None:
    rig = seeded("x:1", "y:1", "z:1")
    effects = rig.take()
    assert dials(effects) == ["x:1", "y:1", "z:1"]
    assert all(effect.expect is None for effect in effects if isinstance(effect, Dial))


def test_our_own_address_in_the_seed_list_is_passed_over() -> None:
    assert dials(seeded("x:1", "y:1", listen=("x:1",)).take()) == ["y:1"]


def attempts(rig: Rig, address: str, seconds: float) -> list[float]:
    """Let every dial of an address fail at once; the instants of the dials within a time."""
    start, found = rig.env.now, []
    step_s = 0.05 if seconds < 300.0 else 0.5
    while rig.env.now < start + seconds:
        for dialled in dials(rig.advance(step_s)):
            if dialled == address:
                found.append(rig.env.now - start)
            rig.dial_failed(dialled)
    return found


def pauses(instants: list[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(instants)]


def test_a_seed_is_tried_again_after_pauses_of_at_most_two_seconds_in_the_first_minute() -> None:
    rig = seeded("x:1")
    found = pauses(attempts(rig, "x:1", 60.0))
    assert found[0] < 0.35
    assert max(found) <= 2.1
    assert len(found) > 30


def test_pauses_of_a_seed_are_at_most_five_seconds_in_the_first_hour_then_thirty() -> None:
    rig = seeded("x:1")
    attempts(rig, "x:1", 61.0)
    found = pauses(attempts(rig, "x:1", 100.0))
    assert 2.1 < max(found) <= 5.1
    attempts(rig, "x:1", 3600.0)
    found = pauses(attempts(rig, "x:1", 600.0))
    assert 10.0 < max(found) <= 30.1


def test_pauses_have_jitter() -> None:
    rows = []
    for rng_seed in (1, 2):
        rig = Rig(rng_seed=rng_seed, seed_peers=("x:1",))
        rig.dialling.start()
        rows.append(attempts(rig, "x:1", 10.0))
    assert rows[0] != rows[1]


def test_a_linked_seed_is_not_dialled() -> None:
    rig = seeded("x:1")
    rig.link_up("b", address="x:1")
    rig.take()
    assert dials(rig.advance(100.0)) == []


def test_a_lost_seed_is_dialled_at_once() -> None:
    rig = seeded("x:1")
    link = rig.link_up("b", address="x:1")
    rig.take()
    rig.link_down(link)
    assert dials(rig.advance(0.0)) == []
    assert dials(rig.advance(1.0)) == ["x:1"]


def test_a_seed_that_dialled_us_is_known_by_the_addresses_it_tells() -> None:
    rig = seeded("x:1")
    rig.dial_failed("x:1")
    rig.take()
    rig.link_up("b", outbound=False, address="10.0.0.9:51234", addresses=("x:1",))
    assert "x:1" not in dials(rig.advance(100.0))


def test_a_second_link_to_a_known_stack_tells_where_it_is() -> None:
    rig = seeded("x:1", "y:1", name=SMALL)
    rig.link_up(LARGE, address="x:1")
    second = rig.link_up(LARGE, address="y:1")
    assert second not in rig.neighbours.links
    rig.take()
    assert dials(rig.advance(100.0)) == []


def test_with_seeds_only_nobody_else_is_dialled() -> None:
    rig = seeded("x:1", seeds_only=True)
    rig.take()
    crowd(rig, "b", "c")
    assert seen(rig, "m:1") == []
    link = rig.link_up("d", outbound=False, addresses=("d:1",))
    rig.link_down(link)
    rig.dial_failed("x:1")
    assert set(dials(rig.advance(60.0))) == {"x:1"}


def test_seeds_and_users_words_are_seeds_that_come_later() -> None:
    rig = seeded(seeds_only=True)
    assert seen(rig, "x:1", source="seed_peer") == ["x:1"]
    assert seen(rig, "y:1", source="user") == ["y:1"]


# --- addresses -----------------------------------------------------------------------------------


def test_an_address_that_is_our_own_is_never_dialled_again() -> None:
    rig = seeded("x:1")
    rig.dial_failed("x:1", "self")
    rig.take()
    assert dials(rig.advance(600.0)) == []
    assert seen(rig, "x:1") == []


def test_an_address_can_turn_out_to_be_ours_without_a_dial_under_way() -> None:
    rig = seeded()
    rig.dial_failed("m:1", "self")
    assert seen(rig, "m:1") == []


def test_an_address_where_another_stack_lives_is_dropped_for_the_expected_one() -> None:
    rig = seeded()
    crowd(rig, "b")
    assert dials(rig.advance(0.5)) == ["b:1"]
    rig.dial_failed("b:1", "wrong_identity", "b")
    assert dials(rig.advance(60.0)) == []


def test_a_seed_where_another_stack_lives_is_dialled_for_its_own_sake() -> None:
    rig = seeded()
    rig.dialling.on_seen(PeerSeen(("x:1",), "seed_peer", id_of("b")))
    assert dials(rig.advance(0.3)) == ["x:1"]
    rig.dial_failed("x:1", "wrong_identity", "b")
    (dial,) = [effect for effect in rig.advance(0.0) if isinstance(effect, Dial)]
    assert (dial.address, dial.expect) == ("x:1", None)


def test_gossiped_addresses_are_dialled_for_the_stack_that_told_them() -> None:
    rig = seeded()
    crowd(rig, "b")
    (dial,) = [effect for effect in rig.advance(0.5) if isinstance(effect, Dial)]
    assert (dial.address, dial.expect) == ("b:1", id_of("b"))


def test_of_two_stacks_that_hear_of_each_other_the_smaller_dials_first() -> None:
    for name, first in ((SMALL, True), (LARGE, False)):
        rig = Rig(name)
        rig.dialling.start()
        other = LARGE if first else SMALL
        crowd(rig, other)
        assert (dials(rig.advance(0.1)) == [f"{other}:1"]) is first
        assert (dials(rig.advance(0.3)) == [f"{other}:1"]) is not first


def test_addresses_of_one_stack_are_tried_one_after_another() -> None:
    rig = seeded(name=SMALL)
    rig.publish(LARGE, addresses=("h:1", "h:2", "h:3"))
    assert dials(rig.advance(0.1)) == ["h:1"]
    assert dials(rig.advance(0.25)) == ["h:2"]
    rig.link_up(LARGE, address="h:2")
    rig.take()
    assert dials(rig.advance(5.0)) == []


def test_a_stack_that_moved_is_dialled_where_it_is_now() -> None:
    rig = seeded(name=SMALL)
    crowd(rig, LARGE)
    rig.advance(0.1)
    rig.dial_failed(f"{LARGE}:1")
    rig.publish(LARGE, addresses=("new:1",))
    assert dials(rig.advance(0.0)) == ["new:1"]
    assert "new:1" not in dials(rig.advance(2.0))


def test_malformed_addresses_in_records_are_passed_over() -> None:
    rig = seeded(name=SMALL)
    rig.publish(
        LARGE, records={"addr/0": {"at": 5}, "addr/1": {"to": "x:1"}, "addr/2": {"at": "x"}}
    )
    assert dials(rig.advance(1.0)) == []


def test_an_address_is_not_dialled_twice_at_once() -> None:
    rig = seeded("x:1")
    rig.take()
    rig.publish(LARGE if SMALL == "a" else SMALL, addresses=("x:1",))
    assert dials(rig.advance(2.9)) == []


def test_news_of_a_peer_bring_its_next_dial_forward_but_not_over_and_over() -> None:
    rig = seeded("x:1")
    attempts(rig, "x:1", 70.0)
    rig.take()
    count = 0
    for _ in range(20):
        count += len(seen(rig, "x:1"))
        for dialled in dials(rig.advance(0.1)):
            count += 1
            rig.dial_failed(dialled)
    assert 1 <= count <= 3


def test_a_dial_whose_outcome_never_comes_is_made_again() -> None:
    rig = seeded("x:1", dial_timeout_s=3.0)
    rig.take()
    assert dials(rig.advance(3.9)) == []
    assert dials(rig.advance(1.0)) == ["x:1"]


def test_a_failure_that_nobody_waits_for_means_nothing() -> None:
    rig = seeded()
    rig.take()
    rig.dial_failed("x:1")
    assert rig.take() == []


# --- how many ------------------------------------------------------------------------------------


def test_a_small_mesh_is_fully_linked() -> None:
    rig = seeded()
    crowd(rig, "b", "c", "d")
    assert sorted(dials(rig.advance(0.5))) == ["b:1", "c:1", "d:1"]


def test_enough_links_stop_dials_to_strangers() -> None:
    rig = seeded()
    for name in "bcd":
        rig.publish(name)
        rig.link_up(name)
    crowd(rig, "e")
    for name in "bcd":
        rig.publish(name, {"a": 3, "e": 3})
    rig.publish("e", {"b": 3, "c": 3, "d": 3}, addresses=["e:1"])
    rig.take()
    assert dials(rig.advance(20.0)) == []
    assert seen(rig, "m:1") == []


def test_a_lost_link_is_replaced_at_once_by_another_stack() -> None:
    rig = seeded()
    links = {name: rig.link_up(name) for name in "bcd"}
    for name in "bcd":
        rig.publish(name, {"a": 3, "e": 3})
    rig.publish("e", {"b": 3, "c": 3, "d": 3}, addresses=["e:1"])
    rig.advance(20.0)
    rig.link_down(links["b"])
    assert "e:1" in dials(rig.advance(0.0))


def test_a_peer_that_has_links_enough_is_not_dialled_again_while_others_lead_there() -> None:
    rig = seeded("b:1", links_full_mesh_max=1, links_min=2)
    links = {name: rig.link_up(name, addresses=(f"{name}:1",)) for name in "bc"}
    rig.publish("b", {"a": 3, "c": 3}, addresses=["b:1"])
    rig.publish("c", {"a": 3, "b": 3}, addresses=["c:1"])
    rig.advance(20.0)
    rig.neighbours.on_bye(links["b"], Bye("excess", "Both ends have links enough."))
    assert "b:1" not in dials(rig.advance(59.0))
    assert "b:1" in dials(rig.advance(10.0))


def test_a_failed_dial_is_replaced_by_another_stack() -> None:
    names = list("bcdefg")
    rig = seeded()
    rig.link_up("h")
    rig.link_up("i")
    crowd(rig, *names)
    first = dials(rig.advance(0.3))
    assert first
    rig.dial_failed(first[0])
    more = dials(rig.advance(0.3))
    assert [address for address in more if address not in first]


def test_gossip_cannot_make_us_dial_everybody_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tektonmesh.core.dialling.DIALS_MAX", 2)
    assert DIALS_MAX > 2
    rig = seeded(links_full_mesh_max=50)
    crowd(rig, "b", "c", "d", "e", "f")
    assert len(dials(rig.advance(0.6))) == 2
    rig.advance(10.0)


def test_addresses_that_refuse_at_once_are_not_dialled_as_fast_as_they_refuse() -> None:
    rig = seeded("s:1")
    crowd(rig, *[f"m{at}" for at in range(100)])
    made: dict[str, int] = {}
    for _ in range(1200):
        for address in dials(rig.advance(0.1)):
            made[address] = made.get(address, 0) + 1
            rig.dial_failed(address)
    assert made.pop("s:1") > 30
    assert DIALS_BURST < sum(made.values()) <= DIALS_BURST + DIALS_PER_S * 120.0 + 1


def test_strangers_from_mdns_are_dialled_while_links_are_missing() -> None:
    rig = seeded()
    assert seen(rig, "m:1") == ["m:1"]


def test_mdns_may_name_the_stack_and_gets_at_most_eight_addresses() -> None:
    rig = seeded(name=SMALL)
    seen(rig, *(f"m:{port}" for port in range(1, 20)), who=LARGE)
    found = rig.advance(10.0)
    assert all(effect.expect == id_of(LARGE) for effect in found if isinstance(effect, Dial))
    assert sorted(dict.fromkeys(dials(found))) == [f"m:{port}" for port in range(1, 9)]


def test_our_own_announcement_is_passed_over() -> None:
    rig = seeded()
    assert seen(rig, "m:1", who="a") == []


@pytest.mark.parametrize("seeds", [(), ("b:1",)], ids=["a peer", "a seed"])
def test_a_stack_that_is_held_off_is_dialled_when_that_is_over(seeds: tuple[str, ...]) -> None:
    rig = seeded(*seeds)
    rig.publish("b", addresses=["b:1"])
    rig.link_down(rig.link_up("b", address="b:1"))
    rig.advance(0.0)
    rig.dial_failed("b:1", expect="b")
    rig.dial_failed("b:1")
    for _ in range(5):
        rig.trust.strikes.strike(id_of("b"), "bad")
    assert dials(rig.advance(59.0)) == []
    assert dials(rig.advance(10.0))


def test_an_evicted_stack_is_not_dialled() -> None:
    rig = seeded()
    rig.trust.evict(id_of("b"))
    assert EvictPeer(1, id_of("b")).stack_id == id_of("b")
    assert seen(rig, "m:1", who="b") == []
    assert dials(rig.advance(10.0)) == []


def test_a_stack_that_was_admitted_by_hand_is_dialled_at_once() -> None:
    rig = seeded("x:1")
    attempts(rig, "x:1", 70.0)
    rig.advance(1.0)
    for name in "bcd":
        rig.link_up(name)
    rig.take()
    assert AdmitPeer(1, id_of("e")).stack_id == id_of("e")
    rig.dialling.retry_now(id_of("e"))
    assert "x:1" in dials(rig.advance(1.0))


# --- lost peers ----------------------------------------------------------------------------------


def test_a_suspect_is_redialled_before_the_verdict() -> None:
    rig = Rig()
    rig.dialling.start()
    rig.link_up("b", address="b:1", addresses=("b:1",))
    rig.take()
    assert dials(rig.advance(0.76)) == ["b:1"]
    assert rig.neighbours.links[1].state == "suspect"


def test_a_lost_peer_is_retried_for_an_hour_while_no_path_leads_there() -> None:
    rig = seeded(links_full_mesh_max=1, links_min=0)
    link = rig.link_up("b", addresses=("b:1",))
    rig.link_down(link)
    found = attempts(rig, "b:1", 300.0)
    assert max(pauses(found)) <= 5.1
    late = [at for at in attempts(rig, "b:1", 3700.0) if at > 3400.0]
    assert late == []


def test_a_lost_peer_that_others_show_a_path_to_is_tried_until_it_answers() -> None:
    rig = seeded()
    links = {name: rig.link_up(name, addresses=(f"{name}:1",)) for name in "bcde"}
    for name in "cde":
        rig.publish(name, {"a": 3, "b": 3})
    rig.publish("b", {"c": 3, "d": 3, "e": 3}, addresses=["b:1"])
    rig.take()
    rig.link_down(links["b"])
    assert dials(rig.advance(2.0)) == [], "whoever others reach is not missed at once"
    found = attempts(rig, "b:1", 30.0)
    assert len(found) > 2 and min(pauses(found)) > 0.1
    rig.link_up("b", addresses=("b:1",))
    rig.take()
    assert dials(rig.advance(30.0)) == []


def test_a_forgotten_owner_is_no_reason_to_dial() -> None:
    rig = seeded()
    rig.publish("b")
    rig.replica.drop(id_of("b"))
    assert dials(rig.advance(5.0)) == []


def test_a_stranger_is_given_up_after_an_hour() -> None:
    rig = seeded()
    seen(rig, "m:1")
    rig.dial_failed("m:1")
    attempts(rig, "m:1", 3700.0)
    assert attempts(rig, "m:1", 200.0) == []


def test_one_of_two_addresses_may_be_given_up_before_the_other() -> None:
    rig = seeded(links_full_mesh_max=1, links_min=0)
    link = rig.link_up("b", addresses=("b:1",))
    rig.link_down(link)
    attempts(rig, "b:1", 3500.0)
    seen(rig, "b:2", who="b")
    attempts(rig, "b:1", 200.0)
    assert set(attempts(rig, "b:2", 200.0)) != set()
    assert attempts(rig, "b:1", 100.0) == []


def test_a_peer_that_left_is_not_dialled() -> None:
    rig = seeded()
    link = rig.link_up("b", addresses=("b:1",))
    rig.publish("b", {"a": 3}, addresses=["b:1"], status=Status.LEFT)
    rig.neighbours.on_bye(link, Bye("leaving", "This stack leaves."))
    rig.take()
    assert dials(rig.advance(60.0)) == []


def test_a_peer_that_left_and_is_back_is_dialled_soon_although_others_lead_there() -> None:
    rig = seeded("b:1")
    links = {name: rig.link_up(name, addresses=(f"{name}:1",)) for name in "bc"}
    rig.publish("c", {"a": 3, "b": 3}, addresses=["c:1"])
    rig.publish("b", {"a": 3, "c": 3}, addresses=["b:1"])
    rig.advance(20.0)
    rig.publish("b", status=Status.LEFT)
    rig.neighbours.on_bye(links["b"], Bye("leaving", "This stack leaves."))
    rig.advance(2.0)
    rig.take()
    rig.publish("b", {"c": 3}, addresses=["b:1"])
    assert "b:1" in dials(rig.advance(10.0))


def test_live_stacks_without_a_path_are_looked_for_by_lot() -> None:
    rig = seeded()
    for name in "bcd":
        rig.link_up(name)
        rig.publish(name, {"a": 3})
    crowd(rig, "e", "f", "g", "h")
    rig.take()
    first = dict.fromkeys(dials(rig.advance(4.9)))
    assert len(first) == ADRIFT_MAX
    for _ in range(40):
        for dialled in dials(rig.advance(1.0)):
            first[dialled] = None
            rig.dial_failed(dialled)
    assert sorted(first) == ["e:1", "f:1", "g:1", "h:1"]


def test_the_other_half_of_a_cut_mesh_is_found_soon_after_the_heal() -> None:
    rig = seeded(links_full_mesh_max=1, links_min=1)
    near, far = rig.link_up("b"), rig.link_up("c", addresses=("c:1",))
    rig.publish("b", {"a": 3})
    rig.publish("c", {"a": 3}, addresses=["c:1"])
    assert near in rig.neighbours.links
    rig.link_down(far)
    attempts(rig, "c:1", 60.0)
    assert attempts(rig, "c:1", 8.0) != []


# --- links enough --------------------------------------------------------------------------------


def crowded(*seeds: str, **settings: object) -> Rig:
    """A node that wants one link and has four, to stacks that are all linked with each other."""
    rig = seeded(*seeds, links_full_mesh_max=1, links_min=1, links_max=1, **settings)
    for name in "bcde":
        rig.link_up(name, address=f"{name}:1")
        rig.publish(name, {other: 3 for other in "abcde" if other != name})
    rig.take()
    return rig


def test_a_link_that_neither_end_needs_is_closed_and_not_dialled_again() -> None:
    rig = crowded()
    effects = rig.advance(60.0)
    assert [code for _link, code in closes(effects)] == ["excess"]
    assert dials(effects) == []
    assert len(rig.neighbours.links) == 3
    assert sum(rig.record(name) is not None for name in "bcde") == 3


def test_a_link_to_a_seed_is_never_too_many() -> None:
    rig = crowded("b:1", "c:1", "d:1", "e:1")
    assert closes(rig.advance(60.0)) == []


def test_with_seeds_only_no_link_is_too_many() -> None:
    rig = crowded(seeds_only=True)
    assert closes(rig.advance(60.0)) == []


def test_a_node_with_links_enough_does_not_dial_a_seed_that_it_reaches_by_others() -> None:
    for reached in (True, False):
        rig = seeded("b:1", links_full_mesh_max=1, links_min=1, links_max=1)
        link = rig.link_up("b", address="b:1")
        rig.link_up("c")
        rig.publish("b", {"c": 3} if reached else {}, addresses=["b:1"])
        rig.publish("c", {"a": 3, "b": 3} if reached else {"a": 3})
        rig.link_down(link)
        rig.neighbours.close(id_of("b"), "excess", "Links enough.")
        rig.take()
        rig.advance(2.0)
        assert ("b:1" in attempted(rig, 30.0)) is not reached


def attempted(rig: Rig, seconds: float) -> list[str]:
    """What is dialled within a time in which every dial fails."""
    found = []
    for _ in range(int(seconds)):
        for address in dials(rig.advance(1.0)):
            found.append(address)
            rig.dial_failed(address)
    return found


def test_a_stack_whose_lease_is_over_is_tried_now_and_then() -> None:
    rig = crowded()
    rig.publish("z", addresses=["z:1"])
    attempted(rig, 400.0)
    assert id_of("z") in rig.replica.expired()
    for name in "bcde":
        rig.publish(name, {other: 3 for other in "abcde" if other != name})
    found = attempted(rig, 250.0)
    assert 0 < found.count("z:1") <= 12


def test_a_much_nearer_stack_is_dialled_though_links_are_enough() -> None:
    for cost, dialled in ((3, True), (150, False)):
        rig = seeded(links_full_mesh_max=1, links_min=2, links_max=2)
        for name, rtt_s in (("b", 0.2), ("c", 0.001)):
            link = rig.link_up(name)
            rig.neighbours.links[link].cost.sample(rtt_s, rig.env.now)
        rig.publish("b", {"a": 202})
        rig.publish("c", {"a": 3, "d": cost})
        rig.publish("d", {"c": cost}, addresses=["d:1"])
        assert ("d:1" in attempted(rig, 120.0)) is dialled


# --- memory --------------------------------------------------------------------------------------


def rows(rig: Rig) -> Saved:
    """The rows of the table `address` as they are on disk now."""
    found: Saved = {}
    for effect in rig.take():
        for table, key, value in effect.rows if isinstance(effect, Save) else ():
            if table == "address" and value is not None:
                found[table, key] = value
            elif table == "address":
                found.pop((table, key), None)
    return found


def test_peers_of_the_last_run_are_dialled_at_the_start() -> None:
    first = seeded()
    first.link_up("b", address="b:9", addresses=("b:1",))
    rig = Rig(saved=rows(first))
    rig.dialling.start()
    (dial,) = [effect for effect in rig.advance(0.1) if isinstance(effect, Dial)]
    assert (dial.address, dial.expect) == ("b:1", id_of("b"))


def test_an_address_that_worked_is_remembered_first() -> None:
    first = seeded("s:1")
    first.link_up("b", address="s:1", addresses=("b:1",))
    rig = Rig(saved=rows(first))
    rig.dialling.start()
    assert dials(rig.advance(0.1)) == ["s:1"]


def test_remembered_peers_are_not_dialled_with_seeds_only() -> None:
    first = seeded()
    first.link_up("b", addresses=("b:1",))
    rig = Rig(saved=rows(first), seeds_only=True)
    rig.dialling.start()
    assert dials(rig.advance(30.0)) == []


def test_with_seeds_only_who_was_joined_by_invite_is_dialled_again_after_a_start() -> None:
    first = seeded(seeds_only=True)
    first.trust.admit(id_of("b"))
    assert seen(first, "b:1", source="user", who="b") == ["b:1"]
    first.link_up("b", address="b:1", addresses=("b:1",))
    rig = Rig(saved=rows(first), seeds_only=True)
    rig.trust.admit(id_of("b"))
    rig.dialling.start()
    assert dials(rig.advance(0.1)) == ["b:1"]
    rig.dial_failed("b:1", expect="b")
    assert dials(rig.advance(30.0))


def test_a_peer_that_was_given_up_is_forgotten_on_disk() -> None:
    rig = seeded(links_full_mesh_max=1, links_min=0)
    link = rig.link_up("b", addresses=("b:1",))
    rig.link_down(link)
    before = rows(rig)
    assert list(before) == [("address", id_of("b"))]
    gone = []
    for _ in range(800):
        effects = rig.advance(5.0)
        for dialled in dials(effects):
            rig.dial_failed(dialled)
        gone += [e.rows for e in effects if isinstance(e, Save) and e.rows[0][0] == "address"]
    gone += [e.rows for e in rig.take() if isinstance(e, Save)]
    assert ((("address", id_of("b"), None),)) in gone


def test_the_addresses_of_the_replica_are_known_from_the_start() -> None:
    first = Rig()
    first.publish("b", addresses=["b:1"])
    saved = {
        (table, key): value
        for effect in first.take()
        if isinstance(effect, Save)
        for table, key, value in effect.rows
        if value is not None
    }
    rig = Rig(saved=saved)
    rig.dialling.start()
    assert set(dials(rig.advance(10.0))) == {"b:1"}


# --- the end -------------------------------------------------------------------------------------


def test_a_stack_that_leaves_dials_nobody() -> None:
    rig = seeded("x:1")
    rig.take()
    rig.dialling.stop()
    rig.dial_failed("x:1")
    crowd(rig, "b")
    assert seen(rig, "m:1") == []
    assert dials(rig.advance(60.0)) == []
