"""Hostile nodes that lie about owners: altered, forged, doubled, replayed and minted heads.

Each is the production node with real keys, its words changed on the way out. What stops them must
be signatures, roots and versions, not the door (docs/design/simulator.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from tektonmesh.core.effects import Effect, Send
from tektonmesh.core.events import Event
from tektonmesh.core.head import Head
from tektonmesh.core.keydoc import hash_doc
from tektonmesh.core.messages import Delta, Message
from tektonmesh.core.node import Node
from tektonmesh.core.record import RecordSet
from tektonmesh.core.replica import Change
from tektonmesh.core.types import LinkId, SignedHead, Status
from tektonmesh.sim.keyring import MESH, host_keys

KEPT_MAX = 200
REPLAY_PART = 0.2
"""Of its turns in which a replayer also sends something old."""
POSTDATED_MS = 120_000
MINTED_MAX = 40
MINT_PAUSE_S = 0.4
FIRST_MINTED = 5000
"""Hosts of this number and above exist in no world: their keys are the minter's."""


class Hostile(Node):
    """Lets every message pass through `alter` before it is sent. `extra` are effects that it adds
    to those of the turn. At the heal of a world a liar stops flooding, and goes on lying."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra: list[Effect] = []
        self.flooding = True

    def calm_down(self) -> None:
        """Nobody writes any more, so nobody floods either."""
        self.flooding = False

    def start(self, now: float) -> list[Effect]:
        return self._twisted(super().start(now))

    def handle(self, event: Event, now: float) -> list[Effect]:
        return self._twisted(super().handle(event, now))

    def _twisted(self, effects: list[Effect]) -> list[Effect]:
        out: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send):
                told = [self.alter(effect.link, message) for message in effect.messages]
                messages = tuple(it for it in told if it is not None)
                if messages:
                    out.append(Send(effect.link, messages))
            else:
                out.append(effect)
        more, self.extra = self.extra, []
        return out + more

    def alter(self, link: LinkId, message: Message) -> Message | None:
        """What is sent instead of `message`, if anything."""
        raise NotImplementedError  # abstract


class _DeltaLiar(Hostile):
    """Lets every delta pass through `lie` before it is sent."""

    def alter(self, link: LinkId, message: Message) -> Message | None:
        if not isinstance(message, Delta):
            return message
        return self.lie(link, message, Head.decode(self.env.codec, message.head.head))

    def lie(self, link: LinkId, delta: Delta, head: Head) -> Delta:
        """What is sent instead of `delta`."""
        raise NotImplementedError  # abstract


class Alterer(_DeltaLiar):
    """Changes what it passes on of others: a value, a missing record, a newer head."""

    def lie(self, link: LinkId, delta: Delta, head: Head) -> Delta:
        if head.stack_id == self.env.me:
            return delta
        tricks: tuple[Callable[[Delta, Head], Delta], ...] = (_alter, _omit, self._renew)
        return tricks[self.env.chance.randrange(len(tricks))](delta, head)

    def _renew(self, delta: Delta, head: Head) -> Delta:
        """A head that looks newer, with the old signature."""
        newer = replace(head, ver=head.ver + 1, content_ver=head.content_ver + 1)
        return replace(delta, head=SignedHead(newer.encode(self.env.codec), delta.head.sig))


def _alter(delta: Delta, _head: Head) -> Delta:
    """Another value under the first key, still well-formed."""
    if not delta.puts:
        return delta
    (scope, key, value), *rest = delta.puts
    other = value[:-1] + bytes([value[-1] ^ 1])
    return replace(delta, puts=((scope, key, other), *rest))


def _omit(delta: Delta, _head: Head) -> Delta:
    """One record less."""
    return replace(delta, puts=delta.puts[1:])


class Forger(_DeltaLiar):
    """Publishes heads of others over records of its own making, signed with its own key."""

    def lie(self, link: LinkId, delta: Delta, head: Head) -> Delta:
        if head.stack_id == self.env.me:
            return delta
        newer = replace(head, ver=head.ver + 1, hlc=head.hlc + 1)
        return replace(delta, head=newer.sign(self.env.codec, self.env.crypto))


class Equivocator(_DeltaLiar):
    """Signs a second head at the same version, over other records, and shows each half of its
    peers another one."""

    def lie(self, link: LinkId, delta: Delta, head: Head) -> Delta:
        if head.stack_id != self.env.me or link % 2:
            return delta
        records = self.replica.owners[self.env.me].record_set
        (scope, key, value), *_rest = records.puts()
        other = self.env.codec.unpack(value)
        other["also"] = "said otherwise elsewhere"
        records = records.changed([(scope, key, self.env.codec.pack(other))], ())
        twin = replace(head, roots=records.roots())
        signed = twin.sign(self.env.codec, self.env.crypto)
        return Delta(signed, None, records.puts(), (), self.trust.own_keydoc())


class Postdater(_DeltaLiar):
    """Signs its own heads in the future, to be listed for longer than it lives."""

    def lie(self, link: LinkId, delta: Delta, head: Head) -> Delta:
        if head.stack_id != self.env.me:
            return delta
        later = replace(head, hlc=head.hlc + POSTDATED_MS)
        return replace(delta, head=later.sign(self.env.codec, self.env.crypto))


class Replayer(Hostile):
    """Keeps the snapshot of every head it ever held and sends old ones again at random."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._kept: dict[bytes, Delta] = {}
        self.replica.watch(self._keep)

    def _keep(self, change: Change) -> None:
        held = self.replica.owners.get(change.owner)
        if held is not None and not held.expired and change.owner != self.env.me:
            self._kept[held.signed.head] = held.delta(None, with_keydoc=True)
            if len(self._kept) > KEPT_MAX:
                del self._kept[next(iter(self._kept))]

    def handle(self, event: Event, now: float) -> list[Effect]:
        links = list(self.neighbours.links)
        chance = self.env.chance
        if self._kept and links and chance.random() < REPLAY_PART:
            link = links[chance.randrange(len(links))]
            kept = list(self._kept.values())
            self.extra.append(Send(link, (kept[chance.randrange(len(kept))],)))
        return super().handle(event, now)

    def alter(self, link: LinkId, message: Message) -> Message | None:
        return message


class Minter(Hostile):
    """Knows the mesh secret and makes up members: real keys, a true proof, names of others."""

    def start(self, now: float) -> list[Effect]:
        self._mint(0)
        return super().start(now)

    def _mint(self, count: int) -> None:
        links = list(self.neighbours.links)
        if links:
            delta = self._member(FIRST_MINTED + count, now_ms=self.clock.now_ms())
            self.extra += [Send(link, (delta,)) for link in links]
            count += 1
        if count < MINTED_MAX:
            due = self.env.after(MINT_PAUSE_S)
            self.env.deadlines.set("mint", due, lambda: self._mint(count))

    def _member(self, number: int, now_ms: int) -> Delta:
        keys, pack = host_keys(number), self.env.codec.pack
        victim = host_keys(number % 8)
        box = {"id": bytes(8), "pk": bytes(32)}
        about = {"name": victim.name, "mesh": MESH, "version": "", "box": box, "relay": "members"}
        records = RecordSet().changed(
            [
                (0, "addr/0", pack({"at": f"192.0.2.{number % 256}:7700"})),
                (0, "stack/self", pack(about | {"since": 0, "specialties": []})),
            ],
            (),
        )
        head = Head(
            mesh_id=self.env.identity.mesh_id,
            stack_id=keys.stack_id,
            key_epoch=0,
            epoch=now_ms,
            ver=1,
            content_ver=1,
            hlc=now_ms,
            lease_s=900,
            status=Status.UP,
            instance=bytes(8),
            roots=records.roots(),
            keydoc_hash=hash_doc(keys.keydoc.doc),
        )
        signed = head.sign(self.env.codec, keys.keys(Random(number)))
        return Delta(signed, None, records.puts(), (), keys.keydoc)

    def alter(self, link: LinkId, message: Message) -> Message | None:
        return message
