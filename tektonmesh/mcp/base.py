"""The small database of MCP in a stack's home: what is pinned, and what owners told it alone."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from tektonmesh.errors import StoreError

FILE_NAME = "mcp.db"
_TABLES = (
    "create table if not exists pin (stack text, ci text, kind text, name text, hash text,"
    " definition text, primary key (stack, ci, kind, name)) without rowid",
    "create table if not exists part (stack text, ci text, digest blob, data blob,"
    " primary key (stack, ci)) without rowid",
)


class Base:
    """One use of the file: a transaction, and closed after it. For a worker thread. Raises
    StoreError if the file cannot be used."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE_NAME

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._base = sqlite3.connect(self._path)
            self._path.chmod(0o600)
            for table in _TABLES:
                self._base.execute(table)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be used: {error}.") from None
        return self._base

    def __exit__(self, kind: Any, *_error: object) -> None:
        try:
            if kind is None:
                self._base.commit()
        finally:
            self._base.close()
