"""One connection with an MCP server of this stack, in whichever era it speaks.

It decides how the era is found out (the newest is tried, every refusal means the older handshake),
how a call of the newest dialect is said to an old server, and what of a server's notifications
belongs to which call. Messages stay plain dicts, because typed models drop what they do not know.
How the server is reached and kept alive is decided in `transports` and `servers`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
import trio
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from tektonmesh import __version__
from tektonmesh.mcp.frames import meta_of

_LOG = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 10.0
"""For the probe of the era; a stdio server written in JavaScript takes seconds to start."""
LIST_TIMEOUT_S = 30.0
PAGES_MAX = 200
ME = {"name": "tektonmesh", "version": __version__}
ASKING = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {"listChanged": False},
}
"""What a server of the old era is told that its client can do: what it asks for goes to whoever
called, and is refused there if that one cannot."""

_LISTS = (
    ("tools", "tools/list", "tools", "tools"),
    ("resources", "resources/list", "resources", "resources"),
    ("templates", "resources/templates/list", "resourceTemplates", "resources"),
    ("prompts", "prompts/list", "prompts", "prompts"),
)
_CHANGES = {
    "notifications/tools/list_changed": "tools",
    "notifications/resources/list_changed": "resources",
    "notifications/prompts/list_changed": "prompts",
}

Notify = Callable[[str, dict[str, Any]], None]
"""Told a notification that belongs to a call: its method and params; must not wait."""
Asked = Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers what an old server asks of its client. Raises MCPError to refuse."""


class Flight:
    """One call under way at a server. `notify` hears what belongs to it, `asked` answers what the
    server asks meanwhile (None: the caller cannot be asked)."""

    def __init__(self, notify: Notify, asked: Asked | None) -> None:
        self.notify = notify
        self.asked = asked


class Upstream:
    """A connection that has been agreed on. Made by `open_upstream` only."""

    def __init__(self, dispatcher: JSONRPCDispatcher[Any]) -> None:
        self._dispatcher = dispatcher
        self._flights: dict[int, Flight] = {}
        self._last = 0
        self._headers_of: dict[str, dict[tuple[str, ...], str]] = {}
        self.version = ""
        self.capabilities: dict[str, Any] = {}
        self.server: dict[str, Any] = {}
        self.instructions = ""
        self.closed = trio.Event()
        self.on_changed: Callable[[str], None] = lambda _kind: None
        self.on_resource: Callable[[str], None] = lambda _uri: None

    @property
    def modern(self) -> bool:
        return self.version in MODERN_PROTOCOL_VERSIONS

    # --- agreeing --------------------------------------------------------------------------------

    async def agree(self) -> None:
        """Find the era. Raises MCPError if there is none in common."""
        try:
            found = await self._discover()
        except MCPError as error:
            known = _supported(error)
            if LATEST_MODERN_VERSION in known:
                # It speaks the newest all the same (a server that was still starting): once more.
                found = await self._discover()
            elif known and not any(one in HANDSHAKE_PROTOCOL_VERSIONS for one in known):
                raise
            else:
                await self._shake_hands()
                return
        versions = found.get("supportedVersions")
        if not isinstance(versions, list) or LATEST_MODERN_VERSION not in versions:
            await self._shake_hands()
            return
        self.version = LATEST_MODERN_VERSION
        self._adopt(found, meta_of(found).get(types.SERVER_INFO_META_KEY) or {})

    async def _discover(self) -> dict[str, Any]:
        params = {"_meta": self._meta({}, LATEST_MODERN_VERSION)}
        return await self._request("server/discover", params, PROBE_TIMEOUT_S)

    async def _shake_hands(self) -> None:
        params = {
            "protocolVersion": LATEST_HANDSHAKE_VERSION,
            "capabilities": ASKING,
            "clientInfo": ME,
        }
        found = await self._request("initialize", params, PROBE_TIMEOUT_S)
        version = found.get("protocolVersion")
        if version not in HANDSHAKE_PROTOCOL_VERSIONS:
            raise MCPError(
                types.UNSUPPORTED_PROTOCOL_VERSION, f"The server speaks MCP {version!r} only."
            )
        self.version = str(version)
        self._adopt(found, found.get("serverInfo") or {})
        chosen: Any = self._options("", {})
        await self._dispatcher.notify("notifications/initialized", None, chosen)

    def _adopt(self, found: dict[str, Any], server: Any) -> None:
        capabilities = found.get("capabilities")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        self.server = server if isinstance(server, dict) else {}
        instructions = found.get("instructions")
        self.instructions = instructions if isinstance(instructions, str) else ""

    # --- lists -----------------------------------------------------------------------------------

    async def lists(self) -> dict[str, list[Any]]:
        """Everything the server lists, by the kinds of `catalogue`. Raises MCPError."""
        found: dict[str, list[Any]] = {}
        for kind, method, key, capability in _LISTS:
            if self.capabilities.get(capability) is not None:
                found[kind] = await self._list(method, key, optional=kind == "templates")
        if "tools" in found and self.modern:
            found["tools"] = self._with_valid_headers(found["tools"])
        return found

    async def _list(self, method: str, key: str, *, optional: bool) -> list[Any]:
        items: list[Any] = []
        cursor: Any = None
        for _page in range(PAGES_MAX):
            params: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            try:
                page = await self.request(method, params, LIST_TIMEOUT_S)
            except MCPError as error:
                if optional and error.code == types.METHOD_NOT_FOUND:
                    return items
                raise
            part = page.get(key)
            items += part if isinstance(part, list) else []
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                break
        return items

    def _with_valid_headers(self, tools: list[Any]) -> list[Any]:
        """Tools whose schemas ask for headers that cannot be sent are not callable over HTTP, so
        they are left out, as the specification says."""
        kept, self._headers_of = [], {}
        for tool in tools:
            schema = tool.get("inputSchema") if isinstance(tool, dict) else None
            problem = find_invalid_x_mcp_header(schema)
            if problem is not None:
                _LOG.warning("a tool is left out: %s", problem)
                continue
            kept.append(tool)
            headers = x_mcp_header_map(schema) if isinstance(schema, dict) else {}
            if headers:
                self._headers_of[str(tool.get("name"))] = headers
        return kept

    # --- calls -----------------------------------------------------------------------------------

    async def call(self, method: str, params: dict[str, Any], flight: Flight) -> dict[str, Any]:
        """The result of a call in the newest dialect, as the server gave it. Being cancelled here
        cancels it there. Raises MCPError."""
        self._last += 1
        number = self._last
        self._flights[number] = flight

        async def progress(done: float, total: float | None, message: str | None) -> None:
            shown: dict[str, Any] = {"progress": done}
            shown |= {} if total is None else {"total": total}
            shown |= {} if message is None else {"message": message}
            flight.notify("notifications/progress", shown)

        try:
            options = {"on_progress": progress} if "progressToken" in meta_of(params) else {}
            return await self.request(method, params, None, options)
        finally:
            del self._flights[number]

    async def request(
        self,
        method: str,
        params: dict[str, Any],
        timeout_s: float | None,
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One request with what its era puts around it. Raises MCPError."""
        given = meta_of(params)
        if self.modern:
            said = {**params, "_meta": self._meta(given, self.version)}
        else:
            said = _for_old(params, given)
        return await self._request(method, said, timeout_s, options)

    async def _request(
        self,
        method: str,
        params: dict[str, Any],
        timeout_s: float | None,
        options: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        chosen: Any = self._options(method, params) | (options or {})
        if timeout_s is not None:
            chosen["timeout"] = timeout_s
        return await self._dispatcher.send_raw_request(method, params, chosen)

    def _meta(self, given: Mapping[str, Any], version: str) -> dict[str, Any]:
        """The envelope of a request: what the caller said of itself goes through."""
        meta = {
            types.CLIENT_INFO_META_KEY: ME,
            types.CLIENT_CAPABILITIES_META_KEY: {},
        } | {key: value for key, value in given.items() if key != "progressToken"}
        return meta | {types.PROTOCOL_VERSION_META_KEY: version}

    def _options(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        version = self.version or LATEST_MODERN_VERSION
        options: dict[str, Any] = {}
        if method in ("initialize", "server/discover"):
            options["cancel_on_abandon"] = False
        if method == "initialize":
            return options
        headers = {MCP_PROTOCOL_VERSION_HEADER: version}
        if version in MODERN_PROTOCOL_VERSIONS:
            headers[MCP_METHOD_HEADER] = method
            name = params.get(NAME_BEARING_METHODS.get(method, ""))
            if isinstance(name, str):
                headers[MCP_NAME_HEADER] = encode_header_value(name)
                if method == "tools/call":
                    arguments = params.get("arguments")
                    shown = arguments if isinstance(arguments, dict) else {}
                    headers |= mcp_param_headers(self._headers_of.get(name, {}), shown)
        return options | {"headers": headers}

    # --- what the server says --------------------------------------------------------------------

    async def on_request(
        self, _context: Any, method: str, params: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """A server of the old era asks its client. With one call under way it is clear for whom."""
        if method == "ping":
            return {}
        asking = [flight for flight in self._flights.values() if flight.asked is not None]
        if len(asking) != 1 or asking[0].asked is None:
            detail = (
                "Nobody who called this can be asked."
                if not asking
                else "Several calls are under way; it cannot be told which of them asks."
            )
            raise MCPError(types.INVALID_REQUEST, detail)
        return await asking[0].asked(method, dict(params or {}))

    async def on_notify(self, _context: Any, method: str, params: Mapping[str, Any] | None) -> None:
        given = dict(params or {})
        if method in _CHANGES:
            self.on_changed(_CHANGES[method])
        elif method == "notifications/resources/updated" and isinstance(given.get("uri"), str):
            self.on_resource(given["uri"])
        elif method == "notifications/message" and len(self._flights) == 1:
            # With several calls under way nobody can tell whose it is, and it may be private.
            next(iter(self._flights.values())).notify(method, given)

    async def listen(self, resources: list[str]) -> None:
        """Hear of changes for as long as this runs; returns if the server offers none."""
        wanted: dict[str, Any] = {}
        for kind in ("tools", "resources", "prompts"):
            offered = self.capabilities.get(kind)
            if isinstance(offered, dict) and offered.get("listChanged"):
                wanted[f"{kind}ListChanged"] = True
        if resources:
            wanted["resourceSubscriptions"] = resources
        if wanted and self.modern:
            await self.request("subscriptions/listen", {"notifications": wanted}, None)


def _supported(error: MCPError) -> list[Any]:
    """The versions that a refusal names."""
    data = error.error.data
    found = data.get("supported") if isinstance(data, dict) else None
    return found if isinstance(found, list) else []


def _for_old(params: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The same request for a server of the old era: without the envelope of the new one."""
    meta = {key: value for key, value in given.items() if not key.startswith(_ENVELOPE)}
    meta.pop("progressToken", None)
    said = {key: value for key, value in params.items() if key not in _NEW_WORDS}
    if meta:
        said["_meta"] = meta
    return said


_ENVELOPE = "io.modelcontextprotocol/"
_NEW_WORDS = ("_meta", "inputResponses", "requestState")


@asynccontextmanager
async def open_upstream(streams: tuple[Any, Any]) -> AsyncIterator[Upstream]:
    """A connection over two streams of messages, agreed on; `closed` is set when the server goes.

    Raises MCPError if the server cannot be agreed with.
    """
    dispatcher: JSONRPCDispatcher[Any] = JSONRPCDispatcher(*streams)
    upstream = Upstream(dispatcher)

    async def run(task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            await dispatcher.run(upstream.on_request, upstream.on_notify, task_status=task_status)
        finally:
            upstream.closed.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        await upstream.agree()
        yield upstream
        nursery.cancel_scope.cancel()
