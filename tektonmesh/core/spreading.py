"""Taking joined copies of a multicast apart (`core/joining`).

Each copy is handed to `forwarding` as if it had come alone; nothing else is decided here.
"""

from __future__ import annotations

from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.joining import COPIES_MAX
from tektonmesh.core.messages import Forward, Spread
from tektonmesh.core.types import LinkId
from tektonmesh.errors import RemoteError


class Spreading:
    """Takes joined copies apart for `forwarding`."""

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding

    def on_spread(self, link: LinkId, message: Spread) -> None:
        """Raises RemoteError for what no honest neighbour joins."""
        if not 0 < len(message.seqs) == len(message.heads) <= COPIES_MAX:
            raise RemoteError("The copies of a spread message do not fit their numbers.")
        for seq, head in zip(message.seqs, message.heads, strict=True):
            self._forwarding.on_forward(link, Forward(seq, head + message.shared))
