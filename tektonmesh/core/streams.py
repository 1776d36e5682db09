"""Replies in pieces: cutting them for the way (`StreamOut`) and joining them again (`StreamIn`).

A reply is a row of bytes, and every piece says at which offset it begins, so pieces may be lost,
doubled or overtaken on the way and the text still comes out whole, in order and never twice. The
sender keeps the last bytes to fill gaps. When a piece is sent, and when a gap is asked about, is
decided here as far as it depends on bytes; the clocks are the callers'.
"""

from __future__ import annotations

from collections import deque

from tektonmesh.core.credits import UNLIMITED, WINDOW_MAX

FLUSH_S = 0.015
"""Tokens that follow one another this quickly share an envelope (docs/design/forwarding.md)."""

PIECE_SIZE = 1024
"""A token stream's envelope is not worth delaying for more than this."""

BULK_PIECE_SIZE = 32 * 1024
"""When nobody watches the reply grow, larger pieces cost less. Two frames of a link."""

REPLAY_SIZE = 256 * 1024
"""Kept to fill gaps at the source of a reply that is collected. Of one that is streamed all is kept
that may be missing, which its credit bounds."""

UNSETTLED_MAX = 4 << 20
"""Of one reply, waiting or on its way. A CI that writes faster than the mesh takes it away would
fill this stack's memory, and at 32 MiB cost the link that all others share."""

EARLY_SIZE = 256 * 1024
"""Kept per stream at its end while a gap before it is open; as much as can be replayed."""

Piece = tuple[int, bytes]


class StreamOut:
    """A reply as its destination stack (where the CI is) cuts it up.

    With `live` the first piece leaves at once and later ones when `PIECE_SIZE` is reached or
    `FLUSH_S` is over; otherwise pieces leave at `BULK_PIECE_SIZE`. Nothing leaves beyond `credit`,
    an offset. `unsettled` counts the bytes that were sent and of whose fate nothing is known.
    """

    __slots__ = (
        *("_held", "_held_size", "_live", "_replay", "_replay_size"),
        *("credit", "offset", "unsettled"),
    )

    def __init__(self, live: bool) -> None:
        self.offset = 0
        self.unsettled = 0
        self.credit = UNLIMITED
        self._live = live
        self._held: list[bytes] = []
        self._held_size = 0
        self._replay: deque[Piece] = deque()
        self._replay_size = 0

    @property
    def held(self) -> int:
        """Bytes that wait to be sent."""
        return self._held_size

    @property
    def size(self) -> int:
        """Bytes that are kept, sent or not."""
        return self._held_size + self._replay_size

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits or is on its way that nothing may be added."""
        return self.unsettled + self._held_size > UNSETTLED_MAX

    @property
    def may_end(self) -> bool:
        """Whether all that is held may leave now."""
        return self.offset + self._held_size <= self.credit

    def settled(self, size: int, _code: str) -> None:
        """A piece of `size` bytes is not on its way any more, however that ended."""
        self.unsettled -= size
        assert self.unsettled >= 0, "a piece ends once"

    def push(self, data: bytes) -> list[Piece]:
        """Add bytes; the pieces that are to leave now."""
        if not data:
            return []
        self._held.append(data)
        self._held_size += len(data)
        if self.offset >= self.credit:
            return []
        limit = PIECE_SIZE if self._live else BULK_PIECE_SIZE
        if self._held_size >= limit or (self._live and self.offset == 0):
            return self.flush()
        return []

    def flush(self) -> list[Piece]:
        """All that is held and may leave, as pieces that leave now."""
        data = self.take()
        if self.offset > self.credit:
            back = min(self.offset - self.credit, len(data))
            self._held, self._held_size = [data[len(data) - back :]], back
            data = data[: len(data) - back]
            self.offset -= back
        start = self.offset - len(data)
        assert start >= 0
        pieces = []
        for at in range(0, len(data), BULK_PIECE_SIZE):
            pieces.append((start + at, data[at : at + BULK_PIECE_SIZE]))
        for piece in pieces:
            self._remember(piece)
        return pieces

    def take(self) -> bytes:
        """All that is held, to ride with the final reply, which is kept elsewhere."""
        data = b"".join(self._held)
        self._held.clear()
        self._held_size = 0
        self.offset += len(data)
        return data

    def forget(self, offset: int) -> None:
        """The origin has everything before `offset`: it need not be kept."""
        replay = self._replay
        while replay and replay[0][0] + len(replay[0][1]) <= offset:
            self._replay_size -= len(replay.popleft()[1])

    def since(self, offset: int) -> list[Piece] | None:
        """The pieces that were sent from `offset` on; None if some of them are not kept."""
        if self._replay and self._replay[0][0] > offset:
            return None
        return [piece for piece in self._replay if piece[0] + len(piece[1]) > offset]

    @property
    def replay_size(self) -> int:
        return self._replay_size

    def _remember(self, piece: Piece) -> None:
        self._replay.append(piece)
        self._replay_size += len(piece[1])
        limit = REPLAY_SIZE if self.credit == UNLIMITED else WINDOW_MAX
        while self._replay_size > limit:
            self._replay_size -= len(self._replay.popleft()[1])


class StreamIn:
    """A reply as its origin joins it."""

    __slots__ = ("_early", "_early_size", "end", "next")

    def __init__(self) -> None:
        self.next = 0
        self.end: int | None = None
        self._early: dict[int, bytes] = {}
        self._early_size = 0

    @property
    def complete(self) -> bool:
        return self.end is not None and self.next >= self.end

    @property
    def has_gap(self) -> bool:
        """Whether later bytes (or the end) are known while earlier ones are missing."""
        return bool(self._early) or (self.end is not None and self.next < self.end)

    def accept(self, offset: int, data: bytes) -> bytes:
        """Take a piece; the bytes that are now next in order (often empty, never twice)."""
        assert offset >= 0
        if offset > self.next:
            self._keep_early(offset, data)
            return b""
        fresh = data[self.next - offset :]
        if not fresh:
            return b""
        self.next += len(fresh)
        if not self._early:
            return fresh
        return b"".join([fresh, *self._now_in_order()])

    def finish(self, offset: int, data: bytes) -> bytes:
        """Take the last piece, which says by its own end where the whole reply ends."""
        self.end = offset + len(data)
        return self.accept(offset, data)

    def _keep_early(self, offset: int, data: bytes) -> None:
        held = self._early.get(offset, b"")
        if len(held) >= len(data) or self._early_size + len(data) > EARLY_SIZE:
            return  # what does not fit is asked for again
        self._early[offset] = data
        self._early_size += len(data) - len(held)

    def _now_in_order(self) -> list[bytes]:
        fresh = []
        for offset in sorted(self._early):
            if offset > self.next:
                break
            data = self._early.pop(offset)
            self._early_size -= len(data)
            rest = data[self.next - offset :]
            self.next += len(rest)
            fresh.append(rest)
        return fresh
