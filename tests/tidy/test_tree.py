"""What stands where, and what must stand nowhere."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (".ci", "docs", "scripts", "tektonmesh", "tests")
MADE_BY_TOOLS = (".cache", ".git", ".venv", "build", "dist")
ROOMS = ("api", "cli", "config", "core", "mcp", "net", "sim", "tekton", "web", "wire")
TEXTS = (".py", ".md", ".sh", ".toml", ".txt", ".yml", ".yaml", ".cfg", "")

UNFINISHED = re.compile(r"\b(" + "|".join(["TODO", "FIXME", "XXX", "HACK"]) + r")\b")
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(home|Users|root|work|mnt|media)/[\w.-]+/")
PACKAGE_INDEX = re.compile(
    r"pypi\.(org|python)|pythonhosted\.org|--(extra-)?index-url|PIP_INDEX_URL|--find-links"
)


def texts() -> list[Path]:
    """Every file that people write, this one aside."""
    found: list[Path] = []
    for top in sorted(ROOT.iterdir()):
        hidden = top.name.startswith(".") and top.name not in FOLDERS
        if hidden or top.name in MADE_BY_TOOLS:
            continue
        found += [top] if top.is_file() else sorted(top.rglob("*"))
    return [
        path
        for path in found
        if path.is_file()
        and path.suffix in TEXTS
        and not any(part.endswith("cache") or part == "__pycache__" for part in path.parts)
        and path != Path(__file__).resolve()
    ]


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in texts():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    return found


def test_the_top_level_holds_only_the_folders_of_the_house() -> None:
    folders = [
        path.name
        for path in sorted(ROOT.iterdir())
        if path.is_dir() and path.name not in MADE_BY_TOOLS and not path.name.endswith("cache__")
    ]
    others = [
        name
        for name in folders
        if name not in FOLDERS and not re.fullmatch(r"\.\w+_cache|.*\.egg-info|\.hypothesis", name)
    ]
    assert not others


def test_the_package_holds_only_its_rooms() -> None:
    rooms = [path.name for path in sorted((ROOT / "tektonmesh").iterdir()) if path.is_dir()]
    assert not [room for room in rooms if room not in ROOMS and room != "__pycache__"]


def test_nothing_is_left_for_later() -> None:
    assert not lines_with(UNFINISHED)


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    assert not lines_with(MACHINE_PATH)


def test_no_file_names_a_package_index() -> None:
    """Where packages come from is the affair of the machine that installs them."""
    assert not lines_with(PACKAGE_INDEX)


def test_every_page_that_is_named_exists() -> None:
    named = re.compile(r"docs/[a-z0-9/-]+\.md")
    missing = []
    for path in texts():
        for page in named.findall(path.read_text(encoding="utf-8", errors="replace")):
            if not (ROOT / page).is_file():
                missing.append(f"{path.relative_to(ROOT)} names {page}")
    assert not missing, "\n".join(missing)


def test_every_link_between_pages_leads_somewhere() -> None:
    link = re.compile(r"\]\(([^)#\s]+)\)")
    broken = []
    for path in [path for path in texts() if path.suffix == ".md"]:
        for target in link.findall(path.read_text(encoding="utf-8")):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)} links to {target}")
    assert not broken, "\n".join(broken)
