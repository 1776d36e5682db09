"""Hostile members of the registry, against whole nodes: what they say changes nothing of others."""

from __future__ import annotations

import msgpack
import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.messages import Ihave, News, ProbeAnswer
from tektonmesh.core.types import StackState, Status, Version
from tektonmesh.errors import RemoteError
from tektonmesh.wire.codec import unpack
from tests.network import Member, Network
from tests.support import Author

YEAR_MS = 366 * 86_400_000


def pair() -> Network:
    network = Network("a", "b")
    network.join("a", "b")
    return network


def hears(network: Network, name: str, *messages: object) -> None:
    """The first link of a stack brings these."""
    link = next(number for (owner, number) in network._ends if owner == name)
    network.handle(network[name], ev.Received(link, messages))  # type: ignore[arg-type]
    network.settle()


def struck(member: Member) -> bool:
    return any(peer["strikes"] for peer in member.node.trust.peers())


@pytest.mark.hostile("clock-ten-years-off")
@pytest.mark.parametrize("years", [10, -10])
def test_a_head_from_ten_years_away_is_not_taken_and_is_nobodys_fault(years: int) -> None:
    network = pair()
    a, author = network["a"], Author(9)
    author.hlc += years * YEAR_MS
    before = dict(a.node.replica.owners)
    hears(network, "a", author.delta({"ci/x": {}}))
    assert dict(a.node.replica.owners).keys() == before.keys()
    assert not struck(a)


@pytest.mark.hostile("signed-by-another")
def test_a_head_signed_by_somebody_else_costs_its_sender_and_changes_nothing() -> None:
    network = pair()
    a, author = network["a"], Author(9)
    forged = Author(10)
    forged.id, forged.keydoc = author.id, author.keydoc
    hears(network, "a", forged.delta({"ci/x": {}}, full=True))
    assert author.id not in a.node.replica.owners
    assert struck(a)
    assert a.of(fx.CloseLink)


@pytest.mark.hostile("death-of-another")
def test_nobody_can_say_that_another_stack_is_gone() -> None:
    """All ways in which `b` can speak of the end of `c`, while the link of `a` to `c` lives."""
    network = Network("a", "b", "c")
    network.join("a", "b", "c", "a")
    a, b, c = (network[name] for name in "abc")
    link = next(n for (owner, n), (far, _) in network._ends.items() if (owner, far) == ("a", "b"))
    held = a.node.replica.owners[c.id]
    gone = Author(9)
    gone.id, gone.keydoc = c.id, held.signed_keydoc
    gone.epoch = held.head.epoch + 1
    left = gone.delta({}, full=True, status=Status.LEFT, lease_s=900)
    said = (ProbeAnswer(1, c.id, -1), ProbeAnswer(2, c.id, 2**31), left)
    network.handle(a, ev.Received(link, said))
    for key in list(b.node.owner._wanted):
        if key.startswith("link/"):
            b.node.owner.delete(key, urgent=True)
    network.handle(b, ev.Tick())
    network.settle()
    assert a.node.graph.state(c.id) is StackState.UP
    assert a.node.replica.owners[c.id].head.status is Status.UP


@pytest.mark.hostile("promised-never-delivered")
def test_news_that_never_come_leave_nothing_behind() -> None:
    network = pair()
    a = network["a"]
    promised = [News(bytes([n]) * 32, Version(0, 5, 1), b"12345678") for n in range(1, 200)]
    hears(network, "a", Ihave(tuple(promised)))
    network.run(30.0)
    assert len(a.node.replica.owners) == 2
    assert a.node.graph.state(network["b"].id) is StackState.UP


@pytest.mark.hostile("bombs")
@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 1_000_000 + b"\xc0",
        b"\x81\x01" * 500_000 + b"\xc0",
        b"\xdc\xff\xff" + b"\x80" * 65535,
        msgpack.packb([{}] * 20_001),
    ],
    ids=["array", "map", "bytes", "depth", "depth of maps", "empty maps", "too many values"],
)
def test_a_document_that_would_fill_memory_is_refused_early(data: bytes) -> None:
    with pytest.raises(RemoteError):
        unpack(data)


@pytest.mark.hostile("deceptive-names")
@pytest.mark.parametrize(
    "name", ["wеst", "WEST", "west\u202e", "../west", "west\n", "west@east", "", "w" * 64, "~west"]
)
def test_a_deceptive_name_is_never_taken_for_the_stack_it_imitates(name: str) -> None:
    network = Network("a", "b")
    network.join("a", "b")
    a, author = network["a"], Author(9)
    about = {"name": name, "mesh": "test"}
    hears(network, "a", author.delta({"stack/self": about, "ci/x": {"name": "../etc"}}, full=True))
    label = a.node.names.label(author.id)
    assert label.isascii() and label.isprintable()
    assert label.startswith(("invalid~", "unknown~", "invalid", "unknown"))
    assert a.node.names.label(network["b"].id) == "b"


@pytest.mark.hostile("liars-at-a-restart")
def test_all_restart_while_two_liars_feed_old_heads_and_the_newest_wins() -> None:
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "c", "d", "a")
    old = {one: network["b"].node.replica.owners[network[one].id] for one in ("a", "d")}
    stale = [
        network["b"].node.replica.delta_for(held.head.stack_id, None, with_keydoc=True)
        for held in old.values()
    ]
    network["a"].register("new", share="public", persist=True)
    network.settle()
    homes = {name: network[name].saved for name in "abcd"}
    for name in "abcd":
        network.kill(name)
    for name in "abcd":
        network.add(name, homes[name])
    network.join("a", "b", "c", "d", "a")
    for name in "ad":
        for (owner, link), (far, _) in list(network._ends.items()):
            if owner == name and far in ("b", "c"):
                network.handle(network[name], ev.Received(link, tuple(stale)))
    network.run(30.0)
    versions = {
        name: {o.hex(): h.version for o, h in network[name].node.replica.owners.items()}
        for name in "abcd"
    }
    assert versions["a"] == versions["b"] == versions["c"] == versions["d"]
    assert network["d"].node.replica.owners[network["a"].id].value("ci/new") is not None


@pytest.mark.hostile("clock-1970")
def test_a_clock_back_in_1970_ends_nobody_and_signs_nothing_of_then() -> None:
    network = pair()
    a, b = network["a"], network["b"]
    before = a.node.replica.owners[a.id].head.hlc
    for _ in range(200):
        network.handle(a, ev.WallClock(0.0))
        network.run(5.0)
    assert a.node.graph.state(b.id) is StackState.UP
    assert b.node.graph.state(a.id) is StackState.UP
    assert b.node.replica.owners[a.id].head.hlc > before
