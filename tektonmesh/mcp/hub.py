"""Everything of MCP in one daemon, put together: what is attached, what is listed, and the faces.

It decides which face a caller gets and how long one is kept. It is made when the first registration
names a server or the first host asks, in which moment the SDK is loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from tektonmesh.api.mcplink import McpLink
from tektonmesh.errors import LocalError
from tektonmesh.mcp import calling
from tektonmesh.mcp.direct import Direct
from tektonmesh.mcp.federation import Entry, Federation, kinds_that_differ, speaks
from tektonmesh.mcp.gateway import About, Gateway, Ties
from tektonmesh.mcp.mesh_tools import MeshTools
from tektonmesh.mcp.parts import Parts
from tektonmesh.mcp.pins import Pins
from tektonmesh.mcp.scopes import Everything, OneCi, Scope, wants_of
from tektonmesh.mcp.servers import Servers
from tektonmesh.mcp.serving import Serving
from tektonmesh.net.daemon import Daemon

FACES_MAX = 256
"""Faces of single CIs that are kept; the one that was used least lately goes."""
SESSIONS_MAX = 256
"""Sessions of old hosts at one face."""
FLUSH_S = 0.5
LISTEN_PAUSE_S = 5.0
_LOCAL = ("127.0.0.1", "localhost", "[::1]")
SECURITY = TransportSecuritySettings(
    enable_dns_rebinding_protection=True,
    allowed_hosts=[*_LOCAL, *(f"{host}:*" for host in _LOCAL)],
    allowed_origins=[f"http://{host}" for host in _LOCAL] + [f"http://{host}:*" for host in _LOCAL],
)
INSTRUCTIONS = (
    "Tools, resources and prompts of the CIs of a federation of AI stacks. Names are"
    " stack__ci__tool. mesh_search_tools finds tools by words; mesh_send talks to any CI."
)
ALL = ("tools", "resources", "prompts", "completions", "logging")


class Face:
    """One server, the manager that serves it over HTTP, and the door before that."""

    def __init__(self, gateway: Gateway, scope: Scope) -> None:
        self.gateway = gateway
        self.scope = scope
        self.manager = StreamableHTTPSessionManager(
            gateway.server, security_settings=SECURITY, max_sessions=SESSIONS_MAX
        )
        self.door = Direct(gateway, SECURITY, self.manager.handle_request)
        self.ended = trio.CancelScope()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.ended:
            async with self.manager.run():
                task_status.started()
                try:
                    await trio.sleep_forever()
                finally:
                    self.gateway.listening.close()


class Hub:
    """What MCP is in one daemon. Made by `open_hub` only."""

    def __init__(
        self,
        daemon: Daemon,
        nursery: trio.Nursery,
        used: Callable[[str], None],
        speaks: Callable[[str, str], str],
        *,
        links: Mapping[str, McpLink],
    ) -> None:
        self.daemon = daemon
        self.used = used
        self.speaks = speaks
        self._nursery = nursery
        self.pins = Pins(daemon.config.home)
        self.servers = Servers(daemon, nursery, links)
        self.parts = Parts(daemon.config.home)
        self.federation = Federation(daemon, self.servers, self.pins, self.parts)
        self.serving = Serving(daemon, self.servers, nursery)
        self._disk = trio.Lock()
        self._faces: OrderedDict[str, Face] = OrderedDict()
        self._usable: dict[str, int] = {}
        """The CIs whose faces were found in order, and at which version of the federation."""
        self.servers.on_catalogue = self.federation.touch
        self.federation.watch(self._changed)

    # --- faces -----------------------------------------------------------------------------------

    async def face(self, *, ci: str = "", view: str = "") -> Face:
        """The face of everything, of one CI, or of a view. Raises LocalError `not_found`."""
        if ci:
            return await self._face_of_ci(ci)
        key = f"view {view}" if view else "all"
        if key not in self._faces:
            await self._open(key, *self._common(view))
        return self._faces[key]

    def _common(self, view: str) -> tuple[Scope, About, MeshTools | None]:
        if not view:
            scope: Scope = Everything(self.federation)
            mesh = MeshTools(self.daemon, self.federation, scope)
            return scope, About("tektonmesh", ALL, INSTRUCTIONS), mesh
        found = self.daemon.config.mcp_views.get(view)
        if found is None:
            raise LocalError(
                f"There is no view '{view[:80]}'.",
                code="not_found",
                hint="Views stand in the settings as [mcp_views.NAME].",
            )
        scope = Everything(self.federation, wants_of(found.allow))
        search = found.mode == "search"
        mesh = MeshTools(self.daemon, self.federation, scope, search_only=search)
        return scope, About(f"tektonmesh {view}", ALL, INSTRUCTIONS), mesh

    async def _face_of_ci(self, ci: str) -> Face:
        known, version = self._faces.get(f"ci {ci}"), self.federation.version
        if known is not None and self._usable.get(ci) == version:
            self._faces.move_to_end(f"ci {ci}")
            return known
        entry = self.federation.find(ci)
        if entry is None or not self.federation.may("discover", entry):
            raise LocalError(
                f"No CI is known here as '{ci[:80]}'.",
                code="not_found",
                hint="`tektonmesh cis` lists those that are.",
            )
        key, offers = f"ci {entry.address}", offers_of(entry)
        found = self._faces.get(key)
        if found is not None and found.gateway.offers != offers:
            # What a server can do is said at the start of a session; this is another server now.
            self._faces.pop(key).ended.cancel()
            found = None
        if found is None:
            told = entry.catalogue.info.get("instructions") if entry.catalogue is not None else ""
            scope = OneCi(self.federation, entry.address)
            found = await self._open(
                key, scope, About(entry.address, offers, str(told or "")), None
            )
        self._faces.move_to_end(key)
        self._usable[entry.address] = version
        return found

    async def _open(self, key: str, scope: Scope, about: About, mesh: MeshTools | None) -> Face:
        ties = Ties(self._nursery, self._listen, self.used, self.speaks)
        gateway = Gateway(self.daemon, scope, about, ties=ties, mesh=mesh)
        face = Face(gateway, scope)
        await self._nursery.start(face.run)
        if key in self._faces:  # somebody else was quicker
            face.ended.cancel()
            return self._faces[key]
        self._faces[key] = face
        if len(self._faces) > FACES_MAX:
            gone, oldest = self._faces.popitem(last=False)
            oldest.ended.cancel()
            self._usable.pop(gone.removeprefix("ci "), None)
        return face

    # --- changes ---------------------------------------------------------------------------------

    def _changed(self, before: dict[str, Entry], after: dict[str, Entry]) -> None:
        differing = {
            address: kinds_that_differ(before.get(address), after.get(address))
            for address in {**before, **after}
        }
        for face in self._faces.values():
            kinds: dict[str, None] = {}
            for address, found in differing.items():
                entry = after.get(address) or before[address]
                if found and face.scope.concerns(entry):
                    kinds |= dict.fromkeys(found)
            if kinds:
                self._nursery.start_soon(face.gateway.tell_changed, list(kinds))

    def _listen(self, entry: Entry, uri: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Hear of changes of a resource for as long as wanted: a call that the owner holds open,
        made again when its time is over."""
        scope = trio.CancelScope()

        async def heard(method: str, params: dict[str, Any]) -> None:
            if method == "notifications/resources/updated" and params.get("uri") == uri:
                changed()

        async def listen() -> None:
            params = {"notifications": {"resourceSubscriptions": [uri]}}
            with scope:
                while True:
                    try:
                        await calling.call(
                            self.daemon,
                            entry.address,
                            "subscriptions/listen",
                            params,
                            heard=heard,
                            caller=calling.Calling(act=f"resource.read:{uri}"),
                        )
                    except calling.CallFailed:
                        await trio.sleep(LISTEN_PAUSE_S)

        self._nursery.start_soon(listen)
        return scope.cancel

    async def in_thread(self, act: Callable[..., Any], *args: Any) -> Any:
        """What touches the disk waits in a worker thread, one at a time."""
        async with self._disk:
            return await trio.to_thread.run_sync(act, *args)

    # --- tasks -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """The tasks of the hub, for ever."""
        self.daemon.calls = self.daemon.attach(self.serving.deliver, self.serving.cancel)
        self.daemon.notices.heed(
            ("ci_registered", "ci_deregistered"), lambda _notice: self._follow_soon()
        )
        self._following = trio.Event()
        self.servers.follow()
        self._nursery.start_soon(self._keep_following)
        self._nursery.start_soon(partial(self.federation.keep_telling, self._nursery))
        self._nursery.start_soon(self._keep_saving)

    def _follow_soon(self) -> None:
        self._following.set()

    async def _keep_following(self) -> None:
        while True:
            await self._following.wait()
            self._following = trio.Event()
            self.servers.follow()

    async def _keep_saving(self) -> None:
        while True:
            await trio.sleep(FLUSH_S)
            for kept in (self.pins, self.parts):
                if kept.unsaved:
                    await self.in_thread(kept.flush)

    def open(self) -> None:
        """Read what is kept on the disk; for a worker thread. Raises StoreError."""
        self.pins.open()
        self.parts.open()

    def close(self) -> None:
        """Write what is not yet."""
        for kept in (self.pins, self.parts):
            if kept.unsaved:
                kept.flush()


def offers_of(entry: Entry) -> tuple[str, ...]:
    """The capabilities of one CI's face."""
    if speaks(entry) or entry.catalogue is None:
        return ("tools",)
    found = entry.catalogue.info.get("capabilities")
    told = found if isinstance(found, dict) else {}
    # What is logged in a call goes to old hosts as well, whose level becomes that of their calls.
    return tuple(word for word in ALL if word == "logging" or told.get(word) is not None)


@asynccontextmanager
async def open_hub(
    daemon: Daemon,
    used: Callable[[str], None],
    speaks: Callable[[str, str], str],
    *,
    links: Mapping[str, McpLink],
) -> AsyncIterator[Hub]:
    """MCP for the length of the block; `used` is told the method of each use of another stack's
    CI, `speaks` says for which CI a host speaks that shows a name and a token, `links` are the
    connections that carry MCP. Raises StoreError if what is kept cannot be read."""
    async with trio.open_nursery() as nursery:
        hub = Hub(daemon, nursery, used, speaks, links=links)
        await trio.to_thread.run_sync(hub.open)
        await hub.run()
        try:
            yield hub
        finally:
            daemon.detach(daemon.calls)
            daemon.calls = 0
            nursery.cancel_scope.cancel()
    hub.close()
