"""One daemon per home: a lock file that the kernel releases however the process ends.

The lock decides who may touch the home's identity and database. It is `flock`, which belongs to
the open file, so it also keeps two daemons of one process apart.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tektonmesh.errors import LocalError

LOCK_NAME = "daemon.lock"


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold the home for the length of the block. Raises LocalError (`conflict`) that names the
    process which holds it already."""
    handle = _open(home)
    try:
        if not _try_lock(handle):
            raise LocalError(
                f"The home {home} is in use by the daemon with process id {_holder(handle)}.",
                code="conflict",
                hint="Stop that one, or choose another home with --home.",
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def home_is_locked(home: Path) -> bool:
    """Whether a daemon runs in this home at this moment; False for a home that is not there."""
    if not (home / LOCK_NAME).exists():
        return False
    handle = _open(home)
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def _open(home: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(home / LOCK_NAME, flags, 0o600)
    except OSError as error:
        raise LocalError(
            f"The lock file {home / LOCK_NAME} cannot be opened: {error.strerror}.",
            hint="The home must be a folder that this user may write.",
        ) from None


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle: int) -> str:
    text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
    return text if text.isdigit() else "unknown"
