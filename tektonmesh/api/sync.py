"""The blocking client: the standard library only, so that a script or a verb starts at once.

It decides how lines travel over one connection and nothing else; the words are in `dialect`. One
thread reads at a time; handlers of `serve` run in threads and may call this client meanwhile.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tektonmesh.api import dialect, largeparts
from tektonmesh.api.dialect import Reply
from tektonmesh.api.largeparts import Body
from tektonmesh.api.replies_sync import Handler, Message, ReplyStream
from tektonmesh.api.said import name_of
from tektonmesh.api.works_sync import Works
from tektonmesh.errors import MeshError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Socket = socket.socket
READ_SIZE = 65_536
TIMEOUT_S = 30.0


class Client:
    """A connection to the daemon of this machine, usable as a context manager.

    `socket` is a path (default: `$TEKTONMESH_SOCKET`, else that of the home); `timeout` how long
    the daemon may take for an answer, in seconds, besides a message's own time. Every method
    raises MeshError; its code is `no_daemon` when nothing answers.
    """

    def __init__(
        self, socket: str | os.PathLike[str] | None = None, timeout: float | None = TIMEOUT_S
    ) -> None:
        self.socket = dialect.resolve_socket(socket)
        self.timeout = timeout
        self._link: Socket | None = None
        self._buffer = b""
        self._lines: deque[bytes] = deque()
        self._last_id = 0
        self._writing = threading.Lock()
        self._connecting = threading.Lock()
        self._reader: int | None = None
        """The thread that `serve` reads in; others then wait for it to hand them their answers."""
        self._expected: dict[int, SimpleQueue[dict[str, Any] | None]] = {}
        self._messages: deque[dict[str, Any]] = deque()
        self._notices: deque[dict[str, Any]] = deque()
        self._attached: dict[str, dict[str, Any]] = {}
        """What was registered to be served here, with its token, to come back with it."""
        self._works = Works(self._write_if_there)
        self._closed = False

    def __enter__(self) -> Client:
        self._connected()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _exc: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; CIs attached by it leave after their grace."""
        self._closed = True
        self._hang_up()

    def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            # Without the shutdown a thread that reads would go on waiting.
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            link.close()

    # --- verbs -----------------------------------------------------------------------------------

    def call(self, method: str, **params: Any) -> Any:
        """The result of any method of the socket (docs/reference/socket.md)."""
        return self._call(method, params, self.timeout)

    def status(self) -> dict[str, Any]:
        """The daemon's own state, as `tektonmesh status --json`."""
        return dict(self.call("status"))

    def stacks(self, name: str | None = None) -> list[dict[str, Any]]:
        """Every stack that is known, or the one of that name."""
        return list(self.call("stacks", name=name))

    def cis(self, **filters: Any) -> list[dict[str, Any]]:
        """CIs; filters: `stack`, `specialty`, `capability`, `type`, `state`, `local`."""
        return list(self.call("list", **filters))

    def find(self, words: str) -> list[dict[str, Any]]:
        """CIs that fit these words, best first."""
        return list(self.call("find", words=words))

    def peers(self, *, approve: str | None = None, evict: str | None = None) -> Any:
        """The list of peers; with `approve` or `evict` an id, what became of that one."""
        return self.call("peers", approve=approve, evict=evict)

    def explain(self, name: str) -> dict[str, Any]:
        """One stack, why it is in its state, and its last changes with their evidence."""
        return dict(self.call("explain", name=name))

    def explain_message(self, msg_id: str) -> dict[str, Any]:
        """Where a message is that passed here, what was tried, and what it waits for."""
        return dict(self.call("explain", id=msg_id))

    def route(self, target: str) -> dict[str, Any]:
        """The next hops that would be tried for `target`, and why others are not."""
        return dict(self.call("route", target=target))

    def trace(self, target: str, timeout: float | None = None) -> dict[str, Any]:
        """Each hop to `target` with its RTT and queue."""
        params = {"target": target, "timeout_s": timeout}
        return dict(self._call("trace", params, self._patience(timeout)))

    def message(self, msg_id: str) -> dict[str, Any]:
        """What became of a message that was sent from here."""
        return dict(self.call("message", id=msg_id))

    def leave(self, timeout: float = 5.0) -> dict[str, Any]:
        """The stack leaves the mesh and its daemon stops."""
        return dict(self._call("leave", {"timeout_s": timeout}, self._patience(timeout)))

    def register(self, name: str, **options: Any) -> dict[str, Any]:
        """Register a CI; without an endpoint this connection takes its messages (see `serve`).

        Options: type, endpoint, format, headers, specialties, capabilities, teams, share,
        description, persist, lease_s, stream, metadata, token, attach.
        """
        params = dialect.register_params(name, options)
        result = dict(self.call("register", **params))
        if dialect.attaches(params):
            self._attached[name.lower()] = params | {"token": result["token"]}
        return result

    def deregister(self, name: str, token: str | None = None) -> dict[str, Any]:
        """The CI leaves every replica."""
        result = dict(self.call("deregister", name=name, token=token))
        self._attached.pop(name.lower(), None)
        return result

    def heartbeat(self, name: str, token: str | None = None) -> dict[str, Any]:
        """A sign of life; code `unknown_ci` means that it must register again."""
        return dict(self.call("heartbeat", name=name, token=token))

    def send(self, target: str, body: Body, **options: Any) -> Reply:
        """Send to a CI and wait for its reply. `body` is text, bytes, the `Path` of a file or a
        file that is open for reading bytes; what is large goes to the daemon's disk first. Options:
        `timeout` (s), `sender`, `content_type`, `no_reply`, `idempotency_key`, `idempotent`,
        `conversation`."""
        params = self._send_params(target, body, options)
        patience = self._patience(options.get("timeout"), message=True)
        return dialect.reply_from(self._call("send", params, patience))

    def stream(
        self, target: str, body: Body, *, resume: bool = False, **options: Any
    ) -> ReplyStream:
        """As `send`, the reply as it comes. With `resume` (or an `idempotency_key`, and `offset` to
        go on behind so many bytes) it survives restarts of all daemons on its way."""
        if resume:
            options.setdefault("idempotency_key", secrets.token_hex(16))
        start = int(options.get("offset") or 0)

        def ask(offset: int) -> int:
            more = {"stream": True, "offset": start + offset or None}
            return self._ask("send", self._send_params(target, body, options) | more)

        def again(offset: int) -> int:
            for pause_s in dialect.pauses():
                try:
                    return ask(offset)
                except MeshError as error:
                    if self._closed or error.code.name not in dialect.PASSING:
                        raise
                time.sleep(pause_s)
            raise dialect.lost()

        patience = self._patience(options.get("timeout"), message=True)
        return ReplyStream(self, ask(0), patience, again if resume else None)

    def _send_params(self, target: str, body: Body, options: dict[str, Any]) -> dict[str, Any]:
        plain = largeparts.plain_of(body)
        if plain is not None:
            return dialect.send_params(target, plain, options)
        return dialect.send_params(target, b"", options, self._hand_in(body))

    def _hand_in(self, body: Body) -> str:
        """Give the daemon a large body; its name."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            try:
                link.connect(self.socket)
            except OSError as error:
                raise dialect.no_daemon(self.socket, error) from None
            answer = b""
            try:
                link.sendall(largeparts.HEAD)
                for part in largeparts.parts_of(body):
                    link.sendall(largeparts.framed(part))
                link.sendall(largeparts.END)
            except OSError:
                pass  # The daemon may have said why before it hung up; reading tells.
            try:
                while (data := link.recv(READ_SIZE)) and len(answer) < largeparts.ANSWER_MAX:
                    answer += data
            except OSError:
                pass
            return largeparts.ref_of(answer)

    def watch(self, *kinds: str) -> Iterator[dict[str, Any]]:
        """Notices as they happen, for ever: `{"seq", "at", "kind", ...}`."""
        self.call("subscribe", kinds=list(kinds) or None)
        while True:
            while self._notices:
                yield self._notices.popleft()
            self._take(self._read(None))

    def _patience(self, own_s: float | None, *, message: bool = False) -> float | None:
        if self.timeout is None or (own_s is None and message):
            return None  # The daemon's own default decides, and it always answers.
        return max(self.timeout, (own_s or 0.0) + dialect.ANSWER_GRACE_S)

    # --- serving ---------------------------------------------------------------------------------

    def serve(
        self,
        handler: Handler,
        parallel: int = 1,
        *,
        reconnect: bool = True,
        on_notice: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Answer messages for the CIs registered on this connection, `parallel` at a time, for
        ever: when the daemon restarts they are registered again. Without `reconnect`, or with
        nothing registered, it lasts until the connection ends (MeshError `no_daemon`).

        What `handler` returns is the reply; an iterator is streamed as it yields; what it raises
        is a failure reply. `on_notice` gets what a `subscribe` on this connection brings.
        """
        from concurrent.futures import ThreadPoolExecutor

        self._reader = threading.get_ident()
        pool = ThreadPoolExecutor(parallel, thread_name_prefix="tektonmesh-serve")
        try:
            while True:
                try:
                    self._serve_link(handler, pool, on_notice)
                except MeshError as error:
                    back = reconnect and self._attached and not self._closed
                    if not back or error.code.name != "no_daemon":
                        raise
                self._come_back()
        finally:
            self._reader = None
            self._works.stop()
            pool.shutdown(wait=False, cancel_futures=True)

    def _come_back(self) -> None:
        """Connect and register again; returns when the daemon is back."""
        for pause_s in dialect.pauses():
            time.sleep(pause_s)
            if self._closed:
                raise dialect.lost()
            try:
                self._connected()
                for name, params in list(self._attached.items()):
                    result = self.call("register", **params)
                    self._attached[name] = params | {"token": result["token"]}
                return
            except MeshError as error:
                if self._closed or error.code.name not in dialect.PASSING:
                    raise

    def _serve_link(
        self,
        handler: Handler,
        pool: ThreadPoolExecutor,
        on_notice: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        """Serve until this connection ends. Only replies that resume go on with the next one."""
        at_work: dict[int | str, Message] = {}
        try:
            while True:
                while self._messages:
                    self._take_message(self._messages.popleft(), handler, pool, at_work)
                while on_notice is not None and self._notices:
                    on_notice(self._notices.popleft())
                self._take(self._read(None))
        finally:
            self._works.away()
            over = list(at_work.values())
            at_work.clear()
            for message in over:
                message.cancelled.set()
            for waiting in list(self._expected.values()):
                waiting.put(None)

    def _take_message(
        self,
        shown: dict[str, Any],
        handler: Handler,
        pool: ThreadPoolExecutor,
        at_work: dict[int | str, Message],
    ) -> None:
        number, name = shown["params"].get("id"), name_of(shown)
        if shown["method"] == "reply.kept":
            self._works.kept(number, shown["params"].get("offset"))
        elif shown["method"] == "message.cancel":
            self._works.cancel(number)
            if number in at_work:
                at_work[number].cancelled.set()
        elif name is None:
            message = Message(**dialect.request_fields(shown))
            at_work[message.delivery] = message
            pool.submit(self._serve_one, handler, message, at_work)
        else:
            work = self._works.take(name, Message(**dialect.request_fields(shown)))
            if work is not None:
                pool.submit(self._works.run, work, handler)

    def _write_if_there(self, line: bytes) -> None:
        try:
            self._write(line)
        except (OSError, MeshError):
            pass  # The connection ended; what was lost with it is said again.

    def _serve_one(
        self, handler: Handler, message: Message, at_work: dict[int | str, Message]
    ) -> None:
        delivery = message.delivery
        try:
            line = self._answer(handler, message)
        except Exception as error:
            line = dialect.failure_line(delivery, error)
        if at_work.pop(delivery, None) is None:
            return  # Its connection has ended.
        try:
            self._write(line)
        except (OSError, MeshError):
            pass  # The connection ended; the thread that reads says so.

    def _answer(self, handler: Handler, message: Message) -> bytes:
        if message.cancelled.is_set():
            return dialect.answer_line(message.delivery, "")
        answer = handler(message)
        if answer is None or isinstance(answer, str | bytes):
            return dialect.answer_line(message.delivery, answer)
        for chunk in answer:
            if message.cancelled.is_set():
                break
            self._write(dialect.chunk_line(message.delivery, chunk))
        return dialect.answer_line(message.delivery, "")

    # --- lines -----------------------------------------------------------------------------------

    def _call(self, method: str, params: dict[str, Any], timeout: float | None) -> Any:
        request_id = self._ask(method, params)
        try:
            return dialect.result_of(self._await(request_id, timeout, method))
        finally:
            self._expected.pop(request_id, None)

    def _ask(self, method: str, params: dict[str, Any]) -> int:
        self._connected()
        with self._writing:
            self._last_id += 1
            request_id = self._last_id
        self._expected[request_id] = SimpleQueue()
        try:
            self._write(dialect.request_line(request_id, method, params))
        except OSError:
            pass  # The daemon may have said why before it hung up; reading tells.
        except BaseException:
            del self._expected[request_id]
            raise
        return request_id

    def _await(self, request_id: int, timeout: float | None, method: str) -> dict[str, Any]:
        """The next chunk or the response of `request_id`."""
        answers = self._expected[request_id]
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                elsewhere = self._reader not in (None, threading.get_ident())
                if elsewhere or not answers.empty():
                    found = answers.get(timeout=timeout)
                    if found is None:
                        raise dialect.lost()
                    return found
                self._take(self._read(until))
        except (TimeoutError, Empty):
            raise dialect.timed_out(method, timeout or 0.0) from None

    def _take(self, message: dict[str, Any]) -> None:
        """Put one message of the daemon's where it is waited for."""
        method = message.get("method")
        if method == "event":
            self._notices.append(message["params"])
        elif method in ("message", "message.cancel", "reply.kept"):
            self._messages.append(message)
        else:
            request_id: Any = message["params"]["id"] if method else message.get("id")
            if dialect.is_nameless_error(message) and self._expected:
                request_id = max(self._expected)
            waiting = self._expected.get(request_id)
            if waiting is not None:
                waiting.put(message)

    def _cancel(self, request_id: int) -> None:
        try:
            self._write(dialect.cancel_line(request_id))
        except (OSError, MeshError):
            pass  # With the connection the daemon forgets the message anyway.

    def _connected(self) -> Socket:
        with self._connecting:
            return self._link or self._connect()

    def _connect(self) -> Socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.connect(self.socket)
        except OSError as error:
            link.close()
            raise dialect.no_daemon(self.socket, error) from None
        self._link, self._buffer = link, b""
        self._lines.clear()
        self._messages.clear()
        self._closed = False
        return link

    def _write(self, line: bytes) -> None:
        with self._writing:
            link = self._link
            if link is None:
                raise dialect.lost()
            link.settimeout(None)
            link.sendall(line)

    def _read(self, until: float | None) -> dict[str, Any]:
        """The next message. Raises TimeoutError at the instant `until`."""
        while not self._lines:
            link = self._link
            if link is None:
                raise dialect.lost()
            link.settimeout(None if until is None else max(until - time.monotonic(), 0.001))
            try:
                data = link.recv(READ_SIZE)
            except TimeoutError:
                raise
            except OSError:
                data = b""  # Another thread closed it, or the daemon did.
            if not data:
                self._hang_up()
                raise dialect.lost()
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._lines.extend(lines)
        return dialect.read_line(self._lines.popleft())
