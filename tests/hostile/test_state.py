"""Damage of the disk: bytes flipped, files cut, a disk that does not sync."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tektonmesh.config.settings import FILE_NAME, read_settings, write_settings
from tektonmesh.errors import MeshError, StoreError
from tektonmesh.net import identity, keydocs
from tektonmesh.net.auditcheck import check_log
from tektonmesh.net.auditlog import AuditLog, files_of
from tektonmesh.net.store import Store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    identity.load_or_create(made, "west", "lab", ())
    keydocs.rotate(made)
    identity.next_issued_at(made, 5)
    write_settings(made, {"name": "west"})
    return made


def flips(data: bytes, every: int) -> Iterator[bytes]:
    """The file with one byte changed, at every place that is looked at."""
    for at in range(0, len(data), every):
        yield data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]


def cuts(data: bytes, every: int) -> Iterator[bytes]:
    return (data[:length] for length in range(0, len(data), every))


def named(home: Path) -> tuple[bytes, bytes] | None:
    """(id, operational key) of the home; None if it refuses."""
    try:
        shown, keys = identity.load_or_create(home, "west", "lab", ())
    except MeshError as error:
        return None if str(home) in error.detail else (b"", b"")
    return shown.stack_id, keys.op_public


@pytest.mark.hostile("flipped-bytes")
@pytest.mark.parametrize("name", ["root.key", "op.1.key", "box.1.key", "keydocs", "prekeys"])
def test_a_byte_changed_in_a_key_file_is_refused_or_harmless(home: Path, name: str) -> None:
    whole = named(home)
    path = home / "identity" / name
    data = path.read_bytes()
    for damaged in flips(data, 1 if len(data) < 400 else 7):
        path.write_bytes(damaged)
        assert named(home) in (None, whole)
    path.write_bytes(data)
    assert named(home) == whole


@pytest.mark.hostile("cut-files")
@pytest.mark.parametrize("name", ["root.key", "op.1.key", "box.1.key", "keydocs", "prekeys"])
def test_a_key_file_cut_at_any_length_is_refused_or_harmless(home: Path, name: str) -> None:
    whole = named(home)
    path = home / "identity" / name
    data = path.read_bytes()
    for damaged in cuts(data, 1 if len(data) < 400 else 7):
        path.write_bytes(damaged)
        assert named(home) in (None, whole)


@pytest.mark.hostile("flipped-bytes", "cut-files")
def test_damaged_settings_are_refused_with_their_place_or_still_settings(home: Path) -> None:
    path = home / FILE_NAME
    data = path.read_bytes()
    for damaged in [*flips(data, 41), *cuts(data, 101)]:
        path.write_bytes(damaged)
        with suppress(MeshError):
            assert set(read_settings(home)) <= {"name"}


@pytest.mark.hostile("flipped-bytes", "cut-files")
def test_a_damaged_database_is_refused_or_shows_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "db"
    rows = {("peer", bytes([n]) * 32): bytes([n]) * 50 for n in range(20)}
    store = Store(path)
    store.queue([(table, key, value) for (table, key), value in rows.items()])
    store.close()
    data = path.read_bytes()
    good = bad = 0
    for damaged in [*flips(data, 97), *cuts(data, 501)]:
        for old in tmp_path.iterdir():
            old.unlink()
        path.write_bytes(damaged)
        try:
            again = Store(path)
        except StoreError:
            bad += 1
            continue
        try:
            assert again.load() in (rows, {})
            good += 1
        except StoreError:
            bad += 1
        finally:
            with suppress(StoreError, sqlite3.Error):
                again.close()
    assert bad > 0 and good > 0


@pytest.mark.hostile("flipped-bytes", "cut-files", "audit-edited", "audit-cut")
def test_a_byte_changed_or_cut_anywhere_in_the_audit_log_is_found(tmp_path: Path) -> None:
    _, keys = identity.load_or_create(tmp_path, "west", "lab", ())
    log = AuditLog(tmp_path, keys.stack_id, keys, None)
    for number in range(20):
        log.add("allow", number=number)
    log.close()
    (path,) = files_of(tmp_path / "audit")
    data = path.read_bytes()
    for damaged in [*flips(data, 13), *cuts(data, 37)]:
        path.write_bytes(damaged)
        found = check_log(tmp_path / "audit", keys.stack_id, [keys.op_public], [log.end])
        assert not found.good and found.bad, damaged[:80]
    path.write_bytes(data)
    assert check_log(tmp_path / "audit", keys.stack_id, [keys.op_public], [log.end]).good


@pytest.mark.hostile("failed-sync")
async def test_a_disk_that_does_not_sync_ends_the_daemon_rather_than_its_promises(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path / "db")

    class Broken:
        """The same database on a disk that has lost a page."""

        in_transaction = False

        def execute(self, *_arguments: object) -> None:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error

    whole, store._db = store._db, Broken()  # type: ignore[assignment]
    durable: list[int] = []
    store.queue([("meta", b"k", b"v")], ticket=7)
    with pytest.raises(StoreError, match="cannot be written"):
        await store.run(durable.append, lambda _problem: None)
    assert durable == []
    store._db = whole
    store.close()


@pytest.mark.hostile("killed-between-keys")
def test_an_identity_that_was_half_made_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    made = tmp_path / "home"
    identity.load_or_create(made, "west", "lab", ())
    leftover = made / "identity.0123456789abcdef"
    shutil.copytree(made / "identity", leftover)
    (leftover / "op.key").unlink()
    shutil.rmtree(made / "identity")
    leftover.rename(made / "identity.left")
    shown, _ = identity.load_or_create(made, "west", "lab", ())
    assert shown.stack_id
    assert (made / "identity" / "op.key").exists()
