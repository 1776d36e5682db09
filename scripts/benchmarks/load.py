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
import time
from collections.abc import Callable

import msgpack

WINDOW = {"rr": 1, "pipelined": 64, "oneway": 256, "durable": 1, "durable64": 64}
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


def drive(connection: socket.socket, encode: Callable, decode: Callable, window: int, count: int):
    sent_at: dict[int, float] = {}
    waits: list[float] = []
    buffer = bytearray()
    number = 0
    began = time.perf_counter()
    while len(waits) < count:
        batch = []
        while number < count and len(sent_at) < window:
            sent_at[number] = time.perf_counter()
            batch.append(encode(number))
            number += 1
        if batch:
            connection.sendall(b"".join(batch))
        data = connection.recv(262144)
        assert data, "the connection was closed"
        buffer += data
        now = time.perf_counter()
        for answered in decode(buffer):
            waits.append(now - sent_at.pop(answered))
    return time.perf_counter() - began, sorted(waits)


def main() -> None:
    dialect, path, target, mode, count, size = sys.argv[1:7]
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(60)
    connection.connect(path)
    mesh = dialect == "mesh"
    encode = mesh_encoder(target, int(size), mode) if mesh else floor_encoder(int(size))
    decode = mesh_numbers if mesh else floor_numbers
    drive(connection, encode, decode, WINDOW[mode], max(20, int(count) // 10))
    seconds, waits = drive(connection, encode, decode, WINDOW[mode], int(count))
    middle, tail = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    result = {"n": len(waits), "seconds": seconds, "p50_us": middle * 1e6, "p99_us": tail * 1e6}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
