"""A stack that is killed or leaves, and what the others say of it."""

from __future__ import annotations

import signal
import subprocess
import time

from tests.e2e.stacks import COMMAND, Mesh, Stack, wait_until


def watching(stack: Stack) -> subprocess.Popen[str]:
    """A `watch` for people that has begun to watch."""
    process = subprocess.Popen(
        [*COMMAND, "watch", "--kind", "stack", "--kind", "link"],
        env=stack.environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    stack.children.append(process)  # type: ignore[arg-type]
    return process


def state(stack: Stack, name: str) -> str:
    return str(stack.stacks()[name]["state"])


def test_explain_tells_why_a_killed_stack_is_unreachable_and_what_changed_before(
    mesh: Mesh,
) -> None:
    a, b, c = mesh.chain("abc")
    d = mesh.private("d", b, c).start()
    mesh.wait_all_see([a, b, c, d])
    c.rpc("register", name="numa", type="x", persist=True)
    wait_until("numa@c on a", lambda: "numa@c" in a.cis(), within_s=5)
    wait_until("converged", lambda: a.status()["converged"], within_s=10)
    assert "registry      converged" in a.cli("status").out
    (before,) = a.cli("explain", "c", "--json").lines()
    newest = before["changes"][0]
    assert "ci/numa" in newest["keys"] and newest["from"] == "b"
    assert 0 <= newest["latency_ms"] < 5000
    assert newest["evidence"] == "signed with key epoch 0"
    assert before["observers"] == 2

    c.kill()
    killed = time.monotonic()
    wait_until("c unreachable on a", lambda: state(a, "c") == "unreachable", within_s=6)
    (after,) = a.cli("explain", "c", "--json").lines()
    assert "Of its 2 neighbours, b and d withdrew their links" in after["why"]
    lost = {link["stack"]: link for link in after["links"]}
    for name in "bd":
        assert lost[name]["lost"] == "withdrawn" and lost[name]["one_sided"]
        assert lost[name]["lost_s"] <= time.monotonic() - killed
    assert after["signed"] | {"age_s": 0, "heard_s": 0} == before["signed"] | {
        "age_s": 0, "heard_s": 0,
    }  # fmt: skip
    assert a.stacks()["c"]["why"].startswith("No path leads there.")

    (of_b,) = b.cli("explain", "c", "--json").lines()
    assert "The link of this stack to it ended" in of_b["why"]
    for_people = a.cli("explain", "c")
    assert for_people.out.splitlines()[0] == "c is unreachable."
    assert "withdrawn" in for_people.out and "ci/numa" in for_people.out


def test_a_stack_that_leaves_says_so_itself(mesh: Mesh) -> None:
    a, b = mesh.chain("ab")
    assert b.stop() == 0
    wait_until("b left", lambda: state(a, "b") == "left", within_s=3)
    (shown,) = a.cli("explain", "b", "--json").lines()
    assert shown["why"].startswith("It said itself ") and shown["signed"]["status"] == "left"
    assert shown["changes"][0]["kind"] == "left"


def test_watch_reads_as_sentences_with_names(mesh: Mesh) -> None:
    a, b = mesh.chain("ab")
    process = watching(a)
    assert process.stdout is not None
    # Whoever watches is told of what happens from then on: let it happen until it is.
    time_limit = time.monotonic() + 20
    lines: list[str] = []
    b.kill()
    while not any("stack_unreachable" in line for line in lines):
        assert time.monotonic() < time_limit, lines
        lines.append(process.stdout.readline())
    assert any("b is unreachable; `tektonmesh explain b` says why." in line for line in lines)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)
