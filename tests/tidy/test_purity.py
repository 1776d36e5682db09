"""What the pure layers must not touch, read from the syntax and not from hope."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tektonmesh"
PURE = ("core", "wire", "sim")

BANNED = (
    "asyncio",
    "httpx",
    "logging",
    "os",
    "secrets",
    "select",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "threading",
    "time",
    "trio",
    "uuid",
    "zeroconf",
)
SET_MAKERS = ("set", "frozenset")


def pure_modules() -> list[Path]:
    return sorted(path for layer in PURE for path in (PACKAGE / layer).rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[str, str, int]]:
    """(module, name or "", line) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module or "", alias.name, node.lineno


def test_the_pure_layers_import_no_clock_no_socket_no_disk_and_no_loop() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in pure_modules()
        for module, _name, line in imports(ast.parse(path.read_text()))
        if module.partition(".")[0] in BANNED
    ]
    assert not found, "\n".join(found)


def test_the_pure_layers_use_no_chance_of_the_process() -> None:
    """`random.Random` with a seed is fine; the functions of the module are not."""
    found = []
    for path in pure_modules():
        tree = ast.parse(path.read_text())
        found += [
            f"{path.relative_to(ROOT)}:{line} imports random.{name or '*'}"
            for module, name, line in imports(tree)
            if module == "random" and name != "Random"
        ]
    assert not found, "\n".join(found)


def test_the_core_imports_neither_wire_nor_shell() -> None:
    allowed = ("tektonmesh.core", "tektonmesh.errors", "tektonmesh.config")
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sorted((PACKAGE / "core").rglob("*.py"))
        for module, _name, line in imports(ast.parse(path.read_text()))
        if module.startswith("tektonmesh") and not module.startswith(allowed)
    ]
    assert not found, "\n".join(found)


def harmless(tree: ast.AST) -> list[ast.AST]:
    """What stands directly in `sorted(...)` or `len(...)`, where order does not show."""
    return [
        node.args[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("sorted", "len")
        and node.args
    ]


def makes_set(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in SET_MAKERS
    return isinstance(node, (ast.Set, ast.SetComp))


def test_the_core_makes_no_sets() -> None:
    """The order of a set of bytes or text differs from process to process, and with it every
    decision that is made while walking it. Dicts keep their order."""
    found = []
    for path in sorted((PACKAGE / "core").rglob("*.py")):
        tree = ast.parse(path.read_text())
        allowed = harmless(tree)
        for node in ast.walk(tree):
            if makes_set(node) and node not in allowed:
                line = getattr(node, "lineno", 0)
                found.append(f"{path.relative_to(ROOT)}:{line}")
    assert not found, "\n".join(found)
