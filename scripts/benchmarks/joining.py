"""`join`: a new node gets 10,000 records of 700 B over one link, verified and stored.

The serving daemon starts with a database that holds the owners, as if it had met them all: real
key documents, heads and records, made here by the production core.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import trio

from scripts.benchmarks.figures import Figure, middle
from scripts.benchmarks.fleet import PYTHON, fleet, free_port, processes
from tektonmesh.core.head import Head
from tektonmesh.core.keydoc import KEYDOC_CONTEXT, KeyDoc, hash_doc, mac_proof
from tektonmesh.core.record import RecordSet
from tektonmesh.core.types import Scope, Status
from tektonmesh.net.store import Row, Store
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys, mesh_id_of, mesh_key_of

MESH = "own"
VALUE_SIZE = 700


def _seed(*words: object) -> bytes:
    return hashlib.sha256(" ".join(map(str, words)).encode()).digest()


def owner_rows(number: int, records: int, secret: str) -> list[Row]:
    """The database rows of one owner whose head was signed now."""
    codec, now_ms = Codec(), int(time.time() * 1000)
    seeds = [_seed(number, kind) for kind in ("root", "op", "box", "prekey")]
    keys = Keys.from_seeds(*seeds, randbytes=random.Random(number).randbytes)
    doc = KeyDoc(keys.root_public, keys.stack_id, 0, keys.op_public, keys.box_public).encode(codec)
    proof = mac_proof(codec, mesh_key_of(secret, MESH), keys.stack_id)
    value = {"name": "", "type": "load", "description": "x" * (VALUE_SIZE - 60), "state": "up"}
    puts = [
        (int(Scope.MEMBERS), f"ci/c{index}", codec.pack(value | {"name": f"c{index}"}))
        for index in range(records)
    ]
    puts.append((int(Scope.TOPOLOGY), "stack/self", codec.pack({"name": f"load{number}"})))
    held = RecordSet().changed(sorted(puts), ())
    head = Head(
        mesh_id=mesh_id_of(MESH),
        stack_id=keys.stack_id,
        key_epoch=0,
        epoch=now_ms,
        ver=1,
        content_ver=1,
        hlc=now_ms,
        lease_s=900,
        status=Status.UP,
        instance=_seed(number)[:8],
        roots=held.roots(),
        keydoc_hash=hash_doc(doc),
    ).sign(codec, keys)
    owner = keys.stack_id
    rows: list[Row] = [
        ("keydoc", owner, codec.pack([doc, keys.sign_root(KEYDOC_CONTEXT, doc), proof])),
        ("head", owner, codec.pack([head.head, head.sig, 0])),
    ]
    return rows + [("record", owner + bytes([scope]) + key.encode(), v) for scope, key, v in puts]


def fill(path: Path, owners: int, records: int, secret: str) -> None:
    """Write the owners into the database of a daemon that is not running."""

    async def write() -> None:
        store = Store(path)
        for number in range(owners):
            store.queue(owner_rows(number, records, secret))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run, lambda _ticket: None, lambda _error: None)
            await store.flushed()
            nursery.cancel_scope.cancel()
        store.close()

    trio.run(write)


def _stored(path: Path) -> int:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        found: int = db.execute("SELECT count(*) FROM kv WHERE tbl = 'record'").fetchone()[0]
        return found


def _join_once(owners: int, records: int) -> float:
    """Milliseconds from the new node's link until every record is durable on its disk."""
    with fleet() as mesh:
        server = mesh.private("server").start()
        server.stop()
        fill(server.home / "mesh.db", owners, records, mesh.secret.read_text().strip())
        server.start()
        joiner = mesh.private("joiner", server).start()
        database = joiner.home / "mesh.db"
        while _stored(database) < owners * (records + 1):
            time.sleep(0.005)
        done = time.time()
        link = joiner.status()["links"][0]
        since = time.time() - link["since_s"]
        return (done - since) * 1000


def _floor_once(owners: int, records: int) -> float:
    with processes() as made:
        port = free_port()
        made.start("floor_join", "serve", str(port), str(owners), str(records))
        fetch = [*PYTHON, "scripts.benchmarks.floor_join", "fetch", str(port)]
        done = subprocess.run(fetch, check=True, capture_output=True, text=True, timeout=60)
        return float(done.stdout)


def join(*, quick: bool) -> Iterator[Figure]:
    """10,000 records as 200 owners of 50 and as 20 owners of 500."""
    shapes = ((20, 50),) if quick else ((200, 50), (20, 500))
    repeats = 1 if quick else 3
    for owners, records in shapes:
        floor = middle([_floor_once(owners, records) for _ in range(repeats)])
        value = middle([_join_once(owners, records) for _ in range(repeats)])
        yield Figure(
            "join",
            f"{owners} owners of {records}",
            value,
            "ms",
            repeats,
            limit=("floor", floor),
            goal="at most 400 ms",
        )


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
