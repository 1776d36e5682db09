"""Handing messages to CIs that wait behind an HTTP endpoint, and reading their replies.

It decides what each `message_format` looks like on the wire and how an HTTP answer becomes a
reply or a typed failure. Which addresses may be called at all is decided in `reach`. Nothing of
the endpoint (address, headers, its error page) goes into what is told to the sender.
"""

from __future__ import annotations

import codecs
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.errors import DeliveryError, MeshError
from tektonmesh.net.reach import Reach

if TYPE_CHECKING:
    import httpx

_LOG = logging.getLogger(__name__)

REPLY_SIZE_MAX = 4 << 20
FORMATS = ("json_simple", "mcp", "tekton_federated")
_TEXT = "text/plain"
_PLACE = "\ue000the body\ue000"
"""Stands for a large body while the JSON object around it is written."""
_PART_SIZE = 256 << 10
_CODES = {408: "timeout", 413: "too_large", 429: "busy", 503: "ci_offline", 504: "timeout"}


class Endpoints:
    """Carries out `Deliver` effects to HTTP endpoints, one task each."""

    def __init__(
        self, inject: Callable[[ev.Event], None], reach: Reach, spawn: Callable[..., None]
    ) -> None:
        self._inject = inject
        self._reach = reach
        self._spawn = spawn
        self._scopes: dict[int, trio.CancelScope] = {}
        self.file: Callable[[str], Path] = Path
        """Where the large body of a name lies."""

    def deliver(self, effect: fx.Deliver) -> None:
        """Start a delivery; exactly one ReplyDone or ReplyFailed follows unless it is cancelled."""
        scope = self._scopes[effect.delivery] = trio.CancelScope()
        self._spawn(self._deliver, effect, scope)

    def cancel(self, effect: fx.CancelDelivery) -> bool:
        """Give up a delivery that is under way here; False if it is not."""
        scope = self._scopes.pop(effect.delivery, None)
        if scope is not None:
            scope.cancel()
        return scope is not None

    async def _deliver(self, effect: fx.Deliver, scope: trio.CancelScope) -> None:
        try:
            with scope:
                self._inject(await self._outcome(effect))
        finally:
            self._scopes.pop(effect.delivery, None)

    async def _outcome(self, effect: fx.Deliver) -> ev.ReplyDone | ev.ReplyFailed:
        try:
            with trio.fail_after(max(0.0, effect.deadline_s)):
                return await self._exchange(effect)
        except trio.TooSlowError:
            return _failed(effect, "timeout", "The CI's endpoint did not answer in time.")
        except MeshError as error:
            return _failed(effect, error.code.name, error.detail)
        except Exception as error:
            # Whatever a library makes of a broken server is that CI's failure and nobody else's.
            _LOG.warning("endpoint of %s: %s", effect.ci, type(error).__name__)
            detail = "The CI's endpoint broke off the exchange."
            return ev.ReplyFailed(effect.delivery, "ci_failed", detail, lost=True)

    async def _exchange(self, effect: fx.Deliver) -> ev.ReplyDone:
        how = effect.how
        body: bytes | AsyncIterator[bytes] = b""
        size = 0
        if effect.large is None:
            body = json.dumps(request_of(effect), ensure_ascii=False).encode()
        else:
            path = self.file(effect.large.name)
            before, after = around_body(effect)
            size = await trio.to_thread.run_sync(escaped_size, path) + len(before) + len(after)
            body = escaped(path, before, after)
        headers = {"Content-Type": "application/json", "Accept": "application/json, */*"}
        headers |= {str(key): str(value) for key, value in (how.get("headers") or {}).items()}
        headers |= {"Content-Length": str(size)} if size else {}
        async with self._reach.request("POST", how["url"], headers=headers, body=body) as answer:
            if not answer.is_success:
                code = _CODES.get(answer.status_code, "ci_failed")
                raise DeliveryError(
                    f"The CI's endpoint answered with status {answer.status_code}.", code=code
                )
            return await self._reply(effect, answer)

    async def _reply(self, effect: fx.Deliver, answer: httpx.Response) -> ev.ReplyDone:
        """Pass on what streams, collect what does not."""
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        chunked = answer.headers.get("transfer-encoding", "").lower() == "chunked"
        if kind == "text/event-stream":
            events = ServerSentEvents()
            await _read(answer, lambda part: self._pass_on(effect, events.feed(part)))
        elif chunked and kind not in ("application/json", ""):
            await _read(answer, lambda part: self._pass_on(effect, [part]))
        else:
            parts: list[bytes] = []
            await _read(answer, parts.append)
            body, content_type = reply_of(b"".join(parts), kind)
            return ev.ReplyDone(effect.delivery, body, content_type)
        return ev.ReplyDone(effect.delivery, b"", _TEXT if kind == "text/event-stream" else kind)

    def _pass_on(self, effect: fx.Deliver, parts: list[bytes]) -> None:
        for part in parts:
            self._inject(ev.ReplyChunk(effect.delivery, part))


def request_of(effect: fx.Deliver) -> dict[str, Any]:
    """The JSON object that is posted. Raises DeliveryError if the body is not text or the format
    is unknown."""
    try:
        text = effect.body.decode("utf-8") if effect.large is None else _PLACE
    except UnicodeDecodeError:
        raise DeliveryError("The CI takes text only.", code="ci_failed") from None
    style = effect.how.get("format") or "json_simple"
    if style == "json_simple":
        return {"message": text}
    if style == "mcp":
        return {"content": {"message": text}, "context": {}}
    if style == "tekton_federated":
        return {
            "message": text,
            "from": effect.sender,
            "target": effect.ci,
            "id": effect.msg_id.hex(),
            "content_type": effect.content_type,
            "attempt": effect.attempt,
        }
    raise DeliveryError(f"The message format '{style}' is not supported.", code="ci_failed")


def around_body(effect: fx.Deliver) -> tuple[bytes, bytes]:
    """What stands before and behind the text of a large body in the JSON object."""
    shown = json.dumps(request_of(effect), ensure_ascii=False)
    before, _, after = shown.partition(_PLACE)  # the first: the message is the first key of all
    return before.encode(), after.encode()


def escaped_parts(path: Path) -> Iterator[bytes]:
    """A file of text as it stands inside a JSON string. Raises DeliveryError if it is none."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with path.open("rb") as file:
            while part := file.read(_PART_SIZE):
                if text := decoder.decode(part):
                    yield json.dumps(text, ensure_ascii=False).encode()[1:-1]
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise DeliveryError("The CI takes text only.", code="ci_failed") from None


def escaped_size(path: Path) -> int:
    return sum(len(part) for part in escaped_parts(path))


async def escaped(path: Path, before: bytes, after: bytes) -> AsyncIterator[bytes]:
    """The whole JSON object, a part at a time: a large body is never in memory."""
    yield before
    parts = escaped_parts(path)
    while part := await trio.to_thread.run_sync(next, parts, b""):
        yield part
    yield after


def reply_of(data: bytes, kind: str) -> tuple[bytes, str]:
    """Body and content type of a whole answer: `response`, else `message`, of a JSON object; else
    the answer as it is."""
    try:
        value = json.loads(data) if data[:1] == b"{" or data[:1].isspace() else None
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, dict):
        for key in ("response", "message"):
            found = value.get(key)
            if isinstance(found, str):
                return found.encode("utf-8", "replace"), _TEXT
            if found is not None:
                return json.dumps(found, ensure_ascii=False).encode(), "application/json"
    return data, kind or ("application/json" if value is not None else _TEXT)


def _failed(effect: fx.Deliver, code: str, detail: str) -> ev.ReplyFailed:
    return ev.ReplyFailed(effect.delivery, code, detail)


async def _read(answer: httpx.Response, take: Callable[[bytes], None]) -> None:
    """Give the decoded body to `take` in the parts it comes in, at most 4 MiB of it. Raises
    DeliveryError (`too_large`)."""
    size = 0
    with trio.CancelScope() as scope:
        async for part in answer.aiter_bytes():
            size += len(part)
            if size <= REPLY_SIZE_MAX:
                take(part)
            else:
                # Breaking off would leave httpx's inner generators to the garbage collector.
                scope.cancel()
    if size > REPLY_SIZE_MAX:
        raise DeliveryError("The CI's reply is over 4 MiB.", code="too_large")


class ServerSentEvents:
    """The `data` of each event in a stream (WHATWG HTML, 9.2). `[DONE]`, with which servers of
    language models end, is no data."""

    def __init__(self) -> None:
        self._waiting = b""
        self._lines: list[bytes] = []

    def feed(self, part: bytes) -> list[bytes]:
        """The events that these bytes complete."""
        *whole, self._waiting = (self._waiting + part).replace(b"\r\n", b"\n").split(b"\n")
        found: list[bytes] = []
        for line in whole:
            if line.startswith(b"data:"):
                self._lines.append(line[5:].removeprefix(b" "))
            elif not line and self._lines:
                found.append(b"\n".join(self._lines))
                self._lines = []
        return [data for data in found if data != b"[DONE]"]
