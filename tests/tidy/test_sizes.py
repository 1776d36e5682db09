"""The sizes that keep the house readable (docs/design/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tektonmesh"

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
PARAMETERS_MAX = 6
NESTING_MAX = 4
LINE_MAX = 100
CORE_ASSERTS_PER_1000_LINES = 5

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)


def modules() -> list[Path]:
    """Every module of the package and of the scripts."""
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def body_lines(function: Function) -> int:
    """Lines of the body without the docstring."""
    body = function.body
    first = body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    if has_docstring and len(body) == 1:
        return 0
    start = body[1].lineno if has_docstring else first.lineno
    assert function.end_lineno is not None
    return function.end_lineno - start + 1


def parameters(function: Function) -> int:
    """How many parameters a caller has to know; self and cls are not counted."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(1 for argument in named if argument.arg not in ("self", "cls"))


def nesting(statements: list[ast.stmt]) -> int:
    """How deep blocks stand in one another. An `elif` is beside its `if`, not in it; a function
    in a function begins anew."""
    return max((_depth(statement) for statement in statements), default=0)


def _depth(statement: ast.stmt) -> int:
    if not isinstance(statement, BLOCKS):
        return 0
    inner = [nesting(block) for block in _blocks_of(statement)]
    alternative = getattr(statement, "orelse", [])
    is_elif = isinstance(statement, ast.If) and len(alternative) == 1
    if is_elif and isinstance(alternative[0], ast.If):
        return max(1 + max(inner), _depth(alternative[0]))
    return 1 + max([*inner, nesting(alternative)])


def _blocks_of(statement: ast.stmt) -> list[list[ast.stmt]]:
    if isinstance(statement, ast.Match):
        return [case.body for case in statement.cases]
    blocks = [getattr(statement, "body", []), getattr(statement, "finalbody", [])]
    return blocks + [handler.body for handler in getattr(statement, "handlers", [])]


def test_no_function_body_is_over_70_lines() -> None:
    too_long = [
        f"{shown(path)}:{function.lineno} {function.name} has {body_lines(function)}"
        for path in modules()
        for function in functions(path)
        if body_lines(function) > FUNCTION_LINES_MAX
    ]
    assert not too_long, "\n".join(too_long)


def test_no_module_is_over_500_lines() -> None:
    lengths = {shown(path): len(path.read_text().splitlines()) for path in modules()}
    too_long = {name: length for name, length in lengths.items() if length > MODULE_LINES_MAX}
    assert not too_long


def test_no_line_is_over_100_characters() -> None:
    too_long = [
        f"{shown(path)}:{number} has {len(line)}"
        for path in [*modules(), *sorted((ROOT / "tests").rglob("*.py"))]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_MAX
    ]
    assert not too_long, "\n".join(too_long)


def test_no_function_takes_over_6_parameters() -> None:
    too_many = [
        f"{shown(path)}:{function.lineno} {function.name} takes {parameters(function)}"
        for path in modules()
        for function in functions(path)
        if parameters(function) > PARAMETERS_MAX and not is_node_constructor(path, function)
    ]
    assert not too_many, "\n".join(too_many)


def is_node_constructor(path: Path, function: Function) -> bool:
    """The node is handed everything it may touch, by name: that is its whole point."""
    return shown(path) == "tektonmesh/core/node.py" and function.name == "__init__"


def test_no_block_is_nested_deeper_than_4() -> None:
    too_deep = [
        f"{shown(path)}:{function.lineno} {function.name} nests {nesting(function.body)} deep"
        for path in modules()
        for function in functions(path)
        if nesting(function.body) > NESTING_MAX
    ]
    assert not too_deep, "\n".join(too_deep)


def test_the_core_asserts_its_invariants() -> None:
    lines = asserts = 0
    for path in sorted((PACKAGE / "core").glob("*.py")):
        text = path.read_text()
        lines += len(text.splitlines())
        asserts += sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(text)))
    assert asserts * 1000 >= CORE_ASSERTS_PER_1000_LINES * lines, f"{asserts} in {lines} lines"


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        shown(path)
        for path in modules()
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent
