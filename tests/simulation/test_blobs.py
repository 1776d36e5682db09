"""Blobs in worlds: through the real codec, over links that lose, past hosts that restart or lie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.effects import Effect, Send
from tektonmesh.core.messages import Message, Piece
from tektonmesh.core.node import Node
from tektonmesh.core.stash import hash_blob
from tektonmesh.sim.checkers import REGISTRY_CHECKERS
from tektonmesh.sim.faults import Fault
from tektonmesh.sim.host import Host
from tektonmesh.sim.hostile import HOSTILE
from tektonmesh.sim.message_checkers import MESSAGE_CHECKERS
from tektonmesh.sim.options import Options
from tektonmesh.sim.world import World

DATA = bytes(range(256)) * 900
"""Four pieces."""
WALLS = Options(
    nodes=5,
    topology="chain",
    seeds_only=True,
    walls=True,
    duration_s=20.0,
    writes=0.3,
    messages=1.0,
    real_codec=True,
)


class Faker(Node):
    """Sends zeros instead of the bytes of blobs."""

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        return [
            Send(it.link, tuple(map(fake, it.messages))) if isinstance(it, Send) else it
            for it in super().handle(event, now)
        ]


def fake(message: Message) -> Message:
    if isinstance(message, Piece):
        return replace(message, data=bytes(len(message.data)))
    return message


class BlobWorld(World):
    """A world in which host 0 puts a blob in after 3 s and the last one asks for it after 4 s."""

    def __init__(self, options: Options) -> None:
        super().__init__(options, (*REGISTRY_CHECKERS, *MESSAGE_CHECKERS))
        self.answers: dict[int, fx.Answer | fx.AnswerFailed] = {}
        self.at(3.0, self._put, self.hosts[0])
        self.asked = self.ticket()
        self.at(4.0, self._get, self.hosts[-1])

    def _put(self, host: Host) -> None:
        assert host.node is not None
        host.node.owner.put("catalog/numa", {"hash": hash_blob(DATA), "length": len(DATA)})
        self.inject(host, ev.PutBlob(self.ticket(), DATA))

    def _get(self, host: Host) -> None:
        self.inject(host, ev.GetBlob(self.asked, hash_blob(DATA), 30.0))

    def _answer(self, host: Host, effect: fx.Answer | fx.AnswerFailed | fx.AnswerChunk) -> None:
        if not isinstance(effect, fx.AnswerChunk):
            self.answers[effect.ticket] = effect
        super()._answer(host, effect)

    def holders(self) -> list[int]:
        return [
            host.index
            for host in self.hosts
            if host.node is not None and hash_blob(DATA) in host.node.blobs.stash
        ]


WORLDS = {
    "lossy links": replace(WALLS, loss=0.05),
    "a host of the chain restarts": replace(
        WALLS, faults=(Fault(4.1, "kill", (2,), 3.0), Fault(9.0, "kill", (4,), 1.0))
    ),
    "a host loses its disk": replace(WALLS, faults=(Fault(12.0, "wipe", (3,), 1.0),)),
    "links are cut and reset": replace(
        WALLS, faults=(Fault(3.2, "cut", (1, 2), 5.0), Fault(4.05, "reset", (3, 4)))
    ),
    "short leases": replace(WALLS, settings=(("refresh_min_s", 6.0), ("refresh_max_s", 8.0))),
}


@pytest.mark.parametrize("rng_seed", [1, 2])
@pytest.mark.parametrize("name", WORLDS)
def test_a_blob_gets_to_everybody_in_a_world_with(name: str, rng_seed: int) -> None:
    world = BlobWorld(replace(WORLDS[name], rng_seed=rng_seed))
    world.run()
    assert not world.violations
    assert world.holders() == [0, 1, 2, 3, 4]
    answer = world.answers.get(world.asked)
    if answer is not None:
        assert answer == fx.Answer(world.asked, {"data": DATA})
    else:
        assert name == "a host of the chain restarts", "whoever asked died before"


@pytest.mark.parametrize("rng_seed", [1, 2])
def test_a_host_that_fakes_blobs_stops_nobody_who_has_another_way(
    rng_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(HOSTILE, "alterer", Faker)
    options = replace(WALLS, topology="ring", hostile=((2, "alterer"),), rng_seed=rng_seed)
    world = BlobWorld(options)
    world.run()
    assert not world.violations
    assert world.holders() == [0, 1, 2, 3, 4]
    assert world.answers[world.asked] == fx.Answer(world.asked, {"data": DATA})
