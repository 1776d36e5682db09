"""Blobs: bytes too large for a record, named by their hash, that go from neighbour to neighbour.

A record carries the hash and the length of a blob; whoever holds the record can have the blob from
any neighbour that has it and need not trust that neighbour. This module decides what is fetched
and who is answered: what somebody here waits for at once, everything else that live owners refer
to ahead of time and within a budget (docs/design/blobs.md).
"""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any

from tektonmesh.core.effects import Answer, AnswerFailed
from tektonmesh.core.events import GetBlob, PutBlob
from tektonmesh.core.fetches import Fetches
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import BLOB_SIZE_MAX, Fetch, Lacking, Piece
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.ownlinks import UP
from tektonmesh.core.references import HASH_SIZE, Blob, References
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.serving import Serving
from tektonmesh.core.stash import Stash, hash_blob
from tektonmesh.core.types import LinkId, Saved
from tektonmesh.core.wants import Want, Wants
from tektonmesh.errors import LocalError, MeshError

GETS_MAX = 256
"""Callers that may wait at once; the next one is told `busy`."""
LOOK_MAX = 256
"""Wants looked at in one turn, and the pause before the next ones."""
LOOK_PAUSE_S = 0.05
AGAIN_S = 0.2
AGAIN_MAX_S = 5.0
"""Pauses between the rounds for a caller: the neighbours may be fetching it just now."""
OWNERS_TRIED = 8
"""Of the owners that refer to a blob so many are looked for among the neighbours."""

PUMP = ("blob", "pump")


class Demand:
    """The callers that wait for one blob, and the pause after the next round without success."""

    __slots__ = ("pause_s", "tickets")

    def __init__(self) -> None:
        self.tickets: dict[int, None] = {}
        self.pause_s = AGAIN_S


class Blobs:
    """All blobs of one node."""

    def __init__(self, env: Env, replica: Replica, neighbours: Neighbours, saved: Saved) -> None:
        self._env = env
        self._neighbours = neighbours
        self._references = References(replica, env.me)
        self._wants = Wants(env, self._pump_soon)
        self._demands: dict[Blob, Demand] = {}
        self._tickets: dict[int, Blob] = {}
        self._leaving = False
        self.stash = Stash(env, self._references, self._want)
        self.fetches = Fetches(env, self._done)
        self._serving = Serving(env, self._find)
        self.stash.read_back(saved)

    def start(self) -> None:
        """Want what the owners that the disk remembered refer to."""
        for blob in self._references.blobs():
            self._want(blob)

    @property
    def waiting(self) -> int:
        """How many callers wait for a blob."""
        return len(self._tickets)

    @property
    def lacking(self) -> int:
        """How many blobs are referred to and not held."""
        return len(self._wants)

    # --- commands --------------------------------------------------------------------------------

    def put(self, command: PutBlob) -> dict[str, Any]:
        """Keep a blob and say its hash. Raises LocalError `bad_request`, `too_large` or, when what
        this stack itself holds fills the quota, `busy`."""
        data = command.data
        if not data:
            raise LocalError("A blob has at least one byte.")
        if len(data) > BLOB_SIZE_MAX:
            raise LocalError(f"A blob has at most {BLOB_SIZE_MAX} bytes.", code="too_large")
        blob = hash_blob(data)
        if not self.stash.put(blob, data, ours=True):
            raise LocalError("This stack has no room for more blobs.", code="busy")
        self.fetches.stop(blob)
        self._wants.remove(blob)
        self._answer(blob, data)
        return {"hash": blob.hex(), "length": len(data)}

    def get(self, command: GetBlob) -> dict[str, Any] | None:
        """The bytes if they are held, else they are fetched and the answer follows: `not_found`
        if nobody refers to it and no neighbour has it, `timeout` if it did not come in time.
        Raises LocalError `bad_request`, `leaving`, or `busy` when too many wait."""
        blob = command.hash
        if len(blob) != HASH_SIZE:
            raise LocalError(f"The hash of a blob has {HASH_SIZE} bytes.")
        data = self.stash.get(blob)
        if data is not None:
            return {"data": data}
        if self._leaving:
            raise LocalError("This stack is leaving the mesh.", code="leaving")
        if len(self._tickets) >= GETS_MAX:
            raise LocalError("Too many callers wait for blobs.", code="busy")
        most = self._env.settings.request_timeout_max_s
        instant = self._env.after(min(max(command.timeout_s, 0.0), most))
        ticket = command.ticket
        late = partial(self._fail, ticket, "timeout", "The blob did not come before the deadline.")
        self._env.deadlines.set(("blob-get", ticket), instant, late)
        self._tickets[ticket] = blob
        self._demands.setdefault(blob, Demand()).tickets[ticket] = None
        if blob in self.fetches:
            self.fetches.hurry(blob)
        self._pump_soon()
        return None

    def cancel(self, ticket: int) -> bool:
        """Nobody waits for this ticket any more; False if it is none of ours."""
        if ticket not in self._tickets:
            return False
        self._fail(ticket, "cancelled", "The caller cancelled the request.")
        return True

    def leaving(self) -> None:
        """Fetch nothing more, and answer those that wait: after this nobody will."""
        self._leaving = True
        for ticket in list(self._tickets):
            self._fail(ticket, "leaving", "This stack is leaving the mesh.")
        for want in self._wants.all():
            self._unwant(want.blob)

    def _answer(self, blob: Blob, data: bytes) -> None:
        if blob in self._demands:
            for ticket in self._demands[blob].tickets:
                self._end(ticket)
                self._env.emit(Answer(ticket, {"data": data}))
            self._forget(blob)

    def _fail(self, ticket: int, code: str, detail: str) -> None:
        """Without a caller left, a blob is fetched ahead if it was to be."""
        blob = self._tickets[ticket]
        demand = self._demands[blob]
        del demand.tickets[ticket]
        self._end(ticket)
        self._env.emit(AnswerFailed(ticket, MeshError(detail, code=code).as_dict()))
        if not demand.tickets:
            self._forget(blob)
            self.fetches.stop(blob)
            want = self._wants.get(blob)
            if want is not None:
                self._wants.wake(want)
            self._pump_soon()

    def _end(self, ticket: int) -> None:
        del self._tickets[ticket]
        self._env.deadlines.drop(("blob-get", ticket))

    def _forget(self, blob: Blob) -> None:
        del self._demands[blob]
        self._env.deadlines.drop(("blob-again", blob))

    # --- what others tell ------------------------------------------------------------------------

    def link_up(self, link: LinkId) -> None:
        """A new neighbour may have what the others lack."""
        self._serving.link_up(link)
        for want in self._wants.all():
            if want.blob not in self.fetches:
                self._wants.wake(want)
        for blob in self._demands:
            self._env.deadlines.drop(("blob-again", blob))
        self._pump_soon()

    def link_down(self, link: LinkId) -> None:
        self._serving.link_down(link)
        self.fetches.link_down(link)

    def on_change(self, change: Change, via: LinkId | None) -> None:
        """An owner's news, which came on the link `via`, if on any."""
        gone, fresh = self._references.on_change(change)
        for blob in gone:
            self.stash.review(blob)
            if not self._references.to(blob):
                self._unwant(blob)
        for blob in fresh:
            self.stash.review(blob)
            self._want(blob, via)
        for blob in self._references.of(change.owner) if gone else ():
            self.stash.review(blob)  # its owner's quota may have room now

    def on_fetch(self, link: LinkId, message: Fetch) -> None:
        self._serving.on_fetch(link, message)

    def on_piece(self, link: LinkId, message: Piece) -> None:
        """Raises RemoteError as `Fetches.on_piece` does."""
        self.fetches.on_piece(link, message)

    def on_lacking(self, link: LinkId, message: Lacking) -> None:
        self.fetches.on_lacking(link, message)

    def _find(self, blob: Blob) -> bytes | None:
        """What a neighbour asks for. It may need this stack to get it, whether or not it has room
        of its own for it: blobs go hop by hop."""
        data = self.stash.get(blob)
        want = self._wants.get(blob)
        if want is not None:
            want.asked = True
            if want.full:
                self._wants.wake(want)
        return data

    def _want(self, blob: Blob, via: LinkId | None = None) -> None:
        """Fetch this some time, if it is referred to and not held."""
        if blob in self.stash or not self._references.to(blob) or self._leaving:
            return
        want = self._wants.add(blob, via)
        if want is not None and blob not in self.fetches:
            self._wants.wake(want)

    def _unwant(self, blob: Blob) -> None:
        """Nobody refers to it any more; who waits for it goes on waiting."""
        self._wants.remove(blob)
        if blob not in self._demands:
            self.fetches.stop(blob)
            self._pump_soon()

    # --- fetching --------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        """At the end of this turn, when every machine has dealt with it."""
        self._env.deadlines.set_earlier(PUMP, self._env.now, self._pump)

    def _pump(self) -> None:
        """Begin as many fetches as may be under way, first those that somebody waits for."""
        settings = self._env.settings
        for blob in list(self._demands):
            pausing = ("blob-again", blob) in self._env.deadlines
            if self.fetches.wanted >= settings.blob_fetches:
                break
            if blob not in self.fetches and not pausing and not self._begin(blob):
                self._done(blob, None)
        looks = LOOK_MAX if settings.blob_prefetch_bytes_per_s else 0
        for want in self._wants.ready(looks):
            if len(self.fetches) >= settings.blob_fetches:
                return
            self._look(want)
        if self._wants.ready(looks):
            self._env.deadlines.set(PUMP, self._env.after(LOOK_PAUSE_S), self._pump)

    def _look(self, want: Want) -> None:
        """Begin to fetch it ahead, or put it off."""
        self._wants.take(want)
        if want.blob in self.fetches:
            return
        if not self.stash.has_room(want.blob, asked=want.asked):
            self._wants.no_room(want)
        elif not self._begin(want.blob):
            self._wants.failed(want)

    def _begin(self, blob: Blob) -> bool:
        """Fetch it from the neighbours there are; False if there are none."""
        links = self._order(blob)
        if links:
            size_max = self._references.size_max(blob)
            self.fetches.begin(blob, size_max, links, wanted=blob in self._demands)
        return bool(links)

    def _order(self, blob: Blob) -> list[LinkId]:
        """Whom to ask: the owners that are neighbours, the one that told of it, the others."""
        owners = islice(self._references.to(blob), OWNERS_TRIED)
        likely = [link.link for owner in owners if (link := self._neighbours.link_to(owner))]
        want = self._wants.get(blob)
        if want is not None and want.via is not None:
            likely.append(want.via)
        up = [it.link for it in self._neighbours.links.values() if it.state == UP]
        shuffled = sorted(up, key=lambda _: self._env.chance.random())
        return list(dict.fromkeys([*(it for it in likely if it in up), *shuffled]))

    def _done(self, blob: Blob, data: bytes | None) -> None:
        """A round over the neighbours is over, with the blob or without."""
        want = self._wants.get(blob)
        if data is not None:
            kept = self.stash.put(blob, data, wanted=blob in self._demands)
            if kept:
                self._wants.remove(blob)
            elif want is not None:
                self._wants.no_room(want)
            self._answer(blob, data)
        else:
            if want is not None:
                self._wants.failed(want)
            if blob in self._demands:
                self._again(blob)
        self._pump_soon()

    def _again(self, blob: Blob) -> None:
        """No neighbour has it now. Where an owner refers to it, it may still be on its way."""
        demand = self._demands[blob]
        if not self._references.to(blob):
            for ticket in list(demand.tickets):
                self._fail(ticket, "not_found", "No stack within reach has this blob.")
            return
        instant = self._env.after(self._env.jitter(demand.pause_s))
        demand.pause_s = min(2.0 * demand.pause_s, AGAIN_MAX_S)
        self._env.deadlines.set(("blob-again", blob), instant, self._pump)
