"""Strangers whose handshakes never end: `knocker.py PORT COUNT`.

Each connects and says a true ClientHello, a byte a second, for as long as it is listened to. As
many at once as this process may have files; whoever is hung up on makes room for the next. When all
COUNT have been hung up on, one JSON line says how it was.
"""

from __future__ import annotations

import errno
import json
import resource
import selectors
import socket
import ssl
import sys
import time

CONNECTING_MAX = 1024
"""What is on its way at once: four times what the kernel holds for a daemon that is busy."""
SPARE_FILES = 100
BYTE_EVERY_S = 1.0


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="west")
    try:
        end.do_handshake()
    except ssl.SSLWantReadError:
        pass  # it waits for an answer: the ClientHello is out
    return outgoing.read()


class Knocker:
    """The strangers: `connecting`, then `inside` with what each has said and when it began."""

    def __init__(self, port: int, count: int) -> None:
        self.port, self.count = port, count
        self.hello = client_hello()
        self.selector = selectors.DefaultSelector()
        self.connecting: dict[socket.socket, None] = {}
        self.inside: dict[socket.socket, tuple[int, float]] = {}
        self.begun = self.reached = self.ended = self.most = 0
        self.longest_s = 0.0
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.places = min(count, hard - SPARE_FILES)

    def run(self) -> None:
        spoken_at = time.monotonic()
        while self.ended < self.count:
            self.send_more()
            for key, events in self.selector.select(0.1):
                assert isinstance(key.fileobj, socket.socket)
                self.turn(key.fileobj, events)
            self.most = max(self.most, len(self.inside))
            if time.monotonic() - spoken_at >= BYTE_EVERY_S:
                spoken_at = time.monotonic()
                for sock in list(self.inside):
                    self.speak(sock)

    def send_more(self) -> None:
        while (
            self.begun < self.count
            and len(self.connecting) < CONNECTING_MAX
            and len(self.connecting) + len(self.inside) < self.places
        ):
            self.begun += 1
            sock = socket.socket()
            sock.setblocking(False)
            self.connecting[sock] = None
            found = sock.connect_ex(("127.0.0.1", self.port))
            assert found in (0, errno.EINPROGRESS), found
            self.selector.register(sock, selectors.EVENT_WRITE)

    def turn(self, sock: socket.socket, events: int) -> None:
        if sock in self.connecting:
            del self.connecting[sock]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0, "nobody listens"
            self.reached += 1
            self.inside[sock] = (0, time.monotonic())
            self.selector.modify(sock, selectors.EVENT_READ)
            self.speak(sock)
            return
        try:
            ended = not sock.recv(4096)
        except ConnectionError:
            ended = True
        if ended:
            self.over(sock)

    def speak(self, sock: socket.socket) -> None:
        said, since = self.inside[sock]
        try:
            sock.send(self.hello[said : said + 1])
        except ConnectionError:
            self.over(sock)
        else:
            self.inside[sock] = (said + 1, since)

    def over(self, sock: socket.socket) -> None:
        _said, since = self.inside.pop(sock)
        self.longest_s = max(self.longest_s, time.monotonic() - since)
        self.ended += 1
        self.selector.unregister(sock)
        sock.close()


def main() -> None:
    knocker = Knocker(int(sys.argv[1]), int(sys.argv[2]))
    sys.stdout.write("knocking\n")
    sys.stdout.flush()
    knocker.run()
    told = {
        "reached": knocker.reached,
        "most_at_once": knocker.most,
        "longest_s": round(knocker.longest_s, 2),
    }
    sys.stdout.write(json.dumps(told) + "\n")


main()
