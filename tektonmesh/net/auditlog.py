"""The audit log: who did what, in a chain that cannot be changed without a trace.

Each line is `HASH JSON`: the hash covers the hash before it and the text. A checkpoint, signed by
the operational key, closes every 256 entries or 60 seconds of activity, and the newest one travels
in the stack's own record, where its peers witness it. Files hold lines only; when one is full the
next one begins with a signed line that continues the chain. How the log is checked is decided in
`auditcheck`; what is worth an entry in the core.

Entries never hold bodies, arguments, tokens or headers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import trio

from tektonmesh.core.types import StackId
from tektonmesh.errors import StoreError
from tektonmesh.net.wallclock import wall_s
from tektonmesh.wire.keys import Keys

FOLDER = "audit"
CONTEXT = b"tektonmesh/audit/1\0"
CHECKPOINT_ENTRIES = 256
CHECKPOINT_S = 60.0
FILE_SIZE_MAX = 8 << 20
FILES_MAX = 64
"""Half a gigabyte; then the oldest file goes, which `verify` says."""
WAITING_MAX = 10_000
"""Entries kept in memory while the disk refuses. What is beyond is counted and said later."""
FLUSH_S = 0.05
RETRY_S = 2.0
NAME = re.compile(r"audit-([0-9]{8})\.log")
_LINE = re.compile(rb"([0-9a-f]{64}) (\{.*\})\n")
_TAIL_BYTES = 65_536

_quoted = json.encoder.encode_basestring_ascii
Sign = Callable[[bytes, bytes], bytes]


class End(NamedTuple):
    """Where a chain ends: the number of its last entry, and the hash of it."""

    number: int
    hash: bytes


def genesis(stack_id: StackId) -> bytes:
    """The hash before the first entry, another one for each stack."""
    return hashlib.sha256(b"tektonmesh-audit-v1\0" + stack_id).digest()


def link_hash(before: bytes, text: bytes) -> bytes:
    return hashlib.sha256(before + text).digest()


def signed_part(end: End) -> bytes:
    """What a checkpoint signs: every entry up to here, and how many there are."""
    return end.number.to_bytes(8, "big") + end.hash


def name_of(number: int) -> str:
    return f"audit-{number:08d}.log"


def files_of(folder: Path) -> list[Path]:
    """The files of a log, oldest first."""
    try:
        return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))
    except FileNotFoundError:
        return []


def read_line(line: bytes) -> tuple[bytes, bytes, dict[str, Any]] | None:
    """(hash, text, entry) of a line; None if it is none."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    try:
        entry = json.loads(found[2])
    except ValueError:
        return None
    numbered = isinstance(entry, dict) and isinstance(entry.get("n"), int)
    return (bytes.fromhex(found[1].decode()), found[2], entry) if numbered else None


class AuditLog:
    """The log of one home, written by the daemon that holds its lock."""

    def __init__(self, home: Path, stack_id: StackId, keys: Keys, known: End | None) -> None:
        """Go on where the log ends; `known` is what the database remembers of its end. Raises
        StoreError if the folder is of no use."""
        self.folder = home / FOLDER
        self._keys = keys
        self._waiting: list[bytes] = []
        self._lost = 0
        self._since = 0
        self._news = trio.Event()
        self._written_at = 0.0
        self._handle: int | None = None
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._file, torn = self._open()
            self._size = self._file.stat().st_size
            # Held open, so that a daemon that has run out of descriptors still says so in it.
            self._handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        except OSError as error:
            raise StoreError(f"The audit log {self.folder}: {error.strerror}.") from None
        self.end = _end_of(self._file, files_of(self.folder)) or End(0, genesis(stack_id))
        if torn:
            self.add("torn", bytes=torn)
        if known is not None and known.number > self.end.number:
            self.add("missing", expected=known.number, found=self.end.number)

    def _open(self) -> tuple[Path, int]:
        """The newest file and how many bytes of a line that a crash tore were cut off it."""
        files = files_of(self.folder)
        if not files:
            path = self.folder / name_of(1)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
            return path, 0
        path = files[-1]
        with path.open("rb+") as file:
            data = file.read()
            whole = data.rfind(b"\n") + 1
            torn = len(data) - whole
            if torn:
                file.truncate(whole)
                os.fsync(file.fileno())
        return path, torn

    # --- entries ---------------------------------------------------------------------------------

    def add(self, kind: str, /, **data: Any) -> None:
        """As `take`."""
        self.take(kind, data)

    def take(self, kind: str, data: Mapping[str, Any]) -> None:
        """One entry; it is written within a moment. Never waits. What is in `data` is text, numbers
        and lists of these, and no body."""
        if len(self._waiting) >= WAITING_MAX:
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            self._append("lost", {"entries": lost})
        self._append(kind, data)
        self._since += 1
        if self._since >= CHECKPOINT_ENTRIES:
            self.checkpoint()
        self._news.set()

    def rekey(self, keys: Keys) -> None:
        """Checkpoints are signed with these keys from now on."""
        self._keys = keys

    def checkpoint(self) -> None:
        """Sign everything so far, if there is anything new."""
        if self._since:
            self._since = 0
            sig = self._keys.sign(CONTEXT, signed_part(self.end))
            about = {"op": self._keys.op_public.hex(), "sig": sig.hex()}
            self._append("checkpoint", about)

    def _append(self, kind: str, data: Mapping[str, Any]) -> None:
        number = self.end.number + 1
        told = "".join([f',"{key}":{_shown(value)}' for key, value in data.items()])
        text = f'{{"n":{number},"at":{wall_s():.3f},"kind":"{kind}"{told}}}'.encode()
        after = link_hash(self.end.hash, text)
        self.end = End(number, after)
        self._waiting.append(b"%s %s\n" % (after.hex().encode(), text))

    # --- writing ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(
        self, written: Callable[[End], None], trouble: Callable[[StoreError | None], None]
    ) -> None:
        """Write for ever. `written` hears of every checkpoint that is durable, `trouble` of a disk
        that refuses, once, and None when it takes entries again."""
        failing = False
        while True:
            with trio.move_on_after(CHECKPOINT_S):
                await self._news.wait()
            if trio.current_time() - self._written_at >= CHECKPOINT_S and self._since:
                self.checkpoint()
                self._written_at = trio.current_time()
            self._news = trio.Event()
            if not self._waiting:
                continue
            await trio.sleep(FLUSH_S)
            try:
                await self._flush(written)
            except OSError as error:
                if not failing:
                    trouble(StoreError(f"The audit log cannot be written: {error.strerror}."))
                failing = True
                await trio.sleep(RETRY_S)
                self._news.set()
                continue
            if failing:
                failing = False
                trouble(None)

    async def _flush(self, written: Callable[[End], None]) -> None:
        batch, end = list(self._waiting), self.end
        await trio.to_thread.run_sync(self._write, batch)
        del self._waiting[: len(batch)]
        if b'"kind":"checkpoint"' in b"".join(batch):
            written(end)

    def _write(self, batch: list[bytes]) -> None:
        """Append and sync; a write that was cut short is taken back, so that lines stay whole."""
        data = b"".join(batch)
        if self._handle is None:
            self._handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            done = 0
            while done < len(data):
                done += os.write(self._handle, data[done:])
            os.fdatasync(self._handle)
        except OSError:
            os.ftruncate(self._handle, self._size)
            raise
        self._size += len(data)
        if self._size >= FILE_SIZE_MAX:
            self._rotate()

    def _rotate(self) -> None:
        """The next file; the chain goes on in it."""
        found = NAME.fullmatch(self._file.name)
        assert found is not None
        path = self.folder / name_of(int(found[1]) + 1)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600))
        self._release()
        self._file, self._size = path, 0
        for old in files_of(self.folder)[:-FILES_MAX]:
            old.unlink()

    def close(self) -> None:
        """Sign what is left and write it, if the disk lets us."""
        self.checkpoint()
        try:
            if self._waiting:
                self._write(self._waiting)
                self._waiting = []
        except OSError as error:
            raise StoreError(f"The audit log cannot be written: {error.strerror}.") from None
        finally:
            self._release()

    def _release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _shown(value: Any) -> str:
    """JSON of one value, in ASCII. Texts and numbers, which nearly all are, take the short way:
    there is an entry for each message."""
    if type(value) is str:
        return _quoted(value)
    if type(value) is int:
        return str(value)
    return json.dumps(value, separators=(",", ":"), default=str)


def _end_of(newest: Path, files: list[Path]) -> End | None:
    """The end of the chain: the last line of the newest file that has one."""
    for path in reversed([*[file for file in files if file != newest], newest]):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
        for line in reversed(lines):
            read = read_line(line)
            if read is not None:
                return End(read[2]["n"], read[0])
    return None
