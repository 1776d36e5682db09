"""How the inbox speaks to origins: what `inbox` says and `durable` carries out."""

from __future__ import annotations

from tektonmesh.core.incoming import Answer, Key


class Voice:
    """How the inbox speaks to origins, other stacks and this one alike; each word may be lost."""

    def receipt(self, key: Key, trace: bytes) -> None:
        raise NotImplementedError

    def nack(self, key: Key, code: str, detail: str, outcome: str) -> None:
        raise NotImplementedError

    def piece(self, key: Key, offset: int, data: bytes) -> None:
        raise NotImplementedError

    def answer_here(self, key: Key, answer: Answer) -> None:
        """To the outbox of this stack, which cannot miss it."""
        raise NotImplementedError
