"""Arguments against published schemas: nothing fetched, no pattern run, nobody held up."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tektonmesh.mcp.arguments import KEPT_MAX, Arguments

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 1}, "who": {"$ref": "#/$defs/who"}},
    "required": ["n"],
    "$defs": {"who": {"type": "string", "maxLength": 3}},
}


def test_what_fits_has_no_problem() -> None:
    assert Arguments().problem(SCHEMA, {"n": 1, "who": "abc", "more": True}) == ""


@pytest.mark.parametrize("given", [{}, {"n": 0}, {"n": "1"}, {"n": 1, "who": "abcd"}, [], None])
def test_what_does_not_fit_is_said(given: Any) -> None:
    assert Arguments().problem(SCHEMA, given).startswith("The arguments do not fit:")


def test_the_place_is_named() -> None:
    assert "who: " in Arguments().problem(SCHEMA, {"n": 1, "who": "long"})


def test_references_elsewhere_are_never_fetched_and_refuse_nothing() -> None:
    schema = {"type": "object", "properties": {"x": {"$ref": "http://127.0.0.1:9/schema.json"}}}
    assert Arguments().problem(schema, {"x": 1}) == ""


def test_a_pattern_that_would_take_for_ever_is_not_run() -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "string", "pattern": "^(a+)+$"}},
        "patternProperties": {"^(b+)+$": {}},
    }
    began = time.monotonic()
    assert Arguments().problem(schema, {"x": "a" * 40 + "!"}) == ""
    assert time.monotonic() - began < 5.0


def test_a_property_that_is_called_pattern_is_checked_as_any_other() -> None:
    schema = {"type": "object", "properties": {"pattern": {"type": "string"}}}
    assert Arguments().problem(schema, {"pattern": 7})


def test_constants_are_taken_as_they_are() -> None:
    schema = {"type": "object", "properties": {"x": {"const": {"pattern": "a"}}}}
    assert Arguments().problem(schema, {"x": {"pattern": "a"}}) == ""
    assert Arguments().problem(schema, {"x": {}})


def test_a_schema_that_is_none_refuses_nothing() -> None:
    assert Arguments().problem({"type": "nonsense"}, {}) == ""


def test_as_many_schemas_as_there_are_do_not_fill_the_memory() -> None:
    arguments = Arguments()
    for number in range(KEPT_MAX + 10):
        arguments.problem({"type": "object", "title": str(number)}, {})
    assert len(arguments._compiled) == KEPT_MAX
