"""Flooding: every change to every link but the one it came from, the first time it comes.

The floor for time on a given overlay, and the ceiling for copies: on links between all of n nodes
each change is sent (n - 1)^2 times, a redundancy of n - 2. It repairs nothing and notices no death;
what a link loses with its end is lost.
"""

from __future__ import annotations

from dataclasses import dataclass

from tektonmesh.core import events as ev
from tektonmesh.core.effects import Dial, Send
from tektonmesh.core.machine import Env
from tektonmesh.core.types import LinkId
from tektonmesh.sim.baselines.machine import Baseline, Place, Records, Said, packed_size

REDIAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class News(Said):
    """One record of one owner, new."""

    owner: str
    records: Records


class Flooding(Baseline):
    """Keeps a link to each of its seeds."""

    def __init__(self, env: Env, place: Place) -> None:
        super().__init__(env, place)
        self._links: dict[LinkId, str] = {}
        """The address that is dialled again when the link ends; empty if the peer dials."""

    def started(self) -> None:
        for address in self.seeds:
            self._dial(address)

    def _dial(self, address: str) -> None:
        self.env.emit(Dial(address, None))

    def dial_failed(self, address: str) -> None:
        instant = self.env.after(REDIAL_S)
        self.env.deadlines.set(("dial", address), instant, lambda: self._dial(address))

    def link_up(self, event: ev.LinkUp) -> None:
        self._links[event.link] = event.address if event.outbound else ""

    def link_down(self, link: LinkId) -> None:
        address = self._links.pop(link, "")
        if address:
            self.dial_failed(address)

    def wrote(self, key: str) -> None:
        version, value = self.own.records[key]
        size = packed_size([self.address, version, key, value])
        news = News(
            size=size,
            body_size=size,
            bodies=((self.address, version),),
            owner=self.address,
            records={key: (version, value)},
        )
        self._pass_on(news, None)

    def received(self, link: LinkId, messages: tuple[News, ...]) -> None:
        for news in messages:
            if self.merge(news.owner, news.records):
                self._pass_on(news, link)

    def _pass_on(self, news: News, source: LinkId | None) -> None:
        for link in self._links:
            if link != source:
                self.env.emit(Send(link, (news,)))  # type: ignore[arg-type]
