"""The files of large bodies on a real disk."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from tektonmesh.core import events as ev
from tektonmesh.core.effects import BodyAct
from tektonmesh.core.large import CHUNK_SIZE, Large, root_of, sum_of, sums_size
from tektonmesh.errors import DeliveryError, LocalError, MeshError, StoreError
from tektonmesh.net import spool as sp

BODY = os.urandom(3 * CHUNK_SIZE + 100)
SUMS = b"".join(sum_of(BODY[at : at + CHUNK_SIZE]) for at in range(0, len(BODY), CHUNK_SIZE))


class Desk:
    """A spool, and what the core would hear of it."""

    def __init__(self, home: Path, nursery: trio.Nursery, **limits: int) -> None:
        self.done: list[ev.BodyDone] = []
        limits = {"size_max": 1 << 20, "bytes_max": 1 << 22} | limits

        def hear(event: ev.Event) -> None:
            assert isinstance(event, ev.BodyDone)
            self.done.append(event)

        self.spool = sp.Spool(home, inject=hear, spawn=nursery.start_soon, **limits)

    async def act(self, act: str, name: str = "x.in", **about: Any) -> ev.BodyDone:
        before = len(self.done)
        self.spool.act(BodyAct(act, name, **about))
        with trio.fail_after(5):
            while len(self.done) == before:
                await trio.sleep(0.001)
        return self.done[-1]

    async def take(self, *parts: bytes) -> Large:
        return await self.spool.take(pieces(*parts))


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Callable[..., Desk]]:
    async with trio.open_nursery() as nursery:

        def make(held: tuple[str, ...] = (), **limits: int) -> Desk:
            made = Desk(tmp_path, nursery, **limits)
            made.spool.begin(lambda name: name in held)
            return made

        yield make
        nursery.cancel_scope.cancel()


def files(home: Path) -> list[str]:
    return sorted(path.name for path in (home / sp.FOLDER).iterdir())


async def test_a_body_of_a_caller_is_written_as_it_comes_with_its_sums_beside(
    tmp_path: Path, desk: Callable[..., Desk]
) -> None:
    made = desk()
    large = await made.take(BODY[:10], BODY[10:200_000], BODY[200_000:])
    assert (large.size, large.root) == (len(BODY), root_of(len(BODY), SUMS))
    path = made.spool.file(large.name)
    assert path.read_bytes() == BODY and path.stat().st_mode & 0o777 == 0o600
    assert made.spool.used_bytes == len(BODY) + len(SUMS)
    part = await made.act("read", large.name, offset=CHUNK_SIZE, size=100, whole=large.size)
    assert part.data == BODY[CHUNK_SIZE : CHUNK_SIZE + 100] and part.code == ""
    part = await made.act("read", large.name, offset=large.size, size=64, whole=large.size)
    assert part.data == SUMS[:64]
    made.spool.drop(large.name)
    while files(tmp_path):
        await trio.sleep(0.001)
    assert made.spool.used_bytes == 0


async def test_a_body_is_claimed_once(desk: Callable[..., Desk]) -> None:
    made = desk()
    large = await made.take(BODY)
    assert made.spool.claim(large.name) == large
    with pytest.raises(LocalError) as caught:
        made.spool.claim(large.name)
    assert caught.value.code.name == "not_found"


@pytest.mark.parametrize(
    ("limits", "code"),
    [({"size_max": len(BODY) - 1}, "too_large"), ({"bytes_max": len(BODY)}, "busy")],
)
async def test_a_body_beyond_a_limit_is_refused_and_leaves_nothing(
    tmp_path: Path, desk: Callable[..., Desk], limits: dict[str, int], code: str
) -> None:
    made = desk(**limits)
    with pytest.raises(MeshError) as caught:
        await made.take(BODY[:100_000], BODY[100_000:])
    assert caught.value.code.name == code
    assert isinstance(caught.value, LocalError | DeliveryError)
    while files(tmp_path):
        await trio.sleep(0.001)
    assert made.spool.used_bytes == 0


async def test_a_caller_that_breaks_off_leaves_nothing(
    tmp_path: Path, desk: Callable[..., Desk]
) -> None:
    made = desk()

    async def half() -> AsyncIterator[bytes]:
        yield BODY + BODY
        raise LocalError("gone", code="cancelled")

    with pytest.raises(LocalError):
        await made.spool.take(half())
    while files(tmp_path):
        await trio.sleep(0.001)


async def test_a_full_disk_is_told_as_such(
    desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = desk()

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError) as caught:
        await made.take(BODY)
    assert "No space left" in caught.value.detail and caught.value.data["retry_after_s"]


async def test_what_was_pulled_is_found_again_chunk_by_chunk(
    tmp_path: Path, desk: Callable[..., Desk]
) -> None:
    made = desk()
    opened = await made.act("open", size=len(BODY), data=SUMS)
    assert opened.data == bytes(4)
    assert made.spool.file("x.in").stat().st_size == len(BODY)
    for at in (0, 2):
        data = BODY[at * CHUNK_SIZE : (at + 1) * CHUNK_SIZE]
        await made.act("write", offset=at * CHUNK_SIZE, data=data)
    again = await made.act("open", size=len(BODY), data=SUMS)
    assert again.data == bytes([1, 0, 1, 0])
    later = desk()  # as after a restart
    assert (await later.act("open", size=len(BODY), data=SUMS)).data == bytes([1, 0, 1, 0])
    await later.act("write", offset=CHUNK_SIZE, data=BODY[CHUNK_SIZE : 2 * CHUNK_SIZE])
    await later.act("write", offset=3 * CHUNK_SIZE, data=BODY[3 * CHUNK_SIZE :])
    assert (await later.act("sync")).code == ""
    assert later.spool.file("x.in").read_bytes() == BODY


async def test_a_file_that_cannot_be_read_or_written_is_a_failure_of_that_act(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    assert (await made.act("read", "none.out", size=5, whole=9)).code == "store"
    assert (await made.act("write", "none.in", data=b"x")).code == "store"
    large = await made.take(BODY)
    made.spool.file(large.name).write_bytes(BODY[:-1])
    short = await made.act("read", large.name, offset=3 * CHUNK_SIZE, size=100, whole=large.size)
    assert short.code == "store"


async def test_without_room_a_pulled_body_is_told_so(desk: Callable[..., Desk]) -> None:
    made = desk(bytes_max=len(BODY) + 1)
    assert (await made.act("open", size=len(BODY), data=SUMS)).code == ""
    assert (await made.act("open", "y.in", size=len(BODY), data=SUMS)).code == "busy"


async def test_parts_from_before_a_restart_make_room_oldest_first(
    tmp_path: Path, desk: Callable[..., Desk]
) -> None:
    made = desk()
    for age, name in enumerate(("new.in", "old.in")):
        await made.act("open", name, size=len(BODY), data=SUMS)
        os.utime(made.spool.file(name), (1e9 * 2 - age, 1e9 * 2 - age))
    later = desk(bytes_max=2 * len(BODY) + 10)
    assert (await later.act("open", "x.in", size=len(BODY), data=SUMS)).code == ""
    while "old.in" in files(tmp_path):
        await trio.sleep(0.001)
    assert files(tmp_path) == ["new.in", "x.in"]


async def test_at_the_start_what_nobody_needs_goes(
    tmp_path: Path, desk: Callable[..., Desk]
) -> None:
    made = desk()
    kept, lost = await made.take(BODY), await made.take(BODY)
    for name in ("held.in", "fresh.in", "stale.in"):
        await made.act("open", name, size=10, data=b"")
    os.utime(made.spool.file("stale.in"), (1e9, 1e9))
    later = desk(held=(kept.name, "held.in"))
    assert files(tmp_path) == sorted([kept.name, kept.name + sp.SUMS, "held.in", "fresh.in"])
    assert lost.name not in files(tmp_path)
    assert later.spool.used_bytes == len(BODY) + sums_size(len(BODY)) + 20


async def test_what_is_never_sent_goes_after_a_while(
    tmp_path: Path, desk: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sp, "TIDY_S", 0.01)
    monkeypatch.setattr(sp, "UNSENT_S", 0.15)
    made = desk()
    held: list[str] = []
    waiting, sent = await made.take(BODY), await made.take(BODY)
    held.append(made.spool.claim(sent.name).name)
    await made.act("open", "x.in", size=10, data=b"")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.spool.keep_tidy, lambda name: name in held)
        await trio.sleep(0.05)
        assert waiting.name in files(tmp_path)
        with trio.fail_after(5):
            while waiting.name in files(tmp_path):
                await trio.sleep(0.01)
            assert sent.name in files(tmp_path) and "x.in" in files(tmp_path)
            held.clear()
            while sent.name in files(tmp_path):
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
