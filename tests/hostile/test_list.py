"""The list of hostile tries and the tests are held against each other."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def entries() -> dict[str, str]:
    """id -> sentence."""
    listed = tomllib.loads((Path(__file__).parent / "list.toml").read_text())
    return {name: text for group in listed.values() for name, text in group.items()}


def marks(path: Path) -> Iterator[tuple[str, str]]:
    """(entry, test) for every `pytest.mark.hostile("entry")` on a test of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.hostile":
                for argument in mark.args:
                    assert isinstance(argument, ast.Constant)
                    yield str(argument.value), f"{path.relative_to(TESTS)}::{node.name}"


def named() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for entry, test in marks(path):
            found.setdefault(entry, []).append(test)
    return found


def test_every_entry_of_the_list_has_a_test_that_names_it() -> None:
    assert sorted(entries().keys() - named().keys()) == []


def test_every_test_names_an_entry_of_the_list() -> None:
    assert sorted(named().keys() - entries().keys()) == []


def test_every_entry_says_in_a_sentence_what_is_tried_and_what_comes_of_it() -> None:
    for name, text in entries().items():
        assert isinstance(text, str), f"{name}: an entry is a sentence; none waits for anything"
        assert ": " in text and text.endswith("."), name
