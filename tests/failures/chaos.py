"""A TCP proxy that makes links fail: it delays, freezes, resets, refuses or slows what passes.

A `Wire` leads to one address; each direction of each connection has two threads, one that reads and
one that passes on when it is due. Nothing here looks at the bytes: they are TLS.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from queue import Queue

from tests.e2e.stacks import pause

READ_MAX = 65_536
PIECES_MAX = 64
"""What one direction holds back before it stops reading, as a slow network does."""
NO_LINGER = struct.pack("ii", 1, 0)
"""SO_LINGER without time: a close sends RST."""


class Wire:
    """The way to a port of this machine. A stack that has `seed` as its seed links through it."""

    def __init__(self, port: int) -> None:
        self.refuses = False
        self.delay_s = 0.0
        self.bytes_per_s = 0.0
        self._passing = threading.Event()
        self._passing.set()
        self._target = ("127.0.0.1", port)
        self._ends: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.seed = f"127.0.0.1:{self._listener.getsockname()[1]}"
        _start(self._listen)

    # --- what a test does to it ------------------------------------------------------------------

    def freeze(self) -> None:
        """Nothing passes and nothing ends, as behind a router that lost its way."""
        self._passing.clear()

    def reset(self) -> None:
        """RST to both ends. Whoever dials again gets through."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                end.shutdown(socket.SHUT_RD)  # wakes its reader and sends nothing
            end.close()

    def cut(self) -> None:
        """RST to both ends, and to whoever dials until `heal`."""
        self.refuses = True
        self.reset()

    def heal(self) -> None:
        self.refuses, self.delay_s, self.bytes_per_s = False, 0.0, 0.0
        self._passing.set()

    def close(self) -> None:
        self.refuses = True
        self._passing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RD)
        self._listener.close()
        self.reset()

    # --- its threads -----------------------------------------------------------------------------

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._listener.accept()
                self._passing.wait()
                self._join(near)

    def _join(self, near: socket.socket) -> None:
        try:
            if self.refuses:
                raise ConnectionRefusedError
            far = socket.create_connection(self._target, 2)
            far.settimeout(None)
        except OSError:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            near.close()
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._ends += [near, far]
        for source, sink in ((near, far), (far, near)):
            pieces: Queue[tuple[float, bytes]] = Queue(PIECES_MAX)
            _start(self._read, source, pieces)
            _start(self._pass_on, sink, pieces)

    def _read(self, source: socket.socket, pieces: Queue[tuple[float, bytes]]) -> None:
        data = b"x"
        while data:
            try:
                data = source.recv(READ_MAX)
            except OSError:
                data = b""
            pieces.put((time.monotonic() + self.delay_s, data))

    def _pass_on(self, sink: socket.socket, pieces: Queue[tuple[float, bytes]]) -> None:
        """To the end of the connection; then both of its ends are closed."""
        alive = True
        while True:
            due, data = pieces.get()
            if not data:
                break
            wait_s = due - time.monotonic()
            if wait_s > 0:
                pause(wait_s)
            self._passing.wait()
            try:
                if alive:
                    sink.sendall(data)
            except OSError:
                alive = False
            if self.bytes_per_s:
                pause(len(data) / self.bytes_per_s)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def _start(act: object, *args: object) -> None:
    threading.Thread(target=act, args=args, daemon=True).start()  # type: ignore[arg-type]
