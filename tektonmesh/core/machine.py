"""What the machines of one node share: the instant of the turn, the deadlines, the effects.

A machine is a class that owns one noun of the protocol (neighbours, replica, forwarding ...). It
takes an `Env` first, reads `env.now`, sets deadlines on `env.deadlines` and speaks by `env.emit`.
It never keeps another clock and never calls back into `Node`.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.counts import UNCOUNTED, Counts
from tektonmesh.core.deadlines import Deadlines
from tektonmesh.core.effects import Audit, Effect, Notice, Save, Send
from tektonmesh.core.head import Heads
from tektonmesh.core.types import Chance, Codec, Crypto, Identity, NodeSettings


class Env:
    """The shared state of one node's turn. Owned by `Node`, handed to each machine."""

    def __init__(
        self,
        identity: Identity,
        settings: NodeSettings,
        *,
        crypto: Crypto,
        codec: Codec,
        chance: Chance,
        now: float,
    ) -> None:
        self.me = identity.stack_id
        self.identity = identity
        self.settings = settings
        self.crypto = crypto
        self.codec = codec
        self.chance = chance
        self.now = now
        self.deadlines = Deadlines()
        self.heads = Heads()
        self.counts = Counts()
        self._effects: list[Effect] = []

    def emit(self, effect: Effect) -> None:
        """Add one effect to what this turn returns, in order."""
        if type(effect) is Send:
            messages = effect.messages
            if messages and type(messages[0]) not in UNCOUNTED:
                self.counts.count_sent(messages)
        self._effects.append(effect)

    def notice(self, kind: str, /, **data: Any) -> None:
        """Say something that people and programs may watch (`docs/reference/events.md`)."""
        self._effects.append(Notice(kind, data))

    def audit(self, kind: str, /, **data: Any) -> None:
        """An entry for the audit log. No bodies, no secrets."""
        self._effects.append(Audit(kind, data))

    def save(self, table: str, key: bytes, value: bytes | None) -> None:
        """Write (or, with None, delete) one row; durable some time after this turn."""
        self._effects.append(Save(((table, key, value),), None))

    def after(self, delay_s: float) -> float:
        """The instant `delay_s` seconds from now."""
        return self.now + delay_s

    def jitter(self, interval_s: float, part: float = 0.1) -> float:
        """`interval_s` changed by at most `part` of itself either way, so that nodes that started
        together do not act together."""
        return interval_s * (1.0 + part * (2.0 * self.chance.random() - 1.0))

    def take(self) -> list[Effect]:
        """The effects since the last call; the list is the caller's."""
        effects, self._effects = self._effects, []
        return effects
