"""The door to MCP: loads it when it is first needed, and leads callers to their face.

A daemon whose CIs have no MCP server, and that no host asked, never imports the SDK. What is served
is decided in `tektonmesh.mcp`; this knows when, and how a connection says what it wants.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from tektonmesh.api.lines import LineSocket
from tektonmesh.api.mcplink import McpLink
from tektonmesh.errors import LocalError, MeshError

if TYPE_CHECKING:
    from tektonmesh.api.operations import Caller, Operations
    from tektonmesh.mcp.hub import Face, Hub

_LOG = logging.getLogger(__name__)

VIA = "settings"
"""How CIs are registered whose servers stand in the settings."""
_OPENERS = ("initialize", "server/discover")
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
SAY_FACE = "mcp"
"""The notification with which a connection says that what follows is MCP, and for whom."""


Params = Mapping[str, Any]


class Wanted(NamedTuple):
    """The face that a connection wants. `said` tells that its first line said only that; `sender`
    is the CI of this stack whose host it is, by the `token` of its registration."""

    ci: str = ""
    view: str = ""
    said: bool = False
    sender: str = ""
    token: str = ""


def face_of(line: bytes) -> Wanted | None:
    """What the first line of a connection says of MCP; None if it speaks our own methods."""
    if not any(word in line for word in (b'"mcp"', b"initialize", b"discover", b"protocolVersion")):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    method, params = found.get("method"), found.get("params")
    params = params if isinstance(params, dict) else {}
    if method == SAY_FACE and "id" not in found:
        ci, view, sender, token = (
            str(params.get(word) or "") for word in ("ci", "view", "from", "token")
        )
        return Wanted(ci, view, said=True, sender=sender, token=token)
    meta = params.get("_meta")
    modern = isinstance(meta, dict) and _VERSION_KEY in meta
    return Wanted() if modern or method in _OPENERS else None


class McpDoor:
    """What the other doors know of MCP."""

    def __init__(self, operations: Operations, nursery: trio.Nursery) -> None:
        self._operations = operations
        self._nursery = nursery
        self._hub: Hub | None = None
        self._loading = trio.Lock()
        self.links: dict[str, McpLink] = {}
        """The connections that carry MCP beside messages, by the CI's name in lower case."""
        acts = operations.acts
        for kind in ("tools", "resources", "prompts"):
            acts[kind] = partial(self._list, kind)
        acts["call"] = self.call
        acts["approve"] = self.approve

    async def _list(self, kind: str, params: Params, _caller: Caller) -> list[dict[str, Any]]:
        return await self.listing(kind, params)

    async def listing(self, kind: str, params: Params) -> list[dict[str, Any]]:
        """`{"ci"?}`: tools, resources (with templates) or prompts of the mesh."""
        found: list[dict[str, Any]] = (await self._asking()).listing(kind, params)
        return found

    async def call(self, params: Params, caller: Caller) -> dict[str, Any]:
        """`{"ref", "arguments"?, "from"?, "token"?, "within"?}`: call a tool, get a prompt or read
        a resource; `within` is the id of the call that it is made for."""
        sender = self._operations.sender_of(params, caller)
        found: dict[str, Any] = await (await self._asking()).call(params, sender)
        return found

    async def approve(self, params: Params, caller: Caller) -> dict[str, Any]:
        """`{"ref", "look"?}`: accept a tool or prompt that has changed since it was pinned."""
        if not caller.owner:
            raise LocalError("Only the owner of this daemon may do that.", code="refused")
        found: dict[str, Any] = await (await self._asking()).approve(params)
        return found

    async def _asking(self) -> Any:
        hub = await self.hub()
        return importlib.import_module("tektonmesh.mcp.asking").Asking(hub)

    async def begin(self) -> None:
        """Register what stands in the settings, and attach what is registered."""
        await self._register_settings()
        daemon = self._operations.daemon
        daemon.notices.heed(("ci_registered",), lambda _notice: self._begin_if_needed())
        self._begin_if_needed()

    def _begin_if_needed(self) -> None:
        cis = self._operations.daemon.node.cis.all()
        if self._hub is None and any(ci.mcp is not None for ci in cis):
            self._nursery.start_soon(self._load_quietly)

    async def _load_quietly(self) -> None:
        try:
            await self.hub()
        except MeshError as error:
            self._operations.daemon.notices.problem(error.sentence())
            _LOG.warning("%s", error.sentence())

    async def _register_settings(self) -> None:
        from tektonmesh.api.operations import Caller

        daemon = self._operations.daemon
        given = daemon.config.mcp
        for ci in daemon.node.cis.all():
            if ci.via == VIA and ci.name not in given:
                await self._operations.deregister({"name": ci.name}, Caller(VIA))
        for name, spec in given.items():
            params = {"name": name, "type": "mcp", "persist": True, "attach": False, **spec}
            try:
                await self._operations.register(params, Caller(VIA))
            except MeshError as error:
                _LOG.error("the setting mcp.%s: %s", name, error.sentence())
                daemon.notices.problem(f"mcp.{name}: {error.sentence()}")

    # --- the hub ---------------------------------------------------------------------------------

    async def hub(self) -> Hub:
        """Everything of MCP, loaded if it was not. Raises LocalError without the SDK."""
        if self._hub is None:
            async with self._loading:
                if self._hub is None:
                    self._hub = await self._nursery.start(self._run)
        return self._hub

    async def _run(self, task_status: trio.TaskStatus[Hub] = trio.TASK_STATUS_IGNORED) -> None:
        daemon = self._operations.daemon
        library = await trio.to_thread.run_sync(_load)
        used = self._operations.figures.used
        async with library.open_hub(daemon, used, self.speaks, links=self.links) as hub:
            task_status.started(hub)
            await trio.sleep_forever()

    def speaks(self, sender: str, token: str) -> str:
        """The name of the CI of this stack for which a host speaks. Raises LocalError if it does
        not."""
        from tektonmesh.api.operations import Caller

        return self._operations.sender_of({"from": sender, "token": token}, Caller("mcp"))

    async def face(self, wanted: Wanted) -> Face:
        """Raises LocalError `not_found` for a CI or view that is not known."""
        return await (await self.hub()).face(ci=wanted.ci, view=wanted.view)

    async def serve_lines(self, lines: LineSocket, wanted: Wanted) -> None:
        """MCP on one connection, until it ends. Who cannot be served is told why in its first
        answer."""
        from tektonmesh.wire import jsonrpc

        try:
            if wanted.sender:
                self.speaks(wanted.sender, wanted.token)
            face = await self.face(wanted)
        except MeshError as error:
            batch = await lines.read() or [b"{}"]
            number = _id_of(batch[0])
            lines.write(jsonrpc.write_error(number, error))
            return
        session: Any = importlib.import_module("tektonmesh.mcp.session")
        await session.serve(face, lines, session.Said(wanted.sender, wanted.token))


def _id_of(line: bytes) -> Any:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("id") if isinstance(found, dict) else None


def _load() -> Any:
    """The import takes most of a second, so a worker thread does it."""
    try:
        return importlib.import_module("tektonmesh.mcp.hub")
    except ModuleNotFoundError as error:
        raise LocalError(
            f"MCP is not installed here ({error.name} is missing).",
            code="unknown_method",
            hint="Install it: pip install 'tektonmesh[mcp]'.",
        ) from None
