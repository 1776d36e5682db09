"""Which neighbour is handed an envelope, best first."""

import pytest

from tektonmesh.core.types import Status, short_id
from tests.liveness import Rig, by_id, id_of


def hops(rig: Rig, dest: str, *exclude: str) -> list[tuple[str, int]]:
    """(name of the next hop, cost of the path) of the candidates, best first."""
    names = {id_of(name): name for name in "abcdefgh"}
    shorts = [short_id(id_of(name)) for name in exclude]
    found = rig.paths.candidates(id_of(dest), exclude=shorts)
    return [(names[hop.stack_id], hop.cost) for hop in found]


def path(rig: Rig, dest: str) -> str:
    names = {id_of(name): name for name in "abcdefgh"}
    return "".join(names[stack] for stack in rig.paths.path(id_of(dest)))


def test_a_neighbour_is_its_own_next_hop() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    (hop,) = rig.paths.candidates(id_of("b"))
    assert (hop.link, hop.stack_id, hop.cost) == (1, id_of("b"), 3)
    assert path(rig, "b") == "ab"


def test_candidates_are_sorted_by_the_cost_of_the_whole_path() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 4), ("b", "d", 9), ("c", "d", 5))
    assert hops(rig, "d") == [("c", 9), ("b", 12)]
    assert path(rig, "d") == "acd"
    assert rig.paths.cost(id_of("d")) == 9


def test_a_path_of_many_hops_is_found() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3), ("d", "e", 3))
    assert path(rig, "e") == "abcde"
    assert rig.paths.cost(id_of("e")) == 12


def test_equal_paths_are_ordered_by_id() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 3), ("b", "d", 3), ("c", "d", 3))
    assert [name for name, _cost in hops(rig, "d")] == by_id("b", "c")


def test_a_path_never_leads_back_through_this_stack() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 3), ("c", "d", 3))
    assert hops(rig, "d") == [("c", 6)]


@pytest.mark.parametrize(("direct", "first"), [(7, "d"), (8, "b")])
def test_a_direct_link_wins_up_to_a_quarter_more(direct: int, first: str) -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "d", 3), ("a", "d", direct))
    assert hops(rig, "d")[0][0] == first
    assert len(hops(rig, "d")) == 2


def test_the_shown_path_takes_direct_links_of_relays_too() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3), ("b", "d", 7))
    assert path(rig, "d") == "abd"


def test_a_stack_that_does_not_relay_is_no_way_but_can_be_reached() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "d", 3), ("a", "c", 9), ("c", "d", 9))
    rig.publish("b", {"a": 3, "d": 3}, relay="none")
    assert hops(rig, "d") == [("c", 18)]
    assert hops(rig, "b")[0] == ("b", 3)


def test_a_stack_that_does_not_relay_is_no_way_further_on_either() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3))
    rig.publish("c", {"b": 3, "d": 3}, relay="none")
    assert hops(rig, "d") == []
    assert path(rig, "d") == ""
    assert rig.paths.cost(id_of("d")) is None


def test_a_draining_stack_is_passed_only_when_there_is_no_other_way() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "d", 3), ("a", "c", 9), ("c", "d", 9))
    rig.publish("b", {"a": 3, "d": 3}, status=Status.DRAINING)
    assert [name for name, _cost in hops(rig, "d")] == ["c", "b"]
    assert path(rig, "d") == "acd"


def test_a_suspect_link_is_no_candidate() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 3), ("b", "d", 3), ("c", "d", 3))
    rig.link_down(1 if rig.neighbours.links[1].stack_id == id_of("b") else 2)
    assert hops(rig, "d") == [("c", 6)]


def test_excluded_stacks_are_no_next_hops() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 4), ("b", "d", 3), ("c", "d", 3))
    assert hops(rig, "d", "b") == [("c", 7)]
    assert hops(rig, "d", "b", "c") == []
    assert hops(rig, "d", "d") == []


def test_the_cost_counts_only_ways_round_excluded_stacks() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3), ("b", "e", 9), ("e", "d", 9))
    assert hops(rig, "d", "c") == [("b", 21)]


def test_a_hop_whose_known_ways_lead_through_excluded_stacks_comes_last() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 30), ("b", "e", 3), ("e", "d", 3), ("c", "d", 30))
    assert hops(rig, "d") == [("b", 9), ("c", 60)]
    assert hops(rig, "d", "e") == [("c", 60), ("b", 9)]


def test_nothing_leads_to_this_stack_itself() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    assert hops(rig, "a") == []
    assert path(rig, "a") == "a"
    assert rig.paths.cost(rig.me) == 0


def test_nothing_leads_to_a_stranger() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3))
    assert hops(rig, "h") == []


def test_an_answer_holds_until_the_graph_changes() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    first = rig.paths.candidates(id_of("c"))
    assert rig.paths.candidates(id_of("c")) is first
    rig.publish("b", {"a": 3})
    assert rig.paths.candidates(id_of("c")) == []


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tektonmesh.core.paths.TABLES_MAX", 1)
    monkeypatch.setattr("tektonmesh.core.paths.CHOICES_MAX", 1)
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3))
    first = rig.paths.candidates(id_of("c"))
    rig.paths.candidates(id_of("b"))
    again = rig.paths.candidates(id_of("c"))
    assert again is not first
    assert again == first
    assert path(rig, "c") == "abc"


def test_two_links_to_one_stack_are_one_candidate() -> None:
    small, large = by_id("a", "b")
    rig = Rig(large)
    rig.publish(small, {large: 3})
    rig.link_up(small, outbound=True)
    preferred = rig.link_up(small, outbound=False)
    (hop,) = rig.paths.candidates(id_of(small))
    assert hop.link == preferred


# --- all at once ---------------------------------------------------------------------------------


def test_one_search_finds_the_paths_that_the_tables_find() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 4), ("c", "d", 5), ("a", "e", 20), ("e", "d", 1))
    ways = rig.paths.ways()
    for name in "abcde":
        stack = id_of(name)
        assert ways.path(stack) == rig.paths.path(stack)
        assert ways.cost(stack) == rig.paths.cost(stack)
    assert (ways.path(id_of("z")), ways.cost(id_of("z"))) == ([], None)


def test_a_way_that_turns_out_longer_is_left_again() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 9), ("b", "c", 1), ("c", "d", 1))
    ways = rig.paths.ways()
    assert ways.path(id_of("d")) == [id_of(name) for name in "abcd"]
    assert ways.cost(id_of("c")) == 4


def test_one_search_does_not_pass_who_does_not_relay_and_avoids_who_drains() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "d", 3), ("a", "c", 9), ("c", "d", 9))
    rig.publish("b", {"a": 3, "d": 3}, relay="none")
    ways = rig.paths.ways()
    assert ways.path(id_of("d")) == [id_of(name) for name in "acd"]
    assert ways.path(id_of("b")) == [rig.me, id_of("b")]
    rig.publish("b", {"a": 3, "d": 3}, status=Status.DRAINING)
    assert rig.paths.ways().path(id_of("d")) == [id_of(name) for name in "acd"]


def test_a_path_may_begin_with_another_next_hop_and_leave_stacks_out() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("a", "c", 4), ("b", "d", 9), ("c", "d", 9), ("b", "e", 3))
    names = {id_of(name): name for name in "abcde"}

    def by(via: str = "", *exclude: str) -> str:
        shorts = [short_id(id_of(name)) for name in exclude]
        found = rig.paths.path(id_of("d"), via=id_of(via) if via else None, exclude=shorts)
        return "".join(names[stack] for stack in found)

    assert (by(), by("c"), by("e")) == ("abd", "acd", "abd")
    assert by("", "b") == "acd"
    assert by("", "b", "c") == ""


def test_there_is_no_path_behind_a_hop_that_is_only_hoped_to_know_one() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "d", 3), ("a", "c", 3), ("c", "b", 3))
    assert hops(rig, "d", "b") != []
    assert rig.paths.path(id_of("d"), exclude=[short_id(id_of("b"))]) == []


def others_hops(rig: Rig, dest: str) -> list[str]:
    """The next hops for an envelope that is not our own."""
    names = {id_of(name): name for name in "abcdefgh"}
    found = rig.paths.candidates(id_of(dest), own=False)
    return [names[hop.stack_id] for hop in found]


def test_one_that_relays_for_its_peers_is_a_way_for_us_when_it_is_linked_with_us() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3))
    rig.publish("b", {"a": 3, "c": 3}, relay="peers")
    assert hops(rig, "d") == [("b", 9)]
    assert path(rig, "d") == "abcd"


def test_one_that_relays_for_its_peers_is_no_way_between_others() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "c", 3), ("c", "d", 3), ("d", "e", 3))
    rig.publish("c", {"b": 3, "d": 3}, relay="peers")
    assert hops(rig, "e") == []  # neither a nor e is linked with c
    assert hops(rig, "d") == [("b", 9)]  # d is
    assert path(rig, "d") == "abcd"


def test_for_the_envelope_of_another_one_that_relays_for_its_peers_comes_last() -> None:
    rig = Rig()
    rig.mesh(("a", "b", 3), ("b", "e", 3), ("e", "d", 3), ("a", "c", 9), ("c", "d", 9))
    rig.publish("b", {"a": 3, "e": 3}, relay="peers")
    assert [name for name, _cost in hops(rig, "d")] == ["b", "c"]
    assert others_hops(rig, "d") == ["c", "b"]
    assert others_hops(rig, "e") == ["b", "c"]
