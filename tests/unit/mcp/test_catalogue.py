"""Catalogues: canonical bytes, and items that cost themselves and not the list."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest

from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.mcp import catalogue as cat

SCHEMA = {"type": "object"}


def tool(name: str = "echo", **more: Any) -> dict[str, Any]:
    return {"name": name, "description": "Says it.", "inputSchema": SCHEMA} | more


def made(*tools: Any, **lists: list[Any]) -> tuple[cat.Catalogue, list[str]]:
    warnings: list[str] = []
    return cat.make({}, {"tools": list(tools), **lists}, warnings.append), warnings


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ("text", "no object"),
        ({"inputSchema": SCHEMA}, "has no 'name'"),
        (tool(""), "has no 'name'"),
        (tool(7), "has no 'name'"),  # type: ignore[arg-type]
        (tool("a\u202eb"), "cannot be shown"),
        (tool("x" * 300), "cannot be shown"),
        (tool(title=7), "'title'"),
        (tool(inputSchema={"type": "array"}), "no input schema"),
        (tool(inputSchema=None), "no input schema"),
        (tool(outputSchema=[]), "output schema"),
        (tool(annotations=[1]), "annotations"),
        (tool(description="x" * 70_000), "bytes"),
        (tool(extra=float("nan")), "JSON cannot say"),
        (tool(extra="\ud800"), "JSON cannot say"),
        (tool(extra=nested(100)), "too deeply"),
    ],
)
def test_a_malformed_tool_is_left_out_with_a_word_and_the_rest_stays(item: Any, why: str) -> None:
    found, warnings = made(item, tool("good"))
    assert [one["name"] for one in found.tools] == ["good"]
    assert len(warnings) == 1 and why in warnings[0]


def test_malformed_prompts_and_resources_are_left_out() -> None:
    found, warnings = made(
        prompts=[
            {"name": "a", "arguments": [{"x": 1}]},
            {"name": "b", "arguments": [{"name": "c"}]},
        ],
        resources=[{"uri": "x://1"}, {"uri": "x://2", "name": "two"}],
        templates=[{"uriTemplate": "x://{id}", "name": "t"}],
    )
    assert found.counts() == {"tools": 0, "resources": 1, "templates": 1, "prompts": 1}
    assert len(warnings) == 2


def test_a_tool_that_is_listed_twice_is_kept_once() -> None:
    found, warnings = made(tool(), tool(description="Other."))
    assert [one["description"] for one in found.tools] == ["Says it."]
    assert "twice" in warnings[0]


def test_more_than_the_most_are_cut() -> None:
    found, warnings = made(*(tool(f"t{number}") for number in range(cat.ITEMS_MAX + 5)))
    assert len(found.tools) == cat.ITEMS_MAX and len(warnings) == 1


def test_what_hides_or_turns_text_is_taken_out_at_any_depth() -> None:
    inner = {"type": "object", "properties": {"x": {"description": "a\u200b\U000e0041b\x1b[0m"}}}
    found, _ = made(tool(description="\u202eevil\ufeff\ttext\n", inputSchema=inner))
    assert found.tools[0]["description"] == "evil\ttext\n"
    assert found.tools[0]["inputSchema"]["properties"]["x"]["description"] == "ab[0m"


def test_long_descriptions_are_capped_and_names_are_not_touched() -> None:
    found, _ = made(tool("a-b", description="x" * 10_000))
    assert len(found.tools[0]["description"]) == cat.TEXT_SIZE_MAX
    assert found.find("tools", "a-b") is not None
    assert found.find("tools", "c") is None


def test_the_bytes_are_the_same_whatever_the_order() -> None:
    one, _ = made(tool("a", x=1, y=2), tool("b"))
    other, _ = made(tool("b"), {"y": 2, "x": 1} | tool("a"))
    assert cat.pack(one) == cat.pack(other)
    assert cat.unpack(cat.pack(one), lambda _word: None) == one


def test_unknown_words_of_an_item_travel() -> None:
    found, _ = made(tool(**{"x-new": {"deep": [1, None, "é"]}}))
    assert cat.unpack(cat.pack(found), lambda _word: None).tools[0]["x-new"]["deep"] == [
        1,
        None,
        "é",
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        zlib.compress(b"no json"),
        zlib.compress(b"[1]"),
        zlib.compress(b'{"tools": {}}'),
        zlib.compress(b'{"info": 7}'),
        zlib.compress(b'{"tools": [NaN]}'),
        zlib.compress(b"[" * 100_000),
        zlib.compress(b" " * (cat.PLAIN_SIZE_MAX + 1)),
    ],
)
def test_what_is_no_catalogue_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteError):
        cat.unpack(data, lambda _word: None)


def test_a_stranger_s_items_are_judged_anew() -> None:
    lists = {"tools": [tool("good"), {"name": "bad"}]}
    warnings: list[str] = []
    found = cat.unpack(zlib.compress(json.dumps(lists).encode()), warnings.append)
    assert [one["name"] for one in found.tools] == ["good"] and len(warnings) == 1


def test_a_catalogue_over_its_limit_is_refused() -> None:
    import random

    noise = random.Random(1)
    tools = [tool(f"t{number}", x=noise.randbytes(20_000).hex()) for number in range(60)]
    found, _ = made(*tools)
    with pytest.raises(LocalError) as raised:
        cat.pack(found)
    assert raised.value.code.name == "too_large"


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(LocalError):
        cat.canonical({"x": float("inf")})


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"title": "T"},
        {"description": "Other."},
        {"inputSchema": {"type": "object", "required": ["x"]}},
        {"outputSchema": {}},
        {"annotations": {"readOnlyHint": True}},
        {"icons": [{"src": "x"}]},
    ],
)
def test_the_pin_covers_all_that_a_model_reads(change: dict[str, Any]) -> None:
    assert cat.definition_hash(tool()) != cat.definition_hash(tool(**change))


def test_the_pin_is_of_nothing_else() -> None:
    assert cat.definition_hash(tool()) == cat.definition_hash(tool(title=None, _meta={"x": 1}))
