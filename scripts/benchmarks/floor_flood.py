"""The floor of propagation: one process a node, TLS 1.3 links of degree 4, one signed message
flooded, verified by each node before it goes on. `floor_flood.py PORT PEER_PORT...`.

Prints `ready`; the line `go N` on standard input makes it publish message N; each node prints
`got N MONOTONIC` when it has verified one.
"""

import sys
import time

import nacl.signing
import trio

from scripts.benchmarks.floor_node import LENGTH, contexts, split

KEY = nacl.signing.SigningKey(b"\x07" * 32)


class Flood:
    def __init__(self) -> None:
        self.links: list[trio.SSLStream] = []
        self.seen: set[int] = set()

    async def take(self, signed: bytes, source: trio.SSLStream | None) -> None:
        number = int.from_bytes(signed[64:72], "big")
        if number in self.seen:
            return
        self.seen.add(number)
        KEY.verify_key.verify(signed)
        print(f"got {number} {time.monotonic()}", flush=True)
        for link in self.links:
            if link is not source:
                await link.send_all(LENGTH.pack(len(signed)) + signed)

    async def serve(self, link: trio.SSLStream) -> None:
        self.links.append(link)
        buffer = bytearray()
        while data := await link.receive_some(65536):
            buffer += data
            for frame in split(buffer):
                await self.take(frame, link)


async def main() -> None:
    port, peers = int(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    server, client = contexts()
    flood = Flood()
    async with trio.open_nursery() as nursery:

        async def accepted(stream: trio.SocketStream) -> None:
            await flood.serve(trio.SSLStream(stream, server, server_side=True))

        await nursery.start(trio.serve_tcp, accepted, port)
        for peer in peers:
            stream = trio.SSLStream(
                await trio.open_tcp_stream("127.0.0.1", peer), client, server_hostname="floor"
            )
            await stream.do_handshake()
            nursery.start_soon(flood.serve, stream)
        print("ready", flush=True)
        lines = trio.lowlevel.FdStream(0)
        while data := await lines.receive_some(4096):
            for line in data.decode().splitlines():
                number = int(line.split()[1])
                await flood.take(bytes(KEY.sign(number.to_bytes(8, "big") + bytes(200))), None)


if __name__ == "__main__":
    trio.run(main)
