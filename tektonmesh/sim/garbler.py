"""Bytes that no honest node sends: mutated and nonsensical messages, through the real codec.

What can be read is handed to the node as if its peer had said it; for what cannot, the link is
closed, as the shell does. Whatever arrives, it must do no more than that (invariant 10).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from tektonmesh.core import messages as msg
from tektonmesh.core.envelope import Envelope, Header
from tektonmesh.core.events import Received
from tektonmesh.core.node import Node
from tektonmesh.core.types import ContentVersion, StackId, Version
from tektonmesh.errors import RemoteError
from tektonmesh.sim.host import Host
from tektonmesh.wire import frames, limits
from tektonmesh.wire.codec import KIND, decode_message, encode_message, size_max

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

EDITS_MAX = 3
EXTREMES = (0, 1, 7, 255, 65_536, 2**31, 2**48, 2**63 - 1)
ENTRIES = 20
STRIKES_MAX = 2
"""For one more the host would hold its peer off, as it should."""


def mutated(chance: Random, message: msg.Message) -> tuple[msg.Message, ...] | None:
    """What a peer reads when the frames of `message` were tampered with; None if it can only
    close the link."""
    kind = KIND[type(message)]
    cut = frames.cut(kind, msg.SEND_CLASS[type(message)], encode_message(message))
    data = bytearray(b"".join(cut))
    for _ in range(chance.randint(1, EDITS_MAX)):
        _edit(chance, data)
    try:
        read = frames.Assembler(size_max).feed(bytes(data))
        found = [decode_message(number, body) for number, body in read]
    except RemoteError:
        return None
    # An unfinished frame swallows what follows it, and so garbles the rest of the stream.
    return tuple(it for it in found if it is not None) if found else None


def _edit(chance: Random, data: bytearray) -> None:
    """Most edits stay behind the header, or little would ever get past it."""
    first = 0 if chance.random() < 0.05 else min(limits.HEADER_SIZE, len(data) - 1)
    at = chance.randrange(first, len(data))
    if chance.random() < 0.9:
        data[at] ^= 1 << chance.randrange(8)
    elif len(data) > 1:
        del data[at]
    else:
        data.insert(at, chance.randrange(256))


class Garbler:
    """Makes messages out of what a node holds and out of numbers that nobody would choose."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.struck: dict[tuple[int, int], int] = {}
        """(host, its peer) -> what arrived there that the peer did not send."""
        self._makers: tuple[Callable[[Node], msg.Message], ...] = (
            self._delta,
            self._vector,
            self._want,
            self._keepalive,
            self._probe,
            self._forward,
            self._receipt,
            self._rare,
        )

    def strike(self, world: World, host: Host) -> None:
        """Let something arrive at a host over one of its links that the peer did not send."""
        chance = self._chance
        if not host.alive or not host.links or host.node is None:
            return
        link = chance.choice(list(host.links))
        pair = host.index, host.links[link].peer.host.index
        if self.struck.get(pair, 0) >= STRIKES_MAX:
            return
        self.struck[pair] = self.struck.get(pair, 0) + 1
        message = self.make(host.node)
        read: tuple[msg.Message, ...] | None = (message,)
        if chance.random() < 0.7:
            read = mutated(chance, message)
        if read is None:
            world.network.close(host, link, "malformed", "What came cannot be read.")
        else:
            world.inject(host, Received(link, read))

    def make(self, node: Node) -> msg.Message:
        """A well-formed message of any kind that makes little sense."""
        return self._chance.choice(self._makers)(node)

    def _number(self) -> int:
        return self._chance.choice(EXTREMES)

    def _owner(self, node: Node) -> StackId:
        owners = list(node.replica.owners)
        if owners and self._chance.random() < 0.8:
            return self._chance.choice(owners)
        return self._chance.randbytes(32)

    def _delta(self, node: Node) -> msg.Message:
        held = node.replica.owners.get(self._owner(node))
        if held is None or held.expired:
            return self._want(node)
        return held.delta(None, with_keydoc=self._chance.random() < 0.5)

    def _vector(self, node: Node) -> msg.Message:
        chance = self._chance
        entries = [
            msg.VectorEntry(
                self._owner(node),
                Version(self._number() & 0xFF, self._number(), self._number()),
                self._number(),
                chance.randrange(4),
                chance.randbytes(8),
            )
            for _ in range(chance.randrange(ENTRIES))
        ]
        if chance.random() < 0.3:
            return msg.Buckets(chance.randbytes(16 * 256))
        buckets = tuple(chance.randrange(256) for _ in range(chance.choice((0, 1, 300))))
        return msg.Vector(buckets, tuple(entries), chance.random() < 0.5, chance.random() < 0.3)

    def _want(self, node: Node) -> msg.Message:
        def have() -> ContentVersion | None:
            numbers = self._number(), self._number(), self._number()
            return ContentVersion(*numbers) if self._chance.random() < 0.5 else None

        count = self._chance.randrange(1, ENTRIES)
        return msg.Want(tuple((self._owner(node), have()) for _ in range(count)))

    def _keepalive(self, node: Node) -> msg.Message:
        # A lie of seconds is what `clock-liar` tells: it may set a clock that hears nobody else.
        mesh_ms = node.clock.now_ms() + self._chance.choice((-(10**12), 10**12))
        if self._chance.random() < 0.5:
            return msg.Pong(self._number(), mesh_ms)
        return msg.Ping(self._number(), mesh_ms, self._chance.randbytes(16))

    def _probe(self, node: Node) -> msg.Message:
        if self._chance.random() < 0.5:
            return msg.Probe(self._number(), self._owner(node))
        return msg.ProbeAnswer(self._number(), self._owner(node), self._number())

    def _forward(self, node: Node) -> msg.Message:
        chance = self._chance
        header = Header(
            kind=chance.randrange(12),
            msg_id=chance.randbytes(16),
            source=self._owner(node),
            destination=self._owner(node),
            created_ms=self._number(),
            ttl_ms=chance.choice((0, 5000, 2**32 - 1)),
            size=chance.choice((0, 100, 2**32 - 1)),
            attempt=chance.randrange(65_536),
            send_class=chance.randrange(256),
        )
        envelope = Envelope(header, header.pack(), chance.randbytes(chance.randrange(200)))
        packed = envelope.pack(chance.randrange(256), chance.randrange(256))
        return msg.Forward(chance.choice((0, 1, 2, 3, 2**62)), packed)

    def _receipt(self, _node: Node) -> msg.Message:
        chance = self._chance
        roll = chance.randrange(3)
        if roll == 0:
            return msg.HopAck(self._number())
        if roll == 1:
            return msg.Settled(tuple(self._number() for _ in range(chance.randrange(5))))
        visited = tuple(chance.randbytes(8) for _ in range(chance.randrange(3)))
        return msg.Released(self._number(), chance.choice(("no_route", "", "?")), visited)

    def _rare(self, node: Node) -> msg.Message:
        chance = self._chance
        roll = chance.randrange(3)
        if roll == 0:
            return msg.Refuses(tuple(self._owner(node) for _ in range(chance.randrange(5))))
        if roll == 1:
            return msg.Vouch(chance.randbytes(chance.randrange(300)))
        return msg.Bye(chance.choice(("leaving", "duplicate", "")), "x" * chance.randrange(100))
