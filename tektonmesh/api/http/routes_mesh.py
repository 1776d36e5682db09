"""The state of the daemon and the mesh over HTTP: stacks, routes, events, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import trio
from starlette.responses import Response

from tektonmesh.api.events import matches, wanted_kinds
from tektonmesh.api.http.guard import Access
from tektonmesh.api.http.stream import PING, PING_S, EventStream, event
from tektonmesh.api.http.table import Call, Route, seconds
from tektonmesh.errors import LocalError
from tektonmesh.net.daemon import Daemon


async def status(call: Call) -> dict[str, Any]:
    return call.operations.status({})


async def stacks(call: Call) -> list[dict[str, Any]]:
    return call.operations.stacks({})


async def one_stack(call: Call) -> dict[str, Any]:
    found = call.operations.stacks({"name": call.place["name"]})
    if not found:
        raise LocalError(f"No stack '{call.place['name']}' is known.", code="not_found")
    return found[0]


async def explain(call: Call) -> dict[str, Any]:
    return call.operations.explain({"name": call.place["name"]})


async def route(call: Call) -> dict[str, Any]:
    return call.operations.route({"target": call.place["target"]})


async def trace(call: Call) -> dict[str, Any]:
    params: dict[str, Any] = {"target": call.place["target"]}
    if "timeout_s" in call.query:
        params["timeout_s"] = seconds("timeout_s", call.query["timeout_s"])
    found: dict[str, Any] = await call.until_gone(
        lambda: call.operations.trace(params, call.caller)
    )
    return found


async def message(call: Call) -> dict[str, Any]:
    return call.operations.message({"id": call.place["id"]})


async def explain_message(call: Call) -> dict[str, Any]:
    return call.operations.explain({"id": call.place["id"]})


async def audit(call: Call) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await call.operations.acts["audit"]({}, call.caller)
    return found


async def peers(call: Call) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await call.operations.peers({}, call.caller)
    return found


# --- events --------------------------------------------------------------------------------------


async def events(call: Call) -> Response:
    kinds = wanted_kinds(call.query.get("kinds"))
    return EventStream(_notices(call.operations.daemon, kinds))


async def _notices(daemon: Daemon, kinds: list[str]) -> AsyncGenerator[bytes, None]:
    with daemon.subscribe() as channel:
        # Something at once, so that the reader knows that it watches from here on.
        yield PING
        while True:
            with trio.move_on_after(PING_S) as waiting:
                notice = await channel.receive()
            if waiting.cancelled_caught:
                yield PING
            elif matches(notice["kind"], kinds):
                yield event(notice["kind"], notice, number=notice["seq"])


# --- health --------------------------------------------------------------------------------------


async def health(call: Call) -> dict[str, Any]:
    """In the shape that Tekton's own components answer with."""
    daemon = call.operations.daemon
    shown = call.operations.status({})
    address = daemon.http or ""
    return {
        "status": "healthy",
        "component": "tektonmesh",
        "version": shown["version"],
        "timestamp": daemon.wall_s(),
        "uptime": shown["uptime_s"],
        "port": int(address.rpartition(":")[2] or 0),
        "registeredWithHermes": False,
        "dependencies": {},
        "metrics": {"links": len(shown["links"]), "stacks": shown["stacks"], "cis": shown["cis"]},
        "details": {"name": shown["name"], "converged": shown["converged"]},
    }


async def ready(call: Call) -> dict[str, Any]:
    daemon = call.operations.daemon
    if daemon.stopping.is_set() or daemon.node.draining.active:
        raise LocalError("This stack is leaving the mesh.", code="leaving")
    return {"ready": True, "component": "tektonmesh"}


async def metrics(call: Call) -> Response:
    from tektonmesh.api.http.metrics import CONTENT_TYPE, exposition

    return Response(exposition(call.operations), media_type=CONTENT_TYPE)


ROUTES = (
    Route("GET", "/api/status", status, "This daemon.", answer="Status"),
    Route("GET", "/api/stacks", stacks, "Every stack that is known.", answer="[Stack]"),
    Route(
        "GET",
        "/api/stacks/{name}",
        one_stack,
        "One stack, by name, short form or id.",
        answer="Stack",
        errors=("not_found", "ambiguous"),
    ),
    Route(
        "GET",
        "/api/stacks/{name}/explain",
        explain,
        "Why a stack is in its state, what both ends say of its links, and its last changes.",
        answer="Explanation",
        errors=("not_found", "ambiguous"),
    ),
    Route(
        "GET",
        "/api/route/{target}",
        route,
        "The next hops that a message to `target` would take, and why others are not taken.",
        answer="RouteView",
        errors=("not_found", "ambiguous"),
    ),
    Route(
        "GET",
        "/api/trace/{target}",
        trace,
        "Each hop to `target`, measured now.",
        answer="Trace",
        query={"timeout_s": "How long to wait, in seconds."},
        errors=("not_found", "unreachable", "timeout"),
    ),
    Route(
        "GET",
        "/api/messages/{id}",
        message,
        "What became of a message that was sent from here.",
        answer="MessageHistory",
        errors=("not_found",),
    ),
    Route(
        "GET",
        "/api/messages/{id}/explain",
        explain_message,
        "Where a message is, each copy of it, its receipt, and what it waits for and why.",
        answer="Object",
        errors=("not_found",),
    ),
    Route("GET", "/api/audit", audit, "The newest entries of the audit log.", answer="[Object]"),
    Route("GET", "/api/peers", peers, "Peers with their admission.", answer="[Peer]"),
    Route(
        "GET",
        "/api/events",
        events,
        "Notices as they happen; the event's name is the notice's kind.",
        answer="Notice",
        query={"kinds": "Only these, with commas; `stack` stands for `stack_up` and its like."},
        media="text/event-stream",
    ),
    Route("GET", "/health", health, "Well or not.", access=Access.ANYONE),
    Route("GET", "/ready", ready, "200 when it serves.", access=Access.ANYONE, errors=("leaving",)),
    Route("GET", "/metrics", metrics, "For Prometheus.", answer="Text", media="text/plain"),
)
