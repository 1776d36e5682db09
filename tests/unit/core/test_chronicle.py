"""What a node remembers of the last changes, for people."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.core import chronicle as ch
from tektonmesh.core.chronicle import Chronicle, Loss
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.types import Version
from tests.liveness import id_of, link_records
from tests.network import Network
from tests.support import Author, Member

LINK = 1


class Remembered(Member):
    """A member with a chronicle; `tell` applies what an author signs."""

    def __init__(self, **settings: Any) -> None:
        super().__init__("a", **settings)
        neighbours = Neighbours(self.env, self.owner, self.clock, self.antientropy)
        self.chronicle = Chronicle(self.env, self.replica, neighbours)
        self.replica.watch(self.chronicle.on_change)

    def tell(self, author: Author, values: dict[str, Any] | None = None, **more: Any) -> None:
        self.replica.apply(author.delta(values, **more), LINK)

    def kinds(self, author: Author) -> list[str]:
        return [entry.kind for entry in self.chronicle.entries(author.id)]

    def held(self, *authors: Author) -> int:
        return sum(len(self.chronicle.entries(author.id)) for author in authors)


# --- entries -------------------------------------------------------------------------------------


def test_a_change_leaves_an_entry_with_its_version_and_keys_the_newest_first() -> None:
    member, author = Remembered(), Author(2)
    assert member.chronicle.entries(author.id) == []
    member.tell(author, {"ci/x": {}})
    member.env.now += 1.5
    member.tell(author, {"ci/y": {}, "ci/x": {"a": 1}})
    new, first = member.chronicle.entries(author.id)
    assert (new.kind, first.kind) == ("content", "new")
    assert new.keys == ("ci/x", "ci/y") and new.keys_total == 2
    assert (new.version, first.version) == (Version(0, 5, 2), Version(0, 5, 1))
    assert new.content_version.content_ver == 2
    assert new.head_hash == member.replica.owners[author.id].head_hash
    assert (new.at - first.at, new.mesh_ms - first.mesh_ms) == (1.5, 1500)
    assert (first.late_ms, new.late_ms) == (0, 1500)


def test_a_head_from_our_future_is_not_late() -> None:
    member, author = Remembered(), Author(2)
    author.hlc += 5000
    member.tell(author, {"ci/x": {}})
    assert member.chronicle.entries(author.id)[0].late_ms == 0


def test_refreshes_are_counted_and_not_listed() -> None:
    member, author = Remembered(), Author(2)
    assert member.chronicle.refreshes(author.id) == 0
    member.tell(author, {"ci/x": {}})
    member.tell(author)
    member.tell(author)
    assert member.kinds(author) == ["new"]
    assert member.chronicle.refreshes(author.id) == 2


def test_a_refresh_of_an_owner_without_entries_counts_nowhere() -> None:
    member, author = Remembered(chronicle_max=1), Author(2)
    member.tell(author, {"ci/x": {}})
    member.tell(Author(3), {"ci/x": {}})
    member.tell(author)
    assert member.chronicle.refreshes(author.id) == 0


def test_keys_beyond_the_first_are_a_number() -> None:
    member, author = Remembered(), Author(2)
    member.tell(author, {f"ci/{n:02}": {} for n in range(40)})
    (entry,) = member.chronicle.entries(author.id)
    assert entry.keys == tuple(f"ci/{n:02}" for n in range(ch.KEYS_PER_ENTRY))
    assert entry.keys_total == 40


def test_the_end_of_a_lease_is_an_entry_that_nobody_brought() -> None:
    member, author = Remembered(), Author(2)
    member.tell(author, {"ci/x": {}})
    member.wait(400.0)
    ended, _new = member.chronicle.entries(author.id)
    assert (ended.kind, ended.keys, ended.keys_total) == ("expired", ("ci/x",), 1)
    assert (ended.source, ended.late_ms) == (None, None)


def test_an_owner_that_is_forgotten_leaves_its_place_to_others() -> None:
    member = Remembered(chronicle_max=2)
    gone, one, two, three = (Author(n) for n in (2, 3, 4, 5))
    for author in (gone, one):
        member.tell(author, {"ci/x": {}})
    member.replica.drop(gone.id)
    assert member.kinds(gone) == []
    member.tell(two, {"ci/x": {}})
    assert member.held(one, two) == 2
    member.tell(three, {"ci/x": {}})
    member.replica.drop(one.id)
    assert member.kinds(one) == [] and member.held(two, three) == 2, "one had no entry left"


def test_a_contradiction_is_an_entry() -> None:
    member, author = Remembered(), Author(2)
    member.tell(author, {"ci/x": {}})
    author.ver -= 1
    member.tell(author, {"ci/x": {"a": 1}}, full=True)
    assert "flagged" in member.kinds(author)


def test_a_stack_that_changes_often_pushes_out_its_own_past_only() -> None:
    member, quiet, busy = Remembered(), Author(2), Author(3)
    member.tell(quiet, {"ci/x": {}})
    for n in range(100):
        member.tell(busy, {"ci/x": {"n": n}})
    assert len(member.chronicle.entries(busy.id)) == ch.ENTRIES_PER_OWNER
    assert member.chronicle.entries(busy.id)[0].version == Version(0, 5, 100)
    assert member.kinds(quiet) == ["new"]


def test_over_the_whole_bound_the_quietest_owner_loses_its_oldest_entry() -> None:
    member = Remembered(chronicle_max=4)
    quiet, second, third = Author(2), Author(3), Author(4)
    for n in range(2):
        member.tell(quiet, {"ci/x": {"n": n}})
    member.tell(second, {"ci/x": {}})
    member.tell(third, {"ci/x": {}})
    assert member.held(quiet, second, third) == 4
    member.tell(third, {"ci/y": {}})
    assert member.kinds(quiet) == ["content"]
    member.tell(third, {"ci/z": {}})
    assert member.kinds(quiet) == []
    member.tell(second, {"ci/z": {}})
    assert member.held(quiet, second, third) == 4
    assert member.kinds(second) == ["content", "new"]


def test_with_no_room_nothing_is_kept() -> None:
    member, author = Remembered(chronicle_max=0), Author(2)
    member.tell(author, {"ci/x": {}} | link_records({"b": (5, "suspect")}))
    member.tell(author)
    assert member.chronicle.entries(author.id) == []
    assert member.chronicle.losses(id_of("b")) == {}


def test_an_entry_names_the_neighbour_whose_link_brought_it() -> None:
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    chronicle = network["a"].node.chronicle
    assert {entry.source for entry in chronicle.entries(network["c"].id)} == {network["b"].id}
    own = chronicle.entries(network["a"].id)
    assert {(entry.source, entry.late_ms) for entry in own} == {(None, None)}


# --- what is said of links -----------------------------------------------------------------------


def test_a_suspicion_and_a_withdrawal_are_kept_until_the_link_is_up_again() -> None:
    member, author = Remembered(), Author(2)
    member.tell(author, link_records({"b": 5, "c": 5}))
    assert member.chronicle.losses(id_of("b")) == {}
    member.tell(author, link_records({"b": (5, "suspect")}))
    assert member.chronicle.losses(id_of("b")) == {author.id: Loss("suspect", member.env.now)}
    member.env.now += 1.0
    member.tell(author, delete=tuple(link_records({"b": 5})))
    assert member.chronicle.losses(id_of("b")) == {author.id: Loss("withdrawn", member.env.now)}
    member.tell(author, link_records({"b": 7}))
    assert member.chronicle.losses(id_of("b")) == member.chronicle.losses(id_of("c")) == {}


def test_each_stack_has_its_own_word_on_a_link() -> None:
    member, one, two = Remembered(), Author(2), Author(3)
    for author in (one, two):
        member.tell(author, link_records({"b": 5}))
        member.tell(author, link_records({"b": (5, "suspect")}))
    member.tell(two, delete=tuple(link_records({"b": 5})))
    losses = member.chronicle.losses(id_of("b"))
    assert {author: loss.state for author, loss in losses.items()} == {
        one.id: "suspect",
        two.id: "withdrawn",
    }


def test_a_stack_that_is_forgotten_has_withdrawn_its_links() -> None:
    member, author = Remembered(), Author(2)
    member.tell(author, link_records({"b": 5}))
    member.replica.drop(author.id)
    assert member.chronicle.losses(id_of("b"))[author.id].state == "withdrawn"


def test_losses_are_bounded_and_the_oldest_go_first() -> None:
    member, author = Remembered(chronicle_max=4 * ch.LOSSES_PART), Author(2)
    for name in "bcdefg":
        member.tell(author, link_records({name: (5, "suspect")}))
    kept = [name for name in "bcdefg" if member.chronicle.losses(id_of(name))]
    assert kept == ["d", "e", "f", "g"]


# --- the own links -------------------------------------------------------------------------------


def test_the_end_of_an_own_link_is_remembered_with_its_reason_until_there_is_one_again() -> None:
    member = Remembered()
    chronicle, peer = member.chronicle, id_of("b")
    chronicle.link_up(1, peer)
    chronicle.link_up(2, peer)
    assert chronicle.end(peer) is None
    chronicle.link_down(1, "The peer does not answer.")
    assert chronicle.end(peer) is None
    member.env.now += 3.0
    chronicle.link_down(2, "x" * 500)
    end = chronicle.end(peer)
    assert end is not None
    assert (end.why, end.at) == ("x" * ch.END_SIZE_MAX, member.env.now)
    chronicle.link_down(2, "twice")
    chronicle.link_up(3, peer)
    assert chronicle.end(peer) is None and chronicle.end(id_of("c")) is None


def test_only_the_last_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ch, "ENDS_MAX", 2)
    chronicle = Remembered().chronicle
    for link, name in enumerate("bcdb"):
        chronicle.link_up(link, id_of(name))
        chronicle.link_down(link, "reset")
    assert [name for name in "bcd" if chronicle.end(id_of(name)) is not None] == ["b", "d"]
