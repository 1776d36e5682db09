"""The load: one process that drives requests through a Unix socket and prints what it measured.

`load.py DIALECT SOCKET TARGET MODE COUNT SIZE`: the dialect is `mesh` (newline JSON-RPC) or `floor`
(length and msgpack); the mode `rr` (one at a time), `pipelined` (64 in flight), `oneway`, `durable`
(until it is accepted, one at a time) or `durable64` (64 in flight). Prints one JSON object:
`{"n","seconds","p50_us","p99_us"}`.
"""

import json
import socket
import struct
import sys
from collections.abc import Callable

import msgpack

from scripts.benchmarks.driving import measure

LENGTH = struct.Struct(">I")


def mesh_encoder(target: str, size: int, mode: str) -> Callable[[int], bytes]:
    body = "x" * size
    extra = {"no_reply": True} if mode == "oneway" else {}
    if mode.startswith("durable"):
        extra = {"durable": True, "ttl_s": 3600}

    def encode(number: int) -> bytes:
        params = {"to": target, "body": body, **extra}
        asked = {"jsonrpc": "2.0", "id": number, "method": "send", "params": params}
        return json.dumps(asked).encode() + b"\n"

    return encode


def floor_encoder(size: int) -> Callable[[int], bytes]:
    body = b"x" * size

    def encode(number: int) -> bytes:
        packed = msgpack.packb(["m", number, body])
        return LENGTH.pack(len(packed)) + packed

    return encode


def mesh_numbers(buffer: bytearray) -> list[int]:
    end = buffer.rfind(b"\n") + 1
    lines = bytes(buffer[:end]).splitlines()
    del buffer[:end]
    numbers = []
    for line in lines:
        answer = json.loads(line)
        assert "error" not in answer, answer
        numbers.append(answer["id"])
    return numbers


def floor_numbers(buffer: bytearray) -> list[int]:
    numbers, at = [], 0
    while len(buffer) - at >= 4:
        size = LENGTH.unpack_from(buffer, at)[0]
        if len(buffer) - at - 4 < size:
            break
        numbers.append(msgpack.unpackb(bytes(buffer[at + 4 : at + 4 + size]))[1])
        at += 4 + size
    del buffer[:at]
    return numbers


def main() -> None:
    dialect, path, target, mode, count, size = sys.argv[1:7]
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(path)
    mesh = dialect == "mesh"
    encode = mesh_encoder(target, int(size), mode) if mesh else floor_encoder(int(size))
    decode = mesh_numbers if mesh else floor_numbers
    buffer = bytearray()

    def say(batch: list[int]) -> None:
        connection.sendall(b"".join(map(encode, batch)))

    def hear() -> list[int]:
        data = connection.recv(262144)
        assert data, "the connection was closed"
        buffer.extend(data)
        return decode(buffer)

    measure(mode, int(count), say, hear)


if __name__ == "__main__":
    main()
