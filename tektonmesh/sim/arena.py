"""A world in which a baseline runs in the place of the node: same hosts, links, faults and writes.

The world asks little of a node: turns, one deadline, who is admitted, and to be told of changes.
`Baseline` has that face, so an arena is a `World` whose hosts run one. It adds datagrams, which the
production core does not send, and the start from records that all hosts hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any, cast

from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Message
from tektonmesh.core.node import Node
from tektonmesh.core.replica import Change
from tektonmesh.core.types import LinkId, StackId
from tektonmesh.sim.baselines.machine import (
    DATAGRAM,
    Baseline,
    DatagramCame,
    Entry,
    Place,
    Said,
    SendTo,
)
from tektonmesh.sim.baselines.memberlist import Sync
from tektonmesh.sim.host import Host
from tektonmesh.sim.keyring import WorldCrypto
from tektonmesh.sim.options import Options, edges_of
from tektonmesh.sim.report import Gauges
from tektonmesh.sim.watcher import Watcher
from tektonmesh.sim.wiresize import datagram_bytes, fragments, stream_bytes
from tektonmesh.sim.world import World

BASE = Entry(1, {"ci/base": (1, bytes(150))})
"""What everybody holds of everybody at the start: about one CI."""


def baseline_of(host: Host) -> Baseline:
    """The machine that runs on a host of an arena."""
    return cast(Baseline, host.node)


class Arena(World):
    """`kind` is the protocol that all hosts run."""

    def __init__(
        self, options: Options, kind: type[Baseline], watchers: Sequence[type[Watcher]] = ()
    ) -> None:
        super().__init__(options, watchers)
        self._kind = kind
        self._packets = Random(f"datagrams {options.rng_seed}")
        self._peers = tuple(host.address for host in self.hosts)
        self._base = dict.fromkeys(self._peers, BASE)
        self._edges = edges_of(options)
        self._hands[SendTo] = self._send_to

    def new_node(self, host: Host) -> Node:
        chance = Random(f"node {self.options.rng_seed} {host.index} {host.incarnation}")
        seeds = [self._peers[peer] for dialler, peer in self._edges if dialler == host.index]
        env = Env(
            host.keys.identity(chance.randbytes(8)),
            self.options.node_settings(),
            crypto=WorldCrypto(host.keys.keys(chance), self._memory),
            codec=self._codec,
            chance=chance,
            now=host.mono(self.now),
        )
        place = Place(host.address, self._peers, tuple(seeds), self._base)
        machine = self._kind(env, place)
        machine.watch(partial(self._shows, host))
        # All that a world asks of a `Node` beyond this face is asked in methods overridden here.
        return cast(Node, machine)

    def converged(self) -> bool:
        """Whether all running nodes show the same version of every owner."""
        shown = [
            {owner: entry.version for owner, entry in baseline_of(host).entries.items()}
            for host in self.hosts
            if host.alive
        ]
        return all(one == shown[0] for one in shown)

    def _shows(self, host: Host, owner: str, keys: tuple[str, ...]) -> None:
        whose = self.host_at(owner)
        assert whose is not None
        self.tell("changed", host, Change(whose.stack_id, "content", keys))

    # --- datagrams -------------------------------------------------------------------------------

    def _send_to(self, host: Host, send: SendTo) -> None:
        """Every packet of a datagram is lost by itself; a cut swallows it, and so do the dead."""
        self.tell("sent", host, DATAGRAM, (send.message,))
        target = self.host_at(send.address)
        assert target is not None
        kept = (1.0 - self.options.loss) ** fragments(send.message.size)
        if self._packets.random() >= kept or not self.network.passes(host.index, target.index):
            return
        lag = self.network.one_way(host.index, target.index)
        came = DatagramCame(host.address, (send.message,))
        self.at(self.now + lag, self._came, target, target.incarnation, came)

    def _came(self, host: Host, incarnation: int, event: DatagramCame) -> None:
        if host.incarnation != incarnation:
            return
        if host.alive:
            self.tell("received", host, event)
        self.inject(host, cast(Any, event))


class ArenaGauges(Gauges):
    """The figures of a baseline, by the rules of `Gauges`."""

    def source_of(self, host: Host, event: Any) -> int:
        if isinstance(event, DatagramCame):
            sender = self.world.host_at(event.address)
            assert sender is not None
            return sender.index
        return super().source_of(host, event)

    def version(self, host: Host, owner: StackId) -> int:
        whose = self.world.host_of(owner)
        assert whose is not None
        return baseline_of(host).entries[whose.address].version

    def copies(self, host: Host, messages: tuple[Message, ...]) -> int:
        """In an exchange of everything, only what is news there counts: the rest would have come
        without any change."""
        shown, count = baseline_of(host).entries, 0
        for message in _said(messages):
            count += len(message.bodies)
            if isinstance(message, Sync):
                count += sum(
                    1 for owner, it in message.entries.items() if it.version > shown[owner].version
                )
        return count

    def weigh(self, link: LinkId, messages: tuple[Message, ...]) -> tuple[int, int]:
        """Headers count where a batch is there for its bodies alone; nobody announces."""
        said = _said(messages)
        bodies = sum(message.body_size for message in said)
        alone = bodies == sum(message.size for message in said)
        return self.weigh_all(link, messages) if alone else bodies, 0

    def weigh_all(self, link: LinkId, messages: tuple[Message, ...]) -> int:
        said = _said(messages)
        size = sum(message.size for message in said)
        if link == DATAGRAM:
            return datagram_bytes(size)
        return stream_bytes(size, tls=all(message.tls for message in said))


def _said(messages: tuple[Message, ...]) -> tuple[Said, ...]:
    """Messages of a baseline; the one that closes a link in good order is none."""
    return tuple(
        message for message in cast(tuple[Any, ...], messages) if isinstance(message, Said)
    )
