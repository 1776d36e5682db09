"""The CIs behind one connection: messages go out as requests, their answers come back as events.

It keeps which deliveries this connection still owes an answer and turns what the CI says into
exactly one `ReplyDone` or `ReplyFailed` each. How the bytes travel is `lines`' affair, what
becomes of a message the core's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tektonmesh.api import validate
from tektonmesh.api.bodies import body_of
from tektonmesh.api.dialect import shown_body
from tektonmesh.api.lines import BACKLOG_MAX, LineSocket
from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.errors import MeshError
from tektonmesh.net.daemon import Daemon
from tektonmesh.wire.jsonrpc import Failure, Request, Result, write_request

DELIVERY_BACKLOG_MAX = BACKLOG_MAX // 2
"""A CI that does not read gets no further messages while this much waits for it; the senders are
told `busy`, and the connection is spared."""

_CODES = ("busy", "refused", "ci_failed", "ci_offline", "timeout", "too_large", "bad_request")
"""What a CI may say of its own failure; any other code becomes `ci_failed`."""

OFFSET_MAX = 1 << 62

DETAIL_SIZE_MAX = 1000
"""Characters of what a CI says of its failure that its asker gets to read."""


class Attached:
    """One connection's deliveries. `number` is what the core knows the connection by."""

    def __init__(self, daemon: Daemon, lines: LineSocket) -> None:
        self._daemon = daemon
        self._lines = lines
        self._owed: dict[int, None] = {}
        self._resuming: dict[int, None] = {}
        """Deliveries whose CI says offsets, so it is told what it need not keep."""
        self.number: int | None = None
        self._registering = 0
        self._held: list[fx.Deliver] = []

    def attach(self) -> int:
        """Make the connection known to the daemon, once; its number."""
        if self.number is None:
            self.number = self._daemon.attach(self._deliver, self._cancel, self._kept)
        return self.number

    @contextmanager
    def registering(self) -> Iterator[None]:
        """What waits for a CI may come in the very turn that registers it: no message is written
        before the answer to the registration, which the block writes."""
        self._registering += 1
        try:
            yield
        finally:
            self._registering -= 1
            if not self._registering:
                held, self._held = self._held, []
                for effect in held:
                    self._deliver(effect)

    def close(self) -> None:
        """The connection ended: what it owes has failed, its CIs leave after their grace."""
        owed, self._owed, self._held = self._owed, {}, []
        for delivery in owed:
            detail = "The CI's connection ended before it answered."
            self._daemon.inject(ev.ReplyFailed(delivery, "ci_failed", detail, lost=True))
        if self.number is not None:
            self._daemon.detach(self.number)

    # --- towards the CI --------------------------------------------------------------------------

    def _deliver(self, effect: fx.Deliver) -> None:
        if self._registering:
            self._held.append(effect)
            self._owed[effect.delivery] = None
            return
        if self._lines.backlog > DELIVERY_BACKLOG_MAX:
            self._fail(effect.delivery, "busy", "The CI does not read its messages.")
            return
        self._owed[effect.delivery] = None
        params = {
            "id": effect.msg_id.hex(),
            "from": effect.sender,
            "to": effect.ci,
            **self._body(effect),
            "content_type": effect.content_type,
            "deadline_ms": int(effect.deadline_s * 1000),
            "attempt": effect.attempt,
        }
        if effect.reply_from is not None:
            params["reply_from"] = effect.reply_from
        self._lines.write(write_request(Request(effect.delivery, "message", params)))

    def _body(self, effect: fx.Deliver) -> dict[str, Any]:
        """A large body lies in a file, which lasts until the message is answered."""
        if effect.large is None:
            return shown_body(effect.body)
        path = self._daemon.spool.file(effect.large.name)
        return {"body_file": str(path), "body_size": effect.large.size}

    def _cancel(self, effect: fx.CancelDelivery) -> None:
        if effect.delivery in self._owed:
            self._owes_no_more(effect.delivery)
            if effect.delivery in [held.delivery for held in self._held]:
                self._held = [one for one in self._held if one.delivery != effect.delivery]
                return
            params = {"id": effect.delivery, "reason": effect.reason}
            self._lines.write(write_request(Request(None, "message.cancel", params)))

    def _kept(self, effect: fx.ReplyKept) -> None:
        if effect.delivery in self._resuming:
            params = {"id": effect.delivery, "offset": effect.offset}
            self._lines.write(write_request(Request(None, "reply.kept", params)))

    # --- from the CI -----------------------------------------------------------------------------

    def answered(self, line: Result | Failure) -> None:
        """A response; one to a delivery that is not owed (cancelled, unknown) is ignored."""
        delivery = line.id
        if not isinstance(delivery, int) or delivery not in self._owed:
            return
        self._owes_no_more(delivery)
        if isinstance(line, Failure):
            data = line.error.get("data")
            code = data.get("code") if isinstance(data, dict) else None
            self._fail(delivery, code if code in _CODES else "ci_failed", line.error["message"])
            return
        try:
            done = _reply(delivery, line.result)
        except MeshError as error:
            self._fail(delivery, "ci_failed", f"The CI's answer is malformed: {error.detail}")
        else:
            self._daemon.inject(done)

    def chunk(self, params: dict[str, Any]) -> None:
        """A `reply.chunk` notification."""
        delivery = params.get("id")
        if not isinstance(delivery, int) or delivery not in self._owed:
            return
        try:
            data = body_of(params, "data")
            offset = _offset(params)
        except MeshError as error:
            self._owes_no_more(delivery)
            self._fail(delivery, "ci_failed", f"The CI's answer is malformed: {error.detail}")
        else:
            if offset is not None:
                self._resuming[delivery] = None
            self._daemon.inject(ev.ReplyChunk(delivery, data, offset))

    def _owes_no_more(self, delivery: int) -> None:
        del self._owed[delivery]
        self._resuming.pop(delivery, None)

    def _fail(self, delivery: int, code: str, detail: str) -> None:
        # JSON can spell halves of surrogate pairs, which no other encoding can.
        sayable = detail[:DETAIL_SIZE_MAX].encode("utf-8", "replace").decode()
        self._daemon.inject(ev.ReplyFailed(delivery, code, sayable))


def _reply(delivery: int, result: Any) -> ev.ReplyDone:
    """A CI's result: text, or an object with `body` or `body_b64`."""
    if isinstance(result, str):
        result = {"body": result}
    if result is None:
        result = {}
    if not isinstance(result, dict):
        raise MeshError("a result is text or an object with 'body'.", code="bad_request")
    content_type = validate.text(result, "content_type", default="text/plain", size_max=100)
    return ev.ReplyDone(delivery, body_of(result), content_type, _offset(result))


def _offset(said: dict[str, Any]) -> int | None:
    """Where in the whole reply this begins, if the CI says so."""
    offset = validate.number(said, "offset", low=0, high=OFFSET_MAX, default=None)
    return None if offset is None else int(offset)
