"""What owners told this stack alone, on its disk."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from tektonmesh.errors import RemoteError, StoreError
from tektonmesh.mcp import parts as parts_module
from tektonmesh.mcp.base import FILE_NAME, Base
from tektonmesh.mcp.parts import Part, Parts
from tests.support import make_keys

ONE, TWO = (make_keys(number)[1].stack_id for number in (1, 2))
PART = Part(b"digest", b"data")


def opened(home: Path) -> Parts:
    parts = Parts(home)
    parts.open()
    return parts


def test_a_part_is_there_after_a_restart_and_gone_when_it_is_dropped(tmp_path: Path) -> None:
    parts = opened(tmp_path)
    assert parts.get((ONE, "numa")) is None and not parts.unsaved
    parts.put((ONE, "numa"), PART)
    parts.put((ONE, "athena"), PART)
    assert parts.unsaved
    parts.flush()
    assert not parts.unsaved
    again = opened(tmp_path)
    assert again.get((ONE, "numa")) == PART and len(again.places()) == 2
    assert again.drop((ONE, "numa")) and not again.drop((ONE, "numa"))
    again.flush()
    assert opened(tmp_path).places() == [(ONE, "athena")]


def test_a_newer_part_takes_the_place_of_the_older(tmp_path: Path) -> None:
    parts = opened(tmp_path)
    for digest in (b"1", b"2"):
        parts.put((ONE, "numa"), Part(digest, b""))
        parts.flush()
    assert opened(tmp_path).get((ONE, "numa")) == Part(b"2", b"")


def test_one_owner_and_all_together_fill_so_much_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "OWNER_SIZE_MAX", 10)
    monkeypatch.setattr(parts_module, "SIZE_MAX", 15)
    parts = opened(tmp_path)
    parts.put((ONE, "numa"), Part(b"1", bytes(10)))
    parts.put((ONE, "numa"), Part(b"2", bytes(10)))
    for place in ((ONE, "athena"), (TWO, "athena")):
        with pytest.raises(RemoteError):
            parts.put(place, Part(b"", bytes(6)))
    parts.put((TWO, "athena"), Part(b"", bytes(5)))


def test_a_row_that_somebody_else_wrote_is_passed_over(tmp_path: Path) -> None:
    opened(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) as base:
        base.execute("insert into part values ('no id', 'numa', x'00', x'00')")
    base.close()
    assert opened(tmp_path).places() == []


def test_a_use_that_fails_changes_nothing(tmp_path: Path) -> None:
    opened(tmp_path)
    with suppress(ZeroDivisionError), Base(tmp_path) as base:
        base.execute("insert into part values ('x', 'numa', x'00', x'00')")
        raise ZeroDivisionError
    with Base(tmp_path) as base:
        assert base.execute("select count(*) from part").fetchone() == (0,)


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"this is no database, whatever it is called" * 100)
    with pytest.raises(StoreError, match=FILE_NAME):
        opened(tmp_path)
