"""The registry over HTTP: registering in the seed's forms, and the replica as JSON."""

from __future__ import annotations

from typing import Any

from tektonmesh.api.http.table import Call, Route, filters_of

_FILTERS = {
    "type": "The type, such as `echo` or `tekton`.",
    "stack": "A stack's name, short form or id.",
    "specialty": "A specialty, compared without case.",
    "capability": "A capability, compared without case.",
    "state": "`up`, `offline` or `unreachable`.",
    "local": "`true` for the CIs of this stack only, `false` for the others.",
}


async def register(call: Call) -> dict[str, Any]:
    return await call.operations.register(await call.json(), call.caller)


async def heartbeat(call: Call) -> dict[str, Any]:
    return await call.operations.heartbeat(await call.json(), call.caller)


async def deregister(call: Call) -> dict[str, Any]:
    params = {"name": call.place["name"], "token": call.header("x-registration-token") or None}
    return await call.operations.deregister(params, call.caller)


async def listing(call: Call) -> list[dict[str, Any]]:
    return call.operations.cis(filters_of(call))


async def one(call: Call) -> dict[str, Any]:
    return call.operations.get({"address": call.place["address"]})


async def find(call: Call) -> list[dict[str, Any]]:
    return call.operations.find({"words": call.query.get("words", "")})


ROUTES = (
    Route(
        "POST",
        "/api/registry/register",
        register,
        "Register a CI or a whole stack, or update it. Unknown keys are kept as metadata.",
        answer="Registered",
        body="Registration",
        errors=("bad_request", "conflict", "unauthorized"),
    ),
    Route(
        "POST",
        "/api/registry/heartbeat",
        heartbeat,
        "A sign of life, every `heartbeat_s`; 404 `unknown_ci` means: register again.",
        body="CiName",
        errors=("bad_request", "unknown_ci", "unauthorized"),
    ),
    Route(
        "DELETE",
        "/api/registry/{name}",
        deregister,
        "The CI leaves every replica.",
        errors=("unknown_ci", "unauthorized"),
    ),
    Route("GET", "/api/registry", listing, "CIs of the whole mesh.", answer="[Ci]", query=_FILTERS),
    Route(
        "GET",
        "/api/registry/{address}",
        one,
        "One CI, such as `numa@west`.",
        answer="Ci",
        errors=("not_found", "ambiguous"),
    ),
    Route(
        "GET",
        "/api/find",
        find,
        "CIs that fit these words, best first.",
        answer="[Ci]",
        query={"words": "What to look for."},
        errors=("bad_request",),
    ),
)
