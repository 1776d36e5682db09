"""A central registry: one node keeps what all write to it, and every other asks it again and again.

The first of the peers is the registry. A write goes there at once on a standing link; the others
poll each 5 s with the revision they have (the conditional GET of HTTP, RFC 9110, 13.1) and get
what changed since, which is kinder than a whole listing. HTTP's own headers are not counted. When
the registry is gone, nobody learns anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from tektonmesh.core import events as ev
from tektonmesh.core.effects import Dial, Send
from tektonmesh.core.machine import Env
from tektonmesh.core.types import LinkId
from tektonmesh.sim.baselines.machine import Baseline, Place, Records, Said, packed_size

POLL_S = 5.0
REDIAL_S = 1.0

Rows = tuple[tuple[str, Records], ...]
"""(owner, records)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Put(Said):
    """To the registry: a record of mine."""

    rows: Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll(Said):
    """To the registry: what is newer than this revision?"""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing(Said):
    """From the registry: what is newer (nothing: not modified), and its revision now."""

    revision: int
    rows: Rows


class Central(Baseline):
    """The registry if its address is the first, else one that writes and polls."""

    def __init__(self, env: Env, place: Place) -> None:
        super().__init__(env, place)
        self._registry = place.peers[0]
        self._link: LinkId | None = None
        self._revision = 0
        self._changed: dict[tuple[str, str], int] = {}
        """At the registry: (owner, key) -> the revision of its newest write, newest last."""

    @property
    def serves(self) -> bool:
        """Whether this is the registry."""
        return self.address == self._registry

    def started(self) -> None:
        if not self.serves:
            self._dial()
            self.every("poll", POLL_S, self._poll)

    def _dial(self) -> None:
        self.env.emit(Dial(self._registry, None))

    def link_up(self, event: ev.LinkUp) -> None:
        if event.outbound:
            self._link = event.link

    def link_down(self, link: LinkId) -> None:
        if link == self._link:
            self._link = None
            self._dial_later()

    def dial_failed(self, address: str) -> None:
        self._dial_later()

    def _dial_later(self) -> None:
        self.env.deadlines.set("dial", self.env.after(REDIAL_S), self._dial)

    def wrote(self, key: str) -> None:
        if self.serves:
            self._note(self.address, (key,))
        else:
            rows = ((self.address, {key: self.own.records[key]}),)
            size = packed_size(rows)
            self._tell(Put(size=size, body_size=size, bodies=_bodies(rows), rows=rows))

    def _poll(self) -> None:
        self._tell(Poll(size=packed_size(self._revision), revision=self._revision))

    def _tell(self, message: Said) -> None:
        if self._link is not None:
            self.env.emit(Send(self._link, (message,)))  # type: ignore[arg-type]

    def received(self, link: LinkId, messages: tuple[Put | Poll | Listing, ...]) -> None:
        for message in messages:
            if isinstance(message, Poll):
                self._answer(link, message.revision)
                continue
            for owner, records in message.rows:
                if self.merge(owner, records) and self.serves:
                    self._note(owner, tuple(records))
            if isinstance(message, Listing):
                self._revision = message.revision

    def _note(self, owner: str, keys: tuple[str, ...]) -> None:
        self._revision += 1
        for key in keys:
            self._changed.pop((owner, key), None)
            self._changed[(owner, key)] = self._revision

    def _answer(self, link: LinkId, known: int) -> None:
        news: dict[str, dict[str, tuple[int, bytes | None]]] = {}
        for (owner, key), revision in reversed(self._changed.items()):
            if revision <= known:
                break
            news.setdefault(owner, {})[key] = self.entries[owner].records[key]
        rows = tuple(news.items())
        listing = Listing(
            size=packed_size([self._revision, rows]),
            body_size=packed_size(rows) if rows else 0,
            bodies=_bodies(rows),
            revision=self._revision,
            rows=rows,
        )
        self.env.emit(Send(link, (listing,)))  # type: ignore[arg-type]


def _bodies(rows: Rows) -> tuple[tuple[str, int], ...]:
    return tuple((owner, max(at for at, _value in records.values())) for owner, records in rows)
