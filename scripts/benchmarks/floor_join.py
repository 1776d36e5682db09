"""The floor of a join: the records of all owners over TLS 1.3, unpacked and inserted into SQLite.

`floor_join.py serve PORT OWNERS EACH` sends them to whoever connects; `floor_join.py fetch PORT`
prints the milliseconds from connecting until they are committed. No signatures, no roots.
"""

import sqlite3
import sys
import tempfile
import time

import msgpack
import trio

from scripts.benchmarks.floor_node import LENGTH, contexts, split

VALUE = bytes(700)


async def serve(port: int, owners: int, each: int) -> None:
    server, _ = contexts()
    frames = []
    for owner in range(owners):
        packed = msgpack.packb([[f"{owner}/ci/{number}", VALUE] for number in range(each)])
        frames.append(LENGTH.pack(len(packed)) + packed)

    async def send(stream: trio.SocketStream) -> None:
        tls = trio.SSLStream(stream, server, server_side=True)
        for frame in frames:
            await tls.send_all(frame)
        await tls.send_all(LENGTH.pack(0))

    print("ready", flush=True)
    await trio.serve_tcp(send, port)


async def fetch(port: int) -> None:
    _, client = contexts()
    with tempfile.TemporaryDirectory(prefix="tmj") as folder:
        store = sqlite3.connect(f"{folder}/floor.db")
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        began = time.perf_counter()
        stream = trio.SSLStream(
            await trio.open_tcp_stream("127.0.0.1", port), client, server_hostname="floor"
        )
        buffer, done = bytearray(), False
        while not done:
            buffer += await stream.receive_some(65536)
            for frame in split(buffer):
                done = not frame
                if frame:
                    rows = msgpack.unpackb(frame)
                    store.executemany("INSERT INTO kv VALUES (?, ?)", rows)
        store.commit()
        print((time.perf_counter() - began) * 1000, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve, *map(int, sys.argv[2:5]))
    else:
        trio.run(fetch, int(sys.argv[2]))
