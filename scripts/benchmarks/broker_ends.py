"""The two ends of a message through another system, as `sink` and `load` are of ours.

`broker_ends DIALECT PORT echo|count` answers, `broker_ends DIALECT PORT MODE COUNT SIZE` drives,
with the modes of `driving`. The dialects `nats` and `redis` are spoken over a bare socket; `zenoh`
by its own Python client. A counter answers with the number of a message alone.
"""

from __future__ import annotations

import queue
import socket
import sys
import time
from collections.abc import Iterator

from scripts.benchmarks.driving import measure

NUMBER = 8
ASK, REPLY = "ask", "reply"


def payload(number: int, size: int) -> bytes:
    return number.to_bytes(NUMBER) + b"x" * (size - NUMBER)


def number_of(body: bytes) -> int:
    return int.from_bytes(body[:NUMBER])


class Nats:
    """The client protocol of NATS: lines, and a payload after some."""

    hello = b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n'

    @staticmethod
    def subscribe(subject: str) -> bytes:
        return b"SUB %s 1\r\nPING\r\n" % subject.encode()

    @staticmethod
    def publish(subject: str, body: bytes) -> bytes:
        return b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(body), body)

    @staticmethod
    def bodies(buffer: bytearray) -> Iterator[bytes]:
        """The payloads that are whole; what is not stays in the buffer."""
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            line = bytes(buffer[at:end])
            assert not line.startswith(b"-ERR"), line
            if line.startswith(b"MSG "):
                size = int(line.rsplit(b" ", 1)[1])
                if len(buffer) < end + 4 + size:
                    break
                yield bytes(buffer[end + 2 : end + 2 + size])
                end += size + 2
            at = end + 2
        del buffer[:at]


class Redis:
    """RESP3, in which a connection may publish and be told."""

    hello = b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n"

    @staticmethod
    def subscribe(subject: str) -> bytes:
        return b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%s\r\n" % (len(subject), subject.encode())

    @staticmethod
    def publish(subject: str, body: bytes) -> bytes:
        head = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n" % (
            len(subject),
            subject.encode(),
            len(body),
        )
        return head + body + b"\r\n"

    @staticmethod
    def bodies(buffer: bytearray) -> Iterator[bytes]:
        """A push of a message is `>3`, the word, the channel and the payload; all else is passed
        over, line by line."""
        at = 0
        while (end := buffer.find(b"\r\n", at)) >= 0:
            if buffer[at:end] != b">3":
                at = end + 2
                continue
            parts, here = [], end + 2
            while len(parts) < 3 and (stop := buffer.find(b"\r\n", here)) >= 0:
                size = int(buffer[here + 1 : stop]) if buffer[here : here + 1] == b"$" else -1
                if len(buffer) < stop + 4 + size:
                    break
                parts.append(bytes(buffer[stop + 2 : stop + 2 + size]) if size >= 0 else b"")
                here = stop + 2 + (size + 2 if size >= 0 else 0)
            if len(parts) < 3:
                break
            if parts[0] == b"message":
                yield parts[2]
            at = here
        del buffer[:at]


DIALECTS = {"nats": Nats, "redis": Redis}


def connected(dialect: type[Nats] | type[Redis], port: int, subject: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(dialect.hello + dialect.subscribe(subject))
    time.sleep(0.5)  # until servers further on know of the subscription
    return connection


def answer(dialect: type[Nats] | type[Redis], port: int, echo: bool) -> None:
    connection = connected(dialect, port, ASK)
    connection.settimeout(None)
    print("ready", flush=True)
    buffer = bytearray()
    while data := connection.recv(262_144):
        buffer += data
        answers = [
            dialect.publish(REPLY, body if echo else body[:NUMBER])
            for body in dialect.bodies(buffer)
        ]
        if answers:
            connection.sendall(b"".join(answers))


def drive(dialect: type[Nats] | type[Redis], port: int, mode: str, count: int, size: int) -> None:
    connection = connected(dialect, port, REPLY)
    buffer = bytearray()

    def say(batch: list[int]) -> None:
        bodies = (payload(number, size) for number in batch)
        connection.sendall(b"".join(dialect.publish(ASK, body) for body in bodies))

    def hear() -> list[int]:
        data = connection.recv(262_144)
        assert data, "the connection was closed"
        buffer.extend(data)
        return [number_of(body) for body in dialect.bodies(buffer)]

    measure(mode, count, say, hear)


def zenoh(port: int, words: list[str]) -> None:
    """A client of the router at this port."""
    import zenoh as z

    config = z.Config()
    config.insert_json5("mode", '"client"')
    config.insert_json5("connect/endpoints", f'["tcp/127.0.0.1:{port}"]')
    session = z.open(config)
    if words[0] in ("echo", "count"):
        replies = session.declare_publisher(REPLY)
        part = None if words[0] == "echo" else NUMBER
        session.declare_subscriber(
            ASK, lambda sample: replies.put(sample.payload.to_bytes()[:part])
        )
        time.sleep(0.5)
        print("ready", flush=True)
        time.sleep(3600)
    asks, heard = session.declare_publisher(ASK), queue.SimpleQueue()
    session.declare_subscriber(REPLY, lambda sample: heard.put(sample.payload.to_bytes()))
    time.sleep(0.5)

    mode, count, size = words[0], int(words[1]), int(words[2])

    def say(batch: list[int]) -> None:
        for number in batch:
            asks.put(payload(number, size))

    measure(mode, count, say, lambda: [number_of(heard.get())])
    session.close()


def main() -> None:
    dialect, port, *words = sys.argv[1:]
    if dialect == "zenoh":
        zenoh(int(port), words)
    elif len(words) == 1:
        answer(DIALECTS[dialect], int(port), words[0] == "echo")
    else:
        drive(DIALECTS[dialect], int(port), words[0], int(words[1]), int(words[2]))


if __name__ == "__main__":
    main()
