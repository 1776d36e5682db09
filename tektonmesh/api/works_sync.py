"""Handlers of replies that resume, in the blocking client: they outlive a connection.

As `works`, with threads. One lock for all: what a handler says and where the daemon is must agree.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tektonmesh.api import dialect
from tektonmesh.api.said import AWAY_S, REMEMBERED, Said

if TYPE_CHECKING:
    from tektonmesh.api.replies_sync import Message


class Work:
    """One handler at work on one message; `message` tells it of its end."""

    def __init__(self, message: Message) -> None:
        self.said = Said()
        self.message = message
        self.away_at = 0.0


class Works:
    """The handlers of one client. `write` sends lines to the daemon, and raises nothing."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._news = threading.Condition()
        self._works: OrderedDict[str, Work] = OrderedDict()

    def take(self, name: str, message: Message) -> Work | None:
        """The daemon gives a message. The work to run if it is new; one that is under way, or was
        said to the end, goes on by itself."""
        with self._news:
            work, fresh = self._works.get(name), None
            if work is None:
                work = fresh = self._works[name] = Work(message)
            self._works.move_to_end(name)
            self._say(work.said.attach(message.delivery, message.reply_from or 0))
            self._news.notify_all()
            for old in [key for key, one in self._works.items() if one.said.is_over][:-REMEMBERED]:
                del self._works[old]
            return fresh

    def kept(self, delivery: Any, offset: Any) -> None:
        """The daemon has everything before `offset` of that reply."""
        with self._news:
            for work in self._of(delivery):
                if isinstance(offset, int):
                    work.said.kept(offset)
                    self._news.notify_all()

    def cancel(self, delivery: Any) -> None:
        """Nobody waits for that reply any more."""
        with self._news:
            for work in self._of(delivery):
                work.message.cancelled.set()
            self._news.notify_all()

    def _of(self, delivery: Any) -> list[Work]:
        return [one for one in self._works.values() if one.said.delivery == delivery]

    def away(self) -> None:
        """The connection has ended."""
        with self._news:
            for work in self._works.values():
                work.said.delivery, work.away_at = None, time.monotonic()

    def stop(self) -> None:
        """This client serves no more."""
        with self._news:
            for work in self._works.values():
                work.message.cancelled.set()
            self._works.clear()
            self._news.notify_all()

    def run(self, work: Work, handler: Callable[[Message], Any]) -> None:
        """Run the handler, whichever connection its reply leaves on."""
        try:
            end = partial(work.said.finish, self._answer(work, handler))
        except Exception as error:
            end = partial(work.said.fail, error)
        with self._news:
            self._say(end())

    def _answer(self, work: Work, handler: Callable[[Message], Any]) -> Any:
        """What the handler says last: text, bytes or nothing."""
        if work.message.cancelled.is_set():
            return ""
        answer = handler(work.message)
        if not (answer is None or isinstance(answer, str | bytes)):
            for chunk in answer:
                if not self._chunk(work, chunk):
                    break
            return ""
        dialect.answer_line(0, answer)  # one that is too long fails here and not each time
        return answer

    def _chunk(self, work: Work, chunk: str | bytes) -> bool:
        """Whether the handler may go on; it waits while too much is held."""
        with self._news:
            self._say(work.said.say(chunk))
            while work.said.is_full and not self._is_lost(work):
                self._news.wait(1.0)
            if self._is_lost(work):
                work.message.cancelled.set()
            return not work.message.cancelled.is_set()

    def _is_lost(self, work: Work) -> bool:
        """Whether nobody asks for its reply any more."""
        away = work.said.delivery is None and time.monotonic() - work.away_at > AWAY_S
        return away or work.message.cancelled.is_set()

    def _say(self, lines: bytes) -> None:
        if lines:
            self._write(lines)
