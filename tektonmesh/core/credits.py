"""How far a streamed reply may run ahead of its reader: credit by absolute offsets.

The origin of a message says up to which byte of the reply its destination may send: what the caller
has read, and a window beyond it. Offsets are absolute, so a credit may be lost, doubled or
overtaken. The window begins at 64 KiB and doubles up to 1 MiB while the caller reads faster than
credit travels; all windows of a node together stay within 64 MiB, and room is set aside before
credit is given, so an honest destination always finds it. One that sends beyond its credit breaks
the protocol of that stream and of no other. A caller that does not read holds back its own stream
alone: what its CI goes on to say waits at the destination (`core/answering`).
"""

from __future__ import annotations

from tektonmesh.core.machine import Env

WINDOW_MIN = 64 << 10
WINDOW_MAX = 1 << 20
WINDOWS_MAX = 64 << 20
"""All windows together; beyond it each further stream gets `WINDOW_LEAST` only."""

WINDOW_LEAST = 4 << 10
"""Enough for tokens. A thousand streams beyond `WINDOWS_MAX` take 4 MiB."""

FAST_S = 0.1
"""Credit that is used up within this, or four round trips, was too little."""

UNLIMITED = 1 << 62


HAVE_STEP = 32 << 10
"""Bytes that have come after which the destination is told, so that it need not keep them."""


class Grant:
    """What one stream may send: up to `limit`, of which the caller has `taken` so much. `have` is
    the offset up to which the destination knows that nothing is missing."""

    __slots__ = ("have", "limit", "taken", "told_at", "window")

    def __init__(self, window: int, now: float) -> None:
        self.have = 0
        self.taken = 0
        self.window = window
        self.limit = window
        self.told_at = now

    def is_behind(self, have: int) -> bool:
        """Whether the destination keeps much that has come."""
        return have - self.have >= HAVE_STEP

    def covers(self, end: int) -> bool:
        """Whether a piece that ends there was allowed."""
        return end <= self.limit


class Credits:
    """The grants of one node."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self.reserved = 0

    def open(self) -> Grant:
        """Set room aside for one more stream."""
        free = WINDOWS_MAX - self.reserved
        grant = Grant(WINDOW_MIN if free >= WINDOW_MIN else WINDOW_LEAST, self.env.now)
        self.reserved += grant.window
        return grant

    def taken(self, grant: Grant, size: int, rtt_s: float) -> bool:
        """The caller has read `size` bytes more; whether the destination should hear of it."""
        grant.taken += size
        gained = grant.taken + grant.window - grant.limit
        if 2 * gained < grant.window:
            return False
        if self.env.now - grant.told_at < max(4.0 * rtt_s, FAST_S):
            self._widen(grant)
        grant.limit = grant.taken + grant.window
        grant.told_at = self.env.now
        return True

    def close(self, grant: Grant) -> None:
        """The stream is over."""
        self.reserved -= grant.window
        assert self.reserved >= 0, "a grant is closed once"

    def _widen(self, grant: Grant) -> None:
        more = min(grant.window, WINDOW_MAX - grant.window, WINDOWS_MAX - self.reserved)
        if more > 0:
            grant.window += more
            self.reserved += more
