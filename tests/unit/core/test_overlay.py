"""How many links a node wants, to whom, and which of them is one too many."""

from __future__ import annotations

from string import ascii_lowercase

import pytest

from tektonmesh.core import overlay as ov
from tektonmesh.core.events import LinkUp
from tektonmesh.core.overlay import Overlay
from tektonmesh.core.types import StackId
from tests.liveness import Rig, id_of
from tests.support import make_keys, number_of

NEAR_S, MIDDLE_S, FAR_S = 0.001, 0.02, 0.2
"""Round trips; the costs are a few, some twenty and some two hundred ms."""


class Mesh:
    """The overlay of stack "a", and the mesh around it. `busy` are the stacks that do not rest,
    beside those that are linked."""

    def __init__(self, wanted: int = 3, *, full_mesh: int = 1, rng_seed: int = 1) -> None:
        self.rig = Rig(
            rng_seed=rng_seed,
            links_full_mesh_max=full_mesh,
            links_min=wanted,
            links_max=wanted,
            ping_interval_s=1e6,
        )
        self.busy: dict[StackId, None] = {}
        self.overlay = Overlay(self.rig.env, self.rig.replica, self.rig.neighbours, self._rests)
        self._links = 0

    def _rests(self, stack: StackId) -> bool:
        return stack not in self.busy and self.rig.neighbours.link_to(stack) is None

    def edges(self, *edges: tuple[str, str, int]) -> None:
        """Everybody but this node publishes these edges, each with its cost."""
        links: dict[str, dict[str, int]] = {}
        for one, other, cost in edges:
            links.setdefault(one, {})[other] = cost
            links.setdefault(other, {})[one] = cost
        for name, claims in links.items():
            if name != "a":
                self.rig.publish(name, claims)

    def full(self, names: str) -> None:
        """All of these are linked with each other."""
        self.edges(*((one, two, 3) for one in names for two in names if one < two))

    def link(self, name: str, rtt_s: float = NEAR_S, *, outbound: bool = True) -> None:
        _keys, identity = make_keys(number_of(name), name=name)
        self._links += 1
        event = LinkUp(
            self._links,
            identity.stack_id,
            name,
            identity.keydoc,
            instance=b"run 1",
            addresses=(),
            address=f"{name}:1",
            outbound=outbound,
        )
        self.rig.neighbours.resume_link(event, rtt_s)

    def excess(self, *kept: str) -> StackId | None:
        ids = [id_of(name) for name in kept]
        return self.overlay.excess(lambda stack: stack in ids)

    def near(self, name: str) -> None:
        """This stack is the one that is found to be nearer, and is being dialled."""
        assert self.overlay.nearer() == id_of(name)
        self.busy[id_of(name)] = None


def crowd(mesh: Mesh, count: int) -> list[StackId]:
    names = [one + two for one in ascii_lowercase for two in ascii_lowercase][:count]
    for name in names:
        mesh.rig.publish(name)
    return [id_of(name) for name in names]


# --- how many ------------------------------------------------------------------------------------


def test_a_small_mesh_is_linked_in_full() -> None:
    mesh = Mesh(full_mesh=4)
    crowd(mesh, 4)
    assert mesh.overlay.small and mesh.overlay.wanted() == 3
    assert mesh.overlay.missing(1, 1) == 1
    assert mesh.overlay.missing(3, 1) == -1


def test_a_large_mesh_wants_the_logarithmic_degree() -> None:
    mesh = Mesh()
    mesh.rig.env.settings = Rig(links_full_mesh_max=4, links_min=3, links_max=10).env.settings
    crowd(mesh, 100)
    assert not mesh.overlay.small and mesh.overlay.wanted() == 5
    assert mesh.overlay.missing(2, 1) == 2


def test_every_third_wanted_link_is_to_be_of_our_own_choice() -> None:
    mesh = Mesh(6)
    mesh.full("bcdefgh")
    for name in "bcdefg":
        mesh.link(name, outbound=False)
    assert mesh.overlay.missing(6, 0) == 2
    assert mesh.overlay.missing(6, 1) == 1, "a dial under way is one of them"
    mesh.link("h", outbound=True)
    assert mesh.overlay.missing(7, 0) == 1


def test_with_links_enough_of_our_own_nothing_is_missing() -> None:
    mesh = Mesh(3)
    mesh.full("bcd")
    mesh.link("b")
    mesh.link("c", outbound=False)
    mesh.link("d", outbound=False)
    assert mesh.overlay.missing(3, 0) == 0


# --- to whom -------------------------------------------------------------------------------------


def test_near_stacks_and_drawn_ones_are_picked_by_turns() -> None:
    mesh = Mesh(8)
    mesh.edges(("b", "a", 3), ("b", "c", 3), ("b", "d", 9))
    mesh.link("b")
    others = crowd(mesh, 20)
    picked = mesh.overlay.pick(4)
    assert picked[0] == id_of("c"), "the nearest one first"
    assert picked[2] == id_of("d")
    assert picked[1] in others and picked[3] in others
    assert len(dict.fromkeys(picked)) == 4


def test_a_stack_that_was_drawn_already_is_not_picked_again_as_a_near_one() -> None:
    for rng_seed in range(8):
        mesh = Mesh(8, rng_seed=rng_seed)
        mesh.edges(("b", "a", 3), ("b", "c", 3), ("b", "d", 9), ("b", "e", 9))
        mesh.link("b")
        picked = mesh.overlay.pick(9)
        assert sorted(picked) == sorted(map(id_of, "cde"))


def test_the_nearest_is_judged_by_the_cheapest_way() -> None:
    mesh = Mesh(8)
    mesh.edges(("a", "b", 3), ("a", "c", 3), ("b", "x", 40), ("c", "x", 5), ("b", "y", 20))
    mesh.link("b")
    mesh.link("c")
    assert mesh.overlay.pick(1) == [id_of("x")]


def test_who_does_not_rest_is_never_picked() -> None:
    mesh = Mesh(8)
    mesh.edges(("b", "a", 3), ("b", "c", 3), ("b", "d", 9))
    mesh.link("b")
    mesh.busy[id_of("c")] = None
    assert mesh.overlay.pick(9) == [id_of("d")]


def test_a_node_never_picks_itself() -> None:
    mesh = Mesh(8)
    mesh.rig.owner.start()
    mesh.rig.owner.saved(1)
    mesh.rig.advance(2.0)
    assert mesh.rig.replica.has(mesh.rig.me)
    assert mesh.overlay.pick(2) == []


def test_nobody_is_picked_where_nobody_is_known() -> None:
    assert Mesh().overlay.pick(3) == []


def test_the_draw_is_by_lot_from_everyone() -> None:
    found: dict[StackId, None] = {}
    for rng_seed in range(40):
        mesh = Mesh(8, rng_seed=rng_seed)
        names = crowd(mesh, 6)
        found |= dict.fromkeys(mesh.overlay.pick(1))
    assert sorted(found) == sorted(names)


def test_the_passive_view_is_bounded_and_drawn_anew_when_used_up() -> None:
    mesh = Mesh(8)
    crowd(mesh, ov.PASSIVE_SIZE + 20)
    first = mesh.overlay.pick(100)
    assert len(first) == ov.PASSIVE_SIZE
    mesh.busy |= dict.fromkeys(first)
    assert mesh.overlay.pick(1) == [], "not more often than once a second"
    mesh.rig.env.now += ov.REDRAW_MIN_S
    again = mesh.overlay.pick(100)
    assert again
    assert all(stack not in first for stack in again)


def test_a_used_up_view_without_anyone_else_stays_empty() -> None:
    mesh = Mesh(8)
    mesh.busy |= dict.fromkeys(crowd(mesh, 3))
    assert mesh.overlay.pick(1) == []
    mesh.rig.env.now += ov.REDRAW_MIN_S
    assert mesh.overlay.pick(1) == []


def test_an_old_passive_view_is_drawn_anew() -> None:
    mesh = Mesh(8)
    crowd(mesh, 5)
    mesh.overlay.renew()
    late = "zz"
    mesh.rig.publish(late)
    assert id_of(late) not in mesh.overlay.pick(3)
    mesh.rig.env.now += ov.PASSIVE_RENEW_S
    assert id_of(late) in mesh.overlay.pick(6)


def test_a_stack_whose_lease_is_over_is_not_drawn() -> None:
    mesh = Mesh(8)
    crowd(mesh, 3)
    mesh.rig.advance(1000.0)
    mesh.rig.publish("zz")
    assert mesh.overlay.pick(9) == [id_of("zz")]


# --- a nearer one --------------------------------------------------------------------------------


def shortcut(wanted: int = 3, cost: int = 5) -> Mesh:
    """Two links, a far one and a near one, and beyond the near one stack "d"."""
    mesh = Mesh(wanted)
    mesh.edges(("a", "b", 202), ("a", "c", 3), ("c", "d", cost))
    mesh.link("b", FAR_S)
    mesh.link("c", NEAR_S)
    return mesh


def test_a_stack_much_nearer_than_the_farthest_link_is_worth_one_more() -> None:
    assert shortcut().overlay.nearer() == id_of("d")


def test_a_stack_not_half_as_far_is_not_worth_a_link() -> None:
    mesh = shortcut()
    farthest = max(link.cost.ms for link in mesh.rig.neighbours.links.values())
    near = min(link.cost.ms for link in mesh.rig.neighbours.links.values())
    bound = farthest // 2 - near
    assert shortcut(cost=bound - 1).overlay.nearer() == id_of("d")
    assert shortcut(cost=bound + 1).overlay.nearer() is None


def test_with_as_many_links_as_may_be_nothing_nearer_is_looked_for() -> None:
    mesh = shortcut(2)
    for name in "ef":
        assert mesh.overlay.nearer() == id_of("d")
        mesh.link(name)
    assert mesh.overlay.nearer() is None, "four links, where two are wanted"


def test_nothing_is_nearer_where_nobody_rests_or_no_link_is() -> None:
    mesh = shortcut()
    mesh.busy[id_of("d")] = None
    assert mesh.overlay.nearer() is None
    lonely = Mesh()
    crowd(lonely, 9)
    assert lonely.overlay.nearer() is None


def test_in_a_small_mesh_nothing_nearer_is_looked_for() -> None:
    mesh = Mesh(full_mesh=9)
    mesh.edges(("a", "b", 202), ("a", "c", 3), ("c", "d", 5))
    mesh.link("b", FAR_S)
    mesh.link("c", NEAR_S)
    assert mesh.overlay.nearer() is None


def test_with_half_of_the_links_near_a_single_new_one_is_drawn() -> None:
    mesh = Mesh(2)
    mesh.edges(("a", "b", 202), ("a", "c", 3), ("c", "d", 5), ("c", "e", 50))
    mesh.link("b", FAR_S)
    mesh.link("c", NEAR_S)
    mesh.overlay.renew()
    mesh.rig.publish("zz")
    assert mesh.overlay.pick(1) == [id_of("d")]
    mesh.near("d")
    found: dict[StackId, None] = {}
    for _ in range(20):
        mesh.rig.env.now += ov.PASSIVE_RENEW_S
        found |= dict.fromkeys(mesh.overlay.pick(1))
    assert id_of("zz") in found


# --- which is too many ---------------------------------------------------------------------------


def crowded(wanted: int = 1, names: str = "bcde", **inbound: float) -> Mesh:
    """Everybody is linked with everybody; this node has a link more than it bears, the later ones
    in the alphabet the farther. The links of `inbound` were dialled by the others."""
    mesh = Mesh(wanted)
    mesh.full("a" + names)
    for at, name in enumerate(names):
        mesh.link(name, NEAR_S * 4**at, outbound=name not in inbound)
    return mesh


def test_of_too_many_links_the_farthest_is_one_too_many() -> None:
    assert crowded().excess() == id_of("e")


def test_up_to_two_links_above_the_wanted_number_are_left_alone() -> None:
    assert crowded(2, "bcde").excess() is None
    assert crowded(2, "bcdef").excess() == id_of("f")


def test_in_a_small_mesh_no_link_is_too_many() -> None:
    mesh = crowded()
    mesh.rig.env.settings = Rig(links_full_mesh_max=9).env.settings
    assert mesh.excess() is None


def test_a_link_that_is_to_be_kept_is_not_too_many() -> None:
    mesh = crowded()
    assert mesh.excess("e") == id_of("d")
    assert mesh.excess(*"bcde") is None


def test_a_peer_that_has_no_links_to_spare_keeps_its_own() -> None:
    mesh = crowded(1, "bcdef")
    assert mesh.excess() == id_of("f")
    mesh.rig.publish("f", {"a": 3, "b": 3, "c": 3})
    assert mesh.excess() == id_of("e")


def test_the_links_that_this_node_chose_itself_are_kept_while_they_are_few() -> None:
    assert crowded(1, "bcde", b=1, c=1, d=1).excess() == id_of("d"), "the only one is kept"
    assert crowded(1, "bcde", b=1, c=1).excess() == id_of("e"), "of two one may go"


def test_a_link_that_was_taken_for_being_near_outlives_a_farther_one() -> None:
    mesh = Mesh(1)
    mesh.full("abcde")
    mesh.link("b", NEAR_S)
    mesh.link("c", FAR_S)
    mesh.busy[id_of("e")] = None
    mesh.near("d")
    mesh.link("d", FAR_S * 2)
    mesh.link("e", MIDDLE_S)
    assert mesh.excess() == id_of("c")


def test_of_too_many_near_links_the_farthest_goes() -> None:
    mesh = Mesh(1)
    mesh.full("abcde")
    mesh.link("b", NEAR_S)
    mesh.link("c", FAR_S)
    first, second = sorted("de", key=id_of)
    mesh.near(first)
    mesh.near(second)
    mesh.link(first, NEAR_S)
    mesh.link(second, MIDDLE_S)
    assert mesh.excess() == id_of(second), "not the far one: by lot it is that the mesh holds"


def test_a_near_link_goes_where_no_other_can() -> None:
    mesh = Mesh(1)
    mesh.full("abcde")
    mesh.link("b", NEAR_S)
    mesh.link("c", FAR_S)
    mesh.busy[id_of("e")] = None
    mesh.near("d")
    mesh.link("d", NEAR_S)
    mesh.link("e", MIDDLE_S)
    assert mesh.excess(*"bce") == id_of("d")


@pytest.mark.parametrize("kept", [False, True])
def test_a_near_link_that_is_gone_does_not_count_as_near(kept: bool) -> None:
    mesh = Mesh(1)
    mesh.full("abcdef")
    mesh.link("b", NEAR_S)
    mesh.link("c", FAR_S)
    first, second, third = sorted("def", key=id_of)
    mesh.near(first)
    mesh.near(second)
    mesh.link(first, NEAR_S)
    mesh.link(second if kept else third, MIDDLE_S)
    assert mesh.excess() == id_of(second if kept else "c")
