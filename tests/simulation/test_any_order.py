"""The same news in any order, doubled or repaired, give the same store."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

import pytest

from tektonmesh.core.messages import Delta, Message
from tektonmesh.core.types import LinkId
from tektonmesh.sim.checkers import node_of
from tektonmesh.sim.host import Host
from tektonmesh.sim.options import Options
from tektonmesh.sim.watcher import Watcher
from tektonmesh.sim.world import World

CHURN = Options(
    rng_seed=5,
    nodes=4,
    topology="ring",
    duration_s=10.0,
    writes=4.0,
    cis_per_host=2,
    start_spread_s=0.0,
)


class Snapshots(Watcher):
    """Keeps every news of every owner, as the full snapshot that a new peer would get."""

    name = "snapshots"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.kept: dict[tuple[bytes, bytes], Delta] = {}

    def sent(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        owners = node_of(host).replica.owners
        for owner, held in owners.items():
            if not held.expired:
                key = (owner, held.signed.head)
                self.kept.setdefault(key, held.delta(None, with_keydoc=True))


@dataclass(frozen=True)
class Told:
    """What was said in one world, and what everyone held at its end."""

    world: World
    news: list[Delta]
    fingerprint: bytes


@pytest.fixture(scope="module")
def told() -> Told:
    world = World(CHURN, [Snapshots])
    world.run()
    assert world.converged_after is not None
    snapshots = world.watchers[0]
    assert isinstance(snapshots, Snapshots)
    print_ = node_of(world.hosts[0]).replica.fingerprint()
    return Told(world, list(snapshots.kept.values()), print_)


def listener(told: Told) -> World:
    """A world of one more host, which hears nothing but what the test tells it."""
    options = replace(CHURN, nodes=5, topology="chain", writes=0.0, cis_per_host=0)
    world = World(options)
    world.start(world.hosts[4])
    world.run_until(told.world.now)
    return world


@pytest.mark.parametrize("rng_seed", range(5))
def test_any_order_and_any_doubling_gives_the_same_store(told: Told, rng_seed: int) -> None:
    chance = Random(rng_seed)
    news = told.news + chance.choices(told.news, k=len(told.news))
    chance.shuffle(news)
    world = listener(told)
    replica = node_of(world.hosts[4]).replica
    for delta in news:
        replica.apply(delta, 1)
    for host in told.world.hosts:
        theirs = node_of(told.world.hosts[0]).replica.owners[host.stack_id]
        mine = replica.owners[host.stack_id]
        assert mine.head.content_version == theirs.head.content_version
        assert mine.records == theirs.records


def test_enough_was_said_to_be_shuffled(told: Told) -> None:
    assert len(told.news) > 30
    assert told.fingerprint != node_of(listener(told).hosts[4]).replica.fingerprint()
