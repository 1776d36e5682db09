"""Stacks that are stopped under load: what they hold is finished, and others pass them by."""

import json
import threading

from tests.e2e.stacks import Connection, Mesh, Stack, wait_until
from tests.e2e.steady import Steady


def diamond(mesh: Mesh) -> list[Stack]:
    """a - b - c and a - d - c; each starts again under the address that it has now."""
    a = mesh.private("a").start()
    b, d = mesh.private("b", a).start(), mesh.private("d", a).start()
    c = mesh.private("c", b, d).start()
    mesh.wait_all_see([a, b, c, d])
    for stack in (a, b, c, d):
        words = [stack.seed if word == "127.0.0.1:0" else word for word in stack.run_arguments]
        stack.run_arguments = tuple(words)
    return [a, b, c, d]


def relay_of(a: Stack, target: str) -> str:
    """Which stack a message to `target` passes."""
    sent = a.cli("send", target, "which way?", "--json")
    assert sent.code == 0, sent
    return str(json.loads(sent.out)["path"][1])


def restart(mesh: Mesh, stack: Stack) -> None:
    """Stop it by SIGTERM, start it, and wait until it is linked again."""
    assert stack.stop() == 0
    stack.start()
    mesh.wait_all_see(list(mesh.stacks.values()))


def test_restarting_one_relay_after_the_other_loses_doubles_and_delays_nothing(mesh: Mesh) -> None:
    a, b, c, d = diamond(mesh)
    kept = c.start_keeper("keep")
    wait_until("keep@c on a", lambda: "keep@c" in a.cis(), within_s=5)
    first = mesh.stacks[relay_of(a, "keep@c")]
    flow = Steady(a, "keep@c", rate=200, total=2400)
    flow.wait_for(0.15)
    restart(mesh, first)
    restart(mesh, d if first is b else b)
    assert flow.answered < flow.total, "both were restarted under load"
    flow.finish()
    lost, doubled = flow.lost_and_doubled(kept)
    median_s, worst_s = flow.at(0.5), flow.at(1.0)
    print(
        f"two relays restarted under 200/s: {lost} lost, {doubled} doubled, errors {flow.errors},"
        f" median {median_s * 1000:.1f} ms, p99 {flow.at(0.99) * 1000:.1f}, {worst_s * 1000:.0f} at"
        " worst"
    )
    assert (lost, doubled, flow.errors) == (0, 0, {})
    assert worst_s - median_s < 0.5


def test_restarting_the_destination_loses_and_doubles_nothing_that_was_accepted(mesh: Mesh) -> None:
    a, b = mesh.chain("ab")
    b.run_arguments = tuple(b.seed if w == "127.0.0.1:0" else w for w in b.run_arguments)
    kept = b.start_keeper("keep")
    wait_until("keep@b on a", lambda: "keep@b" in a.cis(), within_s=5)
    flow = Steady(a, "keep@b", rate=100, total=600, durable=True)
    flow.wait_for(0.2)
    restart(mesh, b)
    flow.finish()
    bodies = lambda: len(set(kept.read_text().splitlines()))  # noqa: E731
    wait_until("all are there", lambda: bodies() >= flow.total, within_s=20)
    lost, doubled = flow.lost_and_doubled(kept)
    print(f"destination restarted under 100/s accepted: {lost} lost, {doubled} doubled")
    assert (lost, doubled, flow.errors) == (0, 0, {})


def slow_ci(stack: Stack) -> Connection:
    """A CI `slow` whose answers the test gives."""
    stream = stack.connect()
    stream.say(id=0, method="register", params={"name": "slow", "type": "x"})
    assert "result" in stream.hear()
    return stream


def test_a_stack_that_leaves_says_so_finishes_what_it_has_and_takes_nothing_new(
    mesh: Mesh,
) -> None:
    a, b, _c, _d = diamond(mesh)
    with slow_ci(b) as ci, a.connect() as caller:
        wait_until("slow@b on a", lambda: "slow@b" in a.cis(), within_s=5)
        caller.say(id=1, method="send", params={"to": "slow@b", "body": "take your time"})
        asked = ci.hear()
        ended: list[int] = []
        leaving = threading.Thread(
            target=lambda: ended.append(b.cli("leave", "--timeout", "20").code), daemon=True
        )
        leaving.start()
        wait_until("a hears of it", lambda: a.stacks()["b"]["draining"], within_s=5, every_s=0.01)
        assert a.stacks()["b"]["state"] == "up" and b.status()["draining"]
        assert "about to leave" in a.rpc("explain", name="b")["why"]
        assert "deliveries 1" in b.stacks()["b"]["why"]
        assert "up, draining" in a.cli("stacks").out and "draining" in b.cli("status").out
        refused = a.cli("send", "slow@b", "one more")
        assert refused.code == 5 and "is leaving the mesh" in refused.err, refused
        ci.say(id=asked["id"], result={"body": "finished"})
        assert caller.hear()["result"]["body"] == "finished"
        leaving.join(20)
    assert ended == [0]
    assert b.process is not None and b.process.wait(10) == 0
    wait_until("a sees that b left", lambda: a.stacks()["b"]["state"] == "left", within_s=5)
