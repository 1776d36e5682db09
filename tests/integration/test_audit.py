"""The audit log on a real disk: what is written, and every way to change it is found."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from tektonmesh.errors import StoreError
from tektonmesh.net import auditlog
from tektonmesh.net.auditcheck import Finding, check_log
from tektonmesh.net.auditlog import AuditLog, End, files_of, genesis, link_hash, read_line
from tests.support import make_keys

KEYS, ME = make_keys(1)


def write(home: Path, count: int, known: End | None = None) -> AuditLog:
    """A log with so many entries more, closed as a daemon closes it."""
    log = AuditLog(home, ME.stack_id, KEYS, known)
    for number in range(count):
        log.add("allow", stack="west", verb="message", size=number)
    log.close()
    return log


def check(home: Path, *known: End) -> Finding:
    return check_log(home / "audit", ME.stack_id, [KEYS.op_public], known)


def lines_of(home: Path) -> list[bytes]:
    (path,) = files_of(home / "audit")
    return path.read_bytes().splitlines(keepends=True)


def put(home: Path, lines: list[bytes]) -> None:
    files_of(home / "audit")[0].write_bytes(b"".join(lines))


def rechained(lines: list[bytes], *, start: bytes | None = None) -> list[bytes]:
    """The same texts with hashes that fit one another, as a forger without keys would make them."""
    before = genesis(ME.stack_id) if start is None else start
    made = []
    for number, line in enumerate(lines, 1):
        read = read_line(line)
        assert read is not None
        entry = read[2] | {"n": number}
        text = json.dumps(entry, separators=(",", ":")).encode()
        before = link_hash(before, text)
        made.append(before.hex().encode() + b" " + text + b"\n")
    return made


def test_a_log_that_nobody_touched_is_good_to_its_last_entry(tmp_path: Path) -> None:
    log = write(tmp_path, 600)
    found = check(tmp_path, log.end)
    assert found.good and found.end == log.end
    assert found.entries == log.end.number == 603
    assert found.signed == 602
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert files_of(tmp_path / "audit")[0].stat().st_mode & 0o777 == 0o600


def test_a_log_goes_on_after_a_restart(tmp_path: Path) -> None:
    first = write(tmp_path, 3)
    second = write(tmp_path, 3, first.end)
    assert check(tmp_path, first.end, second.end).entries == 8


def edited(lines: list[bytes]) -> list[bytes]:
    return [line.replace(b'"west"', b'"east"') if b'"n":5,' in line else line for line in lines]


def deleted(lines: list[bytes]) -> list[bytes]:
    return lines[:4] + lines[5:]


def swapped(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], lines[5], lines[4], *lines[6:]]


def garbled(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], b"\xff" + lines[4][1:], *lines[5:]]


def edited_and_rechained(lines: list[bytes]) -> list[bytes]:
    return rechained(edited(lines))


def deleted_and_rechained(lines: list[bytes]) -> list[bytes]:
    return rechained(deleted(lines))


@pytest.mark.parametrize(
    ("change", "bad"),
    [
        (edited, 5),
        (deleted, 5),
        (swapped, 5),
        (garbled, 5),
        (edited_and_rechained, 11),
        (deleted_and_rechained, 10),
    ],
)
@pytest.mark.hostile("audit-edited", "audit-rechained")
def test_a_change_is_found_and_the_first_bad_entry_named(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], bad: int
) -> None:
    write(tmp_path, 10)
    put(tmp_path, change(lines_of(tmp_path)))
    found = check(tmp_path)
    assert not found.good and found.bad == bad, found


@pytest.mark.hostile("audit-rechained")
def test_a_log_rechained_without_any_checkpoint_is_found(tmp_path: Path) -> None:
    write(tmp_path, 900)
    entries = [line for line in lines_of(tmp_path) if b'"checkpoint"' not in line]
    put(tmp_path, rechained(entries))
    assert "No checkpoint" in check(tmp_path).why


@pytest.mark.hostile("audit-rechained")
def test_a_log_signed_by_another_key_is_found(tmp_path: Path) -> None:
    write(tmp_path, 10)
    forger = make_keys(9)[0]
    found = check_log(tmp_path / "audit", ME.stack_id, [forger.op_public])
    assert "not signed by this stack" in found.why


def test_a_log_of_another_stack_is_found(tmp_path: Path) -> None:
    write(tmp_path, 10)
    found = check_log(tmp_path / "audit", make_keys(2)[1].stack_id, [KEYS.op_public])
    assert found.bad == 1


@pytest.mark.hostile("audit-cut")
def test_a_cut_is_found_by_whoever_remembers_the_end(tmp_path: Path) -> None:
    log = write(tmp_path, 10)
    put(tmp_path, lines_of(tmp_path)[:6])
    found = check(tmp_path, log.end)
    assert found.bad == 7 and "cut" in found.why


@pytest.mark.hostile("audit-replaced")
def test_a_log_replaced_by_an_older_copy_is_found_by_a_witness(tmp_path: Path) -> None:
    first = write(tmp_path, 10)
    copy = lines_of(tmp_path)
    second = write(tmp_path, 10, first.end)
    put(tmp_path, copy)
    assert check(tmp_path).good
    assert "cut" in check(tmp_path, second.end).why
    # And after the stack has gone on from the copy: the numbers are there again, the hashes not.
    write(tmp_path, 40)
    found = check(tmp_path, second.end)
    assert found.bad == second.end.number and "witnessed" in found.why


def test_a_restart_after_a_cut_says_so_in_the_log(tmp_path: Path) -> None:
    log = write(tmp_path, 10)
    put(tmp_path, lines_of(tmp_path)[:6])
    write(tmp_path, 1, log.end)
    assert any(b'"missing","expected":11,"found":6' in line for line in lines_of(tmp_path))


def test_a_tail_that_a_crash_tore_is_cut_off_and_said(tmp_path: Path) -> None:
    write(tmp_path, 10)
    whole = lines_of(tmp_path)
    for length in (1, 40, len(whole[-1]) - 1):
        put(tmp_path, [*whole[:-1], whole[-1][:length]])
        write(tmp_path, 1)
        assert check(tmp_path).good
        assert any(b'"torn"' in line for line in lines_of(tmp_path))


def test_a_full_file_is_followed_by_another_in_one_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auditlog, "FILE_SIZE_MAX", 2000)
    monkeypatch.setattr(auditlog, "FILES_MAX", 3)
    end = None
    for _ in range(6):
        end = write(tmp_path, 10, end).end
    assert end is not None
    assert len(files_of(tmp_path / "audit")) == 3
    found = check(tmp_path, end)
    assert found.good and found.begins > 1 and found.end == end


def test_a_log_ends_where_its_last_file_with_a_line_ends(tmp_path: Path) -> None:
    end = write(tmp_path, 3).end
    (tmp_path / "audit" / auditlog.name_of(2)).touch()
    assert AuditLog(tmp_path, ME.stack_id, KEYS, None).end == end


def test_a_folder_that_is_of_no_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("")
    with pytest.raises(StoreError):
        write(tmp_path, 1)


@pytest.mark.hostile("full-disk")
def test_a_full_disk_loses_no_entry_that_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(tmp_path, ME.stack_id, KEYS, None)
    log.add("start")
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(StoreError, match="No space"):
        log.close()
    assert lines_of(tmp_path) == []
    monkeypatch.setattr(os, "fdatasync", sync)
    log.close()
    assert check(tmp_path, log.end).good


def test_entries_beyond_what_memory_keeps_are_counted(tmp_path: Path) -> None:
    log = AuditLog(tmp_path, ME.stack_id, KEYS, None)
    for _ in range(auditlog.WAITING_MAX + 100):
        log.add("deny")
    log.close()
    log.add("allow")
    log.close()
    assert any(b'"lost"' in line for line in lines_of(tmp_path))
    assert check(tmp_path, log.end).good


def full(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer waits for a thread, so its pauses are real, and short."""
    for name, seconds in (("CHECKPOINT_S", 0.1), ("FLUSH_S", 0.0), ("RETRY_S", 0.01)):
        monkeypatch.setattr(auditlog, name, seconds)


async def test_entries_are_signed_within_a_minute(tmp_path: Path, quick: None) -> None:
    log = AuditLog(tmp_path, ME.stack_id, KEYS, None)
    ends, receive = trio.open_memory_channel[End](9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run, ends.send_nowait, print)
        for kind in ("start", "allow"):
            log.add(kind)
            with trio.fail_after(10):
                assert await receive.receive() == log.end
            assert check(tmp_path, log.end).signed == log.end.number - 1
        nursery.cancel_scope.cancel()


async def test_a_disk_that_refuses_is_told_once_and_again_when_it_takes_entries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    log = AuditLog(tmp_path, ME.stack_id, KEYS, None)
    told, receive = trio.open_memory_channel[StoreError | None](9)
    ends, written = trio.open_memory_channel[End](9)
    sync, tries = os.fdatasync, 0

    def refuse(descriptor: int) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            monkeypatch.setattr(os, "fdatasync", sync)
        full(descriptor)

    monkeypatch.setattr(os, "fdatasync", refuse)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.run, ends.send_nowait, told.send_nowait)
        log.add("start")
        with trio.fail_after(10):
            assert isinstance(await receive.receive(), StoreError)
            assert await receive.receive() is None
            assert await written.receive() == log.end
        assert tries == 3 and log.waiting == 0
        nursery.cancel_scope.cancel()
