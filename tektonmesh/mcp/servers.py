"""The MCP servers of this stack's CIs: one task for each, which alone speaks with it.

It decides when a server is started (when its catalogue is not known, or it is first called), how
often a failing one is tried again, and when its catalogue is read anew. What a server says is
`upstream`'s; who may call it is decided before a call gets here.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio
from mcp.shared.exceptions import MCPError

from tektonmesh.api.mcplink import McpLink
from tektonmesh.core import events as ev
from tektonmesh.core.ci import Ci
from tektonmesh.errors import DeliveryError, MeshError
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp import rules, transports
from tektonmesh.mcp.parked import ParkingPlace
from tektonmesh.mcp.upstream import Upstream, open_upstream
from tektonmesh.net.daemon import Daemon

_LOG = logging.getLogger(__name__)

DEBOUNCE_S = 0.25
"""Servers tell of each of many changes; one reading answers them all."""
POLL_S = 300.0
"""For servers that tell of no changes; halved to doubled by chance."""
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 60.0
FAILURES_TOLD = 3
"""After so many failures in a row what the server offers is taken off the lists."""
STEADY_S = 30.0
"""A connection that lasted so long was a good one: its end begins the pauses anew."""
START_TIMEOUT_S = 30.0


class Server:
    """One CI's MCP server. `run` is its task."""

    def __init__(
        self,
        daemon: Daemon,
        ci: Ci,
        streams: Callable[[Server], AbstractAsyncContextManager[transports.Streams]],
    ) -> None:
        self._daemon = daemon
        self._streams = streams
        self.wrote = ""
        self.why = ""
        """What went wrong last, for people here, until the server is there again."""
        self.name = ci.name
        self.mcp = ci.mcp
        self.catalogue: cat.Catalogue | None = None
        self.upstream: Upstream | None = None
        self.parking: ParkingPlace | None = None
        self.on_catalogue: Callable[[], None] = lambda: None
        self.on_resource: Callable[[str], None] = lambda _uri: None
        self.subscribed: dict[str, int] = {}
        self._resubscribe = trio.Event()
        self._wanted = trio.Event()
        self._news = trio.Event()
        self._problem = ""
        self._failures = 0
        self._dirty = trio.Event()

    async def ready(self, *, own: bool) -> Upstream:
        """The connection, started if need be. Raises DeliveryError while it cannot be had. What
        went wrong may name commands, paths and whatever the server wrote: for callers of one's
        own stack only (`own`)."""
        self._wanted.set()
        with trio.move_on_after(START_TIMEOUT_S):
            while self.upstream is None:
                if self._problem:
                    raise self._failure(own=own)
                await self._news.wait()
        if self.upstream is None:
            raise DeliveryError(f"The MCP server of '{self.name}' does not start.", code="timeout")
        return self.upstream

    def heard(self, line: str) -> None:
        """What its process wrote last."""
        self.wrote = line

    def refresh(self) -> None:
        """Read its catalogue anew, soon."""
        self._wanted.set()
        self._dirty.set()

    def subscribe(self, uri: str) -> Callable[[], None]:
        """Have the server tell of changes of a resource; what is returned ends it."""
        self.subscribed[uri] = self.subscribed.get(uri, 0) + 1
        self._resubscribe.set()

        def end() -> None:
            self.subscribed[uri] -= 1
            if not self.subscribed[uri]:
                del self.subscribed[uri]
            self._resubscribe.set()

        return end

    # --- its task --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep it as it should be, for ever. Raises nothing for anything a server does."""
        if self.catalogue is None:
            self._wanted.set()
        while True:
            await self._wanted.wait()
            began = trio.current_time()
            try:
                async with self._streams(self) as streams, open_upstream(streams) as upstream:
                    await self._serve(upstream)
                problem = "It ended."
            except Exception as error:
                problem = detail_of(error)
            if self.wrote:
                problem, self.wrote = f"{problem} It wrote: {self.wrote}", ""
            self._lost(problem, steady=trio.current_time() - began > STEADY_S)
            await self._told_if_lasting()
            await trio.sleep(backoff_s(self._failures))
            self._problem = ""

    async def _serve(self, upstream: Upstream) -> None:
        upstream.on_changed = lambda _kind: self._dirty.set()
        upstream.on_resource = lambda uri: self.on_resource(uri)
        async with trio.open_nursery() as nursery:
            self.parking = ParkingPlace(nursery)
            await self._read(upstream)
            self.upstream, self._problem, self._failures, self.why = upstream, "", 0, ""
            self._wake()
            nursery.start_soon(self._keep_reading, upstream)
            nursery.start_soon(self._keep_listening, upstream)
            await upstream.closed.wait()
            nursery.cancel_scope.cancel()

    def _lost(self, problem: str, *, steady: bool) -> None:
        self.upstream = None
        self.parking = None
        self._failures = 1 if steady else self._failures + 1
        self._problem = self.why = problem
        self._wake()
        self._daemon.notices.say("mcp_failed", ci=self.name, detail=problem)
        self._daemon.notices.problem(f"The MCP server of '{self.name}' failed: {problem}")

    def _failure(self, *, own: bool) -> DeliveryError:
        about = f": {self._problem}" if own else "."
        return DeliveryError(
            f"The MCP server of '{self.name}' is not there{about}", code="ci_offline"
        )

    async def _told_if_lasting(self) -> None:
        if self._failures == FAILURES_TOLD:
            await self._publish(None)

    def _wake(self) -> None:
        self._news.set()
        self._news = trio.Event()

    # --- its catalogue ---------------------------------------------------------------------------

    async def _keep_reading(self, upstream: Upstream) -> None:
        tells = any(
            isinstance(found, dict) and found.get("listChanged")
            for found in upstream.capabilities.values()
        )
        while True:
            pause = float("inf") if tells else POLL_S * random.uniform(0.5, 2.0)
            with trio.move_on_after(pause):
                await self._dirty.wait()
            await trio.sleep(DEBOUNCE_S)
            self._dirty = trio.Event()
            try:
                await self._read(upstream)
            except MCPError as error:
                _LOG.warning("the catalogue of %s cannot be read: %s", self.name, error)

    async def _read(self, upstream: Upstream) -> None:
        with trio.fail_after(START_TIMEOUT_S):
            lists = await upstream.lists()
        info = {
            "server": upstream.server,
            "capabilities": upstream.capabilities,
            "era": upstream.version,
            "instructions": upstream.instructions,
        }
        made = cat.make(info, lists, self._warn)
        if made != self.catalogue:
            await self._publish(made)

    async def _publish(self, made: cat.Catalogue | None) -> None:
        """Put the blob in and refer to it. A CI that is gone meanwhile has nothing to publish."""
        self.catalogue = made
        try:
            reference = None if made is None else await self._put(made)
            name = self.name
            offered = () if made is None else rules.all_offered(made)
            await self._daemon.ask(lambda ticket: ev.SetCatalogue(ticket, name, reference, offered))
        except MeshError as error:
            self._daemon.notices.say("mcp_failed", ci=self.name, detail=error.sentence())
        self.on_catalogue()

    async def _put(self, made: cat.Catalogue) -> dict[str, Any]:
        data = await trio.to_thread.run_sync(cat.pack, made)
        put = await self._daemon.ask(lambda ticket: ev.PutBlob(ticket, data))
        blob = {"hash": bytes.fromhex(put["hash"]), "length": put["length"]}
        return blob | made.counts() | {"era": str(made.info.get("era", ""))}

    async def put_again(self) -> None:
        """The catalogue is to be gossiped from now on, so others will ask for the blob."""
        if self.catalogue is not None:
            await self._put(self.catalogue)
        else:
            self.refresh()

    def _warn(self, detail: str) -> None:
        self._daemon.notices.say("mcp_item_dropped", ci=self.name, detail=detail)

    # --- changes of resources --------------------------------------------------------------------

    async def _keep_listening(self, upstream: Upstream) -> None:
        """Hear of changes, also of the resources that somebody subscribed to."""
        said: list[str] = []
        while True:
            self._resubscribe = trio.Event()
            wanted = sorted(self.subscribed)
            async with trio.open_nursery() as nursery:
                if upstream.modern:
                    nursery.start_soon(self._listen, upstream, wanted)
                else:
                    await self._subscribe_old(upstream, said, wanted)
                await self._resubscribe.wait()
                nursery.cancel_scope.cancel()
            said = wanted

    async def _listen(self, upstream: Upstream, wanted: list[str]) -> None:
        """A stream that ends is opened again after a pause: servers restart behind their URL."""
        while True:
            try:
                await upstream.listen(wanted)
            except MCPError as error:
                _LOG.debug("listening to %s ended: %s", self.name, error)
            await trio.sleep(BACKOFF_FIRST_S * 10)
            self._dirty.set()

    async def _subscribe_old(self, upstream: Upstream, said: list[str], wanted: list[str]) -> None:
        for method, uris in (
            ("resources/unsubscribe", [uri for uri in said if uri not in wanted]),
            ("resources/subscribe", [uri for uri in wanted if uri not in said]),
        ):
            for uri in uris:
                try:
                    await upstream.request(method, {"uri": uri}, START_TIMEOUT_S)
                except MCPError as error:
                    _LOG.debug("%s at %s: %s", method, self.name, error)


def backoff_s(failures: int) -> float:
    """The pause before a server is tried again: doubling, with chance, so that many servers that
    fail together do not come back together."""
    pause = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** max(0, failures - 1))
    return pause * random.uniform(0.8, 1.2)


def detail_of(error: BaseException) -> str:
    """What went wrong, from inside the groups that task groups make of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MeshError):
        return error.sentence()
    if isinstance(error, trio.TooSlowError):
        return "It did not answer in time."
    return f"{type(error).__name__}: {str(error)[:200]}"


class Servers:
    """All of them, kept in step with the registrations."""

    def __init__(self, daemon: Daemon, nursery: trio.Nursery, links: Mapping[str, McpLink]) -> None:
        self._daemon = daemon
        self._links = links
        self._nursery = nursery
        self._servers: dict[str, tuple[Server, trio.CancelScope]] = {}
        self.on_catalogue: Callable[[], None] = lambda: None
        self.on_resource: Callable[[str, str], None] = lambda _ci, _uri: None
        daemon.node.sharing.usable.watch(self._gossip_changed)

    def _gossip_changed(self) -> None:
        if self._daemon.node.sharing.usable.gossiped():
            for server, _scope in self._servers.values():
                self._nursery.start_soon(server.put_again)

    def get(self, name: str) -> Server | None:
        found = self._servers.get(name.lower())
        return found[0] if found is not None else None

    def follow(self) -> None:
        """Start and stop servers so that there is one for each registration that names one."""
        wanted = {ci.key: ci for ci in self._daemon.node.cis.all() if ci.mcp is not None}
        for key in list(self._servers):
            server, scope = self._servers[key]
            ci = wanted.get(key)
            if ci is None or ci.mcp != server.mcp:
                scope.cancel()
                del self._servers[key]
        for key, ci in wanted.items():
            if key not in self._servers:
                self._start(ci)
        self.on_catalogue()

    def _start(self, ci: Ci) -> None:
        server = Server(self._daemon, ci, self._way_to(ci))
        server.catalogue = self._known(ci)
        server.on_catalogue = lambda: self.on_catalogue()
        server.on_resource = lambda uri: self.on_resource(server.name, uri)
        scope = trio.CancelScope()
        self._servers[ci.key] = (server, scope)

        async def run() -> None:
            with scope:
                await server.run()

        self._nursery.start_soon(run, name=f"MCP server of {ci.name}")

    def _known(self, ci: Ci) -> cat.Catalogue | None:
        """The catalogue of the last time, so that a server need not be started to be listed."""
        held = None
        if ci.catalogue is not None:
            held = self._daemon.node.blobs.stash.get(ci.catalogue["hash"])
        try:
            return None if held is None else cat.unpack(held, lambda _detail: None)
        except MeshError:
            return None

    def _way_to(
        self, ci: Ci
    ) -> Callable[[Server], AbstractAsyncContextManager[transports.Streams]]:
        mcp = ci.mcp or {}
        if "stdio" in mcp:
            return lambda server: transports.by_process(mcp["stdio"], ci.name, server.heard)
        if "http" in mcp:
            return lambda _server: transports.by_http(mcp["http"], self._daemon.reach)
        return lambda _server: transports.by_link(self._links.get(ci.key), ci.name)
