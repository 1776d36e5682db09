"""Bodies that fit into no envelope, on real daemons: the same message, just bigger."""

import hashlib
import json
import random

from tektonmesh.sync import Client
from tests.e2e.lab import a_lab
from tests.e2e.side_by_side import measure
from tests.e2e.stacks import Mesh, Stack, wait_until

MIB = 1 << 20


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def client_of(stack: Stack, timeout: float = 60.0) -> Client:
    return Client(stack.home / "tektonmesh.sock", timeout)


def files(stack: Stack) -> list[str]:
    return sorted(path.name for path in (stack.home / "bodies").iterdir())


def test_a_body_of_a_mebibyte_reaches_its_ci_over_two_hops(mesh: Mesh) -> None:
    a, _m, b = mesh.chain("amb")
    b.start_hash("hash")
    wait_until("the CI on a", lambda: "hash@b" in a.cis(), within_s=5)
    body = some_bytes(MIB + 12_345)
    with client_of(a) as client:
        reply = client.send("hash@b", body, timeout=30.0)
    got = json.loads(reply.body)
    assert got == {
        "size": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "file": True,
        "attempt": 0,
    }
    assert reply.path == ("a", "m", "b")
    wait_until("no file is left", lambda: files(a) == files(b) == [], within_s=5)


def test_a_body_beside_a_stream_of_tokens_keeps_none_of_them_waiting_long(mesh: Mesh) -> None:
    """10 MB here; `./scripts/beside` has the 200 MB, and a limit of 20 ms on a quiet machine."""
    with a_lab("side") as lab:
        figures = measure(mesh, lab, 10_000_000, 3.0)
    print(figures)
    assert figures["more_p99_ms"] < 60.0, figures  # 10 MB in front of a token are 1,600 ms
    assert figures["mbit_s"] > 8.0, figures
    assert max(figures["resident_mb"].values()) < 120, figures
