"""How both clients hand a large body in: one HTTP request over the same socket, part by part.

Pure functions, as `dialect`: what is large, its parts, the bytes around them and what the answer
means. The clients decide only how the bytes travel.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path
from typing import IO

from tektonmesh.api.dialect import BODY_SIZE_MAX, lost
from tektonmesh.errors import CODES, LocalError, MeshError, error_from

PART_SIZE = 256 << 10
ANSWER_MAX = 1 << 16

Text = str | bytes
Body = Text | Path | IO[bytes] | RawIOBase
"""Text, bytes, the path of a file, or a file that is open for reading bytes."""

HEAD = (
    b"POST /api/bodies HTTP/1.1\r\nHost: tektonmesh\r\nConnection: close\r\n"
    b"Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
END = b"0\r\n\r\n"


def plain_of(body: Body) -> Text | None:
    """The body itself if it goes as it is; None if it is to be handed in first. Raises LocalError
    if its file cannot be read."""
    if isinstance(body, os.PathLike):
        try:
            return None if body.stat().st_size > BODY_SIZE_MAX else body.read_bytes()
        except OSError as error:
            raise _unreadable(body, error) from None
    if isinstance(body, str):
        small = (
            len(body) * 4 <= BODY_SIZE_MAX or len(body.encode(errors="replace")) <= BODY_SIZE_MAX
        )
        return body if small else None
    if isinstance(body, bytes):
        return body if len(body) <= BODY_SIZE_MAX else None
    return None


def begun(stream: IO[bytes]) -> Body:
    """What comes from a stream that cannot be gone back on: bytes if it is short, else a file."""
    first = stream.read(BODY_SIZE_MAX + 1)
    return first if len(first) <= BODY_SIZE_MAX else _Begun(first, stream)


class _Begun(RawIOBase):
    """A stream of which the first bytes were read."""

    def __init__(self, first: bytes, rest: IO[bytes]) -> None:
        self._first = first
        self._rest = rest

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._rest.read(size)


def parts_of(body: Body) -> Iterator[bytes]:
    """The body in parts. Raises LocalError if its file cannot be read."""
    if isinstance(body, str | bytes):
        data = body.encode() if isinstance(body, str) else body
        yield from (data[at : at + PART_SIZE] for at in range(0, len(data), PART_SIZE))
        return
    try:
        if isinstance(body, os.PathLike):
            with body.open("rb") as file:
                yield from iter(lambda: file.read(PART_SIZE), b"")
        else:
            yield from iter(lambda: body.read(PART_SIZE) or b"", b"")
    except OSError as error:
        raise _unreadable(body, error) from None


def framed(part: bytes) -> bytes:
    """One part as HTTP's chunked encoding has it (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(part), part)


def ref_of(answer: bytes) -> str:
    """The name of the body that was handed in. Raises the error that the daemon answered with."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    try:
        shown = json.loads(rest)
        status = int(head.split(b" ", 2)[1])
    except (ValueError, IndexError):
        raise lost() from None
    if status == 200 and isinstance(shown, dict) and isinstance(shown.get("body_ref"), str):
        return str(shown["body_ref"])
    if isinstance(shown, dict) and shown.get("code") in CODES:
        raise error_from(shown)
    raise MeshError("What answers on the socket is not a tektonmesh daemon.", code="protocol")


def _unreadable(body: object, error: OSError) -> LocalError:
    return LocalError(f"{getattr(body, 'name', body)} cannot be read: {error.strerror}.")
