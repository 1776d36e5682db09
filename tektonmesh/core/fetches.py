"""Fetching blobs from neighbours: piece by piece, from one neighbour after the other, verified.

A fetch asks its neighbours in the order it was given, each until it says no, is silent or is gone;
the next goes on where the last one stopped. If the whole turns out wrong and several had a part in
it, it is asked for again from one alone, so that in the end a liar is known by its own pieces. A
fetch ends with the blob or without: when it is tried again is for `core/blobs`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NoReturn

from tektonmesh.core.allowance import Allowance
from tektonmesh.core.effects import Send
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import PIECE_SIZE, Fetch, Lacking, Piece
from tektonmesh.core.references import Blob
from tektonmesh.core.stash import hash_blob
from tektonmesh.core.types import LinkId
from tektonmesh.errors import RemoteError

PATIENCE_S = 10.0
PATIENCE_AHEAD_S = 30.0
"""How long one piece may take that somebody waits for, and another. A slow link needs some seconds
for one (64 KiB at 64 kbit/s take 8), and those of all fetches may come over the same."""
ASK_COST = 1024
"""The least that asking counts towards what is fetched ahead, so that looking everywhere for
what nobody has is no flood: 256 asks a second."""


class _Fetch:
    """One blob on its way. `left` are the neighbours still to be asked, `link` the one that is
    asked now (`sent`: it was told so), `sources` those that `data` came from. `alone` says that
    the blob must come from one neighbour."""

    def __init__(self, blob: Blob, size_max: int, links: list[LinkId], *, wanted: bool) -> None:
        self.blob = blob
        self.size_max = size_max
        self.links = links
        self.left = list(links)
        self.wanted = wanted
        self.link: LinkId | None = None
        self.sent = False
        self.paid = 0
        self.alone = False
        self.total = 0
        self.data = bytearray()
        self.sources: dict[LinkId, None] = {}

    def forget(self) -> None:
        """Drop what came so far."""
        self.total = 0
        self.data = bytearray()
        self.sources = {}


class Fetches:
    """All fetches under way. `done(blob, data)` is called once for each that is not stopped; data
    is None when no neighbour could give it."""

    def __init__(self, env: Env, done: Callable[[Blob, bytes | None], None]) -> None:
        self._env = env
        self._done = done
        self._open: dict[Blob, _Fetch] = {}
        self._ahead = Allowance(env, max(1, env.settings.blob_prefetch_bytes_per_s), PIECE_SIZE)

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, blob: Blob) -> bool:
        return blob in self._open

    @property
    def wanted(self) -> int:
        """How many of them somebody here waits for."""
        return sum(fetch.wanted for fetch in self._open.values())

    # --- beginning and ending --------------------------------------------------------------------

    def begin(self, blob: Blob, size_max: int, links: list[LinkId], *, wanted: bool) -> None:
        """Ask these links for a blob of at most `size_max` bytes. What somebody here `wanted`
        comes as fast as it can, other blobs within what may be fetched ahead."""
        assert blob not in self._open and links
        fetch = self._open[blob] = _Fetch(blob, size_max, links, wanted=wanted)
        self._next(fetch)

    def hurry(self, blob: Blob) -> None:
        """From now on somebody here waits for it."""
        fetch = self._open[blob]
        fetch.wanted = True
        if fetch.sent:
            instant = self._env.after(PATIENCE_S)
            self._env.deadlines.set_earlier(
                ("blob-fetch", blob), instant, partial(self._next, fetch)
            )
        else:
            self._ask(fetch)

    def stop(self, blob: Blob) -> None:
        """Nobody wants it any more; harmless if it is not under way."""
        if self._open.pop(blob, None) is not None:
            self._env.deadlines.drop(("blob-fetch", blob))

    def link_down(self, link: LinkId) -> None:
        """What this link was asked for goes on with the next."""
        for fetch in list(self._open.values()):
            if link in fetch.links:
                self._give_up(fetch, link)

    # --- asking ----------------------------------------------------------------------------------

    def _give_up(self, fetch: _Fetch, link: LinkId) -> None:
        """Never ask this neighbour for this blob again."""
        fetch.links.remove(link)
        if link in fetch.left:
            fetch.left.remove(link)
        if fetch.link == link:
            self._next(fetch)

    def _next(self, fetch: _Fetch) -> None:
        """Go on with the next neighbour. When all were asked and some gave a part, the part may be
        a lie that the others could not add to: ask those others once more, from the start."""
        if not fetch.left and fetch.sources and not fetch.alone:
            fetch.left = [link for link in fetch.links if link not in fetch.sources]
            fetch.alone = True
        if fetch.alone:
            fetch.forget()
        if fetch.left:
            fetch.link = fetch.left.pop(0)
            self._ask(fetch)
        else:
            self.stop(fetch.blob)
            self._done(fetch.blob, None)

    def _ask(self, fetch: _Fetch) -> None:
        fetch.sent = False
        key, now = ("blob-fetch", fetch.blob), self._env.now
        rest = (fetch.total or fetch.size_max) - len(fetch.data)
        fetch.paid = 0 if fetch.wanted else max(ASK_COST, min(PIECE_SIZE, rest))
        wait_s = self._ahead.take(fetch.paid) if fetch.paid else 0.0
        if wait_s > 0.0:
            self._env.deadlines.set(key, now + wait_s, partial(self._ask, fetch))
            return
        assert fetch.link is not None
        fetch.sent = True
        message = Fetch(fetch.blob, len(fetch.data), fetch.size_max)
        self._env.emit(Send(fetch.link, (message,)))
        patience_s = PATIENCE_S if fetch.wanted else PATIENCE_AHEAD_S
        self._env.deadlines.set(key, now + patience_s, partial(self._next, fetch))

    def _asked(self, blob: Blob, link: LinkId) -> _Fetch | None:
        """The fetch that waits for this link's answer about this blob."""
        fetch = self._open.get(blob)
        return fetch if fetch is not None and fetch.sent and fetch.link == link else None

    # --- answers ---------------------------------------------------------------------------------

    def on_lacking(self, link: LinkId, message: Lacking) -> None:
        fetch = self._asked(message.hash, link)
        if fetch is not None:
            self._ahead.give_back(max(0, fetch.paid - ASK_COST))
            self._next(fetch)

    def on_piece(self, link: LinkId, piece: Piece) -> None:
        """Add it, if it is what was asked for: the answers of those that were given up come late.
        Raises RemoteError for a piece that is none, or that makes a wrong blob of this link's."""
        if not 0 < len(piece.data) == min(PIECE_SIZE, piece.total - piece.offset):
            raise RemoteError("A piece of a blob has a wrong length.")
        fetch = self._asked(piece.hash, link)
        if fetch is None or piece.offset != len(fetch.data):
            return
        self._ahead.give_back(max(0, fetch.paid - max(ASK_COST, len(piece.data))))
        if piece.total > fetch.size_max:
            self._blame(fetch, link, "A blob is larger than what was asked for.")
        if fetch.total and piece.total != fetch.total:
            self._doubt(fetch, link, "The pieces of a blob tell of several lengths.")
            return
        fetch.total = piece.total
        fetch.sources[link] = None
        fetch.data += piece.data
        if len(fetch.data) < fetch.total:
            self._ask(fetch)
        else:
            self._judge(fetch, link)

    def _judge(self, fetch: _Fetch, link: LinkId) -> None:
        data = bytes(fetch.data)
        if hash_blob(data) == fetch.blob:
            self.stop(fetch.blob)
            self._done(fetch.blob, data)
        else:
            self._doubt(fetch, link, "The pieces of a blob do not have its hash.")

    def _doubt(self, fetch: _Fetch, link: LinkId, why: str) -> None:
        """What came does not fit. If all of it is this link's, so is the fault; parts of several
        may be anyone's, and each is asked for the whole, the one that is asked now first."""
        if list(fetch.sources) == [link]:
            self._blame(fetch, link, why)
        assert not fetch.alone, "what came from one neighbour is its own"
        fetch.alone = True
        fetch.left = [link, *(it for it in fetch.links if it != link)]
        self._next(fetch)

    def _blame(self, fetch: _Fetch, link: LinkId, why: str) -> NoReturn:
        """Go on with others, without anything of this link's, which closes."""
        if link in fetch.sources:
            fetch.forget()
        self._give_up(fetch, link)
        raise RemoteError(why)
