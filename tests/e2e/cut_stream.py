"""A stream of tokens that is cut again and again: daemons killed with -9, links reset.

A chain of three stacks, a CI on the last that yields tokens and knows of nothing, a caller on the
first that reads `stream(..., resume=True)`. Between two of the stacks sits a proxy that resets
connections. What the caller has at the end must be what the CI said, byte for byte.
`./scripts/cuts --tokens 100000 --cuts 20` prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tektonmesh.sync import Client
from tests.e2e.stacks import Mesh, Stack, a_mesh, free_ports, pause, wait_until

KINDS = ("origin", "relay", "destination", "link")


class Proxy(threading.Thread):
    """Passes bytes between whoever calls and one port, and resets all of it on demand."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.to = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ends: list[socket.socket] = []
        self.resets = 0

    def run(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.to), 5)
            except OSError:
                near.close()
                continue
            self.ends = [near, far]
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(one, other), daemon=True).start()

    def pump(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.close()

    def reset(self) -> None:
        """Both sides get an RST."""
        ends, self.ends = self.ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RD)
                end.close()
        self.resets += bool(ends)


class Reader(threading.Thread):
    """The caller: reads the stream to its end."""

    def __init__(self, stack: Stack, target: str, count: int, rate: int, timeout: float) -> None:
        super().__init__(daemon=True)
        self.stack, self.target, self.timeout = stack, target, timeout
        self.body = f"{count} {rate}"
        self.texts = 0
        self.size = 0
        self.problem: BaseException | None = None
        self.whole = b""

    def run(self) -> None:
        try:
            with (
                Client(self.stack.home / "tektonmesh.sock", 60.0) as client,
                client.stream(self.target, self.body, resume=True, timeout=self.timeout) as reply,
            ):
                for text in reply:
                    self.texts += 1
                    self.size += len(text)
                self.whole = reply.received
        except BaseException as error:
            self.problem = error


def a_chain(mesh: Mesh) -> tuple[list[Stack], Proxy]:
    """a - m - b, m reached by b through the proxy; each keeps its port over restarts."""
    ports = free_ports(3)
    proxy = Proxy(ports[1])
    proxy.start()
    seeds = ([], [f"127.0.0.1:{ports[0]}"], [f"127.0.0.1:{proxy.port}"])
    stacks = []
    for name, port, known in zip("amb", ports, seeds, strict=True):
        words = [*mesh.by_secret(), "--seeds-only", "--listen", f"127.0.0.1:{port}"]
        for seed in known:
            words += ["--seed", seed]
        stacks.append(mesh.add(name, *words).start())
    mesh.wait_all_see(stacks)
    return stacks, proxy


def run(mesh: Mesh, tokens: int, cuts: int, rate: int, seed: int) -> dict[str, Any]:
    """The figures of one stream."""
    (a, m, b), proxy = a_chain(mesh)
    b.start_talker("talker")
    wait_until("talker@b on a", lambda: "talker@b" in a.cis(), within_s=10)
    wanted = "".join(f"token-{number} " for number in range(tokens)).encode()
    luck, done = random.Random(seed), Counter[str]()
    victims = {"origin": a, "relay": m, "destination": b}
    began = time.monotonic()
    reader = Reader(a, "talker@b", tokens, rate, timeout=800.0)
    reader.start()
    for number in range(cuts):
        due = len(wanted) * (number + 0.5 + luck.random() * 0.4) / (cuts + 1)
        wait_until("the stream goes on", lambda due=due: reader.problem or reader.size >= due,
                   within_s=120, every_s=0.005)  # fmt: skip
        assert reader.problem is None, reader.problem
        kind = KINDS[number % len(KINDS)] if number < len(KINDS) else luck.choice(KINDS)
        done[kind] += 1
        if kind == "link":
            proxy.reset()
        else:
            victims[kind].kill()
            pause(luck.random() * 0.3)
            victims[kind].start()
    reader.join(300)
    assert not reader.is_alive(), f"{reader.size} of {len(wanted)} bytes"
    assert reader.problem is None, reader.problem
    return {
        "tokens": tokens,
        "cuts": dict(done),
        "bytes": len(reader.whole),
        "identical": reader.whole == wanted,
        "sha256": hashlib.sha256(reader.whole).hexdigest(),
        "s": round(time.monotonic() - began, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="cuts", description=__doc__)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--rate", type=int, default=1500, help="tokens a second")
    parser.add_argument("--rng-seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, a_mesh(Path(folder)) as mesh:
        figures = run(mesh, options.tokens, options.cuts, options.rate, options.rng_seed)
    json.dump(figures, sys.stdout)
    sys.stdout.write("\n")
    sys.exit(not figures["identical"])


if __name__ == "__main__":
    main()
