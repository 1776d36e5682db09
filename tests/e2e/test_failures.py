"""Stacks, relays and CIs that die, leave or come back, on real processes."""

import json
import signal
import threading
import time

from tests.e2e.stacks import Mesh, Stack, wait_until


class Flow:
    """Requests at a steady rate from one connection; every request gets one typed outcome."""

    def __init__(self, stack: Stack, target: str, rate: float, seconds: float) -> None:
        self.target, self.rate, self.total = target, rate, int(rate * seconds)
        self.outcomes: dict[int, str] = {}
        self.answered_at: list[float] = []
        self.stream = stack.connect()
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self.send, self.read)]
        for thread in self.threads:
            thread.start()

    def send(self) -> None:
        began = time.monotonic()
        tick = threading.Event()
        for number in range(self.total):
            tick.wait(max(0.0, began + number / self.rate - time.monotonic()))
            params = {"to": self.target, "body": f"m{number}", "timeout_s": 10}
            self.stream.say(id=number, method="send", params=params)

    def read(self) -> None:
        while len(self.outcomes) < self.total:
            answer = self.stream.hear()
            self.answered_at.append(time.monotonic())
            if "result" in answer:
                assert answer["result"]["body"] == f"m{answer['id']}"
                self.outcomes[answer["id"]] = "ok"
            else:
                self.outcomes[answer["id"]] = answer["error"]["data"]["code"]

    def finish(self) -> dict[str, int]:
        for thread in self.threads:
            thread.join(30)
        self.stream.close()
        counts: dict[str, int] = {}
        for outcome in self.outcomes.values():
            counts[outcome] = counts.get(outcome, 0) + 1
        return counts

    def gap(self) -> float:
        """The longest time without an answer, in seconds."""
        return max(b - a for a, b in zip(self.answered_at, self.answered_at[1:], strict=False))


def test_a_killed_relay_loses_no_request_without_a_typed_answer(mesh: Mesh) -> None:
    a = mesh.private("a").start()
    relays = [mesh.private("b1", a).start(), mesh.private("b2", a).start()]
    c = mesh.private("c", *relays).start()
    mesh.wait_all_see([a, *relays, c])
    c.start_echo("echo")
    wait_until("echo@c on a", lambda: "echo@c" in a.cis(), within_s=5)
    used = json.loads(a.cli("send", "echo@c", "x", "--json").out)["path"][1]
    flow = Flow(a, "echo@c", rate=200, seconds=4)
    wait_until("the flow runs", lambda: len(flow.outcomes) > 200, within_s=10)
    mesh.stacks[used].kill()
    counts = flow.finish()
    print(f"relay {used} killed: outcomes {counts}, longest gap {flow.gap() * 1000:.0f} ms")
    assert sum(counts.values()) == flow.total
    assert counts == {"ok": flow.total}, "another path was there all the time"


def test_a_ci_that_stops_heartbeating_leaves_every_replica(mesh: Mesh) -> None:
    chain = mesh.chain("abc")
    chain[0].rpc("register", name="ghost", type="x", lease_s=1.0, endpoint="http://127.0.0.1:9")
    for stack in chain:
        wait_until("ghost@a", lambda stack=stack: "ghost@a" in stack.cis(), within_s=5)
    for stack in chain:
        gone = lambda stack=stack: "ghost@a" not in stack.cis()  # noqa: E731
        wait_until(f"ghost@a gone on {stack.name}", gone, within_s=5)


def test_a_stack_killed_with_9_is_unreachable_everywhere_within_six_seconds(mesh: Mesh) -> None:
    chain = mesh.chain("abcd")
    chain[3].rpc("register", name="numa", type="x", persist=True)
    wait_until("numa@d on a", lambda: "numa@d" in chain[0].cis(), within_s=5)
    chain[3].kill()
    killed = time.monotonic()
    for stack in chain[:3]:
        state = lambda stack=stack: stack.stacks()["d"]["state"] == "unreachable"  # noqa: E731
        wait_until(f"d unreachable on {stack.name}", state, within_s=6)
        row = stack.cis().get("numa@d")
        assert row is None or row["state"] == "unreachable"
    print(f"unreachable everywhere after {time.monotonic() - killed:.2f} s")
    refused = chain[0].cli("send", "numa@d", "hi", "--timeout", "3")
    assert refused.code == 5, refused

    restarted = time.monotonic()
    chain[3].run_arguments = tuple(
        word if word != "127.0.0.1:0" else f"127.0.0.1:{chain[3].port}"
        for word in chain[3].run_arguments
    )
    chain[3].start()
    for stack in chain[:3]:
        up = lambda stack=stack: (  # noqa: E731
            stack.stacks()["d"]["state"] == "up" and "numa@d" in stack.cis()
        )
        wait_until(f"d back on {stack.name}", up, within_s=6)
    took = time.monotonic() - restarted
    print(f"d is back with its CI everywhere {took:.2f} s after its start")
    assert took < 3.5


def test_a_frozen_stack_is_unreachable_everywhere_within_six_seconds(mesh: Mesh) -> None:
    chain = mesh.chain("abcd")
    chain[3].signal(signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        for stack in chain[:3]:
            state = lambda stack=stack: stack.stacks()["d"]["state"] == "unreachable"  # noqa: E731
            wait_until(f"d unreachable on {stack.name}", state, within_s=6)
        print(f"frozen: unreachable everywhere after {time.monotonic() - frozen:.2f} s")
    finally:
        chain[3].signal(signal.SIGCONT)
    mesh.wait_all_see(chain)


def test_sigterm_is_seen_as_left_everywhere_within_a_second(mesh: Mesh) -> None:
    chain = mesh.chain("abcd")
    process = chain[3].process
    assert process is not None
    began = time.monotonic()
    process.terminate()
    for stack in chain[:3]:
        left = lambda stack=stack: stack.stacks()["d"]["state"] == "left"  # noqa: E731
        wait_until(f"d left on {stack.name}", left, within_s=1.5, every_s=0.01)
    took = time.monotonic() - began
    print(f"left everywhere after {took:.2f} s")
    assert took < 1.0
    assert process.wait(10) == 0
