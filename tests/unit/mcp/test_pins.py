"""Pins: trust on first use, kept over restarts, changed by approval alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tektonmesh.errors import StoreError
from tektonmesh.mcp.base import FILE_NAME
from tektonmesh.mcp.pins import Pin, Pins

PIN = Pin("stack", "numa", "tools", "echo")


def tool(text: str) -> dict[str, Any]:
    return {"name": "echo", "description": text, "inputSchema": {"type": "object"}}


def opened(home: Path) -> Pins:
    pins = Pins(home)
    pins.open()
    return pins


def test_the_first_sight_is_pinned_and_a_change_does_not_fit(tmp_path: Path) -> None:
    pins = opened(tmp_path)
    assert pins.fits(PIN, tool("one"))
    assert not pins.fits(PIN, tool("two"))
    assert pins.fits(PIN, tool("one"))
    assert pins.definition(PIN) == tool("one")


def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    pins = opened(tmp_path)
    pins.fits(PIN, tool("one"))
    assert pins.unsaved
    pins.flush()
    assert not pins.unsaved
    again = opened(tmp_path)
    assert not again.fits(PIN, tool("two"))
    assert again.definition(PIN) == tool("one")
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0


def test_approval_makes_the_new_one_the_pinned_one(tmp_path: Path) -> None:
    pins = opened(tmp_path)
    pins.fits(PIN, tool("one"))
    pins.approve(PIN, tool("two"))
    pins.flush()
    again = opened(tmp_path)
    assert again.fits(PIN, tool("two")) and not again.fits(PIN, tool("one"))


def test_what_was_never_seen_has_no_definition(tmp_path: Path) -> None:
    assert opened(tmp_path).definition(PIN) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, whatever it is called" * 100)
    with pytest.raises(StoreError, match=FILE_NAME):
        opened(tmp_path)
