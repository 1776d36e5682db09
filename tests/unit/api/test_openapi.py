"""The OpenAPI page and the table it is made from."""

from __future__ import annotations

import json
from typing import Any

from tektonmesh.api.http.app import all_routes
from tektonmesh.api.http.openapi import page
from tektonmesh.api.http.schemas import SCHEMAS


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [found for item in value.values() for found in references(item)]
    if isinstance(value, list):
        return [found for item in value for found in references(item)]
    return []


def test_every_route_is_on_the_page_once() -> None:
    shown = page(all_routes(), "1.0")
    listed = [(method.upper(), path) for path, row in shown["paths"].items() for method in row]
    assert sorted(listed) == sorted({(route.method, route.path) for route in all_routes()})
    assert len(listed) == len(all_routes())


def test_every_schema_that_is_named_exists_and_each_is_used() -> None:
    shown = json.loads(json.dumps(page(all_routes(), "1.0")))
    named = {found.rpartition("/")[2] for found in references(shown)}
    assert named == set(SCHEMAS)


def test_operations_have_names_of_their_own() -> None:
    shown = page(all_routes(), "1.0")
    names = [
        operation["operationId"] for row in shown["paths"].values() for operation in row.values()
    ]
    assert len(names) == len(set(names))


def test_the_parts_of_a_path_are_parameters() -> None:
    operation = page(all_routes(), "1.0")["paths"]["/api/message/{target}"]["post"]
    assert {"name": "target", "in": "path", "required": True, "schema": {"type": "string"}} in (
        operation["parameters"]
    )
    assert "504" in operation["responses"] and "422" in operation["responses"]
