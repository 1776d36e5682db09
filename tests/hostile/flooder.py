"""A hostile member and many strangers in one: `flooder.py PORT SECRET_FILE MESH`.

It proves the mesh secret, sends messages as fast as its link takes them, dials again when it is
thrown out, and meanwhile opens connections to the port on which it says nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

import trio

from tektonmesh.core.keydoc import KeyDoc, mac_proof
from tektonmesh.core.messages import Ping, ProbeAnswer
from tektonmesh.core.trust import Verdict
from tektonmesh.core.types import Identity, SignedKeyDoc
from tektonmesh.net.identity import first_keydoc
from tektonmesh.net.link import LinkContext, LinkRefused, open_link
from tektonmesh.net.tls import issue_leaf
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys, mesh_id_of, mesh_key_of

STRANGERS = 300
BATCH = 500


def context_of(secret: str, mesh: str) -> LinkContext:
    """A stack of its own that knows the secret."""
    keys = Keys.from_seeds(*(os.urandom(32) for _ in range(4)), randbytes=os.urandom)
    key, signed = mesh_key_of(secret, mesh), first_keydoc(keys)
    proof = mac_proof(Codec(), key, keys.stack_id)
    assert KeyDoc.decode(Codec(), signed.doc).stack_id == keys.stack_id
    keydoc = SignedKeyDoc(signed.doc, signed.sig, proof)
    identity = Identity(keys.stack_id, "mallory", mesh, mesh_id_of(mesh), os.urandom(8), keydoc)
    return LinkContext(
        identity=identity,
        keys=keys,
        leaf=issue_leaf(keys, 1),
        mesh_keys=(key,),
        listen=lambda: (),
        judge=lambda *_about: Verdict(True, "allowed"),
    )


async def flood(address: str, context: LinkContext) -> None:
    while True:
        with contextlib.suppress(LinkRefused, Exception):
            link = await open_link(address, context, expect=None)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.run)
                nursery.start_soon(drain, link)
                while True:
                    link.queue(tuple(Ping(n, 0, b"") for n in range(BATCH)))
                    link.queue(tuple(ProbeAnswer(n, bytes(32), n) for n in range(BATCH)))
                    link.flush()
                    await trio.sleep(0.005)
        await trio.sleep(0.05)


async def drain(link: object) -> None:
    async for _messages in link:  # type: ignore[attr-defined]
        pass


async def knock(port: int) -> None:
    """Strangers who connect and say nothing; whoever is hung up on comes again."""
    held: list[socket.socket] = []
    while True:
        while len(held) < STRANGERS:
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, OSError):
                sock.connect(("127.0.0.1", port))
            held.append(sock)
        await trio.sleep(0.2)
        for sock in held[: STRANGERS // 3]:
            sock.close()
        del held[: STRANGERS // 3]


async def main() -> None:
    port, secret, mesh = int(sys.argv[1]), Path(sys.argv[2]).read_text().strip(), sys.argv[3]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood, f"127.0.0.1:{port}", context_of(secret, mesh))
        nursery.start_soon(knock, port)
        sys.stdout.write("flooding\n")
        sys.stdout.flush()


trio.run(main)
