"""What the blocking client hands out: messages to answer, and replies as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tektonmesh.api import dialect
from tektonmesh.api.dialect import Reply, Request
from tektonmesh.errors import MeshError

if TYPE_CHECKING:
    from tektonmesh.api.sync import Client


@dataclass(frozen=True, slots=True)
class Message(Request):
    """A message to answer. `cancelled` is set when nobody waits for the answer any more."""

    cancelled: threading.Event = field(default_factory=threading.Event)


Handler = Callable[[Message], str | bytes | Iterator[str | bytes] | None]


class ReplyStream:
    """Iterates over the text of a reply as it comes; afterwards `.reply` is the whole of it.
    Closing it early (or leaving its `with` block) cancels the message. With `again`, which asks
    anew from an offset, it goes on when the daemon was away."""

    def __init__(
        self,
        client: Client,
        request_id: int,
        timeout: float | None,
        again: Callable[[int], int] | None = None,
    ) -> None:
        self._client = client
        self._again = again
        self._request_id = request_id
        self._timeout = timeout
        self._chunks = dialect.Chunks()
        self.reply: Reply | None = None
        self._open = True

    @property
    def received(self) -> bytes:
        """The exact bytes that came so far."""
        return bytes(self._chunks.whole)

    def __iter__(self) -> Iterator[str]:
        while self._open:
            text = self._next()
            if text:
                yield text

    def _next(self) -> str:
        try:
            message = self._client._await(self._request_id, self._timeout, "send")
            if "method" in message:
                return self._chunks.add(dialect.bytes_of(message["params"], "data"))
            self._finished()
            text, self.reply = self._chunks.finish(dialect.result_of(message))
            return text
        except BaseException as error:
            if self._goes_on(error):
                return ""
            self.close()
            raise

    def _goes_on(self, error: BaseException) -> bool:
        """Whether the daemon was away and the rest is asked for anew."""
        passes = isinstance(error, MeshError) and error.code.name in dialect.PASSING
        if self._again is None or not passes:
            return False
        self._finished()
        self._request_id, self._open = self._again(len(self._chunks.whole)), True
        return True

    def close(self) -> None:
        """Cancel the message unless its answer has come. Harmless when repeated."""
        if self._open:
            self._finished()
            self._client._cancel(self._request_id)

    def _finished(self) -> None:
        self._open = False
        self._client._expected.pop(self._request_id, None)

    def __enter__(self) -> ReplyStream:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
