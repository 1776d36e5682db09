"""A CI made of any command, over a daemon that is restarted, asked in parallel, and told to go."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

from tests.e2e.stacks import COMMAND, Mesh, Stack, wait_until


@contextlib.contextmanager
def attached(stack: Stack, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`attach` as a process of its own, registered when the block begins."""
    process = subprocess.Popen(
        [*COMMAND, "attach", name, *words], env=stack.environment(), stderr=subprocess.PIPE
    )
    try:
        assert process.stderr
        assert b"is attached" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_a_command_comes_back_by_itself_when_the_daemon_is_killed_and_started_again(
    mesh: Mesh,
) -> None:
    a = mesh.private("a").start()
    with attached(a, "shout", "--", "tr", "a-z", "A-Z"):
        assert a.cli("send", "shout", "hello").out == "HELLO"
        a.kill()
        a.start()
        wait_until("shout is back", lambda: a.cis()["shout@a"]["state"] == "up", within_s=10)
        assert a.cli("send", "shout", "again").out == "AGAIN"


def test_a_command_told_to_end_leaves_the_registry_at_once(mesh: Mesh) -> None:
    a = mesh.private("a").start()
    with attached(a, "shout", "--", "cat") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert a.cis() == {}


def test_messages_are_worked_on_in_parallel_when_asked_for(mesh: Mesh) -> None:
    a = mesh.private("a").start()
    # Each run waits until the other has begun: one at a time, neither would end.
    script = f"touch {mesh.folder}/run-$1; while [ ! -e {mesh.folder}/run-$2 ]; do sleep 0.02; done"
    both = ["sh", "-c", f'set -- $(cat); {script}; printf "%s done" $1']
    with attached(a, "pair", "--parallel", "2", "--", *both):
        results: dict[str, str] = {}

        def ask(text: str) -> None:
            results[text] = a.cli("send", "pair", text, "--timeout", "15").out

        threads = [threading.Thread(target=ask, args=(text,)) for text in ("1 2", "2 1")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert results == {"1 2": "1 done", "2 1": "2 done"}


def test_what_the_command_prints_is_seen_before_it_ends(mesh: Mesh) -> None:
    a = mesh.private("a").start()
    script = f"echo first; while [ ! -e {mesh.folder}/go ]; do sleep 0.02; done; echo last"
    with attached(a, "slow", "--", "sh", "-c", script):
        sender = subprocess.Popen(
            [*COMMAND, "send", "slow", "x"], env=a.environment(), stdout=subprocess.PIPE
        )
        assert sender.stdout
        assert sender.stdout.readline() == b"first\n"
        (mesh.folder / "go").touch()
        out, _err = sender.communicate(timeout=10)
        assert (out, sender.returncode) == (b"last\n", 0)


def test_a_message_that_nobody_waits_for_ends_its_command(mesh: Mesh) -> None:
    a = mesh.private("a").start()
    script = f"echo $$ > {mesh.folder}/pid; exec sleep 600"
    with attached(a, "sleeper", "--", "sh", "-c", script):
        result = a.cli("send", "sleeper", "x", "--timeout", "0.5")
        assert result.code == 5
        pid = int((mesh.folder / "pid").read_text())
        began = time.monotonic()
        wait_until("the command ended", lambda: not _runs(pid), within_s=5)
        assert time.monotonic() - began < 5


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_bytes_that_are_not_text_come_through_a_pipe_unchanged(mesh: Mesh) -> None:
    a = mesh.private("a").start()
    with attached(a, "echo", "--", "cat"):
        body = bytes(range(256)) * 4
        done = subprocess.run(
            [*COMMAND, "send", "echo"], env=a.environment(), input=body,
            capture_output=True, timeout=30,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, body)
