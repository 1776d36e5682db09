"""Handlers of replies that resume, in the Trio client: they outlive the connection they began on.

When the daemon goes away the handler goes on, up to what may be held; when the message comes again
it is the same handler's, and its reply continues. What was said and where is `said`'s.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import trio

from tektonmesh.api import dialect
from tektonmesh.api.dialect import Request
from tektonmesh.api.said import AWAY_S, REMEMBERED, Said


class Work:
    """One handler at work on one message."""

    def __init__(self) -> None:
        self.said = Said()
        self.scope = trio.CancelScope()
        self.news = trio.Event()
        """Something was kept, or the daemon is back."""

    def stir(self) -> None:
        self.news.set()
        self.news = trio.Event()


class Works:
    """The handlers of one client. `write` sends lines to the daemon and never waits."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._works: OrderedDict[str, Work] = OrderedDict()

    def take(self, name: str, request: Request) -> Work | None:
        """The daemon gives a message. The work to run if it is new; one that is under way, or was
        said to the end, goes on by itself."""
        work = self._works.get(name)
        fresh = None
        if work is None:
            work = fresh = self._works[name] = Work()
        self._works.move_to_end(name)
        self._say(work.said.attach(request.delivery, request.reply_from or 0))
        work.stir()
        for old in [key for key, one in self._works.items() if one.said.is_over][:-REMEMBERED]:
            del self._works[old]
        return fresh

    def kept(self, delivery: Any, offset: Any) -> None:
        """The daemon has everything before `offset` of that reply."""
        for work in self._of(delivery):
            if isinstance(offset, int):
                work.said.kept(offset)
                work.stir()

    def cancel(self, delivery: Any) -> None:
        """Nobody waits for that reply any more."""
        for work in self._of(delivery):
            work.scope.cancel()

    def _of(self, delivery: Any) -> list[Work]:
        return [one for one in self._works.values() if one.said.delivery == delivery]

    def away(self, nursery: trio.Nursery) -> None:
        """The connection has ended; whoever is not asked again in time is cancelled."""
        for name, work in list(self._works.items()):
            work.said.delivery = None
            nursery.start_soon(self._wait, name, work)

    async def _wait(self, name: str, work: Work) -> None:
        with trio.move_on_after(AWAY_S):
            while work.said.delivery is None:
                await work.news.wait()
            return
        work.scope.cancel()
        if self._works.get(name) is work:
            del self._works[name]

    async def run(
        self,
        work: Work,
        handler: Callable[[Request], Any],
        request: Request,
        places: trio.Semaphore,
    ) -> None:
        """Run the handler, whichever connection its reply leaves on."""
        with work.scope:
            async with places:
                try:
                    end = partial(work.said.finish, await self._answer(work, handler, request))
                except Exception as error:
                    end = partial(work.said.fail, error)
                self._say(end())

    async def _answer(self, work: Work, handler: Callable[[Request], Any], request: Request) -> Any:
        """What the handler says last: text, bytes or nothing."""
        answer = handler(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, AsyncIterator):
            async for chunk in answer:
                self._say(work.said.say(chunk))
                while work.said.is_full:
                    await work.news.wait()
            return ""
        dialect.answer_line(0, answer)  # one that is too long fails here and not each time
        return answer

    def _say(self, lines: bytes) -> None:
        if lines:
            self._write(lines)
