"""Which messages this stack has taken, and what it answered, so that no repeat is a second one.

The key is (authenticated source, msg_id): a relay that saw an id in the clear cannot use it up.
Rows live `dedup_keep_s` beyond their deadline, far longer than an origin retries. Answers are kept
for repeats as long as the memory set aside for them lasts; a row whose answer was given up still
prevents a second delivery. When there are too many rows, the source with the most gives up its
oldest: a stack that floods forgets its own messages, not those of others. A message in the hands
of a CI is never forgotten.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Protocol

from tektonmesh.core.envelope import Kind
from tektonmesh.core.machine import Env
from tektonmesh.core.sealing import Body
from tektonmesh.core.streams import StreamOut
from tektonmesh.core.types import StackId

ANSWERS_SIZE_MAX = 32 << 20
"""Memory for answers that may be asked for again (a guess: 1,000 replies of 32 KiB)."""

ANSWER_OVERHEAD = 512
"""What an answer costs besides its text, about."""

Key = tuple[StackId, bytes]


class Asker(Protocol):
    """The origin of a message that is being delivered (`answering`)."""

    trace: bytes

    def receipt(self) -> None: ...

    def resend(self, offset: int) -> None: ...

    def grant(self, credit: int, have: int) -> None: ...

    def abandon(self) -> None: ...


class Taken:
    """One message: in the hands of a CI (`asker` waits for delivery number `delivery`), or
    answered with `kind` and `body` after what `stream` replays. Neither: it was cancelled, was one
    way, or its answer is not kept any more. `avoid` are the short ids of relays that its answers
    should not meet, since earlier ones were not heard of."""

    __slots__ = ("asker", "avoid", "body", "delivery", "key", "kind", "size", "stream", "until")

    def __init__(self, key: Key, until: float) -> None:
        self.key = key
        self.until = until
        self.asker: Asker | None = None
        self.avoid = b""
        self.delivery = 0
        self.kind = Kind.REPLY
        self.body: Body | None = None
        self.stream: StreamOut | None = None
        self.size = 0


class Dedup:
    """The messages of one destination."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self._rows: OrderedDict[Key, Taken] = OrderedDict()
        self._idle: dict[StackId, dict[Key, Taken]] = {}
        """By source, the rows that are not being delivered, oldest first."""
        self._answers: deque[Taken] = deque()
        self._answers_size = 0

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Key) -> Taken | None:
        return self._rows.get(key)

    def with_id(self, msg_id: bytes) -> list[Taken]:
        """For people: the rows of this id, whoever sent it. Looks at every row."""
        return [taken for key, taken in self._rows.items() if key[1] == msg_id]

    def add(self, key: Key, left_s: float) -> Taken:
        """Remember a message; rows make place if they are over or too many."""
        assert key not in self._rows, "a message is taken once"
        settings = self.env.settings
        taken = Taken(key, self.env.after(left_s + settings.dedup_keep_s))
        self._rows[key] = taken
        while self._oldest().until <= self.env.now:
            self._forget(self._oldest())
        while len(self._rows) > settings.dedup_max and self._idle:
            most = max(self._idle.values(), key=len)
            self._forget(next(iter(most.values())))
        self._rest(taken)  # last, so that it is not the one that makes place
        return taken

    def deliver(self, taken: Taken, asker: Asker, delivery: int) -> None:
        """The message is in the hands of a CI, until it is answered or cancelled."""
        taken.asker, taken.delivery = asker, delivery
        self._wake(taken)

    def cancel(self, taken: Taken) -> None:
        """Nobody waits for the answer any more."""
        taken.asker = None
        self._rest(taken)

    def answer(self, taken: Taken, kind: Kind, body: Body, stream: StreamOut | None) -> None:
        """Keep what was answered, as long as there is room."""
        self.cancel(taken)
        taken.kind, taken.body, taken.stream = kind, body, stream
        replay_size = stream.replay_size if stream else 0
        taken.size = ANSWER_OVERHEAD + len(body.get("body", b"")) + replay_size
        self._answers.append(taken)
        self._answers_size += taken.size
        while self._answers_size > ANSWERS_SIZE_MAX or not self._answers[0].size:
            self._drop_answer(self._answers.popleft())

    def _oldest(self) -> Taken:
        return next(iter(self._rows.values()))

    def _rest(self, taken: Taken) -> None:
        if taken.key in self._rows:
            self._idle.setdefault(taken.key[0], {})[taken.key] = taken

    def _wake(self, taken: Taken) -> None:
        source = taken.key[0]
        idle = self._idle.get(source, {})
        if idle.pop(taken.key, None) is not None and not idle:
            del self._idle[source]

    def _forget(self, taken: Taken) -> None:
        del self._rows[taken.key]
        self._wake(taken)
        self._drop_answer(taken)

    def _drop_answer(self, taken: Taken) -> None:
        self._answers_size -= taken.size
        assert self._answers_size >= 0, "an answer is dropped once"
        taken.size = 0
        taken.body = taken.stream = None
