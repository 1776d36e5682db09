"""What forwarding promises of durable messages when something fails, each by name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.keeper_ci import lines_of
from tests.e2e.stacks import Mesh, Stack, wait_until
from tests.e2e.test_durable import on_fixed_port, state_of


def pair(mesh: Mesh) -> tuple[Stack, Stack, Path]:
    """a and b, linked; `keeper@b` is known at a. The file in which it writes what it gets."""
    a, b = (on_fixed_port(stack) for stack in mesh.chain("ab"))
    kept = b.start_keeper("keeper")
    wait_until("keeper@b on a", lambda: "keeper@b" in a.cis(), within_s=5)
    return a, b, kept


def away(a: Stack, b: Stack) -> None:
    b.kill()
    wait_until("b away", lambda: a.stacks()["b"]["state"] == "unreachable", within_s=10)


def hand_over(stack: Stack, target: str, count: int) -> list[dict[str, Any]]:
    """The answers to so many durable messages over one connection, 500 at a time."""
    answers = []
    with stack.connect() as stream:
        for first in range(0, count, 500):
            numbers = range(first, min(count, first + 500))
            for number in numbers:
                params = {"to": target, "body": f"m{number}", "durable": True}
                stream.say(id=number, method="send", params=params)
            answers += [stream.hear() for _ in numbers]
    return answers


@pytest.mark.failure("drain-after-absence")
def test_ten_thousand_messages_for_an_offline_stack_begin_to_drain_within_a_second(
    mesh: Mesh,
) -> None:
    a, b, kept = pair(mesh)
    away(a, b)
    answers = hand_over(a, "keeper@b", 10_000)
    assert all(answer["result"]["accepted"] for answer in answers)
    refused = hand_over(a, "keeper@b", 1)[0]["error"]["data"]
    assert (refused["code"], refused["outcome"]) == ("busy", "released")
    assert refused["retry_after_s"] > 0
    assert a.status()["queues"]["outbox"] == 10_000
    b.start()
    wait_until("b up", lambda: a.stacks()["b"]["state"] == "up", within_s=15, every_s=0.01)
    back = time.monotonic()
    first = answers[0]["result"]["id"]
    drains = lambda: state_of(a, first) != "accepted"  # noqa: E731
    wait_until("a copy left", drains, within_s=10, every_s=0.005)
    took = time.monotonic() - back
    print(f"drain began {took:.3f} s after the return")
    assert took < 1.0
    wait_until("all answered", lambda: not a.status()["queues"]["outbox"], within_s=120)
    print(f"10,000 answered {time.monotonic() - back:.1f} s after the return")
    assert len({line["id"] for line in lines_of(kept)}) == len(lines_of(kept)) == 10_000


@pytest.mark.failure("key-across-a-restart")
def test_an_idempotency_key_used_again_after_a_restart_gets_what_became_of_the_first(
    mesh: Mesh,
) -> None:
    a, _b, kept = pair(mesh)
    asked = {"to": "keeper@b", "body": "once", "idempotency_key": "k1", "timeout_s": 20}
    first = a.rpc("send", **asked)
    assert first["body"] == "kept once"
    a.kill()
    a.start()
    again = a.rpc("send", **asked)
    assert (again["id"], again["body"]) == (first["id"], first["body"])
    with pytest.raises(AssertionError, match="conflict"):
        a.rpc("send", **(asked | {"body": "another"}))
    assert len(lines_of(kept)) == 1


def test_a_key_whose_message_was_under_way_when_the_origin_died_is_the_same_message_again(
    mesh: Mesh,
) -> None:
    a, b, kept = pair(mesh)
    away(a, b)
    asked = {"to": "keeper@b", "body": "once", "idempotency_key": "k1", "durable": True}
    first = a.rpc("send", **asked)
    a.kill()
    a.start()
    assert a.rpc("send", **asked)["id"] == first["id"]
    b.start()
    wait_until("answered", lambda: state_of(a, first["id"]) == "answered", within_s=20)
    assert [line["id"] for line in lines_of(kept)] == [first["id"]]


ORIGIN_POINTS = (("outbox", "put"), ("outnews", "put"), ("sent", "put"))
DESTINATION_POINTS = (("inbox", "put"), ("inbox", "delete"), ("taken", "put"))
DYING = Path(__file__).with_name("dying_daemon.py")


def send_until_dead(a: Stack, victim: Stack, key: str) -> list[dict[str, Any]]:
    """Messages until the victim has died at its point. What is told within a moment is one commit:
    of a message that is received and answered in one, the receipt is never written."""
    assert victim.process is not None
    sent: list[dict[str, Any]] = []
    while len(sent) < 10:
        mine = f"{key} {len(sent)}"
        sent.append({"to": "keeper@b", "body": mine, "idempotency_key": mine, "durable": True})
        with contextlib.suppress(OSError, ValueError):
            a.rpc("send", **sent[-1])
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert victim.process.wait(5) == -signal.SIGKILL, key
            return sent
    raise AssertionError(f"still alive after {len(sent)} messages: {key}")


@pytest.mark.parametrize(("role", "points"), [(0, ORIGIN_POINTS), (1, DESTINATION_POINTS)])
@pytest.mark.hostile("killed-after-accepted")
@pytest.mark.failure("kill-at-commit-points")
def test_kill_9_at_each_commit_point_loses_and_doubles_nothing(
    mesh: Mesh, role: int, points: tuple[tuple[str, str], ...]
) -> None:
    a, b, kept = pair(mesh)
    victim = (a, b)[role]
    healthy = victim.program
    ids = []
    for when in ("before", "after"):
        for table, act in points:
            victim.kill()
            victim.program = [sys.executable, str(DYING), when, table, act]
            victim.start()
            key = f"{when} {table} {act}"
            sent = send_until_dead(a, victim, key)
            victim.program = healthy
            victim.start()
            for asked in sent:
                msg_id = a.rpc("send", **asked)["id"]
                wait_until(key, lambda i=msg_id: state_of(a, i) == "answered", within_s=20)
                ids.append(msg_id)
    first_attempts = [line["id"] for line in lines_of(kept) if not line["attempt"]]
    assert sorted({line["id"] for line in lines_of(kept)}) == sorted(ids)
    again = len(lines_of(kept)) - len(ids)
    print(f"{len(ids)} points, {again} given to the CI again, {len(first_attempts)} first attempts")
    assert not a.status()["queues"]["outbox"] and not b.status()["queues"]["inbox"]


@pytest.mark.failure("disk-full")
def test_a_full_disk_refuses_with_a_type_and_loses_nothing_that_was_accepted(
    mesh: Mesh, tmp_path: Path
) -> None:
    a, b = mesh.private("a"), mesh.private("b")
    a.home.mkdir(mode=0o700)
    mount_small(a.home)
    try:
        a.start()
        b.run_arguments = (*b.run_arguments, "--seed", a.seed)
        b.start()
        mesh.wait_all_see([a, b])
        kept = b.start_keeper("keeper")
        wait_until("keeper@b on a", lambda: "keeper@b" in a.cis(), within_s=5)
        on_fixed_port(a), on_fixed_port(b)
        away(a, b)
        accepted, refused = fill(a)
        assert accepted
        assert (refused["code"], refused["retry"]) == ("store", "later")
        assert refused["retry_after_s"] > 0
        (a.home / "ballast").unlink(missing_ok=True)
        b.start()
        for msg_id in accepted:
            wait_until("answered", lambda i=msg_id: state_of(a, i) == "answered", within_s=60)
        assert {line["id"] for line in lines_of(kept)} == set(accepted)
        assert len(lines_of(kept)) == len(accepted)
    finally:
        a.close()
        subprocess.run(["umount", str(a.home)], check=True)


def mount_small(folder: Path) -> None:
    """A file system of 2 MiB; skips, with the reason, where none can be mounted."""
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and os.environ.get("CI"):
        pytest.fail(f"a small file system cannot be mounted: {done.stderr}")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")


def fill(stack: Stack) -> tuple[list[str], dict[str, Any]]:
    """Hand over messages until the disk refuses one. The last half megabyte is taken by a file of
    somebody else, which can be removed again."""
    accepted: list[str] = []
    (stack.home / "ballast").write_bytes(b"x" * 600_000)
    with stack.connect() as stream:
        for number in range(100):
            params = {"to": "keeper@b", "body": f"{number} " + "x" * 50_000, "durable": True}
            stream.say(id=number, method="send", params=params)
            answer = stream.hear()
            if "error" in answer:
                return accepted, answer["error"]["data"]
            accepted.append(answer["result"]["id"])
    raise AssertionError("the disk never refused")
