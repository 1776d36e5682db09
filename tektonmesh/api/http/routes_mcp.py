"""MCP over HTTP: Streamable HTTP for everything, for one CI under its own names, and for a view."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tektonmesh.api.http.table import Call, Route
from tektonmesh.api.mcpdoor import Wanted
from tektonmesh.errors import LocalError


class _Passed(Response):
    """A response that the face itself gives; what stands before it has admitted the caller."""

    def __init__(self, door: Any) -> None:
        super().__init__()
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._door(scope, receive, send)


async def _pass(call: Call, wanted: Wanted) -> Response:
    door = call.operations.mcp
    if door is None:
        raise LocalError("MCP is not served here.", code="unknown_method")
    return _Passed((await door.face(wanted)).door)


async def everything(call: Call) -> Response:
    return await _pass(call, Wanted())


async def one_ci(call: Call) -> Response:
    return await _pass(call, Wanted(ci=call.place["address"]))


async def view(call: Call) -> Response:
    return await _pass(call, Wanted(view=call.place["view"]))


_FACES = (
    ("/mcp", everything, "MCP: tools, resources and prompts of all CIs"),
    ("/mcp/ci/{address}", one_ci, "MCP: one CI with its own names"),
    ("/mcp/view/{view}", view, "MCP: what a view of the settings allows"),
)
_WHAT = {
    "POST": "a message",
    "GET": "the stream of a session (2025-11-25)",
    "DELETE": "the end of a session (2025-11-25)",
}

ROUTES = tuple(
    Route(method, path, handler, f"{text}; {what}.", errors=("not_found", "unauthorized"))
    for path, handler, text in _FACES
    for method, what in _WHAT.items()
)
