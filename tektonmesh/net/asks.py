"""Waiting for the answers to commands: one ticket per command, one waiter per ticket.

It decides what a caller sees (a result, an error, chunks) and what happens when nobody waits any
more: the command is cancelled in the core. What is answered is decided there.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Any

import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.errors import MeshError, error_from

_LOG = logging.getLogger(__name__)

TAKEN_STEP = 16 << 10
"""Bytes after which the core is told that the caller reads: a quarter of the smallest window."""

Make = Callable[[int], ev.Event]
Heard = Callable[[dict[str, Any] | None, MeshError | None], None]
"""Told the result or the error of a command, in the turn in which it comes; may not wait."""


class _Waiter:
    """What has come for one ticket. Chunks may precede the result or the error."""

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.taken = 0
        self.result: dict[str, Any] | None = None
        self.error: MeshError | None = None
        self._news = trio.Event()

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def wake(self) -> None:
        self._news.set()

    async def news(self) -> None:
        await self._news.wait()
        self._news = trio.Event()


class Asks:
    """The commands that are under way."""

    def __init__(self, inject: Callable[[ev.Event], None]) -> None:
        self._inject = inject
        self._tickets = count(1)
        self._waiters: dict[int, _Waiter] = {}
        self._heard: dict[int, Heard] = {}
        self._stopped: MeshError | None = None

    def __len__(self) -> int:
        return len(self._waiters) + len(self._heard)

    # --- hands of the drive ----------------------------------------------------------------------

    def answer(self, effect: fx.Answer) -> None:
        heard = self._heard.pop(effect.ticket, None)
        if heard is not None:
            _call(heard, effect.result, None)
            return
        waiter = self._waiters.get(effect.ticket)
        if waiter is not None and not waiter.done:
            waiter.result = effect.result
            waiter.wake()

    def answer_failed(self, effect: fx.AnswerFailed) -> None:
        heard = self._heard.pop(effect.ticket, None)
        if heard is not None:
            _call(heard, None, error_from(effect.error))
            return
        waiter = self._waiters.get(effect.ticket)
        if waiter is not None and not waiter.done:
            waiter.error = error_from(effect.error)
            waiter.wake()

    def answer_chunk(self, effect: fx.AnswerChunk) -> None:
        waiter = self._waiters.get(effect.ticket)
        if waiter is None or waiter.done:
            return
        waiter.chunks.append(effect.data)
        waiter.wake()

    def stop(self, error: MeshError) -> None:
        """Nobody will answer any more: everyone who waits, now or later, gets `error`."""
        self._stopped = error
        waiting, self._heard = self._heard, {}
        for heard in waiting.values():
            _call(heard, None, error)
        for waiter in self._waiters.values():
            if not waiter.done:
                waiter.error = error
                waiter.wake()

    # --- callers ---------------------------------------------------------------------------------

    def begin(self, make: Make, heard: Heard) -> Callable[[], None]:
        """As `ask`, without a task that waits: `heard` is called once, possibly before this
        returns. What is returned gives the command up; `heard` is not called after that."""
        if self._stopped is not None:
            raise self._stopped
        ticket = next(self._tickets)
        self._heard[ticket] = heard

        def give_up() -> None:
            if self._heard.pop(ticket, None) is not None:
                self._inject(ev.CancelCommand(ticket))

        self._inject(make(ticket))
        return give_up

    async def ask(self, make: Make) -> dict[str, Any]:
        """Inject `make(ticket)` and wait for its answer. Raises MeshError as the core said it.
        Whoever is cancelled here cancels the command."""
        async with self._waiting(make) as (_ticket, waiter):
            while not waiter.done:
                await waiter.news()
            return _outcome(waiter)

    @asynccontextmanager
    async def stream(self, make: Make) -> AsyncIterator[AsyncIterator[bytes | dict[str, Any]]]:
        """As `ask`, for a streamed reply: the chunks in order, then the result. Leaving the block
        early cancels the command."""
        async with (
            self._waiting(make) as (ticket, waiter),
            aclosing(self._chunks(ticket, waiter)) as chunks,
        ):
            yield chunks

    @asynccontextmanager
    async def _waiting(self, make: Make) -> AsyncIterator[tuple[int, _Waiter]]:
        if self._stopped is not None:
            raise self._stopped
        ticket = next(self._tickets)
        waiter = self._waiters[ticket] = _Waiter()
        try:
            self._inject(make(ticket))
            yield ticket, waiter
        finally:
            del self._waiters[ticket]
            if not waiter.done:
                self._inject(ev.CancelCommand(ticket))

    async def _chunks(
        self, ticket: int, waiter: _Waiter
    ) -> AsyncGenerator[bytes | dict[str, Any], None]:
        """The chunks as they are asked for; the core hears how far the caller has read, so that
        a slow one holds back its CI."""
        while True:
            while waiter.chunks:
                chunk = waiter.chunks.popleft()
                yield chunk
                waiter.taken += len(chunk)
                if waiter.taken >= TAKEN_STEP and not waiter.done:
                    taken, waiter.taken = waiter.taken, 0
                    self._inject(ev.ChunksTaken(ticket, taken))
            if waiter.done:
                yield _outcome(waiter)
                return
            await waiter.news()


def _call(heard: Heard, result: dict[str, Any] | None, error: MeshError | None) -> None:
    """A fault of one door's must not be taken for one of the core's, which ends the daemon."""
    try:
        heard(result, error)
    except Exception:
        _LOG.exception("fault in passing on an answer")


def _outcome(waiter: _Waiter) -> dict[str, Any]:
    if waiter.error is not None:
        raise waiter.error
    assert waiter.result is not None
    return waiter.result
