"""The disk of a simulated host."""

from __future__ import annotations

from tektonmesh.core.effects import Save
from tektonmesh.sim.disk import Disk


def save(key: bytes, value: bytes | None, ticket: int | None = None) -> Save:
    return Save((("meta", key, value),), ticket)


def test_a_row_is_durable_once_it_is_synced() -> None:
    disk = Disk()
    write = disk.write(save(b"a", b"1", 7))
    assert disk.rows == {}
    assert disk.sync(write) == [7]
    assert disk.rows == {("meta", b"a"): b"1"}


def test_a_sync_takes_along_what_was_written_before() -> None:
    disk = Disk()
    disk.write(save(b"a", b"1", 1))
    assert disk.sync(disk.write(save(b"a", b"2", 2))) == [1, 2]
    assert disk.rows == {("meta", b"a"): b"2"}


def test_a_crash_loses_what_is_not_durable() -> None:
    disk = Disk()
    disk.sync(disk.write(save(b"a", b"1")))
    late = disk.write(save(b"a", None, 3))
    disk.crash()
    assert disk.sync(late) == []
    assert disk.rows == {("meta", b"a"): b"1"}


def test_a_clean_stop_keeps_what_was_accepted() -> None:
    disk = Disk()
    disk.write(save(b"a", b"1"))
    disk.write(save(b"b", None))
    disk.flush()
    assert disk.rows == {("meta", b"a"): b"1"}
    assert disk.writes == 2


def test_a_wiped_disk_is_empty() -> None:
    disk = Disk()
    disk.sync(disk.write(save(b"a", b"1")))
    disk.wipe()
    assert disk.rows == {}
