"""A CI that takes 1 KiB a second, beside a hundred flows to another one of its stack."""

from __future__ import annotations

import contextlib
import heapq
import selectors
import threading
import time
from collections.abc import Iterator

from tests.e2e.stacks import Connection, Mesh, Stack, wait_until

FLOWS = 100
EVERY_S = 0.5
WINDOWS, WINDOW_S = 3, 3.0
OPEN_MAX, FILL = 1000, 1600
"""What one CI may have open, and what is sent to it at first."""
NOISE_S = 0.002
"""What the p99 of two quiet windows on one machine differ by anyway."""


class Flows:
    """Callers with a connection each, which all ask one CI every half second."""

    def __init__(self, stack: Stack, target: str) -> None:
        self.took_s: list[float] = []
        self.failed = 0
        self._target = target
        self._streams = [stack.connect() for _ in range(FLOWS)]
        self._asked_at: dict[int, float] = {}
        self._over = threading.Event()
        acts = (self._ask, self._hear)
        self._threads = [threading.Thread(target=act, daemon=True) for act in acts]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        began = time.monotonic()
        due = [(began + EVERY_S * n / FLOWS, n) for n in range(FLOWS)]
        heapq.heapify(due)
        number = 0
        while not self._over.wait(max(0.0, due[0][0] - time.monotonic())):
            at, flow = due[0]
            heapq.heapreplace(due, (at + EVERY_S, flow))
            number += 1
            self._asked_at[number] = time.monotonic()
            asked = {"to": self._target, "body": "x" * 1000, "timeout_s": 20}
            self._streams[flow].say(id=number, method="send", params=asked)

    def _hear(self) -> None:
        with selectors.DefaultSelector() as ready:
            for stream in self._streams:
                ready.register(stream.socket, selectors.EVENT_READ, stream)
            while not self._over.is_set():
                for key, _mask in ready.select(0.1):
                    answer = key.data.hear()
                    self.took_s.append(time.monotonic() - self._asked_at[answer["id"]])
                    self.failed += "error" in answer

    def p99_s(self) -> float:
        """Of what is answered within a window from now on."""
        self.took_s = []
        threading.Event().wait(WINDOW_S)
        took = sorted(self.took_s)
        assert len(took) > 0.8 * FLOWS * WINDOW_S / EVERY_S, f"only {len(took)} answers"
        return took[int(len(took) * 0.99)]

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)
        for stream in self._streams:
            stream.close()


@contextlib.contextmanager
def slow_ci(stack: Stack) -> Iterator[list[int]]:
    """A CI that reads 1 KiB a second of what it is given, and never answers in time; the list
    grows by one for each KiB."""
    read: list[int] = []
    over = threading.Event()
    with stack.connect() as stream:
        stream.say(id=0, method="register", params={"name": "slow", "type": "x"})
        assert "result" in stream.hear()

        def sip() -> None:
            while not over.wait(1.0):
                read.append(len(stream.socket.recv(1024)))

        sipping = threading.Thread(target=sip, daemon=True)
        sipping.start()
        yield read
        over.set()
        sipping.join(10)


def press(stream: Connection, over: threading.Event) -> None:
    """Messages for the slow CI, in both ways to send them: more than it may have open at once, and
    then ten times what it takes. (More would measure the work of refusing them.)"""
    number = 0
    while not over.wait(0.002 if number < FILL else 0.4):
        number += 1
        asked = {"to": "slow@b", "body": "y" * 4000, "timeout_s": 30}
        with contextlib.suppress(OSError):
            stream.say(id=number, method="send", params=asked | {"no_reply": number % 2 == 0})


def test_a_ci_of_1_kib_a_second_costs_a_hundred_flows_beside_it_nothing(mesh: Mesh) -> None:
    a, b = mesh.chain("ab")
    b.start_echo("echo")
    with slow_ci(b) as read, a.connect() as pressed:
        wait_until("both on a", lambda: {"echo@b", "slow@b"} <= set(a.cis()), within_s=5)
        flows = Flows(a, "echo@b")
        threading.Event().wait(1.0)
        calm = [flows.p99_s() for _ in range(WINDOWS)]
        over = threading.Event()
        pressing = threading.Thread(target=press, args=(pressed, over), daemon=True)
        pressing.start()
        open_at_b = lambda: b.status()["queues"]["deliveries"]  # noqa: E731
        wait_until("the slow CI is full", lambda: open_at_b() >= OPEN_MAX, within_s=30)
        threading.Event().wait(2.0)
        beside = [flows.p99_s() for _ in range(WINDOWS)]
        queues = {stack.name: stack.status()["queues"] for stack in (a, b)}
        over.set()
        pressing.join(10)
        flows.close()
    shown = [[round(one * 1000, 1) for one in row] for row in (calm, beside)]
    print(f"p99 of 100 flows: alone {shown[0]} ms, beside a CI of 1 KiB/s {shown[1]} ms")
    print(f"the slow one took {sum(read)} bytes; {queues}")
    assert flows.failed == 0
    assert min(beside) < 1.1 * min(calm) + NOISE_S
