"""The floor: a bare Trio program that moves frames and does nothing else.

`floor_node.py UNIX TLS_PORT (NEXT_PORT | deliver)`: takes frames (4-byte length, envelope)
on a Unix socket and on TLS 1.3, passes them to the next node or to whoever connected first with
the frame `["ci"]`, and answers back the way they came. "Python as first written": trio.SSLStream,
one send per read.
"""

import datetime
import ssl
import struct
import sys
import tempfile

import msgpack
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LENGTH = struct.Struct(">I")


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Mutual TLS 1.3 is what the daemon pays; the floor pays a server certificate only."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "floor")])
    begin = datetime.datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin.replace(year=2099))
        .sign(key, hashes.SHA256())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate.public_bytes(serialization.Encoding.PEM))
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.flush()
        server.load_cert_chain(file.name)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    for context in (server, client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    return server, client


def split(buffer: bytearray) -> list[bytes]:
    frames, at = [], 0
    while len(buffer) - at >= 4:
        size = LENGTH.unpack_from(buffer, at)[0]
        if len(buffer) - at - 4 < size:
            break
        frames.append(bytes(buffer[at + 4 : at + 4 + size]))
        at += 4 + size
    del buffer[:at]
    return frames


def join(frames: list[bytes]) -> bytes:
    return b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)


class Node:
    """Frames from `back` (towards the client) go `on`, and the other way round."""

    def __init__(self) -> None:
        self.on: trio.abc.Stream | None = None
        self.back: trio.abc.Stream | None = None

    async def pump(self, stream: trio.abc.Stream, *, backwards: bool) -> None:
        buffer = bytearray()
        while data := await stream.receive_some(65536):
            buffer += data
            frames = split(buffer)
            if not backwards and frames and msgpack.unpackb(frames[0])[0] == "ci":
                self.on = stream
                frames, backwards = frames[1:], True
            elif not backwards:
                self.back = stream
            if not frames:
                continue
            envelopes = [msgpack.packb(msgpack.unpackb(frame)) for frame in frames]
            target = self.back if backwards else self.on
            assert target is not None
            await target.send_all(join(envelopes))


async def main() -> None:
    unix, port, onward = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    server, client = contexts()
    node = Node()
    async with trio.open_nursery() as nursery:
        if onward != "deliver":
            tcp = await trio.open_tcp_stream("127.0.0.1", int(onward))
            tls = trio.SSLStream(tcp, client, server_hostname="floor")
            await tls.do_handshake()
            node.on = tls

            async def backwards() -> None:
                await node.pump(tls, backwards=True)

            nursery.start_soon(backwards)

        async def local(stream: trio.abc.Stream) -> None:
            await node.pump(stream, backwards=False)

        async def remote(stream: trio.SocketStream) -> None:
            await node.pump(trio.SSLStream(stream, server, server_side=True), backwards=False)

        socket = trio.socket.socket(trio.socket.AF_UNIX)
        await socket.bind(unix)
        socket.listen()
        nursery.start_soon(trio.serve_listeners, local, [trio.SocketListener(socket)])
        await nursery.start(trio.serve_tcp, remote, port)
        print("ready", flush=True)


if __name__ == "__main__":
    trio.run(main)
