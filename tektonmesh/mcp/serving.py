"""Calls that reach a CI of this stack, from here and from other stacks, carried to its MCP server.

It decides whether a call may go to the server (rules, arguments), what of its progress travels and
how often, and that a caller hears of a silent call that it lives. Deadlines, cancelling and repeats
are those of messages, since a call is one.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, METHOD_NOT_FOUND

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.ci import CALL_TYPE, key_of
from tektonmesh.core.policy import Act
from tektonmesh.errors import DeliveryError, MeshError
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp import frames, rules
from tektonmesh.mcp.arguments import Arguments
from tektonmesh.mcp.parked import can_answer, may_be_asked
from tektonmesh.mcp.servers import Server, Servers, detail_of
from tektonmesh.mcp.upstream import Flight
from tektonmesh.net.daemon import Daemon

_LOG = logging.getLogger(__name__)

RESULT_SIZE_MAX = 4 << 20
PROGRESS_PER_S = 10.0
PROGRESS_BURST = 10.0
CALLS_PER_STACK_MAX = 16
"""Calls of one other stack under way at once (docs/design/security.md)."""
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
_PARKABLE = ("tools/call", "prompts/get", "resources/read")


class Serving:
    """The hand that takes calls for all CIs of this stack."""

    def __init__(self, daemon: Daemon, servers: Servers, nursery: trio.Nursery) -> None:
        self._daemon = daemon
        self._servers = servers
        self._nursery = nursery
        self._arguments = Arguments()
        self._scopes: dict[int, trio.CancelScope] = {}
        self._talks: dict[int, Talk] = {}
        self._attending = False
        self._open: dict[str, int] = {}
        self._listeners: dict[int, tuple[str, tuple[str, ...], Talk]] = {}
        servers.on_resource = self._resource_changed

    def deliver(self, effect: fx.Deliver) -> None:
        """Start a call; exactly one end of it follows unless it is cancelled."""
        scope = self._scopes[effect.delivery] = trio.CancelScope()
        self._nursery.start_soon(self._run, effect, scope)

    def cancel(self, effect: fx.CancelDelivery) -> None:
        scope = self._scopes.pop(effect.delivery, None)
        if scope is not None:
            scope.cancel()

    async def _run(self, effect: fx.Deliver, scope: trio.CancelScope) -> None:
        source = effect.sender.rpartition("@")[2]
        try:
            with scope:
                await self._answer(effect, source)
        finally:
            self._scopes.pop(effect.delivery, None)
            self._talks.pop(effect.delivery, None)

    async def _attend(self) -> None:
        """One task for what all calls owe their callers meanwhile; it ends when there are none."""
        while self._talks:
            holds = any(talk.holds for talk in self._talks.values())
            await trio.sleep(1.0 / PROGRESS_PER_S if holds else 1.0)
            for talk in list(self._talks.values()):
                talk.stay_alive()
        self._attending = False

    async def _answer(self, effect: fx.Deliver, source: str) -> None:
        talk = self._talks[effect.delivery] = Talk(self._daemon, effect.delivery)
        if not self._attending:
            self._attending = True
            self._nursery.start_soon(self._attend)
        try:
            line = await self._outcome(effect, source, talk)
        except MCPError as error:
            line = frames.error_line(error.code, error.error.message, error.error.data)
        except MeshError as error:
            self._daemon.inject(
                ev.ReplyFailed(effect.delivery, error.code.name, error.sentence()[:1000])
            )
            return
        except Exception as error:
            _LOG.exception("fault in a call to %s", effect.ci)
            detail = detail_of(error) if self._is_own(source) else "The call failed at its stack."
            line = frames.error_line(INTERNAL_ERROR, detail)
        if len(line) > RESULT_SIZE_MAX:
            line = frames.error_line(INTERNAL_ERROR, "The result is over 4 MiB.")
        talk.end(line)

    async def _outcome(self, effect: fx.Deliver, source: str, talk: Talk) -> bytes:
        method, params = frames.unpack_call(effect.body)
        own = self._is_own(source)
        server = self._servers.get(effect.ci)
        if method != frames.CATALOGUE and not own:
            self._require(effect, source, rules.uses_of(method, params))
        if server is None:
            raise MeshError(f"'{effect.ci}' has no MCP server.", code="not_found")
        with self._counted(source, free=own or method == "subscriptions/listen"):
            if method == frames.CATALOGUE:
                return frames.result_line(await self._catalogue(server, source))
            params = _with_caller(params, effect, source)
            return await self._line(server, method, params, source=source, talk=talk)

    async def _catalogue(self, server: Server, source: str) -> dict[str, Any]:
        """What of a CI's catalogue the caller's stack may know."""
        node = self._daemon.node
        if server.catalogue is None:
            await server.ready(own=False)
        stack, ci = node.names.resolve_stack(source), node.cis.get(server.name)
        if ci is None or server.catalogue is None:
            raise MeshError(f"'{server.name}' offers nothing now.", code="ci_offline")
        part = rules.part_for(node, stack, server.name, server.catalogue)
        digest = node.sharing.usable.digest(stack, ci)
        data = await trio.to_thread.run_sync(cat.pack, part)
        return {"digest": digest.hex(), "catalogue": base64.b64encode(data).decode()}

    def _is_own(self, source: str) -> bool:
        """Whether a caller is of this stack, which may be told what is wrong with its servers."""
        node = self._daemon.node
        return source == node.names.label(node.env.me)

    @contextmanager
    def _counted(self, source: str, *, free: bool) -> Iterator[None]:
        """Room for one more call of a stack. Raises MeshError (`busy`)."""
        if free:
            yield
            return
        if self._open.get(source, 0) >= CALLS_PER_STACK_MAX:
            raise MeshError("This stack has too many calls under way.", code="busy")
        self._open[source] = self._open.get(source, 0) + 1
        try:
            yield
        finally:
            self._open[source] -= 1
            if not self._open[source]:
                del self._open[source]

    async def _line(
        self, server: Server, method: str, params: dict[str, Any], *, source: str, talk: Talk
    ) -> bytes:
        """The last line of a call."""
        if method == "subscriptions/listen":
            await self._listen(server, params, source, talk)
        return frames.result_line(await self._call(server, method, params, source, talk))

    def _require(self, effect: fx.Deliver, source: str, uses: list[rules.Use]) -> None:
        """Let the call of another stack through the policy, and say so in the audit log. What it
        may use in no way answers as missing; being refused would tell that it is there. Raises
        MCPError or MeshError."""
        node = self._daemon.node
        stack = node.names.resolve_stack(source)
        for use in uses:
            act = self._act(effect, use, listing=False)
            try:
                node.rights.require(stack, act)
            except DeliveryError:
                listed = self._act(effect, use, listing=True)
                if not node.rights.check(stack, listed).allowed:
                    raise use.missing() from None
                raise

    def _act(self, effect: fx.Deliver, use: rules.Use, *, listing: bool) -> Act:
        server = self._servers.get(effect.ci)
        tools = server.catalogue if server is not None and use.kind == "tools" else None
        tool = tools.find("tools", use.key) if tools is not None else None
        return Act(
            use.verb,
            key_of(effect.ci),
            caller_ci=effect.sender.rpartition("@")[0],
            size=len(effect.body),
            tool_hash=tools.hash_of("tools", use.key) if tools is not None else "",
            effects=not rules.reads_only(tool),
            depth=effect.depth,
            ref=effect.msg_id.hex(),
            listing=listing,
        )

    # --- one call --------------------------------------------------------------------------------

    async def _call(
        self, server: Server, method: str, params: dict[str, Any], source: str, talk: Talk
    ) -> dict[str, Any]:
        """The result. Raises MCPError as the server said it, MeshError if it is not there."""
        upstream = await server.ready(own=self._is_own(source))
        if method == "tools/call":
            problem = self._problem_of(server, params)
            if problem:
                return {"content": [{"type": "text", "text": problem}], "isError": True}
        meta = frames.meta_of(params)
        notify = talk.notifier(meta)
        capabilities = meta.get(CAPABILITIES)
        parking = server.parking
        try:
            if upstream.modern or method not in _PARKABLE or parking is None:
                return await upstream.call(method, params, Flight(notify, None))
            if "requestState" in params:
                return await parking.go_on(source, params)
            if not can_answer(capabilities):
                return await upstream.call(method, params, Flight(notify, None))

            async def act(ask: Any) -> dict[str, Any]:
                async def asked(what: str, about: dict[str, Any]) -> dict[str, Any]:
                    if not may_be_asked(capabilities, what):
                        raise MCPError(METHOD_NOT_FOUND, f"The caller does not answer '{what}'.")
                    answer: dict[str, Any] = await ask(what, about)
                    return answer

                return await upstream.call(method, params, Flight(notify, asked))

            return await parking.begin(source, act)
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise MeshError(
                    f"The MCP server of '{server.name}' ended during the call.", code="ci_failed"
                ) from None
            raise

    def _problem_of(self, server: Server, params: dict[str, Any]) -> str:
        """What is wrong with the arguments. Raises MCPError for a tool that is not published."""
        use = rules.Use("tools", str(params.get("name")))
        tool = server.catalogue.find("tools", use.key) if server.catalogue is not None else None
        if tool is None:
            raise use.missing()
        return self._arguments.problem(tool["inputSchema"], params.get("arguments") or {})

    # --- changes of resources --------------------------------------------------------------------

    async def _listen(
        self, server: Server, params: dict[str, Any], source: str, talk: Talk
    ) -> None:
        """Tell of changes of some resources until the caller goes or its deadline comes."""
        uris = rules.listened_to(params)
        ends = [server.subscribe(uri) for uri in uris]
        self._listeners[id(talk)] = (server.name.lower(), tuple(uris), talk)
        try:
            await server.ready(own=self._is_own(source))
            await trio.sleep_forever()
        finally:
            del self._listeners[id(talk)]
            for end in ends:
                end()

    def _resource_changed(self, ci: str, uri: str) -> None:
        for name, uris, talk in list(self._listeners.values()):
            if name == ci.lower() and uri in uris:
                talk.say(frames.notification_line("notifications/resources/updated", {"uri": uri}))


def _with_caller(params: dict[str, Any], effect: fx.Deliver, source: str) -> dict[str, Any]:
    """The call as its server gets it: who makes it, by the word of the calling stack, and not by
    anything that the caller itself put in that place."""
    ci = effect.sender.rpartition("@")[0]
    about = {"ci": ci, "stack": source, "depth": effect.depth, "call": effect.msg_id.hex()}
    return params | {"_meta": frames.meta_of(params) | {frames.CALLER: about}}


class Talk:
    """What is said of one call before its end, and how often."""

    def __init__(self, daemon: Daemon, delivery: int) -> None:
        self._daemon = daemon
        self._delivery = delivery
        self._allowed = PROGRESS_BURST
        self._at = self._vouched = trio.current_time()
        self._held: bytes | None = None
        self._over = False

    def say(self, line: bytes) -> None:
        if not self._over:
            self._daemon.inject(ev.ReplyChunk(self._delivery, line))

    def end(self, line: bytes) -> None:
        self._let_go()
        self._over = True
        self._daemon.inject(ev.ReplyDone(self._delivery, line, CALL_TYPE))

    @property
    def holds(self) -> bool:
        """Whether progress waits to be said."""
        return self._held is not None

    def stay_alive(self) -> None:
        """Vouch for a call that says nothing, now and then; and say what progress was held back."""
        self._let_go()
        if trio.current_time() - self._vouched >= frames.ALIVE_S:
            self._vouched = trio.current_time()
            self.say(frames.ALIVE)

    def notifier(self, meta: dict[str, Any]) -> Any:
        """What the server says of this call, as far as its caller asked for it."""
        wanted = meta.get(LOG_LEVEL)
        least = _LEVELS.index(wanted) if wanted in _LEVELS else len(_LEVELS)

        def notify(method: str, params: dict[str, Any]) -> None:
            if method == "notifications/progress":
                self._progress(frames.notification_line(method, params))
            elif params.get("level") in _LEVELS and _LEVELS.index(params["level"]) >= least:
                self.say(frames.notification_line(method, params))

        return notify

    def _progress(self, line: bytes) -> None:
        """Ten a second; of more the newest waits, since only it is of interest."""
        now = trio.current_time()
        self._allowed = min(PROGRESS_BURST, self._allowed + (now - self._at) * PROGRESS_PER_S)
        self._at = now
        if self._allowed >= 1.0:
            self._allowed -= 1.0
            self._held = None
            self.say(line)
        else:
            self._held = line

    def _let_go(self) -> None:
        if self._held is not None:
            held, self._held = self._held, None
            self.say(held)
