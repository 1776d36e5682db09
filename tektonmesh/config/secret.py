"""The mesh secret: a file of one or two lines that admits whoever can prove a line of it.

The proof is a MAC that can be attacked offline, hence the minimum length. Two lines (new, old)
let a mesh rotate its secret without an outage (docs/design/security.md, section 3).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from tektonmesh.errors import LocalError

Lines = tuple[str, ...]
LINE_SIZE_MIN = 32
LINES_MAX = 2
_FILE_SIZE_MAX = 4096

LAN_TEST_SECRET = "tektonmesh test stacks: everybody knows this secret"
"""What `run --lan` proves without a secret file. It protects nothing by itself, so it counts on
loopback, private and link-local addresses only."""


def read_or_create_secret(path: Path, announce: Callable[[str], None] | None = None) -> Lines:
    """The lines of the mesh secret, newest first; a missing file is made with a random line, and
    `announce` is told so in a sentence.

    Raises LocalError when others can read the file, a line is too short, or its folder is missing.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        secret = _create(path)
        if announce is not None:
            announce(f"Made a new mesh secret in {path}; copy it to your other stacks.")
        return (secret,)
    except OSError as error:
        raise LocalError(
            f"The secret file {path} cannot be read: {error.strerror}.",
            hint="Name an ordinary file of your own with --secret-file.",
        ) from None


def _read(path: Path) -> tuple[str, ...]:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise LocalError(f"The secret file {path} is not an ordinary file.")
        if found.st_mode & 0o077:
            raise LocalError(
                f"The secret file {path} can be read by others.",
                hint=f"Run `chmod 600 {path}`, and use a new secret if they may have read it.",
            )
        data = file.read(_FILE_SIZE_MAX + 1)
    return _lines_of(path, data)


def _lines_of(path: Path, data: bytes) -> tuple[str, ...]:
    try:
        lines = [line.strip() for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise LocalError(f"The secret file {path} is not text.") from None
    if not 1 <= len(lines) <= LINES_MAX or len(data) > _FILE_SIZE_MAX:
        raise LocalError(
            f"The secret file {path} has {len(lines)} lines and needs one or two.",
            hint="The first line is the secret; a second may hold the one before it.",
        )
    for number, line in enumerate(lines, 1):
        if len(line) < LINE_SIZE_MIN:
            raise LocalError(
                f"Line {number} of the secret file {path} has {len(line)} characters"
                f" and needs {LINE_SIZE_MIN}.",
                hint="Remove the file and start again: a good secret is then made for you.",
            )
    return tuple(lines)


def _create(path: Path) -> str:
    """Written aside and linked into place, so that nobody ever reads half a secret."""
    secret = secrets.token_urlsafe(32)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        handle = os.open(aside, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secret + "\n")
        try:
            os.link(aside, path)
        except FileExistsError:
            # Another stack here made it in this moment; its secret is the one that counts.
            return _read(path)[0]
        finally:
            os.unlink(aside)
    except OSError as error:
        raise LocalError(
            f"The secret file {path} cannot be made: {error.strerror}.",
            hint="Name a file in a folder of your own with --secret-file.",
        ) from None
    return secret
