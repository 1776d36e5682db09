"""The system's randomness, drawn in pages: every id, nonce and token of a running daemon.

One system call for each few bytes was a visible share of what a small message costs. The bytes are
the kernel's own, each handed out once; a process that forks must make a new one.
"""

from __future__ import annotations

import os

PAGE_SIZE = 4096


class SystemChance:
    """`core.types.Chance` over `os.urandom`."""

    def __init__(self) -> None:
        self._page = b""
        self._at = 0

    def randbytes(self, n: int, /) -> bytes:
        end = self._at + n
        if end > len(self._page):
            self._page = os.urandom(max(PAGE_SIZE, n))
            self._at, end = 0, n
        taken = self._page[self._at : end]
        self._at = end
        return taken

    def random(self) -> float:
        """Evenly from [0.0, 1.0), with 53 bits as `random.random` has."""
        return (int.from_bytes(self.randbytes(7)) >> 3) * 2**-53

    def randrange(self, stop: int, /) -> int:
        """Evenly from 0 to `stop` - 1, by drawing again above the last full multiple."""
        assert stop > 0, "nothing can be drawn from an empty range"
        size = (stop.bit_length() + 7) // 8 + 1
        top = 256**size - 256**size % stop
        while (drawn := int.from_bytes(self.randbytes(size))) >= top:
            continue
        return drawn % stop
