"""Hostile nodes that mistreat what passes through them: they drop, delay, corrupt, flood and lie
about what they hold, whom they hear and what time it is.

What stops them must be other ways, fingerprints of other neighbours, witnesses and bounds.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from tektonmesh.core.effects import CloseLink, Effect, Send
from tektonmesh.core.envelope import SOURCE
from tektonmesh.core.events import Event, Received
from tektonmesh.core.head import Head
from tektonmesh.core.messages import (
    Buckets,
    Delta,
    Forward,
    Message,
    Ping,
    Pong,
    ProbeAnswer,
    Vector,
    VectorEntry,
    Want,
)
from tektonmesh.core.ownlinks import SUSPECT
from tektonmesh.core.types import ContentVersion, LinkId, StackId, Version
from tektonmesh.sim.forgers import Hostile
from tektonmesh.sim.garbler import Garbler, mutated

DELAY_MAX_S = 3.0
CORRUPTED = 0.1
"""The part of what passes a corrupter that it changes."""
LURED = 0.5
"""The part of the news that a digest liar keeps for itself."""
FLOOD_PAUSE_S = 0.1
FLOOD_MESSAGES = 4
CHURN_PAUSE_S = 0.02
CLOCK_LIE_MS = 45_000
"""Beyond the slack of a head, and within what nobody is alarmed by."""

UNTOUCHED = (Ping, Pong)
"""Whoever does not answer pings has no link to do harm with."""


class _Relay(Hostile):
    def is_of_others(self, message: Message) -> bool:
        """Whether a message carries what somebody else said."""
        if isinstance(message, Delta):
            return Head.decode(self.env.codec, message.head.head).stack_id != self.env.me
        return isinstance(message, Forward) and message.envelope[SOURCE] != self.env.me


class Dropper(_Relay):
    """Passes nothing on: neither news nor messages, though it acknowledges them."""

    def alter(self, link: LinkId, message: Message) -> Message | None:
        return None if self.is_of_others(message) else message


class Delayer(_Relay):
    """Keeps everything but keepalives back for up to three seconds, each for as long as it likes,
    so that a link is in order no more."""

    def alter(self, link: LinkId, message: Message) -> Message | None:
        if isinstance(message, UNTOUCHED):
            return message
        due = self.env.after(DELAY_MAX_S * self.env.chance.random())
        key = ("kept back", self.env.chance.randbytes(8))
        self.env.deadlines.set(key, due, lambda: self.extra.append(Send(link, (message,))))
        return None


class Corrupter(_Relay):
    """Changes bytes of what it passes on. What cannot be read costs it the link."""

    def alter(self, link: LinkId, message: Message) -> Message | None:
        chance = self.env.chance
        if isinstance(message, UNTOUCHED) or chance.random() >= CORRUPTED:
            return message
        read = mutated(Random(chance.randrange(1 << 30)), message)
        if read is None:
            self.extra.append(CloseLink(link, "malformed", "What came cannot be read."))
            return None
        return read[0] if read else None


class DigestLiar(_Relay):
    """Lies about what it holds: prints of its own making or the peer's own, vectors that promise
    news and hide others, and half of what it is asked for is not sent."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._theirs: dict[LinkId, bytes] = {}

    def handle(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Received):
            for message in event.messages:
                if isinstance(message, Ping) and message.fingerprint:
                    self._theirs[event.link] = message.fingerprint
        return super().handle(event, now)

    def alter(self, link: LinkId, message: Message) -> Message | None:
        chance = self.env.chance
        if isinstance(message, Ping):
            return replace(message, fingerprint=self._print(link))
        if isinstance(message, Buckets):
            return Buckets(chance.randbytes(len(message.prints)))
        if isinstance(message, Vector):
            told = [self._entry(entry) for entry in message.entries if chance.random() < 0.8]
            return replace(message, entries=tuple(told))
        withheld = self.is_of_others(message) and not isinstance(message, Forward)
        return None if withheld and chance.random() < LURED else message

    def _print(self, link: LinkId) -> bytes:
        if self.env.chance.random() < 0.5:
            return self._theirs.get(link, b"")
        return self.env.chance.randbytes(16)

    def _entry(self, entry: VectorEntry) -> VectorEntry:
        roll = self.env.chance.randrange(4)
        if roll == 0:
            version = Version(*entry.version[:2], entry.version.ver + 1)
            return replace(entry, version=version, content_ver=entry.content_ver + 1)
        if roll == 1:
            return replace(entry, head_hash=self.env.chance.randbytes(8))
        if roll == 2:
            return replace(entry, owner=self.env.chance.randbytes(32))
        return entry


class Flooder(_Relay):
    """Sends whatever costs others the most, ten times a second: questions about everything,
    nonsense, and news of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._garbler = Garbler(Random(self.env.chance.randrange(1 << 30)))
        self._more = 0

    def start(self, now: float) -> list[Effect]:
        self._flood()
        return super().start(now)

    def alter(self, link: LinkId, message: Message) -> Message | None:
        return message

    def _flood(self) -> None:
        links = list(self.neighbours.links)
        if links and self.flooding:
            link = links[self.env.chance.randrange(len(links))]
            messages = tuple(self._message() for _ in range(FLOOD_MESSAGES))
            self.extra.append(Send(link, messages))
        self.env.deadlines.set("flood", self.env.after(FLOOD_PAUSE_S), self._flood)

    def _message(self) -> Message:
        roll = self.env.chance.randrange(5)
        if roll == 0:
            return Want(tuple((owner, None) for owner in self.replica.owners))
        if roll == 1:
            return Vector((), (), True, False)
        if roll < 4 and self.owner.published:
            return self._news()
        return self._garbler.make(self)

    def _news(self) -> Delta:
        """Its own record changed once more, whatever the limit on publishing says."""
        held = self.replica.owners[self.env.me]
        self._more += 1
        value = self.env.codec.pack({"number": self._more, "filling": bytes(500)})
        records = held.record_set.changed([(1, "ci/flood", value)], ())
        head = replace(
            held.head,
            ver=held.head.ver + self._more,
            content_ver=held.head.content_ver + self._more,
            hlc=self.clock.now_ms(),
            roots=records.roots(),
        )
        signed = head.sign(self.env.codec, self.env.crypto)
        base: ContentVersion | None = None
        return Delta(signed, base, records.puts(), (), self.trust.own_keydoc())


class Churner(_Relay):
    """Changes its own record fifty times a second, and breaks no rule by that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._count = 0

    def start(self, now: float) -> list[Effect]:
        self._churn()
        return super().start(now)

    def alter(self, link: LinkId, message: Message) -> Message | None:
        return message

    def _churn(self) -> None:
        if self.owner.published and self.flooding:
            self._count += 1
            self.owner.put("ci/churn", {"number": self._count}, urgent=True)
        self.env.deadlines.set("churn", self.env.after(CHURN_PAUSE_S), self._churn)


class Keeper(_Relay):
    """Goes on saying that its links are up when they are not, and that it has just heard of
    everybody whom others doubt."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = self.neighbours._own
        honest = own.set

        def keep(stack_id: StackId, wanted: tuple[int, str] | None) -> None:
            if wanted is None or wanted[1] == SUSPECT:
                wanted = own.get(stack_id)
            honest(stack_id, wanted)

        own.set = keep  # type: ignore[method-assign]

    def alter(self, link: LinkId, message: Message) -> Message | None:
        return replace(message, heard_ms=0) if isinstance(message, ProbeAnswer) else message


class ClockLiar(_Relay):
    """Says that it is later than it is."""

    def alter(self, link: LinkId, message: Message) -> Message | None:
        if isinstance(message, (Ping, Pong)):
            return replace(message, mesh_ms=message.mesh_ms + CLOCK_LIE_MS)
        return message
