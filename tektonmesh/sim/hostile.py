"""Nodes that lie: each is the production node with its effects changed on the way out.

They hold real keys and are admitted members, so what stops them must be signatures, roots and
versions, not the door. What a host runs is named in `Options.hostile`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tektonmesh.core.effects import Effect, Send
from tektonmesh.core.events import Event, Received
from tektonmesh.core.head import Head
from tektonmesh.core.messages import Delta, Message
from tektonmesh.core.node import Node
from tektonmesh.core.types import LinkId, SignedHead

KEPT_MAX = 200
REPLAY_PART = 0.05
"""Of its turns in which a replayer also sends something old."""


class _Liar(Node):
    """Lets every delta pass through `lie` before it is sent."""

    def start(self, now: float) -> list[Effect]:
        return self._twist(super().start(now))

    def handle(self, event: Event, now: float) -> list[Effect]:
        return self._twist(super().handle(event, now))

    def _twist(self, effects: list[Effect]) -> list[Effect]:
        out: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send):
                messages = tuple(self._lie_if_delta(effect.link, it) for it in effect.messages)
                effect = Send(effect.link, messages)
            out.append(effect)
        return out

    def _lie_if_delta(self, link: LinkId, message: Message) -> Message:
        if not isinstance(message, Delta):
            return message
        return self.lie(link, message, Head.decode(self.env.codec, message.head.head))

    def lie(self, link: LinkId, delta: Delta, head: Head) -> Delta:
        """What is sent instead of `delta`."""
        raise NotImplementedError  # abstract


class Alterer(_Liar):
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


class Forger(_Liar):
    """Publishes heads of others over records of its own making, signed with its own key."""

    def lie(self, link: LinkId, delta: Delta, head: Head) -> Delta:
        if head.stack_id == self.env.me:
            return delta
        newer = replace(head, ver=head.ver + 1, hlc=head.hlc + 1)
        return replace(delta, head=newer.sign(self.env.codec, self.env.crypto))


class Equivocator(_Liar):
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


class Replayer(Node):
    """Keeps every delta it ever saw and sends old ones again at random."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        kept: list[Delta] = self.__dict__.setdefault("kept_deltas", [])
        if isinstance(event, Received) and len(kept) < KEPT_MAX:
            kept.extend(it for it in event.messages if isinstance(it, Delta))
        effects = super().handle(event, now)
        links = list(self.neighbours.links)
        chance = self.env.chance
        if kept and links and chance.random() < REPLAY_PART:
            link = links[chance.randrange(len(links))]
            effects.append(Send(link, (kept[chance.randrange(len(kept))],)))
        return effects


HOSTILE: dict[str, type[Node]] = {
    "alterer": Alterer,
    "forger": Forger,
    "equivocator": Equivocator,
    "replayer": Replayer,
}
RESTLESS = ("alterer", "forger")
"""Those whose links are closed for what they send, again and again."""
