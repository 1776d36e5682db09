"""The Trio client: one connection, any number of tasks that use it at once.

It decides how lines travel and how waiting tasks get theirs; the words are in `dialect`. Must be
used as `async with Client() as mesh`, which owns the task that reads.
"""

from __future__ import annotations

import inspect
import math
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any

import trio

from tektonmesh.api import dialect, largeparts
from tektonmesh.api.dialect import Reply, Request
from tektonmesh.api.handin import hand_in
from tektonmesh.api.largeparts import Body
from tektonmesh.api.said import name_of
from tektonmesh.api.tasks import helpers
from tektonmesh.api.works import Works
from tektonmesh.errors import MeshError

READ_SIZE = 65_536
TIMEOUT_S = 30.0
CLOSE_FLUSH_S = 0.5
_WRITE_LIMIT = 32 << 20
"""Bytes that may wait for a daemon that does not read; beyond it the connection is given up."""

Answer = str | bytes | None
Handler = Callable[[Request], Awaitable[Answer] | AsyncIterator[str | bytes] | Answer]
_Channel = trio.MemoryReceiveChannel[dict[str, Any]]


# Both iterators are classes and not generators: who leaves a generator early in Trio leaves it to
# the garbage collector, with a warning.


class ReplyStream:
    """Iterates over the text of a reply as it comes; afterwards `.reply` is the whole of it. With
    `again`, which asks anew from an offset, it goes on when the daemon was away."""

    def __init__(
        self, parts: _Channel, again: Callable[[int], Awaitable[_Channel]] | None = None
    ) -> None:
        self._parts = parts
        self._again = again
        self._chunks = dialect.Chunks()
        self.reply: Reply | None = None

    def __aiter__(self) -> ReplyStream:
        return self

    async def __anext__(self) -> str:
        while self.reply is None:
            try:
                text = await self._next()
            except MeshError as error:
                if self._again is None or error.code.name not in dialect.PASSING:
                    raise
                self._parts = await self._again(len(self._chunks.whole))
                continue
            if text:
                return text
        raise StopAsyncIteration

    async def _next(self) -> str:
        try:
            message = await self._parts.receive()
        except trio.EndOfChannel:
            raise dialect.lost() from None
        if "method" in message:
            return self._chunks.add(dialect.bytes_of(message["params"], "data"))
        text, self.reply = self._chunks.finish(dialect.result_of(message))
        return text


class Notices:
    """Iterates for ever over what happens; the first step subscribes."""

    def __init__(self, client: Client, kinds: tuple[str, ...]) -> None:
        self._client = client
        self._kinds = kinds
        self._watching = False

    def __aiter__(self) -> Notices:
        return self

    async def __anext__(self) -> dict[str, Any]:
        if not self._watching:
            await self._client.call("subscribe", kinds=list(self._kinds) or None)
            self._watching = True
        try:
            return await self._client._notices.receive()
        except trio.EndOfChannel:
            raise dialect.lost() from None


class Client:
    """A connection to the daemon of this machine.

    `socket` is a path (default: `$TEKTONMESH_SOCKET`, else that of the home); `timeout` how long
    the daemon may take for an answer, in seconds, besides a message's own time. Every method
    raises MeshError; its code is `no_daemon` when nothing answers.
    """

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout: float = TIMEOUT_S
    ) -> None:
        self.socket = dialect.resolve_socket(socket)
        self.timeout = timeout
        self._link: trio.SocketStream | None = None
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._to_write = trio.Event()
        self._last_id = 0
        self._expected: dict[int, trio.MemorySendChannel[dict[str, Any]]] = {}
        self._messages_in, self._messages = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._notices_in, self._notices = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._attached: dict[str, dict[str, Any]] = {}
        self._works = Works(self._write)
        self._nursery: trio.Nursery | None = None
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Client:
        await self._running.enter_async_context(self._open())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._running.__aexit__(kind, exc, trace)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        link = await self._connect()
        async with helpers() as nursery:
            self._nursery = nursery
            self._use(link)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()
                self._nursery = None

    async def _connect(self) -> trio.SocketStream:
        try:
            return await trio.open_unix_socket(self.socket)
        except OSError as error:
            raise dialect.no_daemon(self.socket, error) from None

    def _use(self, link: trio.SocketStream) -> None:
        """Speak over this connection until it ends."""
        if self._nursery is None:
            raise dialect.lost()
        self._link = link
        self._unsent, self._unsent_size, self._to_write = [], 0, trio.Event()
        self._messages_in, self._messages = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._notices_in, self._notices = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._nursery.start_soon(self._run_link, link)

    async def _run_link(self, link: trio.SocketStream) -> None:
        try:
            async with helpers() as nursery:
                nursery.start_soon(self._write_all, link)
                await self._read_all(link)
        finally:
            self._disconnected()
            with trio.CancelScope(shield=True):
                await self._flush(link)

    # --- verbs -----------------------------------------------------------------------------------

    async def call(self, method: str, **params: Any) -> Any:
        """The result of any method of the socket (docs/reference/socket.md)."""
        return await self._call(method, params, self.timeout)

    async def status(self) -> dict[str, Any]:
        """The daemon's own state, as `tektonmesh status --json`."""
        return dict(await self.call("status"))

    async def stacks(self, name: str | None = None) -> list[dict[str, Any]]:
        """Every stack that is known, or the one of that name."""
        return list(await self.call("stacks", name=name))

    async def cis(self, **filters: Any) -> list[dict[str, Any]]:
        """CIs; filters: `stack`, `specialty`, `capability`, `type`, `state`, `local`."""
        return list(await self.call("list", **filters))

    async def find(self, words: str) -> list[dict[str, Any]]:
        """CIs that fit these words, best first."""
        return list(await self.call("find", words=words))

    async def peers(self, *, approve: str | None = None, evict: str | None = None) -> Any:
        """The list of peers; with `approve` or `evict` an id, what became of that one."""
        return await self.call("peers", approve=approve, evict=evict)

    async def explain(self, name: str) -> dict[str, Any]:
        """One stack, why it is in its state, and its last changes with their evidence."""
        return dict(await self.call("explain", name=name))

    async def explain_message(self, msg_id: str) -> dict[str, Any]:
        """Where a message is that passed here, what was tried, and what it waits for."""
        return dict(await self.call("explain", id=msg_id))

    async def route(self, target: str) -> dict[str, Any]:
        """The next hops that would be tried for `target`, and why others are not."""
        return dict(await self.call("route", target=target))

    async def trace(self, target: str, timeout: float | None = None) -> dict[str, Any]:
        """Each hop to `target` with its RTT and queue."""
        params = {"target": target, "timeout_s": timeout}
        return dict(await self._call("trace", params, self._patience(timeout)))

    async def message(self, msg_id: str) -> dict[str, Any]:
        """What became of a message that was sent from here."""
        return dict(await self.call("message", id=msg_id))

    async def leave(self, timeout: float = 5.0) -> dict[str, Any]:
        """The stack leaves the mesh and its daemon stops."""
        return dict(await self._call("leave", {"timeout_s": timeout}, self._patience(timeout)))

    async def register(self, name: str, **options: Any) -> dict[str, Any]:
        """Register a CI; without an endpoint this connection takes its messages (see `serve`).

        Options: type, endpoint, format, headers, specialties, capabilities, teams, share,
        description, persist, lease_s, stream, metadata, token, attach.
        """
        params = dialect.register_params(name, options)
        result = dict(await self.call("register", **params))
        if dialect.attaches(params):
            self._attached[name.lower()] = params | {"token": result["token"]}
        return result

    async def deregister(self, name: str, token: str | None = None) -> dict[str, Any]:
        """The CI leaves every replica."""
        result = dict(await self.call("deregister", name=name, token=token))
        self._attached.pop(name.lower(), None)
        return result

    async def heartbeat(self, name: str, token: str | None = None) -> dict[str, Any]:
        """A sign of life; code `unknown_ci` means that it must register again."""
        return dict(await self.call("heartbeat", name=name, token=token))

    async def send(self, target: str, body: Body, **options: Any) -> Reply:
        """Send to a CI (or a selector) and wait for its reply. `body` is text, bytes, the `Path` of
        a file or a file that is open for reading bytes; what is large goes to the daemon's disk
        first. Options: `timeout` (s), `sender`,
        `content_type`, `no_reply`, `idempotency_key`, `idempotent` (it may go to another CI though
        one may have had it), `conversation` (stays with the CI chosen first). Cancelling the wait
        cancels the message."""
        params = await self._send_params(target, body, options)
        patience = self._patience(options.get("timeout"), message=True)
        return dialect.reply_from(await self._call("send", params, patience))

    @asynccontextmanager
    async def stream(
        self, target: str, body: Body, *, resume: bool = False, **options: Any
    ) -> AsyncIterator[ReplyStream]:
        """As `send`, the reply as it comes; leaving the block early cancels the message. With
        `resume` (or an `idempotency_key`, and `offset` to go on behind so many bytes) it survives
        restarts of all daemons on its way, this one's too."""
        if resume:
            options.setdefault("idempotency_key", secrets.token_hex(16))
        params = await self._send_params(target, body, options) | {"stream": True}
        with ExitStack() as asked:

            async def again(offset: int) -> _Channel:
                asked.close()
                await self._back()
                start = int(options.get("offset") or 0) + offset
                more = await self._send_params(target, body, options)
                more |= {"stream": True, "offset": start}
                return asked.enter_context(self._asking("send", more))

            parts = asked.enter_context(self._asking("send", params))
            yield ReplyStream(parts, again if resume else None)

    async def _back(self) -> None:
        """Until there is a connection to the daemon again."""
        for pause_s in dialect.pauses():
            if self._link is not None:
                return
            await trio.sleep(pause_s)
            if self._link is None:
                try:
                    self._use(await self._connect())
                except MeshError as error:
                    if self._nursery is None or error.code.name not in dialect.PASSING:
                        raise

    async def _send_params(self, target: str, body: Body, options: Any) -> dict[str, Any]:
        plain = largeparts.plain_of(body)
        if plain is not None:
            return dialect.send_params(target, plain, options)
        return dialect.send_params(target, b"", options, await hand_in(await self._connect(), body))

    def watch(self, *kinds: str) -> Notices:
        """Notices as they happen, for ever: `{"seq", "at", "kind", ...}`."""
        return Notices(self, kinds)

    def _patience(self, own_s: float | None, *, message: bool = False) -> float:
        if own_s is None and message:
            return math.inf  # The daemon's own default decides, and it always answers.
        return max(self.timeout, (own_s or 0.0) + dialect.ANSWER_GRACE_S)

    # --- serving ---------------------------------------------------------------------------------

    async def serve(self, handler: Handler, parallel: int = 1, *, reconnect: bool = True) -> None:
        """Answer messages for the CIs registered on this connection, `parallel` at a time, until
        this call is cancelled: when the daemon restarts they are registered again. Without
        `reconnect`, or with nothing registered, it lasts until the connection ends (MeshError
        `no_daemon`).

        `handler` is an async function, an async generator (streamed as it yields) or a plain
        function that does not wait. What it raises is a failure reply; when nobody waits any more
        it is cancelled.
        """
        places = trio.Semaphore(parallel)
        async with helpers() as lasting:  # for handlers that outlive a connection
            while True:
                await self._serve_link(handler, places, lasting)
                self._works.away(lasting)
                if not (reconnect and self._attached and self._nursery):
                    raise dialect.lost()
                await self._come_back()

    async def _come_back(self) -> None:
        """Connect and register again; returns when the daemon is back."""
        for pause_s in dialect.pauses():
            await trio.sleep(pause_s)
            try:
                if self._link is None:
                    self._use(await self._connect())
                for name, params in list(self._attached.items()):
                    result = await self.call("register", **params)
                    self._attached[name] = params | {"token": result["token"]}
                return
            except MeshError as error:
                if self._nursery is None or error.code.name not in dialect.PASSING:
                    raise

    async def _serve_link(
        self, handler: Handler, places: trio.Semaphore, lasting: trio.Nursery
    ) -> None:
        """Serve until this connection ends. Only replies that resume go on with the next one."""
        at_work: dict[int | str, trio.CancelScope] = {}
        async with helpers() as nursery:
            async for message in self._messages:
                number = message["params"].get("id")
                if message["method"] == "reply.kept":
                    self._works.kept(number, message["params"].get("offset"))
                elif message["method"] == "message.cancel":
                    self._works.cancel(number)
                    if number in at_work:
                        at_work[number].cancel()
                else:
                    request, name = Request(**dialect.request_fields(message)), name_of(message)
                    work = self._works.take(name, request) if name is not None else None
                    if work is not None:
                        lasting.start_soon(self._works.run, work, handler, request, places)
                    elif name is None:
                        at_work[request.delivery] = trio.CancelScope()
                        nursery.start_soon(self._serve_one, handler, request, at_work, places)

    async def _serve_one(
        self,
        handler: Handler,
        request: Request,
        at_work: dict[int | str, trio.CancelScope],
        places: trio.Semaphore,
    ) -> None:
        try:
            with at_work[request.delivery]:
                async with places:
                    try:
                        line = await self._answer(handler, request)
                    except Exception as error:
                        line = dialect.failure_line(request.delivery, error)
                    self._write(line)
        finally:
            del at_work[request.delivery]

    async def _answer(self, handler: Handler, request: Request) -> bytes:
        answer = handler(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, AsyncIterator):
            async for chunk in answer:
                self._write(dialect.chunk_line(request.delivery, chunk))
            answer = ""
        return dialect.answer_line(request.delivery, answer)

    # --- lines -----------------------------------------------------------------------------------

    async def _call(self, method: str, params: dict[str, Any], timeout: float) -> Any:
        with self._asking(method, params) as parts, trio.move_on_after(timeout):
            try:
                return dialect.result_of(await parts.receive())
            except trio.EndOfChannel:
                raise dialect.lost() from None
        raise dialect.timed_out(method, timeout)

    @contextmanager
    def _asking(self, method: str, params: dict[str, Any]) -> Iterator[_Channel]:
        """Send a call and expect its chunks and response until the block ends."""
        if self._link is None:
            raise dialect.lost()
        self._last_id += 1
        request_id = self._last_id
        # Unbounded because one slow task must not hold up the others' answers; the daemon bounds
        # what it streams ahead of a reader.
        send, receive = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._write(dialect.request_line(request_id, method, params))
        self._expected[request_id] = send
        try:
            yield receive
        finally:
            # Whoever is still expected here gave up before the response came.
            if self._expected.pop(request_id, None) is not None and self._link is not None:
                self._write(dialect.cancel_line(request_id))

    def _write(self, line: bytes) -> None:
        self._unsent.append(line)
        self._unsent_size += len(line)
        if self._unsent_size > _WRITE_LIMIT:
            raise MeshError("The daemon does not read what this client sends.", code="busy")
        self._to_write.set()

    async def _write_all(self, link: trio.SocketStream) -> None:
        while True:
            await self._to_write.wait()
            self._to_write = trio.Event()
            data, self._unsent, self._unsent_size = b"".join(self._unsent), [], 0
            try:
                await link.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _flush(self, link: trio.SocketStream) -> None:
        """Close; what was written last (a cancel, an answer) still goes if the daemon reads."""
        with trio.move_on_after(CLOSE_FLUSH_S):
            try:
                await link.send_all(b"".join(self._unsent))
            except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
                pass
        await trio.aclose_forcefully(link)

    async def _read_all(self, link: trio.SocketStream) -> None:
        waiting = b""
        try:
            while data := await link.receive_some(READ_SIZE):
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    self._take(dialect.read_line(line))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        self._disconnected()

    def _take(self, message: dict[str, Any]) -> None:
        """Put one message of the daemon's where it is waited for."""
        method = message.get("method")
        if method == "event":
            self._notices_in.send_nowait(message["params"])
        elif method in ("message", "message.cancel", "reply.kept"):
            self._messages_in.send_nowait(message)
        elif method:
            waiting = self._expected.get(message["params"]["id"])
            if waiting is not None:
                waiting.send_nowait(message)
        else:
            request_id: Any = message.get("id")
            if dialect.is_nameless_error(message) and self._expected:
                request_id = max(self._expected)
            waiting = self._expected.pop(request_id, None)
            if waiting is not None:
                waiting.send_nowait(message)

    def _disconnected(self) -> None:
        """Everyone who waits for the daemon learns that it is gone."""
        self._link = None
        for waiting in self._expected.values():
            waiting.close()
        self._expected.clear()
        self._messages_in.close()
        self._notices_in.close()
