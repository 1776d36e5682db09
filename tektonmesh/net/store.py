"""What must outlast the process: one SQLite file with one table of (table, key) -> value rows.

The store decides how rows become durable and what a damaged file is; what the rows mean is the
core's affair. Writes are queued without waiting and committed in groups by one worker thread:
whatever was queued while the last commit ran is the next group. A file that cannot be trusted is
refused with a precise message, never replaced.
"""

from __future__ import annotations

import math
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import trio

from tektonmesh.core.types import Saved
from tektonmesh.errors import StoreError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x746D6573
"""`tmes`, so that `file mesh.db` and we can tell the file from any other database."""

SIZE_MIN = 512
"""Bytes of the smallest page; an empty file is one that a crash left before the first write."""

Row = tuple[str, bytes, bytes | None]
"""(table, key, value); None deletes."""

RETRY_FIRST_S = 1.0
RETRY_MAX_S = 30.0
PENDING_MAX = 200_000
"""Rows kept in memory while the disk refuses. Beyond it the daemon stops (200 MB at 1 KiB)."""

_LINES = (
    "CREATE TABLE kv (tbl TEXT NOT NULL, key BLOB NOT NULL, crc INTEGER NOT NULL,"
    " value BLOB NOT NULL, PRIMARY KEY (tbl, key)) WITHOUT ROWID",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_PUT = "INSERT OR REPLACE INTO kv (tbl, key, crc, value) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM kv WHERE tbl = ? AND key = ?"


class Store:
    """The open database of one home. Only the daemon that holds the home's lock may make one."""

    def __init__(self, path: Path, *, retry_s: float = RETRY_FIRST_S) -> None:
        """Open or create the file. Raises StoreError when it is damaged, foreign or too new.
        `retry_s` is the first pause after the disk refused; it doubles up to 30 s."""
        self.path = path
        self._retry_s = retry_s
        self.commits = 0
        self.rows_written = 0
        self._pending: dict[tuple[str, bytes], bytes | None] = {}
        self._tickets: list[int] = []
        self._news = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._db = self._open()

    # --- opening and reading ---------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            # Made by hand first, so that it is never readable by others, not even for a moment.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise StoreError(f"{self.path} cannot be opened: {error.strerror}.") from None
        self._check_size()
        # One thread at a time uses the connection: the opening one, then the commit worker.
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
        except sqlite3.Error as error:
            db.close()
            raise self._damaged(str(error)) from None
        except StoreError:
            db.close()
            raise
        return db

    def _check_size(self) -> None:
        """SQLite takes a file cut to (nearly) nothing for a new one; for us it is a loss."""
        size = self.path.stat().st_size
        journal = self.path.with_name(self.path.name + "-wal")
        if 0 < size < SIZE_MIN or (size == 0 and journal.exists() and journal.stat().st_size):
            raise self._damaged(f"it is cut to {size} bytes")

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        application = db.execute("PRAGMA application_id").fetchone()[0]
        if version == application == 0 and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
            db.execute("BEGIN IMMEDIATE")
            for line in _LINES:
                db.execute(line)
            db.execute("COMMIT")
        elif application != APPLICATION_ID:
            raise StoreError(f"{self.path} is not a database of tektonmesh.", hint="Move it away.")
        elif version > SCHEMA_VERSION:
            raise StoreError(
                f"{self.path} was written by a newer tektonmesh (schema {version},"
                f" this one knows {SCHEMA_VERSION}).",
                hint="Install the newer version again.",
            )
        found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise self._damaged(str(found))

    def _damaged(self, why: str) -> StoreError:
        return StoreError(
            f"The database {self.path} is damaged: {' '.join(why.split())}.",
            hint="Restore a backup, or move the file away: the mesh gives this stack all of it"
            " back but its CIs that were registered to stay and its list of peers.",
        )

    def load(self) -> Saved:
        """Everything that was saved. Raises StoreError if a row was changed behind our back."""
        saved: Saved = {}
        try:
            for table, key, crc, value in self._db.execute("SELECT tbl, key, crc, value FROM kv"):
                if crc != _crc(table, key, value):
                    raise self._damaged(f"the row {table}/{key.hex()[:16]} does not fit its sum")
                saved[table, key] = value
        except sqlite3.Error as error:
            raise self._damaged(str(error)) from None
        except (AttributeError, TypeError):
            raise self._damaged("a row has a column of the wrong type") from None
        return saved

    @staticmethod
    def look(path: Path, table: str, key: bytes) -> bytes | None:
        """One value, read beside a daemon that may have the file open; None if there is none.
        Raises StoreError if the file cannot be read."""
        if not path.exists():
            return None
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as db:
                query = "SELECT value FROM kv WHERE tbl = ? AND key = ?"
                found = db.execute(query, (table, key)).fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"The database {path} cannot be read: {error}.") from None
        return bytes(found[0]) if found is not None else None

    # --- writing ---------------------------------------------------------------------------------

    def queue(self, rows: Iterable[Row], ticket: int | None = None) -> None:
        """Have the rows written with the next commit; `ticket` is reported once they are durable.
        Returns at once. A row queued again before it was written is written once."""
        for table, key, value in rows:
            self._pending[table, key] = value
        if ticket is not None:
            self._tickets.append(ticket)
        self._idle = trio.Event() if self._idle.is_set() else self._idle
        self._news.set()

    async def run(
        self, durable: Callable[[list[int]], None], trouble: Callable[[StoreError | None], None]
    ) -> None:
        """Commit for ever. `durable(tickets)` follows each commit that has some; `trouble` hears
        of a disk that refuses, once, and None when it works again. Raises StoreError on damage, an
        I/O error, or when too much waits: after these nothing may be promised any more."""
        pause_s = self._retry_s
        while True:
            if not self._pending and not self._tickets:
                self._idle.set()
            await self._news.wait()
            self._news = trio.Event()
            rows, self._pending = self._pending, {}
            tickets, self._tickets = self._tickets, []
            try:
                await trio.to_thread.run_sync(self._commit, rows)
            except (sqlite3.Error, trio.Cancelled) as error:
                # What came meanwhile is newer than what was not written.
                self._pending = rows | self._pending
                self._tickets = tickets + self._tickets
                if isinstance(error, trio.Cancelled):
                    raise
                problem = self._judge(error)
                if pause_s == self._retry_s:
                    trouble(problem)
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
                self._news.set()
                continue
            if pause_s != self._retry_s:
                pause_s = self._retry_s
                trouble(None)
            if tickets:
                durable(tickets)

    def _commit(self, rows: dict[tuple[str, bytes], bytes | None]) -> None:
        db = self._db
        puts = [(t, k, _crc(t, k, v), v) for (t, k), v in rows.items() if v is not None]
        deletes = [key for key, value in rows.items() if value is None]
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany(_PUT, puts)
            db.executemany(_DELETE, deletes)
            db.execute("COMMIT")
        except sqlite3.Error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self.commits += 1
        self.rows_written += len(rows)

    def _judge(self, error: sqlite3.Error) -> StoreError:
        """The error to report if waiting may help (full disk, locked file); raised if not."""
        name = getattr(error, "sqlite_errorname", "") or ""
        if name in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
            raise self._damaged(str(error)) from None
        if name.startswith("SQLITE_IOERR") or len(self._pending) > PENDING_MAX:
            # After a failed fsync nobody knows what the disk holds (fsyncgate, 2018).
            raise StoreError(f"{self.path} cannot be written: {error} ({name}).") from None
        return StoreError(f"{self.path} cannot be written: {error}.", hint="Is the disk full?")

    async def flushed(self, timeout_s: float = math.inf) -> bool:
        """Wait until everything queued is durable; False if that did not come in time."""
        with trio.move_on_after(timeout_s) as scope:
            await self._idle.wait()
        return not scope.cancelled_caught

    def close(self) -> None:
        """Commit what is still queued if the disk lets us, fold the log into the file, close."""
        try:
            if self._pending:
                self._commit(self._pending)
                self._pending = {}
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} cannot be written: {error}.") from None
        finally:
            self._db.close()


def _crc(table: str, key: bytes, value: bytes) -> int:
    """A sum over the row: SQLite checks the shape of its pages, not the bytes of a value."""
    return zlib.crc32(value, zlib.crc32(key, zlib.crc32(table.encode())))
