"""A local stream socket as lines in and bytes out, without a copy or a task more than needed.

It decides how much may wait for a slow reader; bytes leave at the end of the round that made them,
so that all answers to one read go in one write. What the lines mean is decided in `connection`.
Trio's own stream is not used here because a checkpoint and a lock per send cost a third of a local
round trip.
"""

from __future__ import annotations

import select
import socket
from collections import deque

import trio

from tektonmesh.net.rounds import ROUND_BYTES, Rounds
from tektonmesh.wire.jsonrpc import LineReader

READ_SIZE = 65_536
BACKLOG_HIGH = 1 << 20
"""Bytes waiting to be read by the other side, beyond which streams and notices pause."""
BACKLOG_MAX = 32 << 20
"""Beyond it the connection is closed: somebody who asks and does not read gets no more memory."""
WRITE_SIZE = 262_144


class LineSocket:
    """Owns a connected, non-blocking socket. `write` may be called from anywhere at any time."""

    def __init__(self, sock: socket.socket, first: bytes, rounds: Rounds) -> None:
        self._sock = sock
        self._rounds = rounds
        self._first = first
        self._again: list[bytes] = []
        self._reader = LineReader()
        self._out: deque[bytes] = deque()
        self.backlog = 0
        self._stuck = False
        self._broken = False
        self._news = trio.Event()
        self._room: trio.Event | None = None

    @property
    def rest(self) -> bytes:
        """What came after the last whole line; of interest at the end only."""
        return self._reader.rest

    async def read(self) -> list[bytes] | None:
        """The lines that came, possibly none yet; None at the end of the stream. Raises LocalError
        (`too_large`) for an endless line."""
        if self._again:
            again, self._again = self._again, []
            return again
        data, self._first = self._first, b""
        while not data:
            await trio.lowlevel.wait_readable(self._sock.fileno())
            try:
                data = self._sock.recv(READ_SIZE)
            except BlockingIOError:
                continue
            except OSError:
                return None
            if not data:
                return None
        return self._reader.feed(data)

    def put_back(self, lines: list[bytes]) -> None:
        """Lines that were read and are somebody else's to read; they come next."""
        self._again = lines

    def write(self, data: bytes) -> None:
        """Queue bytes for the other side. Never waits; a connection over its limit breaks."""
        if self._broken:
            return
        self._out.append(data)
        self.backlog += len(data)
        if self.backlog > BACKLOG_MAX:
            self.break_off()
        elif not self._stuck:
            if self.backlog < ROUND_BYTES:
                self._rounds.at_end(self._flush)
            else:
                self._flush()

    def _flush(self) -> None:
        """Send what was written; the rest follows as the other side reads."""
        if self._out and not self._stuck and self._send_some():
            self._stuck = True
            self._news.set()

    async def write_out(self) -> None:
        """Send for ever what found the kernel full. One task per connection runs this."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._send_some():
                await trio.lowlevel.wait_writable(self._sock.fileno())
            self._stuck = False

    async def room(self) -> None:
        """Wait until the other side has read most of what was sent to it."""
        while self.backlog > BACKLOG_HIGH and not self._broken:
            self._room = self._room or trio.Event()
            await self._room.wait()

    def break_off(self) -> None:
        """End the connection now; who reads it sees its end."""
        self._broken = True
        self._out.clear()
        self.backlog = 0
        self._make_room()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The other side was quicker.

    def hung_up(self) -> bool:
        """After the end of the stream: has the other side gone, or does it still read?"""
        poll = select.poll()
        poll.register(self._sock, 0)
        gone = select.POLLHUP | select.POLLERR
        return self._broken or any(flags & gone for _fd, flags in poll.poll(0))

    def close(self) -> None:
        """Send what goes without waiting, then close. The tasks of this socket have ended."""
        while self._out and not self._broken and self._send_some(once=True):
            continue
        trio.lowlevel.notify_closing(self._sock.fileno())
        self._sock.close()

    def _send_some(self, *, once: bool = False) -> bool:
        """Send until the kernel takes no more; whether something is left. With `once` a full
        kernel buffer means that nothing is left to be done."""
        while self._out:
            data = self._out.popleft() if len(self._out) == 1 else self._joined()
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                self._out.appendleft(data)
                return not once
            except OSError:
                self.break_off()
                return False
            self.backlog -= sent
            if sent < len(data):
                self._out.appendleft(data[sent:])
        self._make_room()
        return False

    def _joined(self) -> bytes:
        size, parts = 0, []
        while self._out and size < WRITE_SIZE:
            parts.append(self._out.popleft())
            size += len(parts[-1])
        return b"".join(parts)

    def _make_room(self) -> None:
        if self._room is not None and self.backlog <= BACKLOG_HIGH:
            self._room.set()
            self._room = None
