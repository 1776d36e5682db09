"""One MCP server for what a scope shows, in both eras of the protocol, on the official SDK.

It turns a host's request into a read of the local lists or a call across the mesh, and makes an old
host's session out of answers in the newest dialect. What may be seen is decided by the scope, what
a call does by `calling`. All that leans on provisional parts of the SDK is here and in `upstream`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import mcp_types as types
import trio
from mcp.server.caching import CacheHint
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import methods as sdk_methods
from mcp_types.version import LATEST_MODERN_VERSION, MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from tektonmesh import __version__
from tektonmesh.api.tasks import helpers
from tektonmesh.errors import MeshError
from tektonmesh.mcp import calling, frames, rules
from tektonmesh.mcp.mesh_tools import MeshTools
from tektonmesh.mcp.scopes import Scope, Shown, rewritten

if TYPE_CHECKING:
    from tektonmesh.mcp.federation import Entry

ROUNDS_MAX = 10
"""How often one call of an old host may ask back."""
LIST_TTL_MS = 1000
CI_HEADER, TOKEN_HEADER = "tektonmesh-ci", "tektonmesh-ci-token"
"""With these a CI's host says whose it is: a name, and the token of that registration."""
_ENVELOPE = "io.modelcontextprotocol/"
_LIST_KEYS = {
    "tools/list": ("tools", "tools"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("templates", "resourceTemplates"),
    "prompts/list": ("prompts", "prompts"),
}
_HINTS: Any = {
    **dict.fromkeys(_LIST_KEYS, CacheHint(ttl_ms=LIST_TTL_MS, scope="private")),
    "resources/read": CacheHint(ttl_ms=0, scope="private"),
    "server/discover": CacheHint(ttl_ms=0, scope="private"),
}
_ASKS: dict[str, tuple[Any, Any]] = {
    "elicitation/create": (types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": (types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": (types.ListRootsRequest, types.ListRootsResult),
}
_EVENTS: dict[str, Any] = {
    "tools": ToolsListChanged,
    "resources": ResourcesListChanged,
    "prompts": PromptsListChanged,
}

Context = Any
Listen = Callable[["Entry", str, Callable[[], None]], Callable[[], None]]
"""Hear of changes of a CI's resource; what is returned ends it."""


class _Server(Server[Any]):
    """Tells old hosts, too, that lists change."""

    def create_initialization_options(
        self, notification_options: NotificationOptions | None = None, *rest: Any, **more: Any
    ) -> Any:
        options = notification_options or NotificationOptions(True, True, True)
        return super().create_initialization_options(options, *rest, **more)


class About(NamedTuple):
    """What a face says of itself: `offers` are the capabilities it tells of."""

    name: str
    offers: tuple[str, ...]
    instructions: str = ""


class Ties(NamedTuple):
    """What a gateway has of the daemon: where its tasks run, how changes of a CI's resource are
    heard of, who counts the uses of other stacks' CIs (by method), and for which CI of this stack a
    host speaks that shows a name and a token (raises LocalError if for none)."""

    nursery: trio.Nursery
    listen: Listen
    used: Callable[[str], None]
    speaks: Callable[[str, str], str]


class Gateway:
    """The server of one face."""

    def __init__(
        self,
        daemon: calling.Streaming,
        scope: Scope,
        face: About,
        *,
        ties: Ties,
        mesh: MeshTools | None = None,
    ) -> None:
        self._daemon = daemon
        self._scope = scope
        self._nursery = ties.nursery
        self._used = ties.used
        self._speaks = ties.speaks
        self._mesh = mesh
        self._listen = ties.listen
        self._bus = InMemorySubscriptionBus()
        self._sessions: dict[int, Any] = {}
        self._levels: dict[int, str] = {}
        self._subscriptions: dict[tuple[int, str], Callable[[], None]] = {}
        self._sound: dict[tuple[int, str], bool] = {}
        self.offers = face.offers
        self.listening = ListenHandler(self._bus)
        self.server = _Server(
            face.name,
            version=__version__,
            instructions=face.instructions or None,
            cache_hints=_HINTS,
            get_tool_input_schema=self.input_schema,
        )
        self._add_handlers()

    def _add_handlers(self) -> None:
        def add(method: str, params: Any, handler: Any) -> None:
            self.server.add_request_handler(method, params, partial(_completed, handler))

        page = types.PaginatedRequestParams
        if "tools" in self.offers:
            add("tools/list", page, self._list)
            self.server.add_request_handler(
                "tools/call", types.CallToolRequestParams, self.call_tool
            )
        if "resources" in self.offers:
            add("resources/list", page, self._list)
            add("resources/templates/list", page, self._list)
            add("resources/read", types.ReadResourceRequestParams, self._read)
            add("resources/subscribe", types.SubscribeRequestParams, self._subscribe)
            add("resources/unsubscribe", types.UnsubscribeRequestParams, self._unsubscribe)
        if "prompts" in self.offers:
            add("prompts/list", page, self._list)
            add("prompts/get", types.GetPromptRequestParams, self._get_prompt)
        if "completions" in self.offers:
            add("completion/complete", types.CompleteRequestParams, self._complete)
        if "logging" in self.offers:
            add("logging/setLevel", types.SetLevelRequestParams, self._set_level)
        add("subscriptions/listen", types.SubscriptionsListenRequestParams, self._serve_listen)
        self.server.add_notification_handler(
            "notifications/initialized", types.NotificationParams, self._began
        )

    # --- lists -----------------------------------------------------------------------------------

    async def _list(self, ctx: Context, _params: Any) -> dict[str, Any]:
        kind, key = _LIST_KEYS[ctx.method]
        shown = self._scope.shown(kind).values() if not self._hidden else ()
        items = [one.item for one in shown if self._is_sound(one, ctx.protocol_version, key)]
        if self._mesh is not None:
            items = [*self._mesh.items(kind), *items]
        return {key: items}

    @property
    def _hidden(self) -> bool:
        """In search mode nothing but the mesh's own tools is listed."""
        return self._mesh is not None and self._mesh.search_only

    def _is_sound(self, shown: Shown, version: str, key: str) -> bool:
        """Whether the SDK takes an item; one that it does not would cost the whole list."""
        known = (id(shown.item), version)
        if known not in self._sound:
            method = f"{'resources/templates' if shown.kind == 'templates' else shown.kind}/list"
            listed = {key: [shown.item], "ttlMs": 0, "cacheScope": "private"}
            listed |= {"resultType": "complete"}
            try:
                sdk_methods.validate_server_result(method, version, listed)
                self._sound[known] = True
            except ValidationError:
                self._sound[known] = False
        return self._sound[known]

    def forget_sound(self) -> None:
        """Items have changed; what is kept of them goes by their identity."""
        self._sound.clear()

    def input_schema(self, name: str) -> Any:
        """What a listed tool takes; None for one that is not on the list."""
        found = self._scope.shown("tools").get(name)
        return None if found is None else found.item["inputSchema"]

    # --- calls -----------------------------------------------------------------------------------

    async def call_tool(self, ctx: Context, params: Any) -> Any:
        """The result of a call of a listed tool or one of the mesh's own. Raises MCPError."""
        return await _completed(self._call_tool, ctx, params)

    async def _call_tool(self, ctx: Context, params: Any) -> dict[str, Any]:
        if self._mesh is not None and self._mesh.has(params.name):
            return await self._mesh.call(
                params.name, params.arguments or {}, partial(self._use, ctx)
            )
        return await self._use(ctx, params.name, None)

    async def _use(
        self, ctx: Context, name: str, arguments: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Call a listed tool, with the host's own arguments or others."""
        shown = self._scope.shown("tools").get(name)
        if shown is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {name[:100]}")
        params = dict(ctx.params or {})
        if arguments is not None:
            params["arguments"] = arguments
        if shown.speaks:
            return await self._say(shown, params)
        return await self._through(ctx, shown.entry, "tools/call", params | {"name": shown.key})

    async def _say(self, shown: Shown, params: dict[str, Any]) -> dict[str, Any]:
        given = params.get("arguments")
        text = given.get("message") if isinstance(given, dict) else None
        return await calling.say(self._daemon, shown.entry.address, text)

    async def _read(self, ctx: Context, params: Any) -> dict[str, Any]:
        uri = str(params.uri)
        own = self._mesh.read(uri) if self._mesh is not None else None
        if own is not None:
            return own
        entry, inner = self._resource(uri)
        return await self._through(
            ctx, entry, "resources/read", (ctx.params or {}) | {"uri": inner}
        )

    def _resource(self, uri: str) -> tuple[Entry, str]:
        found = self._scope.resource(uri)
        if found is None:
            raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
        return found

    async def _get_prompt(self, ctx: Context, params: Any) -> dict[str, Any]:
        shown = self._scope.shown("prompts").get(params.name)
        if shown is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name[:100]}")
        said = (ctx.params or {}) | {"name": shown.key}
        return await self._through(ctx, shown.entry, "prompts/get", said)

    async def _complete(self, ctx: Context, _params: Any) -> dict[str, Any]:
        given = dict(ctx.params or {})
        ref = dict(given.get("ref") or {})
        if ref.get("type") == "ref/prompt":
            shown = self._scope.shown("prompts").get(str(ref.get("name")))
            if shown is None:
                raise MCPError(types.INVALID_PARAMS, "Unknown prompt")
            entry, said = shown.entry, ref | {"name": shown.key}
        else:
            entry, inner = self._resource(str(ref.get("uri")))
            said = ref | {"uri": inner}
        return await self._through(ctx, entry, "completion/complete", given | {"ref": said})

    async def _through(
        self, ctx: Context, entry: Entry, method: str, params: dict[str, Any]
    ) -> dict[str, Any]:
        """A call across the mesh. An old host is asked what the CI wants to know on the way."""
        modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        said = params | {"_meta": self._meta(ctx, params, modern=modern)}
        for _round in range(ROUNDS_MAX):
            result = await self._once(ctx, entry, method, said)
            if modern or result.get("resultType") != "input_required":
                return rewritten(self._scope, entry, result)
            said = dict(said)
            said["inputResponses"] = await self._ask(ctx, result.get("inputRequests"))
            if "requestState" in result:
                said["requestState"] = result["requestState"]
        raise MCPError(types.INTERNAL_ERROR, f"The CI asked back over {ROUNDS_MAX} times.")

    async def _once(
        self, ctx: Context, entry: Entry, method: str, params: dict[str, Any]
    ) -> dict[str, Any]:
        async def heard(what: str, about: dict[str, Any]) -> None:
            await self._pass_on(ctx, what, about)

        try:
            caller = calling.Calling(self._caller_of(ctx), rules.act_of(method, params))
            result = await calling.call(
                self._daemon, entry.address, method, params, heard=heard, caller=caller
            )
        except calling.CallFailed as error:
            raise MCPError(error.code, error.message, error.data) from None
        if not entry.local:
            self._used(method)
        return result

    def _caller_of(self, ctx: Context) -> str:
        """The CI whose host asks, as it shows with each request; empty for a person's. Raises
        MCPError if it is not that one's."""
        headers = getattr(ctx.request, "headers", {})
        name = headers.get(CI_HEADER)
        if not name:
            return ""
        try:
            return self._speaks(name, headers.get(TOKEN_HEADER) or "")
        except MeshError as error:
            raise MCPError(types.INVALID_REQUEST, error.sentence()) from None

    def _meta(self, ctx: Context, params: dict[str, Any], *, modern: bool) -> dict[str, Any]:
        """What is said of the host, in the newest dialect."""
        meta = dict(frames.meta_of(params))
        if modern:
            return meta
        meta[types.PROTOCOL_VERSION_META_KEY] = LATEST_MODERN_VERSION
        client = ctx.session.client_params
        capabilities = ctx.session.client_capabilities
        meta[types.CLIENT_CAPABILITIES_META_KEY] = _dumped(capabilities)
        if client is not None:
            meta[types.CLIENT_INFO_META_KEY] = _dumped(client.client_info)
        meta[types.LOG_LEVEL_META_KEY] = self._levels.get(_number_of(ctx), "info")
        return meta

    async def _pass_on(self, ctx: Context, method: str, params: dict[str, Any]) -> None:
        """A notification that belongs to a call under way, to its host."""
        if method == "notifications/progress":
            done, total, message = (params.get(key) for key in ("progress", "total", "message"))
            if isinstance(done, int | float):
                await ctx.session.report_progress(done, total, message)
        elif method == "notifications/message":
            try:
                said = types.LoggingMessageNotification.model_validate(
                    {"method": method, "params": params}
                )
            except ValidationError:
                return
            await ctx.session.send_notification(said, related_request_id=ctx.request_id)

    async def _ask(self, ctx: Context, requests: Any) -> dict[str, Any]:
        """An old host's answers to what a CI asks."""
        answers: dict[str, Any] = {}
        for key, request in requests.items() if isinstance(requests, dict) else ():
            kinds = _ASKS.get(request.get("method", "")) if isinstance(request, dict) else None
            if kinds is None:
                raise MCPError(types.INTERNAL_ERROR, "The CI asks what no host can answer.")
            try:
                asked = kinds[0].model_validate(request)
            except ValidationError:
                raise MCPError(types.INTERNAL_ERROR, "The CI's question is malformed.") from None
            related = ServerMessageMetadata(related_request_id=ctx.request_id)
            answer = await ctx.session.send_request(asked, kinds[1], metadata=related)
            answers[key] = _dumped(answer)
        return answers

    # --- changes ---------------------------------------------------------------------------------

    async def tell_changed(self, kinds: list[str]) -> None:
        """These lists have changed."""
        self.forget_sound()
        for kind in kinds:
            await self._bus.publish(_EVENTS[kind]())
            for session in list(self._sessions.values()):
                tell = {
                    "tools": session.send_tool_list_changed,
                    "resources": session.send_resource_list_changed,
                    "prompts": session.send_prompt_list_changed,
                }[kind]
                with trio.move_on_after(1.0):  # a host that does not read holds up nobody else
                    await tell()

    async def _serve_listen(self, ctx: Context, params: Any) -> Any:
        """A stream of changes, of lists and of resources."""
        async with AsyncExitStack() as ends, helpers() as nursery:
            for uri in params.notifications.resource_subscriptions or ():
                ends.callback(self._hear_of(str(uri), nursery))
            return await self.listening(ctx, params)

    def _hear_of(self, uri: str, nursery: trio.Nursery) -> Callable[[], None]:
        entry, inner = self._resource(uri)

        def changed() -> None:
            nursery.start_soon(self._bus.publish, ResourceUpdated(uri=uri))

        return self._listen(entry, inner, changed)

    async def _began(self, ctx: Context, _params: Any) -> None:
        """An old host's session stands: it is told of changes from now on."""
        number = _number_of(ctx)
        self._sessions[number] = ctx.session
        connection_of(ctx).exit_stack.callback(self._ended, number)

    def _ended(self, number: int) -> None:
        self._sessions.pop(number, None)
        self._levels.pop(number, None)
        for key in [key for key in self._subscriptions if key[0] == number]:
            self._subscriptions.pop(key)()

    async def _subscribe(self, ctx: Context, params: Any) -> dict[str, Any]:
        uri, number = str(params.uri), _number_of(ctx)
        entry, inner = self._resource(uri)
        if (number, uri) not in self._subscriptions:
            session = ctx.session

            def changed() -> None:
                self._nursery.start_soon(_tell_updated, session, uri)

            self._subscriptions[number, uri] = self._listen(entry, inner, changed)
        return {}

    async def _unsubscribe(self, ctx: Context, params: Any) -> dict[str, Any]:
        end = self._subscriptions.pop((_number_of(ctx), str(params.uri)), None)
        if end is not None:
            end()
        return {}

    async def _set_level(self, ctx: Context, params: Any) -> dict[str, Any]:
        self._levels[_number_of(ctx)] = str(params.level)
        return {}


async def _completed(handler: Any, ctx: Context, params: Any) -> Any:
    """What a handler returns, with the word that the newest dialect wants on every result."""
    result = await handler(ctx, params)
    if isinstance(result, dict) and ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return {"resultType": "complete"} | result
    return result


async def _tell_updated(session: Any, uri: str) -> None:
    with trio.move_on_after(1.0):
        try:
            await session.send_resource_updated(uri)
        except Exception:
            return  # The host is gone; its session's end cleans up.


def connection_of(ctx: Context) -> Any:
    """The SDK's connection behind a request; it has no public way to it."""
    return ctx.session._connection


def _number_of(ctx: Context) -> int:
    return id(connection_of(ctx))


def _dumped(model: Any) -> dict[str, Any]:
    if model is None:
        return {}
    found: dict[str, Any] = model.model_dump(by_alias=True, mode="json", exclude_none=True)
    return found
