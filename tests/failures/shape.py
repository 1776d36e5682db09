"""Four stacks `a - {b, c} - d` and `b - c`, whose links pass through a proxy and of which all but
`d` may be made faulty."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.e2e.keeper_ci import lines_of
from tests.e2e.stacks import Mesh, Stack, wait_until
from tests.e2e.test_durable import on_fixed_port
from tests.failures.chaos import Wire

FAULTY = Path(__file__).with_name("faulty_daemon.py")
GAUGES = (
    *("forwarding_bytes", "requests", "deliveries", "reply_bytes"),
    *("outbox", "outbox_bytes", "inbox", "answers"),
)
"""What is empty in every daemon when nothing is under way."""

LINKS = {"a": ["b", "c"], "b": ["a", "c", "d"], "c": ["a", "b", "d"], "d": ["b", "c"]}


def make_faulty(stack: Stack, *more: str) -> Path:
    """Have a stack start with faults that can be planted; the file that names them."""
    file = stack.home.parent / f"{stack.name}.faults"
    file.write_text("")
    stack.program = [sys.executable, str(FAULTY), str(file), *more]
    return file


class Diamond:
    """`a` and `d` with two relays between them. `keeper@d` writes down what it is handed."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.wires: dict[tuple[str, str], Wire] = {}
        self.faults: dict[str, Path] = {}
        self.a = mesh.private("a")
        self.b, self.c, self.d = (mesh.private(name) for name in "bcd")
        self.relays = {"b": self.b, "c": self.c}
        self.stacks = [self.a, self.b, self.c, self.d]
        for stack in self.stacks[:3]:
            self.faults[stack.name] = make_faulty(stack)
        for stack in self.stacks:
            for other in LINKS[stack.name]:
                if self.mesh.stacks[other].port:  # it runs already
                    self.join(stack, self.mesh.stacks[other])
            on_fixed_port(stack.start())
        self.kept = self.d.start_keeper("keeper")
        self.settle()

    def join(self, one: Stack, other: Stack) -> None:
        """`one` will dial `other`, through a wire."""
        wire = Wire(other.port)
        self.wires[one.name, other.name] = self.wires[other.name, one.name] = wire
        one.run_arguments = (*one.run_arguments, "--seed", wire.seed)

    def settle(self) -> None:
        """Until every link is up, everybody sees everybody, and nothing is under way."""
        for stack in self.stacks:
            wait_until(f"links of {stack.name}", lambda s=stack: linked(s), within_s=20)
            wait_until(f"{stack.name} idle", lambda s=stack: Idle(s), within_s=20)
        self.mesh.wait_all_see(self.stacks)
        wait_until("keeper@d on a", lambda: "keeper@d" in self.a.cis(), within_s=10)

    def heal(self) -> None:
        for wire in self.wires.values():
            wire.heal()
        for name in self.faults:
            self.plant(name)
        self.settle()

    def close(self) -> None:
        for wire in dict.fromkeys(self.wires.values()):
            wire.close()

    def plant(self, relay: str, *faults: str) -> None:
        """These faults from now on, and no others."""
        self.faults[relay].write_text("\n".join(faults))

    def used(self) -> str:
        """The relay that messages of `a` pass now."""
        return str(self.a.rpc("send", to="keeper@d", body="which way")["path"][1])

    def wires_of(self, relay: str) -> list[Wire]:
        return [self.wires[relay, other] for other in LINKS[relay]]

    def handed_out(self) -> dict[str, int]:
        """How often the CI was handed each body; a body is of one message here."""
        counts: dict[str, int] = {}
        for line in lines_of(self.kept):
            counts[line["body"]] = counts.get(line["body"], 0) + 1
        return counts


def linked(stack: Stack) -> bool:
    """Whether all its links are up."""
    links = stack.status()["links"]
    return sorted(link["stack"] for link in links if link["state"] == "up") == LINKS[stack.name]


class Idle:
    """True when nothing is under way at a stack; shows what is."""

    def __init__(self, stack: Stack) -> None:
        queues = stack.status()["queues"]
        self.busy = {name: queues[name] for name in GAUGES if queues[name]}

    def __bool__(self) -> bool:
        return not self.busy

    def __repr__(self) -> str:
        return str(self.busy)


class Flow:
    """Messages at a steady rate over one connection, each with a body of its own; `latencies_s` by
    the number of the message."""

    _flows = itertools.count(1)

    def __init__(self, stack: Stack, target: str, rate: float, seconds: float, **more: Any) -> None:
        self.tag = f"flow {next(self._flows)} "
        self.target, self.rate, self.total, self.more = target, rate, int(rate * seconds), more
        self.sent_at: list[float] = []
        self.latencies_s: dict[int, float] = {}
        self.outcomes: dict[int, str] = {}
        self.began = time.monotonic()
        self._stream = stack.connect()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._send, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        tick = threading.Event()
        for number in range(self.total):
            tick.wait(max(0.0, self.began + number / self.rate - time.monotonic()))
            self.sent_at.append(time.monotonic())
            params = {"to": self.target, "body": f"{self.tag}{number}", "timeout_s": 20}
            self._stream.say(id=number, method="send", params=params | self.more)

    def _read(self) -> None:
        while len(self.outcomes) < self.total:
            answer = self._stream.hear()
            number = answer["id"]
            self.latencies_s[number] = time.monotonic() - self.sent_at[number]
            if "result" in answer:
                self.outcomes[number] = "ok"
            else:
                self.outcomes[number] = answer["error"]["data"]["code"]

    def at(self, number: int) -> None:
        """Wait until so many were sent."""
        wait_until(
            f"{number} sent", lambda: len(self.sent_at) >= number, within_s=30, every_s=0.002
        )

    def finish(self) -> dict[str, int]:
        for thread in self._threads:
            thread.join(60)
        self._stream.close()
        counts: dict[str, int] = {}
        for outcome in self.outcomes.values():
            counts[outcome] = counts.get(outcome, 0) + 1
        return counts

    def p99_ms(self, first: int = 0, last: int | None = None) -> float:
        some = sorted(self.latencies_s[n] for n in range(first, last or self.total))
        return round(some[int(len(some) * 0.99)] * 1000.0, 1)

    def bodies(self) -> list[str]:
        return [f"{self.tag}{number}" for number in range(self.total)]


def shown(**figures: Any) -> None:
    """One line of what was measured (`pytest -s`, ./scripts/failures)."""
    print(json.dumps(figures))
