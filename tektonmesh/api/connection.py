"""One JSON-RPC connection: which line means what, and the answers to it.

Reads are answered at once, without a task; acts that may wait get one task each, bounded. It also
carries what the daemon says unasked: messages for attached CIs, chunks of streamed replies and
notices. What an operation does is decided in `operations`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

import trio

from tektonmesh.api.attached import Attached
from tektonmesh.api.dialect import shown_body
from tektonmesh.api.events import matches, wanted_kinds
from tektonmesh.api.lines import LineSocket
from tektonmesh.api.mcplink import McpLink, wants_link
from tektonmesh.api.operations import Caller, Operations
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.wire import jsonrpc
from tektonmesh.wire.jsonrpc import BadLine, CallId, Request

_LOG = logging.getLogger(__name__)

CALLS_MAX = 1024
"""Calls of one connection under way at once; beyond it nothing more is read from it."""

CANCELLED = LocalError("The call was cancelled.", code="cancelled")


class Connection:
    """Serves one local program until it hangs up."""

    def __init__(self, operations: Operations, lines: LineSocket, *, trusted: bool) -> None:
        self._operations = operations
        self._lines = lines
        self._caller = Caller("socket", trusted=trusted)
        self._attached = Attached(operations.daemon, lines)
        self._calls: dict[CallId, Callable[[], None]] = {}
        """The calls under way and what cancels each."""
        self._under_way = 0
        self._fewer = trio.Event()
        self._watching = False
        self._closed = False
        self._open = ExitStack()
        self._mcp: McpLink | None = None

    async def serve(self) -> None:
        """Until the other side hangs up. One that only stopped sending still gets its answers."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._lines.write_out)
                await self._read_all()
                while self._under_way and not self._lines.hung_up():
                    await self._changed()
                nursery.cancel_scope.cancel()
        finally:
            self._closed = True
            for cancel in list(self._calls.values()):
                cancel()
            self._open.close()
            self._attached.close()

    async def _read_all(self) -> None:
        try:
            while (batch := await self._lines.read()) is not None:
                with self._operations.daemon.rounds:
                    for line in batch:
                        self._take(line)
                while self._under_way >= CALLS_MAX:
                    await self._changed()
        except LocalError as error:
            self._lines.write(jsonrpc.write_error(None, error))
            return
        if self._lines.rest.strip():
            # `printf '{...}' | nc -U` ends without a line end.
            self._take(self._lines.rest)

    async def _changed(self) -> None:
        self._fewer = trio.Event()
        await self._fewer.wait()

    # --- one line --------------------------------------------------------------------------------

    def _take(self, line: bytes) -> None:
        try:
            message = jsonrpc.read_line(line)
        except BadLine as error:
            if not self._take_foreign(line, error):
                self._lines.write(jsonrpc.write_error(error.id, error))
            return
        if self._mcp is not None and self._mcp.takes(message):
            return
        if not isinstance(message, Request):
            self._attached.answered(message)
        elif message.method in self._operations.reads:
            self._read(message)
        else:
            self._act(message)

    def _take_foreign(self, line: bytes, error: BadLine) -> bool:
        """Whether the line is in one of Tekton's own forms, which have no method."""
        if error.code.name != "bad_request" or b'"method"' in line:
            return False
        from tektonmesh.tekton import talk

        form = talk.read(line)
        if form is None:
            return False
        self._start(None, self._answer_foreign, form)
        return True

    async def _answer_foreign(self, form: Any, scope: trio.CancelScope) -> None:
        """Whoever sends the form without an answer hangs up at once; it is sent all the same."""
        from tektonmesh.tekton import talk

        with scope, trio.CancelScope(shield=not form.wants_answer):
            answer = await talk.answer(form, self._operations, self._caller)
            if answer:
                self._lines.write(answer)

    def _read(self, request: Request) -> None:
        """A call that only looks at the node."""
        try:
            result = self._operations.reads[request.method](request.params)
            answer = jsonrpc.write_result(request.id, result)
        except MeshError as error:
            answer = jsonrpc.write_error(request.id, error)
        except Exception as error:
            answer = jsonrpc.write_error(request.id, fault(request.method, error))
        if request.id is not None:
            self._lines.write(answer)

    def _act(self, request: Request) -> None:
        method = request.method
        if method == "reply.chunk":
            self._attached.chunk(request.params)
        elif method == "cancel":
            self._cancel(request)
        elif request.id is not None and request.id in self._calls:
            again = LocalError("A call with this id is under way.", data={"field": "id"})
            self._lines.write(jsonrpc.write_error(request.id, again))
        elif method == "send" and request.id is not None and self._is_plain(request.params):
            self._send(request, request.id)
        else:
            answer = self._register if method == "register" else self._answer
            self._start(request.id, answer, request)

    def _is_plain(self, params: dict[str, Any]) -> bool:
        """Whether a message can be sent in this very turn and is answered once."""
        return not params.get("stream") and not self._operations.uploads.is_large(params)

    def _cancel(self, request: Request) -> None:
        """Nobody waits for the call `id` any more; it is answered with `cancelled`."""
        wanted = request.params.get("id")
        found = self._calls.get(wanted) if isinstance(wanted, int | str) else None
        if found is not None:
            found()
        if request.id is not None:
            self._lines.write(jsonrpc.write_result(request.id, {"cancelled": found is not None}))

    # --- messages --------------------------------------------------------------------------------

    def _send(self, request: Request, call: CallId) -> None:
        """The most frequent call that waits gets no task: its answer is written in the turn that
        brings it (a task costs as much as everything else a local message needs)."""
        ended = False

        def end(answer: bytes) -> None:
            nonlocal ended
            ended = True
            if self._calls.pop(call, None) is not None:
                self._one_less()
            if not self._closed:
                self._lines.write(answer)

        def done(reply: dict[str, Any]) -> None:
            end(jsonrpc.write_result(call, reply))

        def failed(error: MeshError) -> None:
            end(jsonrpc.write_error(call, error))

        try:
            give_up = self._operations.begin_send(request.params, self._caller, done, failed=failed)
        except MeshError as error:
            failed(error)
            return

        def cancel() -> None:
            give_up()
            failed(CANCELLED)

        if not ended:
            self._calls[call] = cancel
            self._under_way += 1

    # --- calls that may wait ---------------------------------------------------------------------

    def _start(self, call: CallId | None, act: Callable[..., Awaitable[None]], what: Any) -> None:
        scope = trio.CancelScope()
        if call is not None:
            self._calls[call] = scope.cancel
        self._under_way += 1
        self._nursery.start_soon(self._run, call, act, what, scope)

    async def _run(
        self,
        call: CallId | None,
        act: Callable[..., Awaitable[None]],
        what: Any,
        scope: trio.CancelScope,
    ) -> None:
        try:
            await act(what, scope)
        finally:
            if call is not None:
                del self._calls[call]
            self._one_less()

    def _one_less(self) -> None:
        self._under_way -= 1
        self._fewer.set()

    async def _answer(self, request: Request, scope: trio.CancelScope) -> None:
        answer = jsonrpc.write_error(request.id, CANCELLED)
        with scope:
            try:
                result = await self._result(request)
                answer = jsonrpc.write_result(request.id, result)
            except MeshError as error:
                answer = jsonrpc.write_error(request.id, error)
            except Exception as error:
                answer = jsonrpc.write_error(request.id, fault(request.method, error))
        if request.id is not None:
            self._lines.write(answer)

    async def _register(self, request: Request, scope: trio.CancelScope) -> None:
        with self._attached.registering():
            await self._answer(request, scope)

    async def _result(self, request: Request) -> Any:
        method, params = request.method, request.params
        if method == "send" and params.get("stream") and request.id is not None:
            return await self._stream(request.id, params)
        if method == "subscribe":
            return self._subscribe(params)
        act = self._operations.acts.get(method)
        if act is None:
            raise unknown_method(self._operations, method)
        if method == "register" and self._caller.connection is None:
            self._caller.connection = self._attached.attach()
        if method == "register" and wants_link(params):
            self._link_mcp(params)
        return await act(params, self._caller)

    def _link_mcp(self, params: dict[str, Any]) -> None:
        """The CI's MCP server is at the other end of this connection."""
        door = self._operations.mcp
        if door is None:
            return
        if self._mcp is None:
            self._mcp = McpLink(self._lines)
            self._open.callback(self._mcp.close)
        door.links[str(params.get("name")).lower()] = self._mcp

    async def _stream(self, call: CallId, params: dict[str, Any]) -> Any:
        """Chunks as notifications; the response is what the iterator ends with."""
        async with self._operations.stream(params, self._caller) as parts:
            async for part in parts:
                if isinstance(part, dict):
                    return part
                shown = {"id": call} | shown_body(part, "data")
                self._lines.write(jsonrpc.write_request(Request(None, "reply.chunk", shown)))
                await self._lines.room()
        raise MeshError("The reply ended without a result.", code="internal")

    def _subscribe(self, params: dict[str, Any]) -> dict[str, Any]:
        kinds = wanted_kinds(params.get("kinds"))
        if self._watching:
            raise LocalError("This connection watches already.", code="conflict")
        self._watching = True
        # Nothing that happens after the answer may be missing, so watching begins before it.
        channel = self._open.enter_context(self._operations.daemon.subscribe())
        self._nursery.start_soon(self._watch, channel, kinds)
        return {"subscribed": True, "kinds": kinds}

    async def _watch(
        self, channel: trio.MemoryReceiveChannel[dict[str, Any]], kinds: list[str]
    ) -> None:
        async for notice in channel:
            if matches(notice["kind"], kinds):
                self._lines.write(jsonrpc.write_request(Request(None, "event", notice)))
                await self._lines.room()


def unknown_method(operations: Operations, method: str) -> LocalError:
    """The error for a method that does not exist; it names the one most like it."""
    from tektonmesh.config.names import nearest

    near = nearest(method, (*operations.reads, *operations.acts, "subscribe", "cancel"))
    hint = f"Did you mean '{near}'?" if near else ""
    return LocalError(f"There is no method '{method[:80]}'.", code="unknown_method", hint=hint)


def fault(what: str, error: Exception) -> MeshError:
    """A bug of ours, told without its inside; the log has that."""
    _LOG.error("fault in '%s'", what, exc_info=error)
    return MeshError("This daemon made a mistake; its log has the details.", code="internal")
