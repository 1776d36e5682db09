"""Why a stack is in its state, in words that name who said what."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.reasons import duration, reason
from tektonmesh.core.types import Status
from tests.liveness import Links, Stack, id_of, link_records
from tests.network import Network
from tests.support import make_keys, number_of


def why(network: Network, here: str, name: str) -> str:
    """The reason as of now: a node's clock is that of its last turn."""
    network.handle(network[here], ev.Tick())
    node = network[here].node
    return reason(node, id_of(name), len(node.paths.path(id_of(name))) - 1)


def state(network: Network, here: str, name: str) -> str:
    return str(network[here].node.graph.state(id_of(name)))


class Told:
    """One node and the stacks of which a test writes the records by hand."""

    def __init__(self, **settings: Any) -> None:
        self.network = Network("a", **settings)
        self.network.settle()
        self.node = self.network["a"].node
        self.stacks: dict[str, Stack] = {}

    def publish(
        self, name: str, links: Links | None = None, status: Status = Status.UP, **more: Any
    ) -> None:
        records = {"stack/self": {"name": name}} | link_records(links or {}) | more
        self.network.handle(self.network["a"], ev.Tick())
        stack = self.stacks.setdefault(name, Stack(name))
        self.node.replica.apply(stack.delta(records, self.node.clock.now_ms(), status), 0)

    def why(self, name: str) -> str:
        return why(self.network, "a", name)


def test_what_nobody_knows_has_no_reason() -> None:
    assert Told().why("b") == "Nothing is known of it."


# --- this stack ----------------------------------------------------------------------------------


def test_the_stack_that_is_asked_says_so_and_what_is_wrong_with_it() -> None:
    told = Told()
    own = "This is the stack that you ask."
    assert told.why("a") == f"{own} It has no link to any other stack."
    told.network.add("b")
    told.network.join("a", "b")
    assert told.why("a") == own


def test_a_stack_that_has_not_published_yet_says_so() -> None:
    network = Network("a", seed_peers=("b:7700",))
    assert "It has published nothing yet." in why(network, "a", "a")


def test_a_fenced_stack_says_that_it_publishes_nothing_more() -> None:
    told = Told()
    told.node.owner.outbid(told.node.owner.replica.owners[id_of("a")].version._replace(
        epoch=2**48 - 1
    ))  # fmt: skip
    assert "It publishes nothing more" in told.why("a")


def test_a_clock_that_is_off_is_told_of_this_stack_and_where_it_keeps_another_listed() -> None:
    told = Told()
    told.publish("b", {"a": 5})
    told.network.run(320.0)
    assert "stays listed half a minute longer" in told.why("b")
    told.network.handle(told.network["a"], ev.WallClock(1.0))
    assert "Its clock is over a minute from that of the mesh" in told.why("a")
    assert "stays listed while the clocks disagree" in told.why("b")


# --- up ------------------------------------------------------------------------------------------


def test_a_neighbour_is_up_because_it_was_heard() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c", "a")
    heard = network.now - next(
        link.heard
        for link in network["a"].node.neighbours.links.values()
        if link.stack_id == id_of("b")
    )
    said = f"This stack is linked to it and heard it {duration(heard)} ago."
    assert why(network, "a", "b") == said


def test_a_stack_behind_others_is_up_because_a_path_leads_there() -> None:
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "c", "d", "b")
    assert why(network, "a", "c") == "A path of 2 hops leads there."


def test_a_stack_with_one_neighbour_is_marked_as_seen_by_that_one_only() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    said = "Only b is linked to it, so only b can tell whether it lives."
    assert why(network, "a", "c").endswith(said)
    said = "Only this stack is linked to it, so only this stack can tell whether it lives."
    assert why(network, "b", "c").endswith(said)


def test_a_stack_that_is_about_to_leave_is_marked() -> None:
    told = Told()
    _keys, identity = make_keys(number_of("b"), name="b")
    event = ev.LinkUp(9, id_of("b"), "b", identity.keydoc, b"run 1", (), "b:7700", False)
    told.network.handle(told.network["a"], event)
    told.publish("b", {"a": 5}, Status.DRAINING)
    assert state(told.network, "a", "b") == "up"
    assert "It says that it is about to leave." in told.why("b")


def test_a_stack_that_only_suspect_links_lead_to_is_up_and_gets_nothing() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    network.passes = lambda _from, _to, _message: False
    while network["a"].node.neighbours.link_to(id_of("b")) is not None:
        network.run(0.1)
    assert state(network, "a", "b") == "up"
    assert why(network, "a", "b").startswith("The links that lead there are suspect")


# --- gone ----------------------------------------------------------------------------------------


def test_a_stack_that_left_said_so_itself() -> None:
    told = Told()
    told.publish("b", {}, Status.LEFT)
    told.network.run(12.0)
    assert told.why("b") == "It said itself 12 s ago that it leaves."


def test_a_stack_is_deregistered_because_its_lease_ended() -> None:
    told = Told()
    told.publish("b")
    told.network.run(340.0)
    assert state(told.network, "a", "b") == "deregistered"
    assert told.why("b") == "Its lease ended 40 s ago, and nothing newer came of it."


# --- unreachable ---------------------------------------------------------------------------------


def ring() -> Network:
    """a to e in a ring."""
    network = Network("a", "b", "c", "d", "e", links_full_mesh_max=0, links_min=0)
    network.join("a", "b", "c", "d", "e", "a")
    return network


def test_a_killed_stack_is_unreachable_because_its_neighbours_withdrew_their_links() -> None:
    network = ring()
    network.kill("d")
    network.run(3.0)
    assert state(network, "a", "d") == "unreachable"
    said = why(network, "a", "d")
    assert said.startswith("No path leads there. Of its 2 neighbours, c and e withdrew their links")
    assert said.endswith(" s ago.")


def test_a_neighbour_that_died_is_told_of_with_the_end_of_the_own_link() -> None:
    network = ring()
    network.kill("b")
    network.run(3.0)
    said = why(network, "a", "b")
    assert "The link of this stack to it ended 3.0 s ago: reset." in said
    assert "c and this stack withdrew their links" in said


def test_a_neighbour_that_left_and_one_that_is_cut_off_too_are_told_apart() -> None:
    network = ring()
    network.cut("a", "b")
    network.cut("a", "e")
    network.run(3.0)
    said = why(network, "a", "c")
    assert said.startswith("This stack has no link to anybody, so no path leads anywhere.")
    assert "Of its 2 neighbours, b and d are not reachable either." in said


def test_a_stack_with_one_neighbour_was_seen_by_that_one_only() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    network.kill("c")
    network.run(3.0)
    said = why(network, "a", "c")
    assert "Its only neighbour, b, withdrew its link 2.0 s ago." in said
    assert said.endswith("Nobody else can tell whether it lives.")


def test_what_the_two_ends_say_differently_is_told() -> None:
    told = Told()
    told.network.add("z")
    told.network.join("a", "z")
    told.publish("b", {"c": (5, "suspect")})
    told.publish("c", {"b": 5})
    told.publish("d", {"c": 5})
    assert "Its only neighbour, c, is not reachable either." in told.why("b")
    assert "Its only neighbour, b, called its link suspect 0.0 s ago." in told.why("c")
    assert "Its only neighbour, c, says nothing of a link." in told.why("d")
    told.publish("e", {"d": (5, "suspect")})
    said = "Its only neighbour, c, says nothing of a link."
    assert said not in told.why("d"), "e speaks of a link as well"
    assert "e called its link suspect" in told.why("d")
    told.publish("f")
    assert told.why("f").endswith("It names no neighbour, and nobody names it.")


def test_a_claim_that_the_stack_does_not_confirm_is_told_if_there_is_no_other() -> None:
    told = Told()
    told.network.add("z")
    told.network.join("a", "z")
    told.publish("c", {"b": 5})
    told.publish("b")
    said = "Its only neighbour, c, says that it is linked, which it does not confirm."
    assert told.why("b").endswith(said)
    told.publish("c", status=Status.LEFT)
    assert "Its only neighbour, c, left." in told.why("b")


def test_neighbours_that_are_gone_are_told_by_how_they_went() -> None:
    told = Told()
    told.network.add("z")
    told.network.join("a", "z")
    told.publish("d", {"b": 5})
    told.network.run(200.0)
    for name in "bcefgh":
        told.publish(name, {"b": 5} if name != "b" else dict.fromkeys("cdefgh", 5))
    told.publish("c", {}, Status.LEFT)
    told.network.run(140.0)
    for name in "efgh":
        told.publish(name, {})
    said = told.why("b")
    assert "Of its 6 neighbours, " in said
    assert "c left" in said and "d is deregistered" in said
    assert "e, f, g and 1 more withdrew their links 0.0 s ago" in said
    assert "Its lease ended" not in said


def test_without_a_chronicle_the_words_are_told_without_their_age() -> None:
    told = Told(chronicle_max=0)
    told.network.add("z", chronicle_max=0)
    told.network.join("a", "z")
    told.publish("b", {"c": (5, "suspect")})
    told.publish("c", {"b": (5, "suspect")})
    assert "Its only neighbour, c, called its link suspect. Nobody else" in told.why("b")


def test_a_stack_that_contradicted_itself_says_so() -> None:
    told = Told()
    told.publish("b", {"a": 5})
    told.stacks["b"].ver -= 1
    told.publish("b", {}, **{"ci/x": {}})
    assert told.node.replica.owners[id_of("b")].equivocated
    said = "It signed two different states under one version (0.1.1 is kept here)"
    assert told.why("b").startswith(said)


def test_a_stack_with_a_record_that_cannot_be_read_says_so() -> None:
    told = Told()
    told.publish("b", {"a": 5}, **{"stack/self": 5})
    assert told.why("b").startswith("One of its records cannot be read")


def test_a_stack_of_which_a_change_did_not_fit_says_so() -> None:
    told = Told()
    told.publish("b", {"a": 5})
    told.node.replica.owners[id_of("b")].doubted = True
    assert "A change of it did not fit what is held here" in told.why("b")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.0, "119 s"), (120.0, "2 min"),
     (7200.0, "2 h"), (3 * 86400.0, "3 d")],
)  # fmt: skip
def test_a_length_of_time_is_told_in_one_unit(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
