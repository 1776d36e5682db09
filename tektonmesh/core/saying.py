"""A reply that resumes: what a CI says is written down before it leaves, and can be had again.

One `Saying` is the reply of one durable, streamed message at the stack of its CI. Every byte has an
offset. What the CI says becomes pieces (the first at once, later ones after 15 ms or 1 KiB); a
piece leaves when its row is durable and its offset is below the credit that the origin gave, so
what an origin has seen is never lost here. Pieces stay for whoever reads behind: all that the
origin may lack, and what it may lack after a crash of its own. A CI that begins anew after it was
lost says again what is here already; that is compared as far as it is here, and only what is new
goes on. When a CI gets the message, and what becomes of it, is `turns`' and `inbox`' affair.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from tektonmesh.core.commits import Commits, Row
from tektonmesh.core.credits import WINDOW_MAX
from tektonmesh.core.machine import Env
from tektonmesh.core.streams import BULK_PIECE_SIZE, FLUSH_S, PIECE_SIZE
from tektonmesh.core.types import Saved
from tektonmesh.errors import DeliveryError

TABLE = "said"

KEPT_MAX = 4 << 20
"""Of one reply, on the disk and in memory. A CI that is further ahead of its reader fails."""

BEHIND_MAX = WINDOW_MAX + (256 << 10)
"""Kept behind what the origin says that its caller has: what was on its way to the caller when the
origin crashed."""

AGAIN_S = 0.05
"""No more often the same is said again; a reader asks each 0.1 s at most."""

ALL_MAX = 64 << 20
"""Of all such replies; beyond it those with more than `BEHIND_MAX` fail as they grow."""

AT_SIZE = 8


Away = Callable[[int, bytes], None]
"""How a piece leaves: its offset and its bytes."""


class Sayings:
    """What the replies of one node share."""

    def __init__(self, env: Env, commits: Commits) -> None:
        self.env = env
        self.commits = commits
        self.kept_bytes = 0
        self.told: Callable[[int, int], None] = lambda _delivery, _offset: None
        """Told of a delivery up to which offset its reply is durable."""

    def load(self, saved: Saved) -> dict[bytes, list[tuple[int, bytes]]]:
        """By message, the pieces that the disk kept, in order."""
        found: dict[bytes, list[tuple[int, bytes]]] = {}
        for table, key in sorted(place for place in saved if place[0] == TABLE):
            offset = int.from_bytes(key[-AT_SIZE:])
            found.setdefault(key[:-AT_SIZE], []).append((offset, saved[table, key]))
        return found

    def drop(self, row_key: bytes, pieces: list[tuple[int, bytes]]) -> None:
        """These pieces of a message are not needed any more."""
        for offset, _data in pieces:
            self.env.save(TABLE, row_key + offset.to_bytes(AT_SIZE), None)


class Saying:
    """One reply. `end` is what the CI has said, `kept` what is durable, `sent` what has left;
    `credit` is up to where the origin takes it. `at` is where the CI is in its present try."""

    __slots__ = (
        *(
            "_again_at",
            "_away",
            "_held",
            "_held_size",
            "_pieces",
            "_row_key",
            "_shared",
            "_size",
            "at",
        ),
        *("credit", "delivery", "done", "end", "have", "kept", "sent"),
    )

    def __init__(self, sayings: Sayings, row_key: bytes, away: Away, credit: int) -> None:
        self._shared = sayings
        self._row_key = row_key
        self._away = away
        self._pieces: deque[tuple[int, bytes]] = deque()
        self._size = 0
        self._held: list[bytes] = []
        self._held_size = 0
        self._again_at = 0.0
        self.delivery = 0
        self.credit = credit
        self.end = self.kept = self.sent = self.have = 0
        self.at = 0
        self.done: Callable[[], None] | None = None
        """Called when all that was said is durable, once the CI has said all."""

    # --- what the CI says ------------------------------------------------------------------------

    def begin(self, delivery: int) -> None:
        """The CI gets the message (again): what it says begins at the beginning."""
        self.delivery = delivery
        self.at = 0

    def say(self, data: bytes) -> None:
        """The next bytes. Raises DeliveryError `busy` if too much is kept, `ci_failed` if it says
        other words than before."""
        start, self.at = self.at, self.at + len(data)
        known = max(0, min(self.end - start, len(data)))
        if known:
            self._compare(start, data[:known])
        fresh = data[known:]
        if not fresh:
            return
        crowded = self._shared.kept_bytes > ALL_MAX and self._size > BEHIND_MAX
        if crowded or self._size + self._held_size + len(fresh) > KEPT_MAX:
            raise DeliveryError("The reply is written faster than it is read.", code="busy")
        self._held.append(fresh)
        self._held_size += len(fresh)
        self.end += len(fresh)
        first = self.end == len(fresh)
        if first or self._held_size >= PIECE_SIZE:
            self.flush()
        elif self._timer not in self._shared.env.deadlines:
            env = self._shared.env
            env.deadlines.set(self._timer, env.after(FLUSH_S), self.flush)

    def go_to(self, offset: int) -> None:
        """The CI says where it is. Raises DeliveryError `ci_failed` if it leaves something out."""
        if offset > self.end:
            raise DeliveryError("The CI left out a part of its reply.", code="ci_failed")
        self.at = offset

    def check_end(self) -> None:
        """The CI says that this was all. One that had nothing to add since it got the message again
        may keep silent. Raises DeliveryError `ci_failed` if it said more before."""
        if 0 < self.at < self.end:
            detail = "The CI began its reply anew, and ended it sooner."
            raise DeliveryError(detail, code="ci_failed")

    @property
    def _timer(self) -> tuple[str, bytes]:
        return ("said", self._row_key)

    def _compare(self, start: int, again: bytes) -> None:
        """Raises DeliveryError if it is not what was said there before."""
        held_at = self.end - self._held_size
        for offset, data in (*self._pieces, (held_at, b"".join(self._held))):
            low, high = max(start, offset), min(start + len(again), offset + len(data))
            if (
                low < high
                and again[low - start : high - start] != data[low - offset : high - offset]
            ):
                detail = "The CI began its reply anew, with other words."
                raise DeliveryError(detail, code="ci_failed")

    def flush(self) -> None:
        """What is held becomes pieces, and leaves when they are durable."""
        self._shared.env.deadlines.drop(self._timer)
        data = b"".join(self._held)
        self._held, self._held_size = [], 0
        start = self.end - len(data)
        rows: list[Row] = []
        for at in range(0, len(data), BULK_PIECE_SIZE):
            piece = data[at : at + BULK_PIECE_SIZE]
            self._pieces.append((start + at, piece))
            rows.append((TABLE, self._place(start + at), piece))
        if rows:
            self._count(len(data))
            self._shared.commits.save(tuple(rows), partial(self._durable, self.end))

    def finish(self, done: Callable[[], None]) -> None:
        """The CI has said all; `done` follows when that is durable."""
        self.flush()
        self.done = done
        if self.kept == self.end:
            done()

    def _place(self, offset: int) -> bytes:
        return self._row_key + offset.to_bytes(AT_SIZE)

    def _durable(self, offset: int) -> None:
        self.kept = max(self.kept, offset)
        self._shared.told(self.delivery, self.kept)
        self._send()
        if self.done is not None and self.kept == self.end:
            self.done()

    # --- what the origin takes -------------------------------------------------------------------

    def grant(self, credit: int, have: int, again_from: int | None) -> bool:
        """The origin's caller has everything before `have`, and takes what comes before `credit`;
        with `again_from` it has nothing from there on. False if that is not here any more."""
        self.credit = max(self.credit, credit)
        self.have = max(self.have, min(have, self.end))
        if again_from is not None:
            if again_from < self._begin or again_from > self.end:
                return False
            now = self._shared.env.now
            if now >= self._again_at:  # asking costs less than answering
                self._again_at = now + AGAIN_S
                self.sent = min(self.sent, again_from)
        self._send()
        self._let_go()
        return True

    @property
    def _begin(self) -> int:
        """The first byte that is here."""
        return self._pieces[0][0] if self._pieces else self.end - self._held_size

    def _send(self) -> None:
        """What is durable and allowed leaves."""
        limit = min(self.kept, self.credit)
        if self.sent >= limit:
            return
        for offset, data in list(self._pieces):
            end = offset + len(data)
            if end <= self.sent or offset >= limit:
                continue
            part = data[max(0, self.sent - offset) : limit - offset]
            self._away(max(offset, self.sent), part)
            self.sent = min(end, limit)

    def _let_go(self) -> None:
        pieces, enough = self._pieces, self.have - BEHIND_MAX
        while pieces and pieces[0][0] + len(pieces[0][1]) <= enough:
            offset, data = pieces.popleft()
            self._count(-len(data))
            self._shared.env.save(TABLE, self._place(offset), None)

    def drop(self) -> None:
        """It is over."""
        self._shared.drop(self._row_key, list(self._pieces))
        self._count(-self._size)
        self._pieces.clear()
        self._held, self._held_size = [], 0
        self._shared.env.deadlines.drop(self._timer)

    def restore(self, pieces: list[tuple[int, bytes]]) -> None:
        """What the disk kept, in order; what follows a hole was never said."""
        for offset, data in pieces:
            if self._pieces and offset != self.end:
                break
            self._pieces.append((offset, data))
            self._count(len(data))
            self.end = offset + len(data)
        self.kept = self.sent = self.end

    def _count(self, by: int) -> None:
        self._size += by
        self._shared.kept_bytes += by
        assert self._size >= 0 and self._shared.kept_bytes >= 0
