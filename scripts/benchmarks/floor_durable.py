"""The floor of `durable`: a bare Trio program that puts frames on the disk and says so.

`floor_durable.py UNIX FOLDER`: takes frames (4-byte length, msgpack `["m", number, body]`) on a
Unix socket, writes each as a row (WAL, synchronous FULL; whatever came while the last commit ran
is the next one) and answers `["m", number]` once it is durable. Nothing is decided or checked.
"""

import sqlite3
import struct
import sys
from pathlib import Path

import msgpack
import trio

LENGTH = struct.Struct(">I")


class Keeper:
    """One database, one connection."""

    def __init__(self, folder: str, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.news = trio.Event()
        self.rows: list[tuple[bytes, bytes]] = []
        self.numbers: list[int] = []
        path = Path(folder) / "floor.db"
        self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self.count = 0

    async def read(self) -> None:
        buffer = bytearray()
        while data := await self.stream.receive_some(262_144):
            buffer += data
            at = 0
            while len(buffer) - at >= 4:
                size = LENGTH.unpack_from(buffer, at)[0]
                if len(buffer) - at - 4 < size:
                    break
                _, number, body = msgpack.unpackb(bytes(buffer[at + 4 : at + 4 + size]))
                self.count += 1
                self.rows.append((self.count.to_bytes(16), body))
                self.numbers.append(number)
                at += 4 + size
            del buffer[:at]
            self.news.set()

    def commit(self, rows: list[tuple[bytes, bytes]]) -> None:
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany("INSERT INTO kv VALUES (?, ?)", rows)
        self.db.execute("COMMIT")

    async def write(self) -> None:
        while True:
            await self.news.wait()
            self.news = trio.Event()
            rows, self.rows = self.rows, []
            numbers, self.numbers = self.numbers, []
            if not rows:
                continue
            await trio.to_thread.run_sync(self.commit, rows)
            answers = []
            for number in numbers:
                packed = msgpack.packb(["m", number])
                answers.append(LENGTH.pack(len(packed)) + packed)
            await self.stream.send_all(b"".join(answers))


async def main(path: str, folder: str) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(path)
    sock.listen()
    print("ready", flush=True)
    for number in range(1000):
        accepted, _ = await sock.accept()
        place = Path(folder) / str(number)
        place.mkdir()
        keeper = Keeper(str(place), trio.SocketStream(accepted))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.write)
            await keeper.read()
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:3])
