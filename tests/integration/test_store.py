"""The store on a real file: durable in groups, precise about damage, patient with a full disk."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tektonmesh.errors import StoreError
from tektonmesh.net.store import Store


def nobody_listens(_tickets: list[int]) -> None:
    return


def no_trouble(problem: StoreError | None) -> None:
    raise AssertionError(f"the disk made trouble: {problem}")


async def committed(
    store: Store,
    durable: Callable[[list[int]], None] = nobody_listens,
    trouble: Callable[[StoreError | None], None] = no_trouble,
) -> None:
    """Run the store until all that is queued is durable."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run, durable, trouble)
        assert await store.flushed(10)
        nursery.cancel_scope.cancel()


async def test_what_was_saved_is_there_after_opening_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "mesh.db")
    store.queue([("head", b"a", b"1"), ("record", b"a|k", b"")])
    await committed(store)
    store.close()
    again = Store(tmp_path / "mesh.db")
    assert again.load() == {("head", b"a"): b"1", ("record", b"a|k"): b""}
    again.close()


async def test_the_last_of_several_writes_to_a_row_wins_and_none_deletes(tmp_path: Path) -> None:
    store = Store(tmp_path / "mesh.db")
    store.queue([("t", b"k", b"1"), ("t", b"gone", b"x")])
    store.queue([("t", b"k", b"2"), ("t", b"gone", None)])
    await committed(store)
    assert store.load() == {("t", b"k"): b"2"}
    store.close()


async def test_rows_queued_before_the_commit_go_into_one_transaction(tmp_path: Path) -> None:
    store = Store(tmp_path / "mesh.db")
    for number in range(100):
        store.queue([("t", number.to_bytes(2, "big"), b"v")])
    await committed(store)
    assert store.commits == 1
    assert store.rows_written == 100
    store.close()


async def test_a_ticket_is_reported_once_its_rows_can_be_read_by_another(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    store = Store(path)
    seen: list[tuple[int, int]] = []

    def durable(tickets: list[int]) -> None:
        with sqlite3.connect(path) as other:
            seen.append((tickets[0], other.execute("SELECT count(*) FROM kv").fetchone()[0]))
        other.close()

    store.queue([("meta", b"epoch", b"7")], ticket=5)
    await committed(store, durable)
    assert seen == [(5, 1)]
    store.close()


async def test_rows_queued_during_cancellation_are_written_on_closing(tmp_path: Path) -> None:
    store = Store(tmp_path / "mesh.db")
    store.queue([("t", b"k", b"v")])
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.run(nobody_listens, no_trouble)
    store.close()
    again = Store(tmp_path / "mesh.db")
    assert again.load() == {("t", b"k"): b"v"}
    again.close()


def test_nobody_else_can_read_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path / "mesh.db")
    store.queue([("t", b"k", b"v")])
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    store.close()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    path.write_bytes(b"this is not SQLite, " * 500)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"mesh\.db is damaged.*not a database"):
        Store(path)
    assert path.read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    other.close()
    with pytest.raises(StoreError, match="not a database of tektonmesh"):
        Store(path)
    with sqlite3.connect(path) as again:
        assert again.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]
    again.close()


@pytest.mark.hostile("downgrade")
def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    Store(path).close()
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="schema 99, this one knows 1"):
        Store(path)


async def test_a_value_changed_behind_our_back_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    store = Store(path)
    store.queue([("head", b"owner", b"signed")])
    await committed(store)
    store.close()
    change(path, "UPDATE kv SET value = ?", (b"forged",))
    damaged = Store(path)
    with pytest.raises(StoreError, match=f"head/{b'owner'.hex()}"):
        damaged.load()
    damaged.close()


@pytest.mark.parametrize("cut_at", [1, 50, 511, 1000, 4096, 5000])
@pytest.mark.hostile("cut-files")
async def test_a_cut_file_is_refused(tmp_path: Path, cut_at: int) -> None:
    path = tmp_path / "mesh.db"
    store = Store(path)
    store.queue([("t", bytes([number]) * 20, b"v" * 500) for number in range(50)])
    await committed(store)
    store.close()
    path.write_bytes(path.read_bytes()[:cut_at])
    with pytest.raises(StoreError, match="is damaged"):
        Store(path)


@pytest.mark.hostile("full-disk")
async def test_a_full_disk_is_told_once_and_everything_is_written_when_there_is_room(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "mesh.db", retry_s=0.01)
    room(store, pages=4)
    told: list[StoreError | None] = []
    full = trio.Event()
    durable: list[int] = []

    def trouble(problem: StoreError | None) -> None:
        told.append(problem)
        full.set()

    store.queue([("t", b"big", b"v" * 100_000)], ticket=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run, durable.extend, trouble)
        await full.wait()
        assert "full" in str(told[0])
        assert durable == []
        assert not await store.flushed(0.1)
        room(store, pages=100_000)
        store.queue([("t", b"later", b"w")])
        assert await store.flushed(10)
        nursery.cancel_scope.cancel()
    assert durable == [1]
    assert [type(problem) for problem in told] == [StoreError, type(None)]
    assert set(store.load()) == {("t", b"big"), ("t", b"later")}
    store.close()


def change(path: Path, line: str, values: tuple[Any, ...] = ()) -> None:
    """Edit the file as somebody else would."""
    db = sqlite3.connect(path)
    db.execute(line, values)
    db.commit()
    db.close()


def room(store: Store, *, pages: int) -> None:
    """Let SQLite believe that the disk has this many pages."""
    store._db.execute(f"PRAGMA max_page_count = {pages}")
