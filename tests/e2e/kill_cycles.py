"""Kill -9 of origin, relay and destination at random moments under load, and what must hold.

One chain of three stacks; a sender hands durable messages to the first, each with an idempotency
key of its own and again until they are accepted; a CI at the last writes down what it gets. Nobody
repairs anything by hand. A cycle is one kill and the start after it. `./scripts/kills --cycles N`.
"""

from __future__ import annotations

import argparse
import json
import random
import select
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.e2e.keeper_ci import lines_of
from tests.e2e.stacks import Mesh, Stack, a_mesh, free_ports, pause, wait_until

WINDOW = 16
"""Messages that the sender has under way."""
LATER = ("busy", "leaving", "store", "cancelled", "no_daemon", "internal")
NAMES = "abc"
_COUNTING = """
CREATE TABLE IF NOT EXISTS counted (tbl TEXT, key BLOB);
CREATE TRIGGER IF NOT EXISTS counting AFTER INSERT ON kv WHEN NEW.tbl IN ('inbox', 'outbox')
BEGIN INSERT INTO counted VALUES (NEW.tbl, NEW.key); END;
"""
"""SQLite itself counts how often a row was written, whatever the daemon thinks."""


class Sender(threading.Thread):
    """Hands over messages until `stop`; what was never accepted is sent again with its key."""

    def __init__(self, stack: Stack, target: str, rate: float) -> None:
        super().__init__(daemon=True)
        self.stack, self.target, self.rate = stack, target, rate
        self.accepted: dict[int, str] = {}
        self.failed: dict[int, Any] = {}
        self.pending: dict[int, None] = {}
        self.draining = threading.Event()
        self.ended = threading.Event()
        self._count = 0
        self._due = time.monotonic()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(str(self.stack.home / "tektonmesh.sock"))
                    self._speak(connection)
            except (OSError, ValueError):
                pause(0.01)

    def _speak(self, connection: socket.socket) -> None:
        for number in self.pending:
            self._say(connection, number)
        rest = b""
        while not self.ended.is_set():
            if len(self.pending) < WINDOW and not self.draining.is_set():
                self._next(connection)
            readable, _, _ = select.select([connection], [], [], 0.005)
            if not readable:
                continue
            data = connection.recv(65_536)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._hear(json.loads(line))

    def _next(self, connection: socket.socket) -> None:
        if time.monotonic() < self._due:
            return
        self._due = max(self._due + 1.0 / self.rate, time.monotonic() - 0.1)
        self._count += 1
        self.pending[self._count] = None
        self._say(connection, self._count)

    def _say(self, connection: socket.socket, number: int) -> None:
        params = {
            "to": self.target,
            "body": f"m{number}",
            "durable": True,
            "ttl_s": 3600,
            "idempotency_key": f"k{number}",
        }
        line = {"jsonrpc": "2.0", "id": number, "method": "send", "params": params}
        connection.sendall(json.dumps(line).encode() + b"\n")

    def _hear(self, answer: dict[str, Any]) -> None:
        number = answer["id"]
        if "result" in answer:
            self.accepted[number] = answer["result"]["id"]
        elif answer["error"]["data"]["code"] in LATER:
            raise ValueError("again")
        else:
            self.failed[number] = answer["error"]
        self.pending.pop(number, None)


class Cycles:
    """One chain under load; `run` kills and starts, `settle` waits and gives what must be zero."""

    def __init__(self, mesh: Mesh, rng_seed: int, rate: float) -> None:
        self.chance = random.Random(rng_seed)
        self.killed: Counter[str] = Counter()
        self.starting = 0
        self.chain = mesh.chain(NAMES)
        # A port that the system gave might be an outgoing connection's while a daemon is dead.
        ports = [f"127.0.0.1:{port}" for port in free_ports(len(self.chain))]
        moved = dict(zip([stack.seed for stack in self.chain], ports, strict=True))
        self.first, self.last = self.chain[0], self.chain[-1]
        self.kept = self.last.start_keeper("keeper")
        address = f"keeper@{NAMES[-1]}"
        wait_until("the CI known", lambda: address in self.first.cis(), within_s=10)
        for stack, port in zip(self.chain, ports, strict=True):
            stack.kill()
            words = [port if word == "127.0.0.1:0" else word for word in stack.run_arguments]
            stack.run_arguments = tuple(moved.get(word, word) for word in words)
        for stack in (self.first, self.last):
            with sqlite3.connect(stack.home / "mesh.db") as db:
                db.executescript(_COUNTING)
            db.close()
        for stack in self.chain:
            stack.start()
        self.sender = Sender(self.first, address, rate)
        self.sender.start()
        wait_until("load", lambda: len(self.sender.accepted) > 10, within_s=20)

    def run(self, cycles: int) -> None:
        for _ in range(cycles):
            stack = self.chance.choice(self.chain)
            self.killed[stack.name] += 1
            stack.kill()
            pause(self.chance.choice((0.001, 0.02, 0.2)))
            stack.spawn()
            if self.chance.random() < 0.25:
                self.starting += 1
                pause(self.chance.uniform(0.0, 0.15))  # the next kill may find it starting
            else:
                stack.wait_ready(within_s=60.0)
                pause(self.chance.uniform(0.001, 0.25))

    def settle(self, within_s: float = 120.0) -> dict[str, Any]:
        """Everybody runs; when nothing waits any more, what was found."""
        self.sender.draining.set()
        for stack in self.chain:
            wait_until(f"{stack.name} answers", lambda s=stack: _answers(s), within_s=60.0)
        wait_until("all accepted", lambda: not self.sender.pending, within_s=within_s)
        for stack in self.chain:
            wait_until(f"{stack.name} idle", lambda s=stack: _idle(s), within_s=within_s)
        self.sender.ended.set()
        self.sender.join(10)
        return self._found()

    def _found(self) -> dict[str, Any]:
        accepted = self.sender.accepted
        lines = lines_of(self.kept)
        ids: dict[str, dict[str, None]] = {}
        for line in lines:
            ids.setdefault(line["body"], {})[line["id"]] = None
        inbox = _counted(self.last, "inbox")
        lost = [
            number
            for number, msg_id in accepted.items()
            if msg_id not in ids.get(f"m{number}", {}) or msg_id not in inbox
        ]
        return {
            "cycles": sum(self.killed.values()),
            "killed": dict(sorted(self.killed.items())),
            "killed_while_starting_at_most": self.starting,
            "accepted": len(accepted),
            "refused": len(self.sender.failed),
            "lost": len(lost),
            "doubled_inbox_rows": sum(count > 1 for count in inbox.values()),
            "doubled_outbox_rows": sum(c > 1 for c in _counted(self.first, "outbox").values()),
            "keys_with_two_messages": sum(len(found) > 1 for found in ids.values()),
            "given_again_to_the_ci": len(lines) - sum(len(found) for found in ids.values()),
        }


def _answers(stack: Stack) -> bool:
    try:
        return bool(stack.status())
    except (OSError, ValueError):
        return False


def _idle(stack: Stack) -> bool:
    queues = stack.status()["queues"]
    return not any(queues[name] for name in ("outbox", "inbox", "answers"))


def _counted(stack: Stack, table: str) -> Counter[str]:
    """How often each message's row was written."""
    with sqlite3.connect(stack.home / "mesh.db") as db:
        rows = db.execute("SELECT key FROM counted WHERE tbl = ?", (table,)).fetchall()
    db.close()
    return Counter(key[-16:].hex() for (key,) in rows)


ZERO = ("refused", "lost", "doubled_inbox_rows", "doubled_outbox_rows", "keys_with_two_messages")


def main() -> int:
    parser = argparse.ArgumentParser(prog="kills", description=__doc__)
    parser.add_argument("--cycles", type=int, default=200, help="how many kills (default 200)")
    parser.add_argument("--rng-seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=100.0, help="messages per second")
    parser.add_argument("--batch", type=int, default=200, help="cycles between two checks")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    Stack.quick = True
    done, total, began = 0, Counter[str](), time.monotonic()
    while done < options.cycles:
        count = min(options.batch, options.cycles - done)
        with tempfile.TemporaryDirectory() as folder, a_mesh(Path(folder)) as mesh:
            cycles = Cycles(mesh, options.rng_seed + done, options.rate)
            cycles.run(count)
            found = cycles.settle()
        done += count
        total.update({key: value for key, value in found.items() if isinstance(value, int)})
        shown = dict(total) | {"seconds": round(time.monotonic() - began)}
        print(json.dumps(shown), flush=True)
        if any(found[name] for name in ZERO):
            print(json.dumps({"broken": found}), flush=True)
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.SubprocessError as error:
        sys.exit(str(error))
