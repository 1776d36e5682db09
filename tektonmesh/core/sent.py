"""What became of the durable messages that were sent from here and have ended.

People ask for it by id, callers that send again find it by their idempotency key. It lives on the
disk, for a day (a guess) and within bounds: over them the oldest replies are forgotten first, then
the oldest ends. Nothing that is still to be delivered is here (that is `outbox`').
"""

from __future__ import annotations

from collections.abc import Iterator

from tektonmesh.core.commits import Row
from tektonmesh.core.machine import Env
from tektonmesh.core.outgoing import Ended
from tektonmesh.core.rows import drop_row, pack_row, read_rows
from tektonmesh.core.types import ID_SIZE, Saved

KEEP_S = 86_400.0
ENDED_MAX = 20_000
BODIES_MAX = 32 << 20
"""Bytes of replies that are kept for whoever asks again."""

TABLE = "sent"


class Sent:
    """The ends of one origin's messages by id, oldest first."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self._ended: dict[bytes, Ended] = {}
        self._keys: dict[bytes, bytes] = {}
        self._with_body: dict[bytes, None] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._ended)

    def get(self, msg_id: bytes) -> Ended | None:
        return self._ended.get(msg_id)

    def newest(self) -> bytes:
        """The id that was made last, of those that are kept."""
        return max(self._ended, default=b"")

    def by_key(self, key: bytes) -> bytes | None:
        """The id of the message that was sent with this key."""
        return self._keys.get(key)

    def load(self, saved: Saved) -> None:
        """Take back what the disk kept."""
        for msg_id, words, body in read_rows(self.env, saved, TABLE):
            if _is_sound(words):
                self._insert(msg_id, Ended(*[*words[:7], body, *words[7:]]))
            else:
                drop_row(self.env, TABLE, msg_id)

    def add(self, msg_id: bytes, ended: Ended) -> list[Row]:
        """Keep an end; the rows to be written with it."""
        self._insert(msg_id, ended)
        rows: list[Row] = [(TABLE, msg_id, self._packed(ended))]
        rows.extend(self._tidy(ended.transitions[-1][1]))
        return rows

    def _insert(self, msg_id: bytes, ended: Ended) -> None:
        self._ended[msg_id] = ended
        if ended.key:
            self._keys[ended.key] = msg_id
        if ended.body:
            self._with_body[msg_id] = None
            self._bytes += len(ended.body)

    def _packed(self, ended: Ended) -> bytes:
        words = [word for at, word in enumerate(ended) if at != Ended._fields.index("body")]
        return pack_row(self.env, words, ended.body)

    def _tidy(self, now_ms: int) -> Iterator[Row]:
        while self._bytes > BODIES_MAX:
            msg_id = next(iter(self._with_body))
            bare = self._ended[msg_id]
            self._forget_body(msg_id)
            bare = bare._replace(body=b"", kept=False)
            self._ended[msg_id] = bare
            yield TABLE, msg_id, self._packed(bare)
        while self._ended:
            msg_id, oldest = next(iter(self._ended.items()))
            if len(self._ended) <= ENDED_MAX and oldest.until_ms > now_ms:
                return
            self._forget_body(msg_id)
            del self._ended[msg_id]
            if self._keys.get(oldest.key) == msg_id:
                del self._keys[oldest.key]
            yield TABLE, msg_id, None

    def _forget_body(self, msg_id: bytes) -> None:
        if msg_id in self._with_body:
            del self._with_body[msg_id]
            self._bytes -= len(self._ended[msg_id].body)
            assert self._bytes >= 0, "a reply is forgotten once"


def _is_sound(words: list[object]) -> bool:
    """Whether these are the words that `_packed` writes."""
    most = len(Ended._fields) - 1
    if not most - 2 <= len(words) <= most:  # those of before streams could resume have two less
        return False
    stack, transitions = words[0], words[3]
    whole = isinstance(stack, bytes) and len(stack) == ID_SIZE
    return whole and isinstance(transitions, list) and bool(transitions)
