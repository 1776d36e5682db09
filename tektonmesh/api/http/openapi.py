"""The OpenAPI 3.1 page of this daemon, made from the route table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tektonmesh.api.http.guard import Access
from tektonmesh.api.http.schemas import SCHEMAS
from tektonmesh.api.http.table import Route
from tektonmesh.errors import CODES

_PLACE = re.compile(r"\{(\w+)\}")


def page(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """The whole page. Every schema that a route names exists (a KeyError here is our bug)."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "tektonmesh",
            "version": version,
            "description": "The local HTTP face of one stack's federation daemon.",
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "responses": {"200": _content(route.answer, route.media, "Done.")} | _failures(route),
    }
    places = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PLACE.findall(route.path)
    ]
    queries = [
        {"name": name, "in": "query", "description": text, "schema": {"type": "string"}}
        for name, text in route.query.items()
    ]
    if places or queries:
        shown["parameters"] = [*places, *queries]
    if route.body:
        body = _content(route.body, "application/json", "")
        shown["requestBody"] = {"required": True, "content": body["content"]}
    if route.access in (Access.OWNER, Access.KEY):
        shown["security"] = [{"bearer": []}]
    return shown


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^a-z0-9]+", "_", f"{route.method}_{route.path}".lower())
    return words.strip("_")


def _failures(route: Route) -> dict[str, Any]:
    """One entry per status; several codes may share one."""
    codes: dict[int, list[str]] = {}
    for name in route.errors:
        codes.setdefault(CODES[name].http, []).append(name)
    return {
        str(status): _content("Error", "application/json", f"`{'`, `'.join(names)}`")
        for status, names in sorted(codes.items())
    }


def _content(name: str, media: str, description: str) -> dict[str, Any]:
    plain = name.strip("[]")
    assert plain in SCHEMAS, plain
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{plain}"}
    if name.startswith("["):
        schema = {"type": "array", "items": schema}
    return {"description": description, "content": {media: {"schema": schema}}}
