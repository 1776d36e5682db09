"""The Unix socket: one place for every local program, whichever dialect it speaks.

It decides who may connect (the owner of the daemon, root, and users whom the owner allowed), how
the socket file comes and goes, and which dialect a connection speaks, by its first byte: `{` is
JSON-RPC lines, an upper-case letter HTTP. What is said then is decided in `connection` and `http`.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from tektonmesh.api.connection import Connection
from tektonmesh.api.lines import READ_SIZE, LineSocket
from tektonmesh.api.mcpdoor import face_of
from tektonmesh.api.operations import Operations
from tektonmesh.errors import LocalError
from tektonmesh.wire.jsonrpc import BadLine, write_error

_LOG = logging.getLogger(__name__)

CONNECTIONS_MAX = 1024
BACKLOG = 128
PATH_MAX = 100
"""Bytes; Linux allows 107 in `sun_path` and macOS 103."""
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_S = 0.1

ServeHttp = Callable[[socket.socket, bytes, bool], Awaitable[None]]


@asynccontextmanager
async def bound_socket(path: Path, *, shared: bool = False) -> AsyncIterator[socket.socket]:
    """The listening socket at `path`, mode 0600 from its first instant; removed afterwards. With
    `shared` any user may open it, and who is served is decided by the user ids alone.

    Raises LocalError (`conflict`) if a daemon answers there already.
    """
    if len(os.fsencode(path)) > PATH_MAX:
        raise LocalError(
            f"The socket path {path} is longer than {PATH_MAX} bytes.",
            hint="Choose a shorter one with --socket.",
        )
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(listener, path, 0o111 if shared else 0o177)
        listener.setblocking(False)
        listener.listen(BACKLOG)
        made = path.stat().st_ino
        try:
            yield listener
        finally:
            _remove_own(path, made)
    finally:
        trio.lowlevel.notify_closing(listener.fileno())
        listener.close()


def _bind(listener: socket.socket, path: Path, mask: int) -> None:
    """Bind under a umask that leaves others nothing, so that there is no instant between the
    making of the file and a chmod. Other threads of this process only write private files."""
    before = os.umask(mask)
    try:
        listener.bind(os.fspath(path))
    except OSError as error:
        raise LocalError(
            f"The socket {path} cannot be made: {error.strerror}.",
            hint="Choose another with --socket.",
        ) from None
    finally:
        os.umask(before)


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody answers on; a daemon that was killed leaves one behind."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise LocalError(f"{path} is there already and is no socket.", hint="Move it away.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise LocalError(f"The socket {path} is not ours: {error.strerror}.") from None
    raise LocalError(
        f"A daemon answers on {path} already.",
        code="conflict",
        hint="Stop that one, or choose another home or --socket.",
    )


def _remove_own(path: Path, made: int) -> None:
    """Remove our socket file; not one that somebody made at the same place since."""
    try:
        if path.lstat().st_ino == made:
            path.unlink()
    except FileNotFoundError:
        pass


def peer_uid(sock: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel knows it; -1 if it does not."""
    try:
        if sys.platform == "darwin":
            # struct xucred {u_int version; uid_t uid; ...}; SOL_LOCAL is 0, LOCAL_PEERCRED 1.
            return int(struct.unpack_from("=II", sock.getsockopt(0, 1, 76))[1])
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", found)[1])
    except OSError:
        return -1


async def serve_unix(
    listener: socket.socket,
    operations: Operations,
    serve_http: ServeHttp,
    uids: tuple[int, ...] = (),
) -> None:
    """Accept and serve, for ever. One connection's fault ends that connection only. `uids` are
    served besides the owner and root, but do not act for the owner."""
    owners = (os.geteuid(), 0)
    places = trio.CapacityLimiter(CONNECTIONS_MAX)
    async with trio.open_nursery() as nursery:
        while True:
            sock = await accept(listener)
            uid = peer_uid(sock)
            if uid not in (*owners, *uids) or not places.available_tokens:
                sock.close()
                continue
            places.acquire_on_behalf_of_nowait(sock)
            door = _Door(operations, serve_http, trusted=uid in owners)
            nursery.start_soon(_serve_one, sock, door, places)


async def accept(listener: socket.socket) -> socket.socket:
    """The next connection, non-blocking. Being out of file descriptors only makes it wait."""
    while True:
        await trio.lowlevel.wait_readable(listener.fileno())
        try:
            sock, _address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue
        except OSError as error:
            if error.errno not in _TOO_MANY_FILES:
                raise
            _LOG.warning("no connection can be accepted: %s", error.strerror)
            await trio.sleep(_PAUSE_S)
            continue
        sock.setblocking(False)
        return sock


@dataclass(frozen=True, slots=True)
class _Door:
    """What one connection leads to."""

    operations: Operations
    http: ServeHttp
    trusted: bool


async def _serve_one(sock: socket.socket, door: _Door, places: trio.CapacityLimiter) -> None:
    try:
        first = await _first_bytes(sock)
        if first[:1].isalpha() and first[:1].isupper():
            await door.http(sock, first, door.trusted)
        elif first:
            await _serve_lines(sock, first, door)
    except Exception:
        _LOG.exception("fault in serving a local connection")
    finally:
        places.release_on_behalf_of(sock)
        if sock.fileno() >= 0:
            trio.lowlevel.notify_closing(sock.fileno())
            sock.close()


async def _first_bytes(sock: socket.socket) -> bytes:
    """What comes first, without leading white space; empty if nothing does."""
    while True:
        await trio.lowlevel.wait_readable(sock.fileno())
        try:
            data = sock.recv(READ_SIZE)
        except BlockingIOError:
            continue
        except OSError:
            return b""
        if not data or data.strip():
            return data.lstrip()


async def _first_lines(lines: LineSocket) -> list[bytes]:
    """What comes first; empty at the end of the stream, or for what will be refused as endless."""
    try:
        while (batch := await lines.read()) is not None:
            if batch:
                return batch
    except LocalError:
        pass  # Reading on says so again, to whoever can answer.
    return []


async def _serve_lines(sock: socket.socket, first: bytes, door: _Door) -> None:
    lines = LineSocket(sock, first, door.operations.daemon.rounds)
    try:
        if first[:1] == b"{":
            batch = await _first_lines(lines)
            wanted = face_of(batch[0]) if batch and door.operations.mcp is not None else None
            if wanted is not None and door.operations.mcp is not None:
                lines.put_back(batch[1:] if wanted.said else batch)
                await door.operations.mcp.serve_lines(lines, wanted)
                return
            lines.put_back(batch)
            await Connection(door.operations, lines, trusted=door.trusted).serve()
        else:
            wrong = BadLine("This socket speaks JSON-RPC, one object per line, and HTTP/1.1.")
            lines.write(write_error(None, wrong))
    finally:
        lines.close()
