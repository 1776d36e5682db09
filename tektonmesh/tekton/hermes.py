"""Stands in for Hermes, the registry that Tekton's components speak to, on its own routes.

It decides how their requests, in snake_case or camelCase and in several forms, become ours, and
gives each answer in the words they read. They show no token, so what they may touch is only what
came in here (`via` hermes); the core enforces that. Facts: docs/design/tekton.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tektonmesh.api import validate
from tektonmesh.api.http.guard import Access
from tektonmesh.api.http.table import Call, Handler, Route, switch
from tektonmesh.api.operations import Caller
from tektonmesh.core.ci import Ci
from tektonmesh.core.cis import NO_TOKEN_VIA
from tektonmesh.errors import LocalError

CALLER = Caller("hermes", trusted=False)
TOKEN_HEADER = "x-authentication-token"
UNIX_SCHEME = "http+unix"
_REFUSED = re.compile(r"[^A-Za-z0-9._-]+")
_OWN_KEYS = (
    *("name", "component_name", "component_id", "type", "component_type", "version"),
    *("endpoint", "endpoints", "host", "port", "message_endpoint", "message_format"),
    *("capabilities", "metadata", "description"),
)


# --- what they send ------------------------------------------------------------------------------


def snake(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys in snake_case, whichever way they were written."""
    return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): given[key] for key in given}


def name_of(given: Mapping[str, Any]) -> str:
    """The component's name (or our id for it), brought into our grammar: some have spaces."""
    for key in ("name", "component_name", "component_id", "component"):
        value = given.get(key)
        if isinstance(value, str) and value.strip():
            return _REFUSED.sub("-", value.strip()).strip("._-")[:63]
    raise validate.field_error("name", "is missing: the component's name is needed")


def registration_of(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The parameters of our `register`, from any form a component registers with."""
    name = name_of(given)
    metadata = {key: given[key] for key in given if key not in _OWN_KEYS}
    own = given.get("metadata")
    metadata |= own if isinstance(own, Mapping) else {}
    metadata |= {"version": str(given.get("version", "")), "registered_at": now}
    params: dict[str, Any] = {
        "name": name,
        "type": given.get("type") or given.get("component_type") or "component",
        "description": str(given.get("description") or "")[: validate.DESCRIPTION_MAX],
        "capabilities": given.get("capabilities"),
        "metadata": metadata,
    }
    endpoint = _endpoint_of(given, metadata)
    if endpoint:
        try:
            params["endpoint"] = validate.local_url("endpoint", endpoint, validate.LOOPBACK_ONLY)
        except LocalError:
            if endpoint.lower().startswith(UNIX_SCHEME):
                # Whoever may not open a socket may not have the daemon speak to it either.
                raise
            # Hermes takes any; nothing is ever sent to one that is not on this machine.
            metadata["endpoint"] = endpoint
        else:
            params["message_format"] = given.get("message_format")
    return params


def _endpoint_of(given: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """Where it takes messages: its endpoint, and the path for messages if it says one."""
    endpoint = given.get("endpoint")
    if not endpoint and isinstance(given.get("endpoints"), Mapping):
        endpoint = given["endpoints"].get("api")
    if not endpoint and given.get("port") is not None:
        endpoint = f"http://{given.get('host') or 'localhost'}:{given['port']}"
    if not isinstance(endpoint, str):
        return ""
    path = given.get("message_endpoint") or metadata.get("message_endpoint")
    if isinstance(path, str) and path.startswith("/"):
        return endpoint.rstrip("/") + path
    return endpoint


async def _given(call: Call) -> dict[str, Any]:
    """Body and query together; the token may be a header."""
    given = snake(call.query) | snake(await call.json())
    token = call.header(TOKEN_HEADER)
    return given | ({"token": token} if token else {})


# --- the calls -----------------------------------------------------------------------------------


async def register(call: Call) -> dict[str, Any]:
    given = await _given(call)
    token = given.pop("token", None)
    params = registration_of(given, call.operations.daemon.wall_s())
    done = await call.operations.register(params | {"token": token}, CALLER)
    return {
        "success": True,
        "componentId": done["id"],
        "component_id": done["id"],
        "token": done["token"],
        "message": "Component registered successfully",
    }


async def heartbeat(call: Call) -> dict[str, Any]:
    given = await _given(call)
    params = {"id": name_of(given), "token": given.get("token")}
    await call.operations.heartbeat(params, CALLER)
    now = call.operations.daemon.wall_s()
    return {"success": True, "timestamp": now, "message": "Heartbeat received"}


async def unregister(call: Call) -> dict[str, Any]:
    given = await _given(call)
    params = {"id": name_of(given), "token": given.get("token")}
    await call.operations.deregister(params, CALLER)
    return {"success": True, "message": "Component unregistered successfully"}


async def component_status(call: Call) -> dict[str, Any]:
    """`shutting_down` is a graceful leave; anything else a sign of life."""
    given = await _given(call)
    if given.get("status") == "shutting_down":
        return await unregister(call)
    return await heartbeat(call)


async def query(call: Call) -> list[dict[str, Any]]:
    return [_camel_row(call, ci) for ci in _matching(call, await _given(call))]


async def components(call: Call) -> dict[str, Any]:
    rows = [_snake_row(call, ci) for ci in _matching(call, snake(call.query))]
    return {"total": len(rows), "components": rows}


async def component(call: Call) -> dict[str, Any]:
    ci = call.operations.daemon.node.cis.get(call.place["name"])
    if ci is None or not _may_see(call, ci):
        raise LocalError(f"Component '{call.place['name'][:80]}' not found", code="not_found")
    return _snake_row(call, ci)


# --- what they read ------------------------------------------------------------------------------


def _matching(call: Call, given: Mapping[str, Any]) -> list[Ci]:
    """This stack's CIs that fit; remote ones have the same names and would be mistaken."""
    found = [ci for ci in call.operations.daemon.node.cis.all() if _may_see(call, ci)]
    if given.get("capability"):
        found = [ci for ci in found if given["capability"] in ci.spec["capabilities"]]
    if given.get("component_type"):
        found = [ci for ci in found if ci.spec["type"] == given["component_type"]]
    if given.get("healthy_only") is not None and switch("healthy_only", given["healthy_only"]):
        found = [ci for ci in found if _is_healthy(ci)]
    return found


def _may_see(call: Call, ci: Ci) -> bool:
    """Over TCP nobody shows a token, so only what came in here is there."""
    return ci.via == NO_TOKEN_VIA or not call.over_tcp


def _is_healthy(ci: Ci) -> bool:
    """What Hermes means by it: the component is alive. One that registered no endpoint takes no
    messages, and is gone from here when its heartbeats end."""
    return ci.state == "up" or ci.how["kind"] == "none"


def _shown_metadata(ci: Ci) -> dict[str, Any]:
    return dict(ci.spec["metadata"]) if ci.via == NO_TOKEN_VIA else {}


def _snake_row(call: Call, ci: Ci) -> dict[str, Any]:
    metadata, endpoint = _shown_metadata(ci), _shown_endpoint(ci)
    return {
        "component_id": ci.id,
        "name": ci.name,
        "version": metadata.get("version", ""),
        "type": ci.spec["type"],
        "port": _port_of(endpoint),
        "status": "healthy" if _is_healthy(ci) else "unhealthy",
        "capabilities": ci.spec["capabilities"],
        "endpoint": endpoint,
        "last_heartbeat": _heard(call, ci),
        "registered_at": metadata.get("registered_at"),
        "metadata": metadata,
    }


def _camel_row(call: Call, ci: Ci) -> dict[str, Any]:
    metadata = _shown_metadata(ci)
    return {
        "componentId": ci.id,
        "name": ci.name,
        "version": metadata.get("version", ""),
        "type": ci.spec["type"],
        "endpoint": _shown_endpoint(ci),
        "capabilities": ci.spec["capabilities"],
        "metadata": metadata,
        "healthy": _is_healthy(ci),
        "lastHeartbeat": _heard(call, ci),
    }


def _shown_endpoint(ci: Ci) -> str:
    if ci.via != NO_TOKEN_VIA:
        return ""
    return str(ci.how.get("url") or ci.spec["metadata"].get("endpoint") or "")


def _port_of(endpoint: str) -> int | None:
    try:
        return urlsplit(endpoint).port
    except ValueError:
        return None


def _heard(call: Call, ci: Ci) -> float:
    """The wall time of its last sign of life."""
    daemon = call.operations.daemon
    return round(daemon.wall_s() - (daemon.node.env.now - ci.heard), 3)


# --- the table -----------------------------------------------------------------------------------


def _row(method: str, path: str, handler: Handler, summary: str, **more: Any) -> Route:
    return Route(method, path, handler, f"Hermes: {summary}", access=Access.TEKTON, **more)


_FAILURES = ("bad_request", "unknown_ci", "unauthorized")

ROUTES = (
    *(
        route
        for base in ("/api", "/api/registration", "/registration")
        for route in (
            _row(
                "POST",
                f"{base}/register",
                register,
                "register a component, or update it.",
                body="HermesRegistration",
                errors=("bad_request", "conflict", "unauthorized"),
            ),
            _row("POST", f"{base}/heartbeat", heartbeat, "a sign of life.", errors=_FAILURES),
            _row("POST", f"{base}/unregister", unregister, "a component ends.", errors=_FAILURES),
        )
    ),
    _row(
        "POST",
        "/api/components/status",
        component_status,
        "`shutting_down` ends it.",
        errors=_FAILURES,
    ),
    _row("POST", "/api/query", query, "components by capability or type.", answer="[Object]"),
    *(
        _row("GET", path, components, "all components of this stack.")
        for path in ("/api/components", "/components", "/api/v1/registry/components")
    ),
    _row("GET", "/api/components/{name}", component, "one component.", errors=("not_found",)),
)
