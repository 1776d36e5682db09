"""The far end of the load: a CI that echoes, or one that only counts.

`sink.py DIALECT SOCKET NAME (echo | count)`. Counting answers each message with nothing but an
empty result, as one-way messages want; the floor's counter answers with the number alone.
"""

import json
import socket
import struct
import sys

import msgpack

LENGTH = struct.Struct(">I")


def mesh(connection: socket.socket, name: str, echo: bool) -> None:
    register = {"name": name, "type": "bench", "share": "public"}
    asked = {"jsonrpc": "2.0", "id": 0, "method": "register", "params": register}
    connection.sendall(json.dumps(asked).encode() + b"\n")
    buffer = b""
    while data := connection.recv(262144):
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        answers = []
        for line in lines:
            message = json.loads(line)
            if message.get("id") == 0:
                assert "result" in message, message
                print("ready", flush=True)
            elif message.get("method") == "message":
                result = {"body": message["params"]["body"]} if echo else {"body": ""}
                answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
                answers.append(json.dumps(answer).encode() + b"\n")
        if answers:
            connection.sendall(b"".join(answers))


def floor(connection: socket.socket, echo: bool) -> None:
    hello = msgpack.packb(["ci"])
    connection.sendall(LENGTH.pack(len(hello)) + hello)
    print("ready", flush=True)
    buffer = bytearray()
    while data := connection.recv(262144):
        buffer += data
        answers, at = [], 0
        while len(buffer) - at >= 4:
            size = LENGTH.unpack_from(buffer, at)[0]
            if len(buffer) - at - 4 < size:
                break
            envelope = msgpack.unpackb(bytes(buffer[at + 4 : at + 4 + size]))
            packed = msgpack.packb(envelope if echo else envelope[:2])
            answers.append(LENGTH.pack(len(packed)) + packed)
            at += 4 + size
        del buffer[:at]
        if answers:
            connection.sendall(b"".join(answers))


def main() -> None:
    dialect, path, name, what = sys.argv[1:5]
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    if dialect == "mesh":
        mesh(connection, name, what == "echo")
    else:
        floor(connection, what == "echo")


if __name__ == "__main__":
    main()
