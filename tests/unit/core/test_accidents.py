"""The table of accidents and attacks of the registry's design, row by row: each test names its row
and what must come of it. What single machines do in these cases is in their own files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.messages import Delta, Message
from tektonmesh.core.types import SignedHead, StackState, Status
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import pack
from tests.network import Member as Stack
from tests.network import Network
from tests.support import WALL_S, Author, Member, join, talk

WALL_MS = int(WALL_S * 1000)
LINK = 9
HOURS_8 = 8 * 3600.0


def chain(*names: str) -> Network:
    network = Network(*names)
    network.join(*names)
    return network


def shows(stack: Stack, owner: bytes) -> dict[str, bytes] | None:
    held = stack.node.replica.owners.get(owner)
    return None if held is None else held.records


def state(stack: Stack, owner: bytes) -> StackState:
    return stack.node.graph.state(owner)


def said_twice(author: Author) -> tuple[Delta, Delta]:
    """Two snapshots of one version."""
    twin = author.twin()
    return author.delta({"ci/one": {}}, full=True), twin.delta({"ci/two": {}}, full=True)


# --- restart -------------------------------------------------------------------------------------


def test_restart_a_stack_comes_back_above_everything_it_ever_said() -> None:
    network = chain("a", "b", "c")
    a, c = network["a"], network["c"]
    before = c.node.replica.owners[a.id].version
    saved = dict(a.saved)
    network.kill("a")
    network.now += 0.2
    again = network.add("a", saved)
    network.join("a", "b")
    held = c.node.replica.owners[a.id]
    assert held.version > before and held.head.epoch > before.epoch
    assert state(c, a.id) is StackState.UP
    assert again.notices("clone_fenced") == []


def test_restart_only_heads_with_our_signature_raise_the_epoch() -> None:
    member = Member("a").start()
    epoch = member.replica.owners[member.id].version.epoch
    thief = Author(1, epoch=2**47)
    thief.keys = Author(3).keys
    with pytest.raises(RemoteError, match="not our signature"):
        member.replica.apply(thief.delta({"ci/x": {}}), LINK)
    member.wait(5.0)
    assert member.replica.owners[member.id].version.epoch == epoch


# --- lost disk, restored backup ------------------------------------------------------------------


@pytest.mark.parametrize("backup", [False, True], ids=["lost disk", "restored backup"])
@pytest.mark.hostile("restored-backup")
def test_lost_disk_a_full_snapshot_under_a_higher_epoch_replaces_all_of_before(
    backup: bool,
) -> None:
    """A former run had a clock that was ahead, so nothing but its peers can tell how far it was."""
    network = chain("a", "b", "c")
    c, old = network["c"], dict(network["a"].saved)
    network.kill("a")
    network.add("a", old | {("meta", b"epoch"): pack(WALL_MS + 10**8)}).register("numa")
    network.join("a", "b")
    highest = c.node.replica.owners[network["a"].id].version
    assert highest.epoch > WALL_MS + 10**8
    assert c.node.replica.owners[network["a"].id].keys("ci") == ["ci/numa"]
    network.kill("a")
    again = network.add("a", old if backup else {})
    network.join("a", "b")
    held = c.node.replica.owners[again.id]
    assert held.version > highest
    assert held.keys("ci") == [], "what it does not say any more is gone everywhere"
    assert state(c, again.id) is StackState.UP


# --- cloned machine ------------------------------------------------------------------------------


@pytest.mark.hostile("clone")
def test_cloned_machine_the_newest_start_stays_and_the_other_falls_silent() -> None:
    relay = Member("c").start()
    old = Member("a", instance=b"old", now=1000.0).start()
    new = Member("a", instance=b"new", now=1000.0, wall_s=WALL_S + 20.0)
    links = [join(old, 1, relay, 1)]
    old.owner.put("ci/old", {})
    old.wait(1.0)
    talk(*links)
    new.start()
    new.owner.put("ci/new", {})
    links.append(join(new, 1, relay, 2))
    for _ in range(10):
        talk(*links, rounds=200)
        for member in (old, new, relay):
            member.wait(1.0)
    assert len(old.notices("clone_fenced")) == 1
    assert new.notices("clone_fenced") == []
    assert "ci/new" in (relay.shown(new.id) or {})
    assert "ci/old" not in (relay.shown(new.id) or {})


# --- equivocation --------------------------------------------------------------------------------


@pytest.mark.hostile("two-at-one-version")
def test_equivocation_everybody_keeps_the_smaller_hash_holds_the_proof_and_routes_nowhere() -> None:
    network = chain("a", "b", "c", "d")
    author = Author(50)
    one, two = said_twice(author)
    network["a"].node.replica.apply(one, LINK)
    network["d"].node.replica.apply(two, LINK)
    network.run(5.0)
    stacks = [network[name].node for name in "abcd"]
    held = [node.replica.owners[author.id] for node in stacks]
    assert len({it.signed for it in held}) == 1
    assert len({it.proof_digest for it in held}) == 1 and held[0].equivocated
    assert len({node.replica.fingerprint() for node in stacks}) == 1
    assert not any(node.replica.live(author.id) for node in stacks)


def test_equivocation_a_newer_epoch_is_believed_again() -> None:
    network = chain("a", "b", "c")
    author = Author(50)
    for delta in said_twice(author):
        network["a"].node.replica.apply(delta, LINK)
    network.run(2.0)
    author.epoch += 1
    network["c"].node.replica.apply(author.delta({"ci/x": {}}, full=True), LINK)
    network.run(2.0)
    nodes = [network[name].node for name in "abc"]
    assert all(node.replica.live(author.id) for node in nodes)
    assert len({node.replica.fingerprint() for node in nodes}) == 1


def test_equivocation_of_a_machine_that_was_resumed_from_a_copy_ends_by_itself() -> None:
    """The copy says something else under our version where only others hear of it."""
    network = chain("a", "b", "c")
    a, c = network["a"], network["c"]
    held = c.node.replica.owners[a.id]
    copy = Author(1, epoch=held.version.epoch)
    copy.ver, copy.content_ver = held.version.ver - 1, held.head.content_ver - 1
    twin = copy.delta({"ci/copy": {}}, full=True, instance=held.head.instance)
    c.node.replica.apply(twin, LINK)
    assert not c.node.replica.live(a.id)
    network.run(3.0)
    assert a.notices("self_contradicted")
    assert state(c, a.id) is StackState.UP
    assert "ci/copy" not in (shows(c, a.id) or {})
    assert a.notices("clone_fenced") == []


# --- replay, forgery, omission -------------------------------------------------------------------


def test_replay_old_and_expired_heads_are_dropped_before_any_signature_is_checked() -> None:
    member, author = Member("a").start(), Author(50)
    old = author.delta({"ci/x": {"v": 1}}, full=True)
    member.replica.apply(old, LINK)
    member.replica.apply(author.delta({"ci/x": {"v": 2}}), LINK)
    stale = Author(51).delta({"ci/x": {}}, hlc=WALL_MS - 10**7)
    early = Author(52).delta({"ci/x": {}}, hlc=WALL_MS + 10**7)
    author.keys.verify = pytest.fail  # type: ignore[method-assign]
    member.env.crypto = author.keys
    for delta in (old, stale, early):
        assert member.replica.apply(delta, LINK).value == "stale"


@pytest.mark.hostile("old-head-after-left")
def test_replay_who_left_stays_away_whatever_of_before_is_sent_again() -> None:
    network = chain("a", "b")
    author, b = Author(50), network["b"]
    said = [author.delta({"ci/x": {"v": n}}, full=True) for n in range(3)]
    for delta in said:
        b.node.replica.apply(delta, LINK)
    author.delta({}, delete=("ci/x",))
    left = author.delta(full=True, status=Status.LEFT, lease_s=900)
    b.node.replica.apply(left, LINK)
    for wait_s in (0.0, 100.0, 500.0, 400.0, 600.0):
        network.run(wait_s)
        for delta in said:
            b.node.replica.apply(delta, LINK)
        assert not b.node.replica.live(author.id)


def forged(author: Author) -> Delta:
    delta = author.delta({"ci/forged": {}}, full=True)
    return replace(delta, head=SignedHead(delta.head.head, bytes(64)))


def omitting(author: Author) -> Delta:
    delta = author.delta({"ci/x": {}, "ci/y": {}}, full=True)
    return replace(delta, puts=delta.puts[1:])


@pytest.mark.parametrize("lie", [forged, omitting])
@pytest.mark.hostile("signed-by-another")
def test_forgery_and_omission_cost_the_link_and_a_strike_and_show_nothing(lie: Any) -> None:
    network = chain("a", "b")
    b, author = network["b"], Author(50)
    (link,) = b.node.neighbours.links
    network.handle(b, ev.Received(link, (lie(author),)))
    assert b.of(fx.CloseLink) and len(b.notices("peer_struck")) == 1
    assert not b.node.replica.has(author.id)


@pytest.mark.hostile("withheld")
def test_omission_what_one_neighbour_withholds_another_one_brings() -> None:
    network = Network("a", "b", "c", "d")
    withheld = network["a"].id

    def passes(sender: str, _receiver: str, message: Message) -> bool:
        about = isinstance(message, Delta) and network["d"].node.replica.read_head(message.head)
        return not (sender == "b" and about and about.stack_id == withheld)

    network.passes = passes
    network.join("a", "b", "d")
    network.run(30.0)
    assert shows(network["d"], withheld) is None
    network.join("a", "c", "d")
    network.run(1.0)
    assert shows(network["d"], withheld) is not None


# --- key theft -----------------------------------------------------------------------------------


@pytest.mark.hostile("highest-version")
def test_key_theft_a_newer_key_epoch_beats_whatever_the_thief_signs() -> None:
    network = chain("a", "b", "c")
    author = Author(50)
    thief = author.twin()
    network["a"].node.replica.apply(author.delta({"ci/x": {}}), LINK)
    network.run(1.0)
    author.rotate(7, 60)  # receivers may have missed some
    network["a"].node.replica.apply(author.delta({"ci/mine": {}}, full=True), LINK)
    network.run(1.0)
    thief.epoch, thief.ver = 2**40, 2**40
    for name in "abc":
        network[name].node.replica.apply(thief.delta({"ci/theirs": {}}, full=True), LINK)
    network.run(5.0)
    for name in "abc":
        assert sorted(shows(network[name], author.id) or {}) == ["ci/mine", "ci/x"]
        assert network[name].node.replica.live(author.id)


def test_key_theft_a_rotation_stands_even_if_the_thief_was_first() -> None:
    author = Author(50)
    thief = author.twin()
    thief.epoch, thief.ver = 2**40, 2**40
    member = Member("a").start()
    member.replica.apply(thief.delta({"ci/theirs": {}}, full=True), LINK)
    author.rotate(1, 60)
    member.replica.apply(author.delta({"ci/mine": {}}, full=True), LINK)
    assert list(member.shown(author.id) or {}) == ["ci/mine"]
    assert member.replica.live(author.id)


# --- flood ---------------------------------------------------------------------------------------


def test_flood_of_owners_that_nobody_admitted_costs_no_signature_check_and_no_memory() -> None:
    member = Member("a", mesh_key=None).start()
    strangers = [Author(n, mesh_key=None).delta({"ci/x": {}}) for n in range(50, 70)]
    keys = Author(50).keys
    keys.verify = pytest.fail  # type: ignore[method-assign]
    member.env.crypto = keys
    for delta in strangers:
        assert member.replica.apply(delta, LINK).value == "unproven"
    assert list(member.replica.owners) == [member.id]


def test_flood_of_one_owner_does_not_slow_the_news_of_another() -> None:
    network = chain("a", "b", "c")
    loud, c = network["a"], network["c"]
    for n in range(150):
        loud.node.owner.put("link/x", {"n": n}, urgent=True)
        network.run(0.01)
    network["b"].node.owner.put("link/y", {"n": 1}, urgent=True)
    network.run(0.02)
    assert c.node.replica.owners[network["b"].id].value("link/y") == {"n": 1}
    network.run(1.0)
    assert c.node.replica.owners[loud.id].value("link/x") == {"n": 149}
    assert c.notices("peer_struck") == network["b"].notices("peer_struck") == []


# --- clocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("noticed", [True, False], ids=["asleep", "stopped from outside"])
@pytest.mark.hostile("suspended")
def test_suspended_for_8_hours_a_stack_is_up_everywhere_seconds_after_it_wakes(
    noticed: bool,
) -> None:
    network = chain("a", "b", "c")
    network.join("c", "a")
    a, b, c = (network[name] for name in "abc")
    network.suspend("a", HOURS_8, noticed=noticed)
    assert state(b, a.id) is state(c, a.id) is StackState.DEREGISTERED
    before = a.node.replica.owners[a.id].version.epoch
    for link in list(a.node.neighbours.links):
        network.handle(a, ev.LinkDown(link, "reset"))
    network.join("b", "a", "c")
    network.run(3.0 if noticed else 15.0)
    if not noticed:
        network.handle(a, ev.WallClock(WALL_S + network.now - 1000.0))
        network.run(3.0)
    for stack in (a, b, c):
        assert {state(stack, other.id) for other in (a, b, c)} <= {StackState.UP, StackState.SELF}
    assert a.node.replica.owners[a.id].version.epoch == before, "it was no restart"
    assert not a.node.clock.alarm
    network.run(100.0)
    assert state(a, b.id) is state(b, a.id) is StackState.UP


def test_two_stacks_alone_whose_clocks_are_far_apart_take_nothing_of_each_other() -> None:
    """Neither can know which of the two is right; a third one or a clock that is set settles it."""
    network = Network("a", "b")
    late = network["b"]
    network.handle(late, ev.WallClock(WALL_S - 3600.0))
    late.node.clock._offset = late.node.clock._target
    network.join("a", "b")
    network.run(30.0)
    assert [*late.notices("clock_alarm"), *network["a"].notices("clock_alarm")]
    network.run(2000.0)
    assert shows(network["a"], late.id) is None
