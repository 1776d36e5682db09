"""Lists of what tests must be about, held against the marks that tests carry."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent


def entries(file: Path) -> dict[str, dict[str, str]]:
    """Group -> id -> sentence."""
    return tomllib.loads(file.read_text())


def named(mark: str) -> dict[str, list[str]]:
    """Entry -> the tests that carry `pytest.mark.<mark>("entry")`, as `file::name`."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for entry, test in _marks(path, f"pytest.mark.{mark}"):
            found.setdefault(entry, []).append(test)
    return found


def _marks(path: Path, name: str) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == name:
                for argument in mark.args:
                    assert isinstance(argument, ast.Constant)
                    yield str(argument.value), f"{path.relative_to(TESTS)}::{node.name}"
