"""Sending blobs to neighbours that ask for them, no faster than one link's share.

A neighbour asks for one piece at a time. What it asks beyond its share waits; what it asks beyond
a bound of waiting is forgotten, and it asks again or elsewhere. Blobs are for members, and every
link was admitted, so who asks is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable

from tektonmesh.core.allowance import Allowance
from tektonmesh.core.effects import Send
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import PIECE_SIZE, Fetch, Lacking, Piece
from tektonmesh.core.references import Blob
from tektonmesh.core.types import LinkId

ASKS_MAX = 32
"""Asks of one link that wait, at most one for each blob: four times what a node asks one neighbour
for at once. A further one is dropped."""
ANSWER_COST = 1024
"""The least that an answer counts: saying no takes time as well."""


class _Asker:
    """One link, and what it waits for."""

    def __init__(self, env: Env) -> None:
        self.allowance = Allowance(env, env.settings.blob_serve_bytes_per_s, PIECE_SIZE)
        self.asks: dict[Blob, Fetch] = {}


class Serving:
    """The asks of all links. `find` gives the bytes of a blob that is held."""

    def __init__(self, env: Env, find: Callable[[Blob], bytes | None]) -> None:
        self._env = env
        self._find = find
        self._askers: dict[LinkId, _Asker] = {}

    def link_up(self, link: LinkId) -> None:
        self._askers[link] = _Asker(self._env)

    def link_down(self, link: LinkId) -> None:
        del self._askers[link]
        self._env.deadlines.drop(("blob-serve", link))

    def on_fetch(self, link: LinkId, message: Fetch) -> None:
        """Answer now, or when the link's share allows."""
        asks = self._askers[link].asks
        if message.hash in asks or len(asks) < ASKS_MAX:
            asks[message.hash] = message
            self._serve(link)

    def _serve(self, link: LinkId) -> None:
        asker = self._askers[link]
        while asker.asks:
            ask = next(iter(asker.asks.values()))
            answer = self._answer(ask)
            size = len(answer.data) if isinstance(answer, Piece) else 0
            wait_s = asker.allowance.take(max(size, ANSWER_COST))
            if wait_s > 0.0:
                instant = self._env.after(wait_s)
                self._env.deadlines.set(("blob-serve", link), instant, lambda: self._serve(link))
                return
            del asker.asks[ask.hash]
            self._env.emit(Send(link, (answer,)))

    def _answer(self, ask: Fetch) -> Piece | Lacking:
        data = self._find(ask.hash)
        if data is None or len(data) > ask.size_max or ask.offset >= len(data):
            return Lacking(ask.hash)
        piece = data[ask.offset : ask.offset + PIECE_SIZE]
        return Piece(ask.hash, ask.offset, len(data), piece)
