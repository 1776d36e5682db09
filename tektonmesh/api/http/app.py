"""The HTTP application: the route table behind Starlette's router, with errors as JSON.

It decides what a handler's result and errors look like on the wire, and asks the guard before a
handler runs. What a route does is in the `routes_*` modules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Place

from tektonmesh.api.connection import fault
from tektonmesh.api.http import (
    routes_cards,
    routes_mcp,
    routes_mesh,
    routes_message,
    routes_registry,
)
from tektonmesh.api.http.guard import Access, TcpGuard, check_key, read_token, scope_of
from tektonmesh.api.http.openapi import page
from tektonmesh.api.http.table import Call, Route
from tektonmesh.api.operations import Caller, Operations
from tektonmesh.errors import MeshError
from tektonmesh.tekton import hermes

RETRY_AFTER_S = 1


def all_routes() -> tuple[Route, ...]:
    """Every route but the page that describes them."""
    return (
        *routes_registry.ROUTES,
        *routes_message.ROUTES,
        *routes_mesh.ROUTES,
        *routes_mcp.ROUTES,
        *routes_cards.ROUTES,
        *hermes.ROUTES,
    )


def make_app(operations: Operations) -> Starlette:
    """The application; `scope["state"]` of a connection may hold its `guard`."""
    routes = [*all_routes(), _described(operations)]
    places = [Place(row.path, _endpoint(row, operations), methods=[row.method]) for row in routes]
    # HTTPException also covers what the router itself refuses: no such path, wrong method.
    return Starlette(routes=places, exception_handlers={HTTPException: _refused_by_router})


def _described(operations: Operations) -> Route:
    async def openapi(_call: Call) -> dict[str, Any]:
        return page(all_routes(), str(operations.status({})["version"]))

    return Route("GET", "/openapi.json", openapi, "This page.")


def _endpoint(route: Route, operations: Operations) -> Callable[[Request], Awaitable[Response]]:
    door = "hermes" if route.access is Access.TEKTON else "http"

    async def endpoint(request: Request) -> Response:
        try:
            # Over TCP a token was shown; on the socket the kernel said who it is.
            by_token = _admit(request, route, operations)
            state = request.scope["state"]
            trusted = by_token and bool(state.get("trusted", True))
            local = "guard" not in state
            call = Call(request, operations, Caller(door, trusted=trusted, local=local))
            result = await route.handler(call)
        except MeshError as error:
            return failure(error)
        except Exception as error:
            return failure(fault(f"{route.method} {route.path}", error))
        return result if isinstance(result, Response) else JSONResponse(result)

    return endpoint


def _admit(request: Request, route: Route, operations: Operations) -> bool:
    """Whether the caller acts for the owner. Raises MeshError if it may not call this at all."""
    access, by_owner = route.access, True
    guard: TcpGuard | None = request.scope["state"].get("guard")
    if guard is not None:
        scopes = guard.check(request.headers, access, scope_of(route.method, route.path))
        by_owner = "owner" in scopes
    if access is Access.KEY:
        check_key(request.headers, read_token(operations.daemon.config.home))
    if access is Access.TEKTON and "origin" in request.headers:
        raise MeshError("A page in a browser may not call this.", code="refused")
    return by_owner


def failure(error: MeshError) -> Response:
    """The error as JSON with the status from the one table."""
    headers = {}
    if error.code.name == "unauthorized":
        headers["WWW-Authenticate"] = "Bearer"
    if error.code.http in (429, 503, 507) and error.code.retry == "later":
        wait_s = error.data.get("retry_after_s", RETRY_AFTER_S)
        headers["Retry-After"] = str(max(1, round(wait_s)))
    return JSONResponse(error.as_dict(), status_code=error.code.http, headers=headers)


async def _refused_by_router(request: Request, error: Exception) -> Response:
    """No such route. Over TCP nobody learns even that without the token."""
    assert isinstance(error, HTTPException)
    guard: TcpGuard | None = request.scope["state"].get("guard")
    if guard is not None:
        try:
            guard.check(request.headers, None)
        except MeshError as refusal:
            return failure(refusal)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        shown = MeshError(
            f"{request.method} is not taken here; {allowed} is.", code="unknown_method"
        ).as_dict()
        return JSONResponse(shown, status_code=405, headers=error.headers)
    detail = f"There is no route {request.method} {request.url.path[:200]}."
    return failure(MeshError(detail, code="unknown_method", hint="/openapi.json lists all."))
