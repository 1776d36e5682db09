"""Who is joined to whom, and what that makes of each stack."""

from typing import Any

import pytest

from tektonmesh.core.effects import Notice
from tektonmesh.core.graph import COST_MAX_MS, DRAINING_MS, read_claim
from tektonmesh.core.ids import show_id
from tektonmesh.core.ownlinks import link_key
from tektonmesh.core.types import StackState, Status
from tests.liveness import Rig, Stack, id_of, link_records, notices


def state(rig: Rig, name: str) -> StackState:
    return rig.graph.state(id_of(name))


# --- observers -----------------------------------------------------------------------------------


def test_a_leaf_hangs_on_one_stacks_word_and_others_on_several() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3), ("b", "d", 3))
    rig.mesh(("d", "e", 3))
    rig.publish("d", {"b": 3, "c": 3, "e": 3})
    counts = {name: len(rig.graph.observers(id_of(name))) for name in "abcdefg"}
    assert counts == {"a": 1, "b": 3, "c": 2, "d": 3, "e": 1, "f": 0, "g": 0}


def test_a_stack_that_one_other_took_for_lost_shows_that_it_was_one() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    rig.publish("b", {"a": 3})
    assert state(rig, "c") is StackState.UNREACHABLE
    assert len(rig.graph.observers(id_of("c"))) == 1


def test_stacks_that_are_not_live_observe_nobody_and_we_do_with_a_link_alone() -> None:
    rig = Rig()
    rig.publish("b", {"c": 3})
    assert len(rig.graph.observers(id_of("b"))) == 0
    rig.link_up("b")
    assert len(rig.graph.observers(id_of("b"))) == 1
    rig.publish("c", {"b": 3})
    assert len(rig.graph.observers(id_of("b"))) == 2
    assert len(rig.graph.observers(rig.me)) == 1


# --- edges ---------------------------------------------------------------------------------------


def test_an_edge_counts_when_both_ends_sign_it() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 5))
    assert rig.graph.edges(id_of("b")) == {id_of("a"): 3, id_of("c"): 5}
    assert rig.graph.edges(id_of("c")) == {id_of("b"): 5}
    assert state(rig, "c") is StackState.UP


def test_an_edge_that_one_end_claims_alone_does_not_count() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    rig.publish("c", {"b": 3})
    assert rig.graph.edges(id_of("c")) == {}
    assert state(rig, "c") is StackState.UNREACHABLE


def test_an_edge_costs_what_the_dearer_end_says() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 5))
    rig.publish("c", {"b": 9})
    assert rig.graph.edges(id_of("b"))[id_of("c")] == 9
    assert rig.graph.edges(id_of("c"))[id_of("b")] == 9


def test_our_own_link_counts_without_the_peers_record() -> None:
    rig = Rig()
    rig.publish("b")
    rig.link_up("b")
    assert rig.graph.edges(rig.me) == {id_of("b"): 3}
    assert state(rig, "b") is StackState.UP


def test_the_peer_may_make_our_own_edge_dearer() -> None:
    rig = Rig()
    rig.publish("b", {"a": 40})
    rig.link_up("b")
    assert rig.graph.edges(rig.me) == {id_of("b"): 40}


def test_a_claimed_link_to_us_does_not_count_without_one_of_ours() -> None:
    rig = Rig()
    rig.publish("b", {"a": 3})
    assert rig.graph.edges(rig.me) == {}
    assert state(rig, "b") is StackState.UNREACHABLE


def test_a_link_to_a_stack_without_records_makes_no_edge() -> None:
    rig = Rig()
    rig.link_up("b")
    assert rig.graph.edges(rig.me) == {}
    assert state(rig, "b") is StackState.DEREGISTERED


def test_a_suspect_edge_is_not_routed_over_and_still_counts_for_up() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    rig.publish("c", {"b": (3, "suspect")})
    assert rig.graph.edges(id_of("c")) == {}
    assert state(rig, "c") is StackState.UP


def test_our_own_suspicion_counts_at_once() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    rig.link_down(1)
    assert rig.graph.edges(rig.me) == {}
    assert state(rig, "b") is StackState.UP
    rig.advance(1.1)
    assert state(rig, "b") is StackState.UNREACHABLE


def test_a_restarted_run_of_this_stack_does_not_believe_its_old_links() -> None:
    rig = Rig()
    rig.owner.start()
    rig.publish("b", {"a": 3})
    rig.publish("c", {"a": 3})
    rig.link_up("b")
    assert rig.graph.edges(rig.me) == {id_of("b"): 3}


def test_an_edge_needs_both_owners_alive() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3))
    rig.publish("c", {"b": 3, "d": 3}, status=Status.LEFT)
    assert rig.graph.edges(id_of("b")) == {rig.me: 3}
    assert state(rig, "c") is StackState.LEFT
    assert state(rig, "d") is StackState.UNREACHABLE


def test_a_stack_that_said_two_things_at_one_version_is_listed_and_not_routed() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    liar, twin = Stack("c"), Stack("c")
    liar.ver = twin.ver = 10
    links = link_records({"b": 3})
    for stack, word in ((liar, "one"), (twin, "other")):
        told = links | {"stack/self": {"name": "c", "word": word}}
        rig.replica.apply(stack.delta(told, rig.clock.now_ms()), 0)
    assert rig.graph.edges(id_of("b")) == {rig.me: 3}
    assert state(rig, "c") is StackState.UNREACHABLE


def test_witnesses_are_the_others_that_share_an_edge() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("b", "d", 3))
    rig.publish("d", {"b": (3, "suspect")})
    assert sorted(rig.graph.witnesses(id_of("b"))) == sorted([id_of("c"), id_of("d")])
    assert list(rig.graph.witnesses(id_of("z"))) == []


# --- records of strangers ------------------------------------------------------------------------


def claim_of(**changes: Any) -> dict[str, Any]:
    return {"peer": id_of("b"), "cost": 3, "state": "up"} | changes


def test_a_link_record_is_read() -> None:
    assert read_claim(link_key(id_of("b")), claim_of()) == (id_of("b"), (3, "up"))


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        claim_of(peer="b"),
        claim_of(peer=b"short"),
        claim_of(peer=id_of("c")),
        claim_of(peer=id_of("b")[:8] + bytes(24), cost="3"),
        claim_of(cost=True),
        claim_of(cost=1.5),
    ],
)
def test_a_link_record_without_sense_is_no_edge(value: dict[str, Any] | None) -> None:
    assert read_claim(link_key(id_of("b")), value) is None


@pytest.mark.parametrize(("told", "taken"), [(-5, 1), (0, 1), (10**15, COST_MAX_MS)])
def test_an_absurd_cost_is_cut(told: int, taken: int) -> None:
    found = read_claim(link_key(id_of("b")), claim_of(cost=told))
    assert found is not None
    assert found[1] == (taken, "up")


@pytest.mark.parametrize("told", ["suspect", "excellent", None, 7])
def test_a_state_that_is_not_up_is_suspect(told: object) -> None:
    found = read_claim(link_key(id_of("b")), claim_of(state=told))
    assert found is not None
    assert found[1] == (3, "suspect")


def test_a_short_id_that_was_ground_out_makes_no_edge() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    forged = {"peer": id_of("b")[:8] + bytes(24), "cost": 1, "state": "up"}
    rig.publish("c", records={link_key(id_of("b")): forged})
    rig.publish("b", {"a": 3, "c": 3})
    assert rig.graph.edges(id_of("c")) == {}


def test_a_stack_that_claims_a_link_to_itself_gains_nothing() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    for _ in range(2):
        rig.publish("b", {"a": 3, "b": 3})
    assert rig.graph.edges(id_of("b")) == {rig.me: 3}


def test_an_owner_whose_records_cannot_be_read_has_no_edges() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    rig.publish("c", {"b": 3}, records={"stack/self": 5})
    assert state(rig, "c") is StackState.UNREACHABLE


# --- states and notices --------------------------------------------------------------------------


def test_this_stack_is_itself_and_reachable() -> None:
    rig = Rig()
    assert rig.graph.state(rig.me) is StackState.SELF
    assert rig.graph.reachable(rig.me)


def test_a_stack_that_nobody_knows_is_deregistered_and_not_reachable() -> None:
    rig = Rig()
    assert state(rig, "b") is StackState.DEREGISTERED
    assert not rig.graph.reachable(id_of("b"))


def test_a_lease_that_ends_deregisters() -> None:
    rig = Rig()
    rig.publish("b")
    assert state(rig, "b") is StackState.UNREACHABLE
    rig.advance(340.0)
    assert state(rig, "b") is StackState.DEREGISTERED


def test_an_owner_that_comes_back_after_its_lease_is_up_again() -> None:
    rig = Rig()
    rig.publish("b", {"a": 3})
    rig.advance(340.0)
    assert state(rig, "b") is StackState.DEREGISTERED
    rig.publish("b", {"a": 3})
    rig.link_up("b")
    assert state(rig, "b") is StackState.UP


def test_a_forgotten_owner_leaves_no_edges_behind() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    assert state(rig, "c") is StackState.UP
    rig.replica.drop(id_of("c"))
    assert rig.graph.edges(id_of("b")) == {rig.me: 3}
    assert state(rig, "c") is StackState.DEREGISTERED


def transitions(rig: Rig, name: str) -> list[str]:
    """The notices about one stack since the last look, the graph being asked first."""
    _ = rig.graph.generation
    shown = show_id(id_of(name))
    found = [effect for effect in rig.take() if isinstance(effect, Notice)]
    return [
        notice.kind
        for notice in found
        if notice.kind.startswith("stack_") and notice.data.get("id") == shown
    ]


def test_each_change_of_state_is_told_once() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    assert transitions(rig, "c") == ["stack_up"]
    rig.publish("b", {"a": 3})
    assert transitions(rig, "c") == ["stack_unreachable"]
    rig.publish("b", {"a": 3, "c": 3})
    assert transitions(rig, "c") == ["stack_up"]
    assert transitions(rig, "c") == []
    rig.publish("c", status=Status.LEFT)
    assert transitions(rig, "c") == ["stack_left"]


def test_a_stack_first_known_as_unreachable_or_gone_is_no_news() -> None:
    rig = Rig()
    rig.publish("b")
    rig.publish("c", status=Status.LEFT)
    assert transitions(rig, "b") == []
    assert transitions(rig, "c") == []


def test_the_end_of_a_lease_and_forgetting_are_told() -> None:
    rig = Rig()
    rig.publish("b")
    rig.publish("c")
    assert transitions(rig, "b") == []
    rig.replica.drop(id_of("c"))
    assert transitions(rig, "c") == ["stack_deregistered"]
    rig.advance(340.0)
    rig.publish("d")
    _ = rig.graph.generation
    assert state(rig, "b") is StackState.DEREGISTERED


def test_a_notice_names_the_stack_if_its_name_makes_sense() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    rig.publish("b", {"a": 3}, name="west")
    _ = rig.graph.generation
    names = [
        effect.data["name"]
        for effect in rig.take()
        if isinstance(effect, Notice) and effect.kind == "stack_up"
    ]
    assert names == ["west"]
    rig.publish("c", {"b": 3}, name=7)
    rig.publish("b", {"a": 3, "c": 3}, name="west")
    _ = rig.graph.generation
    (notice,) = [e for e in rig.take() if isinstance(e, Notice) and e.kind == "stack_up"]
    assert notice.data == {"stack": "", "id": show_id(id_of("c")), "name": ""}


def test_transitions_are_told_in_the_order_of_first_sight_and_those_of_the_forgotten_last() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("b", "d", 3))
    _ = rig.graph.generation
    rig.take()
    rig.replica.drop(id_of("c"))
    rig.publish("e", {"b": 3})
    rig.publish("b", {"a": 3, "e": 3})
    _ = rig.graph.generation
    told = [(e.kind, e.data["id"]) for e in rig.take() if isinstance(e, Notice) and "id" in e.data]
    assert told == [
        ("stack_unreachable", show_id(id_of("d"))),
        ("stack_up", show_id(id_of("e"))),
        ("stack_deregistered", show_id(id_of("c"))),
    ]


# --- who says what -------------------------------------------------------------------------------


def test_a_link_is_what_each_end_says_of_it_and_of_the_own_ones_what_our_eyes_see() -> None:
    rig = Rig()
    rig.publish("b", {"a": 7, "c": 10})
    rig.publish("c", {"b": (20, "suspect")})
    rig.link_up("b")
    a, b, c = map(id_of, "abc")
    assert rig.graph.claims(b) == {a: (7, "up"), c: (10, "up")}
    assert rig.graph.claim(b, c) == (10, "up")
    assert rig.graph.claim(c, b) == (20, "suspect")
    assert rig.graph.claim(c, a) is None
    own = rig.neighbours.edge(b)
    assert own is not None
    assert rig.graph.claims(a) == {b: own} and rig.graph.claim(a, b) == own
    assert rig.graph.claimants(c) == [b]
    assert rig.graph.claims(id_of("z")) == {}


def test_a_link_without_a_record_is_claimed_by_nobody() -> None:
    rig = Rig()
    rig.publish("b", {"a": 7})
    link = rig.link_up("b")
    rig.neighbours._own.set(id_of("b"), None)
    assert rig.neighbours.links[link].stack_id == id_of("b")
    assert rig.graph.claims(rig.me) == {}


def test_whoever_shares_an_edge_can_tell_whether_a_stack_lives() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 5), ("b", "c", 5))
    assert sorted(rig.graph.observers(id_of("b"))) == sorted([rig.me, id_of("c")])
    assert rig.graph.observers(id_of("c")) == [id_of("b")]
    assert rig.graph.observers(rig.me) == [id_of("b")]
    assert rig.graph.observers(id_of("z")) == []


# --- relaying ------------------------------------------------------------------------------------


def test_passing_through_costs_nothing_extra_by_default() -> None:
    rig = Rig()
    rig.publish("b")
    assert rig.graph.transit_ms(id_of("b")) == 0
    assert rig.graph.transit_ms(id_of("z")) == 0


def test_a_stack_may_refuse_to_relay_and_change_its_mind() -> None:
    rig = Rig()
    rig.publish("b", relay="none")
    assert rig.graph.transit_ms(id_of("b")) is None
    rig.publish("b", relay="members")
    assert rig.graph.transit_ms(id_of("b")) == 0


def test_a_stack_may_relay_for_those_only_that_it_is_linked_with() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3))
    b, c, d = (id_of(name) for name in "bcd")
    assert rig.graph.passes(b, d)
    rig.publish("b", {"a": 3, "c": 3}, relay="peers")
    assert (rig.graph.passes(b, c), rig.graph.passes(b, d)) == (True, False)
    assert rig.graph.transit_ms(b) == 0
    rig.publish("b", {"a": 3, "c": 3}, relay="none")
    assert not rig.graph.passes(b, c)
    rig.publish("b", {"a": 3, "c": 3}, relay="whatever comes later")
    assert rig.graph.passes(b, d)


def test_passing_through_a_draining_stack_is_dear() -> None:
    rig = Rig()
    rig.publish("b", status=Status.DRAINING)
    assert rig.graph.transit_ms(id_of("b")) == DRAINING_MS


# --- when it is worked out -----------------------------------------------------------------------


def test_watchers_hear_of_several_changes_together_after_50_ms() -> None:
    rig = Rig()
    told: list[float] = []
    rig.graph.watch(lambda: told.append(rig.env.now))
    start = rig.env.now
    rig.publish("b")
    rig.link_up("b")
    rig.advance(0.04)
    assert told == []
    rig.advance(0.02)
    assert told == [pytest.approx(start + 0.05)]
    rig.advance(0.3)
    assert len(told) == 1


def test_whoever_asks_gets_the_state_of_the_moment() -> None:
    rig = Rig()
    rig.publish("b")
    before = rig.graph.generation
    rig.link_up("b")
    assert rig.graph.generation == before + 1
    assert rig.graph.generation == before + 1


def test_news_that_are_not_about_links_do_not_touch_the_graph() -> None:
    rig = Rig()
    rig.publish("b", {"a": 3})
    before = rig.graph.generation
    rig.publish("b", {"a": 3}, records={"ci/numa": {"name": "numa"}})
    assert rig.graph.generation == before


def test_own_news_do_not_touch_the_graph() -> None:
    rig = Rig()
    rig.link_up("b")
    rig.owner.start()
    before = rig.graph.generation
    for effect in rig.take():
        ticket = getattr(effect, "ticket", None)
        if ticket is not None:
            rig.owner.saved(ticket)
    rig.advance(0.0)
    assert rig.replica.has(rig.me)
    assert rig.graph.generation == before
    rig.publish("b", {"a": 3})
    assert rig.graph.state(rig.me) is StackState.SELF
    assert state(rig, "b") is StackState.UP


def test_draining_without_other_news_is_noticed() -> None:
    rig = Rig()
    rig.publish("b", {"a": 3})
    before = rig.graph.generation
    rig.publish("b", {"a": 3}, status=Status.DRAINING)
    assert rig.graph.generation == before + 1


def test_what_the_disk_held_is_in_the_graph_from_the_start() -> None:
    first = Rig()
    first.publish("b", {"c": 3})
    first.publish("c", {"b": 3}, relay="none")
    saved = {
        (table, key): value
        for effect in first.take()
        for table, key, value in getattr(effect, "rows", ())
        if value is not None
    }
    rig = Rig(saved=saved)
    assert rig.graph.edges(id_of("b")) == {id_of("c"): 3}
    assert rig.graph.transit_ms(id_of("c")) is None
    assert notices(rig.take()) == []


# --- over a base ---------------------------------------------------------------------------------


def test_over_a_base_the_own_links_stand_until_our_own_eyes_say_otherwise() -> None:
    base = Rig("z")
    base.mesh(("a", "b", 3), ("b", "c", 3))
    base.publish("b", {"a": 3, "c": 3}, relay="none")
    rig = Rig(base=base)
    assert rig.graph.edges(rig.me) == {id_of("b"): 3}
    assert state(rig, "b") is state(rig, "c") is StackState.UP
    assert rig.graph.transit_ms(id_of("b")) is None
    rig.link_up("b")
    assert rig.graph.edges(rig.me) == {id_of("b"): 3}
    rig.publish("c")
    assert state(rig, "c") is StackState.UNREACHABLE
    assert base.graph.edges(id_of("b")) == {id_of("a"): 3, id_of("c"): 3}
    assert [notice for notice in notices(base.take()) if notice == "stack_up"] == []


def test_what_a_base_holds_is_no_news() -> None:
    base = Rig("z")
    base.publish("b", {"a": 3})
    rig = Rig(base=base)
    assert transitions(rig, "b") == []
    rig.link_up("b")
    assert transitions(rig, "b") == ["stack_up"]
