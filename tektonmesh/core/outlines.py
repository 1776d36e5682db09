"""Names before bodies: what a joining stack asks for first of owners that it has never heard of.

An outline is the newest head of an owner with its topology records, without its CIs: some 3 % of an
owner with fifty of them. So everybody can be named and reached before the bodies arrive. Nothing
is compared or passed on by outlines: an owner of whom only that is held counts as missing until it
comes whole. Whole owners are sent by `core/dissemination` and asked for by `core/antientropy`,
which waits for the outlines first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tektonmesh.core.effects import Send
from tektonmesh.core.held import Held
from tektonmesh.core.intake import OWNERS_MAX
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Delta, Outlines, WantOutlines
from tektonmesh.core.record import size_of
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import LinkId, Scope, StackId
from tektonmesh.errors import RemoteError

UNKNOWN_MIN = 3
"""With fewer unknown owners than this the round trip costs more than it saves; a guess."""
OUTLINES_MAX = 4096
"""Owners in one question: 5 MB of answer where each has ten links."""
PATIENCE_S = 2.0
"""Without an answer for so long the bodies are asked for all the same."""
CHUNK_BYTES = 1 << 17
"""Of one answer, half of the largest message: control frames are never far behind."""
SPARED_MIN = 4096
"""Bytes of other records from which on an outline is worth its own head and key document."""
HEAD_BYTES = 1024
"""A head, its key document and the proof of membership; about, and rather too much."""


class Outliner:
    """Both sides of the question. `done()` is called when no answer is waited for any more."""

    def __init__(self, env: Env, replica: Replica, done: Callable[[], None]) -> None:
        self._env = env
        self._replica = replica
        self._done = done
        self._asked: dict[StackId, None] = {}
        """Once each: whoever has no outline to send, or sends none, must not be asked for ever."""
        self._open: dict[LinkId, int] = {}
        """Link -> questions without their last answer."""

    @property
    def waiting(self) -> bool:
        """Whether outlines are on their way, so that bodies had better wait."""
        return bool(self._open)

    def ask(self, link: LinkId, owners: Iterable[StackId]) -> None:
        """Ask for the outlines of those of `owners` that nothing is held of, unless they were
        asked for already or are few."""
        held, asked = self._replica.owners, self._asked
        unknown = [owner for owner in owners if owner not in held and owner not in asked]
        if len(unknown) < UNKNOWN_MIN:
            return
        del unknown[OUTLINES_MAX:]
        asked |= dict.fromkeys(unknown)
        while len(asked) > OWNERS_MAX:
            del asked[next(iter(asked))]
        self._open[link] = self._open.get(link, 0) + 1
        self._env.emit(Send(link, (WantOutlines(tuple(unknown)),)))
        self._be_patient()

    def link_down(self, link: LinkId) -> None:
        """No answer will come over this link."""
        if self._open.pop(link, None) is not None:
            self._look()

    def on_want(self, link: LinkId, message: WantOutlines, left_out: Iterable[StackId]) -> None:
        """Answer with the outlines of the owners that are worth it, but for those `left_out`.
        Raises RemoteError if too many are asked for at once."""
        if len(message.owners) > OUTLINES_MAX:
            raise RemoteError("A peer asks for too many outlines at once.")
        barred = dict.fromkeys(left_out)
        chunks: list[list[Delta]] = [[]]
        room = CHUNK_BYTES
        for owner in dict.fromkeys(message.owners):
            held = self._replica.owners.get(owner)
            outline = None if held is None or owner in barred else outline_of(held)
            if outline is None:
                continue
            size = HEAD_BYTES + _size(outline)
            if chunks[-1] and size > room:
                chunks.append([])
                room = CHUNK_BYTES
            chunks[-1].append(outline)
            room -= size
        last = len(chunks) - 1
        answers = (Outlines(tuple(chunk), at != last) for at, chunk in enumerate(chunks))
        self._env.emit(Send(link, tuple(answers)))

    def on_outlines(self, link: LinkId, message: Outlines) -> None:
        """Hold what is new. Raises RemoteError as `Replica.take_outline` does."""
        for outline in message.outlines:
            self._replica.take_outline(outline, link)
        left = self._open.get(link)
        if left is None:
            return
        self._be_patient()
        if not message.more:
            self._open[link] = left - 1
            if left == 1:
                del self._open[link]
            self._look()

    def _be_patient(self) -> None:
        self._env.deadlines.set("outlines", self._env.after(PATIENCE_S), self._give_up)

    def _give_up(self) -> None:
        self._open = {}
        self._look()

    def _look(self) -> None:
        if not self._open:
            self._env.deadlines.drop("outlines")
            self._done()


def outline_of(held: Held) -> Delta | None:
    """The outline of an owner; None if it is not held whole or hardly has anything else."""
    if held.base is None:
        return None
    outline = topology_of(held)
    return outline if held.record_set.size - _size(outline) >= SPARED_MIN else None


def topology_of(held: Held) -> Delta:
    """The newest head of an owner with its topology records."""
    puts = tuple(put for put in held.record_set.puts() if put[0] == Scope.TOPOLOGY)
    return Delta(held.signed, None, puts, (), held.signed_keydoc)


def _size(outline: Delta) -> int:
    return sum(size_of(key, value) for _, key, value in outline.puts)
