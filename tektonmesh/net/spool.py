"""The files of large bodies: one for each in HOME/bodies, filled and read beside the loop.

What a file is for is the core's affair (`core/offers`, `core/pulls`); here is decided how much all
of them may take, and that what nobody needs goes. Bodies of local callers come in by `take`, as
they are read, hashed chunk by chunk; their sums lie in a file beside them. Nothing here is ever in
memory but the part that is being moved.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import trio

from tektonmesh.core import events as ev
from tektonmesh.core.effects import BodyAct
from tektonmesh.core.large import CHUNK_SIZE, SUM_SIZE, Large, chunks_of, root_of, sum_of, sums_size
from tektonmesh.errors import DeliveryError, LocalError, StoreError

_LOG = logging.getLogger(__name__)

FOLDER = "bodies"
SUMS = ".sums"
STALE_S = 86_400.0
"""Parts of a body that came before a restart are kept so long for its message to come again."""

RETRY_AFTER_S = 30.0
"""What a caller is told who finds no room. A guess."""

UNSENT_S = 600.0
"""A body that was handed in and not sent is kept so long."""

TIDY_S = 30.0

WRITE_SIZE = 4 * CHUNK_SIZE
"""Bytes of a caller's body that are hashed and written at a time."""


class Spool:
    """The files of one home. `act` is a hand of the drive; `take` and what follows is for doors."""

    def __init__(
        self,
        home: Path,
        *,
        size_max: int,
        bytes_max: int,
        inject: Callable[[ev.Event], None],
        spawn: Callable[..., None],
    ) -> None:
        self.size_max = size_max
        self._folder = home / FOLDER
        self._bytes_max = bytes_max
        self._inject = inject
        self._spawn = spawn
        self._sizes: dict[str, int] = {}
        self._spare: dict[str, None] = {}
        """Parts from before a restart that no message has come for so far, oldest first."""
        self._unsent: dict[str, tuple[Large, float]] = {}
        """Handed in, and until when each waits to be sent."""
        self._taking: dict[str, None] = {}
        self._threads = trio.CapacityLimiter(4)

    @property
    def used_bytes(self) -> int:
        return sum(self._sizes.values())

    def file(self, name: str) -> Path:
        """Where the body of that name lies."""
        return self._folder / name

    def begin(self, holds: Callable[[str], bool]) -> None:
        """Look at what is here from before; what nobody needs goes. Raises StoreError."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            found = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)
            for path in found:
                name, size = path.name, path.stat().st_size
                body = name.removesuffix(SUMS)
                fresh = body.endswith(".in") and path.stat().st_mtime > time.time() - STALE_S
                if not holds(body) and not fresh:
                    path.unlink()
                    continue
                if not holds(body):
                    self._spare[body] = None
                self._sizes[body] = self._sizes.get(body, 0) + size
        except OSError as error:
            raise StoreError(f"{self._folder} cannot be used: {error.strerror}.") from None

    # --- for the core ----------------------------------------------------------------------------

    def act(self, effect: BodyAct) -> None:
        """Carry out one act; `BodyDone` follows unless it is a "drop"."""
        if effect.act == "drop":
            self.drop(effect.name)
        elif effect.act == "open" and not self._reserve(effect.name, effect.size):
            self._inject(ev.BodyDone("open", effect.name, code="busy"))
        else:
            self._spawn(self._act, effect)

    def drop(self, name: str) -> None:
        """The file is not needed any more."""
        self._sizes.pop(name, None)
        self._spare.pop(name, None)
        self._unsent.pop(name, None)
        self._spawn(self._in_thread, _unlink, self.file(name))

    async def _act(self, effect: BodyAct) -> None:
        acts = {"open": self._open, "read": self._read, "write": self._write, "sync": self._sync}
        data, code = b"", ""
        try:
            data = await self._in_thread(acts[effect.act], effect)
        except OSError as error:
            _LOG.warning("%s %s: %s", effect.act, self.file(effect.name), error.strerror)
            code = "store"
        self._inject(ev.BodyDone(effect.act, effect.name, effect.offset, data, code))

    async def _in_thread(self, run: Callable[..., Any], *args: Any) -> Any:
        return await trio.to_thread.run_sync(run, *args, limiter=self._threads)

    def _reserve(self, name: str, size: int) -> bool:
        """Set room aside, if need be that of parts from before a restart."""
        self._spare.pop(name, None)
        before = self._sizes.get(name, 0)
        while self.used_bytes - before + size > self._bytes_max:
            if not self._spare:
                return False
            self.drop(next(iter(self._spare)))
        self._sizes[name] = max(size, before)
        return True

    def _open(self, effect: BodyAct) -> bytes:
        path, size = self.file(effect.name), effect.size
        old = path.exists()
        with _opened(path) as file:
            if old:
                file.truncate(size)
            if size and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            if not old:
                return bytes(chunks_of(size))
            have = bytearray()
            for at in range(chunks_of(size)):
                chunk = file.read(min(CHUNK_SIZE, size - at * CHUNK_SIZE))
                sums = effect.data[at * SUM_SIZE : (at + 1) * SUM_SIZE]
                have.append(sum_of(chunk) == sums)
            return bytes(have)

    def _read(self, effect: BodyAct) -> bytes:
        path, offset = self.file(effect.name), effect.offset
        if offset >= effect.whole:
            path, offset = path.with_name(path.name + SUMS), offset - effect.whole
        with path.open("rb") as file:
            data = os.pread(file.fileno(), effect.size, offset)
        if len(data) != effect.size:
            raise OSError(0, "the file is shorter than it was")
        return data

    def _write(self, effect: BodyAct) -> bytes:
        with self.file(effect.name).open("r+b") as file:
            os.pwrite(file.fileno(), effect.data, effect.offset)
        return b""

    def _sync(self, effect: BodyAct) -> bytes:
        _sync_file(self.file(effect.name))
        _sync_folder(self._folder)
        return b""

    # --- for the doors ---------------------------------------------------------------------------

    async def take(self, parts: AsyncIterator[bytes]) -> Large:
        """Write down the body of a local caller. Raises LocalError `too_large`, DeliveryError
        `busy`, StoreError. It waits to be sent by its name."""
        name = f"{secrets.token_hex(16)}.out"
        writer = _Writer(self.file(name))
        self._taking[name] = None
        try:
            waiting = bytearray()
            async for part in parts:
                waiting += part
                self._check_room(name, writer.size + len(waiting))
                while len(waiting) >= WRITE_SIZE:
                    data = bytes(waiting[:WRITE_SIZE])
                    del waiting[:WRITE_SIZE]
                    await self._in_thread(writer.write, data)
            large: Large = await self._in_thread(writer.finish, bytes(waiting))
            self._sizes[name] = large.size + sums_size(large.size)
            self._hand_in(large)
            return large
        except BaseException as error:
            writer.close()
            self.drop(name)
            if isinstance(error, OSError):
                raise StoreError(
                    f"The disk did not take the body: {error.strerror}.",
                    hint="Is it full?",
                    data={"retry_after_s": RETRY_AFTER_S},
                ) from None
            raise
        finally:
            del self._taking[name]

    def _check_room(self, name: str, size: int) -> None:
        if size > self.size_max:
            raise LocalError(f"A body has at most {self.size_max} bytes.", code="too_large")
        if not self._reserve(name, size + sums_size(size)):
            raise DeliveryError(
                "The large bodies that wait here leave no room for this one.",
                code="busy",
                data={"retry_after_s": RETRY_AFTER_S},
            )

    def _hand_in(self, large: Large) -> None:
        self._unsent[large.name] = (large, trio.current_time() + UNSENT_S)

    def claim(self, name: str) -> Large:
        """A body that was handed in and not sent so far; whoever claims it sends it at once.
        Raises LocalError `not_found`."""
        self.check(name)
        return self._unsent.pop(name)[0]

    def check(self, name: str) -> None:
        """Raises LocalError `not_found` if no such body waits to be sent."""
        if name not in self._unsent:
            raise LocalError(
                f"No body '{name[:64]}' waits to be sent.",
                code="not_found",
                hint="POST /api/bodies says its name; it is good once.",
            )

    async def keep_tidy(self, holds: Callable[[str], bool]) -> None:
        """For ever: what was handed in and never sent goes, and what no message needs any more."""
        while True:
            await trio.sleep(TIDY_S)
            now = trio.current_time()
            for name in list(self._sizes):
                if name in self._taking or now < self._unsent.get(name, (None, 0.0))[1]:
                    continue
                if holds(name) or name in self._spare:
                    continue
                if name.endswith(".in"):
                    self._spare[name] = None  # its message may come again
                else:
                    self.drop(name)


class _Writer:
    """One body on its way to the disk. All but `close` belongs into a thread."""

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._path = path
        self._sums: list[bytes] = []
        self._file: Any = None

    def write(self, data: bytes) -> None:
        """Whole chunks, but for the end."""
        if self._file is None:
            self._file = _opened(self._path)
        self._file.write(data)
        for at in range(0, len(data), CHUNK_SIZE):
            self._sums.append(sum_of(data[at : at + CHUNK_SIZE]))
        self.size += len(data)

    def finish(self, data: bytes) -> Large:
        """The rest; durable afterwards."""
        self.write(data)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.close()
        sums = b"".join(self._sums)
        with _opened(self._path.with_name(self._path.name + SUMS)) as file:
            file.write(sums)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self._path.parent)
        return Large(self._path.name, self.size, root_of(self.size, sums))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _opened(path: Path) -> Any:
    """For reading and writing, made if it is missing; never open to others."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "r+b")


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unlink(path: Path) -> None:
    for one in (path, path.with_name(path.name + SUMS)):
        one.unlink(missing_ok=True)
