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


def wait_for_state(
    stacks: list[Stack], state: str, *, since: float, within_s: float, ci: str = ""
) -> float:
    """Seconds on one clock from `since` until every stack shows d in `state` (and `ci`). Whoever
    shows it later than `within_s` fails the test, however late it was asked."""

    def shows(stack: Stack) -> bool:
        return stack.stacks()["d"]["state"] == state and (not ci or ci in stack.cis())

    for stack in stacks:
        left_s = since + within_s - time.monotonic()
        what = f"d {state} on {stack.name}"
        wait_until(what, lambda stack=stack: shows(stack), within_s=left_s, every_s=0.01)
    took = time.monotonic() - since
    assert took < within_s, f"d {state} everywhere only after {took:.2f} s"
    return took


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
    took = wait_for_state(chain[:3], "unreachable", since=killed, within_s=6.0)
    print(f"unreachable everywhere after {took:.2f} s")
    for stack in chain[:3]:
        row = stack.cis().get("numa@d")
        assert row is None or row["state"] == "unreachable"
    refused = chain[0].cli("send", "numa@d", "hi", "--timeout", "3")
    assert refused.code == 5, refused

    restarted = time.monotonic()
    chain[3].run_arguments = tuple(
        word if word != "127.0.0.1:0" else f"127.0.0.1:{chain[3].port}"
        for word in chain[3].run_arguments
    )
    chain[3].start()
    took = wait_for_state(chain[:3], "up", since=restarted, within_s=3.0, ci="numa@d")
    print(f"d is back with its CI everywhere {took:.2f} s after its start")


def test_a_frozen_stack_is_unreachable_everywhere_within_six_seconds(mesh: Mesh) -> None:
    chain = mesh.chain("abcd")
    chain[3].signal(signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        took = wait_for_state(chain[:3], "unreachable", since=frozen, within_s=6.0)
        print(f"frozen: unreachable everywhere after {took:.2f} s")
    finally:
        chain[3].signal(signal.SIGCONT)
    mesh.wait_all_see(chain)


def test_sigterm_is_seen_as_left_everywhere_within_a_second(mesh: Mesh) -> None:
    chain = mesh.chain("abcd")
    process = chain[3].process
    assert process is not None
    began = time.monotonic()
    process.terminate()
    took = wait_for_state(chain[:3], "left", since=began, within_s=1.0)
    print(f"left everywhere after {took:.2f} s")
    assert process.wait(10) == 0
