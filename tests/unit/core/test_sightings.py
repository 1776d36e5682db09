"""CIs of other stacks that come and go are told."""

from __future__ import annotations

from tektonmesh.core import events as ev
from tektonmesh.core.sightings import SINGLY_MAX, Sightings
from tests.network import Network


def pair() -> Network:
    network = Network("a", "b")
    network.join("a", "b")
    network.run(1.0)
    return network


def test_a_remote_ci_is_told_when_it_appears_and_when_it_goes() -> None:
    network = pair()
    network["b"].register("Numa")
    network.run(1.0)
    assert network["a"].notices("ci_seen") == [{"ci": "Numa@b"}]
    assert network["b"].notices("ci_seen") == []
    network["b"].node.cis._end(network["b"].node.cis.all()[0], "deregistered")
    network.run(2.0)
    assert network["a"].notices("ci_gone") == [{"ci": "Numa@b"}]


def test_many_at_once_are_told_as_a_number() -> None:
    network = pair()
    for n in range(SINGLY_MAX + 1):
        network["b"].register(f"ci{n}")
    network.run(2.0)
    told = network["a"].notices("ci_seen")
    assert sum(notice.get("count", 1) for notice in told) == SINGLY_MAX + 1
    assert any("count" in notice for notice in told)


def test_an_evicted_stack_is_told_by_the_name_it_had_and_its_cis_are_gone() -> None:
    network = pair()
    network["b"].register("numa")
    network.run(1.0)
    network["a"].do(lambda ticket: ev.EvictPeer(ticket, network["b"].id))
    network.run(1.0)
    assert [told["name"] for told in network["a"].notices("stack_deregistered")] == ["b"]
    assert network["a"].notices("ci_gone") == [{"ci": "numa@b"}]


def test_sightings_over_a_base_go_on_from_it_and_leave_it_alone() -> None:
    network = pair()
    network["b"].register("numa")
    network.run(1.0)
    node = network["a"].node
    base = node.sightings
    before = {owner: dict(listed) for owner, listed in base._seen.items()}
    node.sightings = Sightings(node.env, node.replica, node.names, base)
    network["b"].register("zeno")
    network.run(1.0)
    assert network["a"].notices("ci_seen") == [{"ci": "numa@b"}, {"ci": "zeno@b"}]
    network["a"].do(lambda ticket: ev.EvictPeer(ticket, network["b"].id))
    network.run(1.0)
    assert network["a"].notices("ci_gone") == [{"ci": "numa@b"}, {"ci": "zeno@b"}]
    assert base._seen == before and before[network["b"].id] == {"ci/numa": "numa@b"}


def test_the_own_cis_are_not_taken_from_a_base() -> None:
    network = pair()
    network["b"].register("numa")
    network.run(1.0)
    own = network["b"].node
    over = Sightings(own.env, own.replica, own.names, network["a"].node.sightings)
    assert list(over._seen) == []
