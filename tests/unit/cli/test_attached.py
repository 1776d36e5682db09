"""What an attached command sees, and what becomes of how it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tektonmesh.api.replies_sync import Message
from tektonmesh.cli.attached import run_command
from tektonmesh.errors import MeshError


def message(body: bytes = b"hello") -> Message:
    return Message(
        delivery=1,
        id="0123abcd",
        sender="anna@west",
        to="numa@east",
        held=body,
        content_type="text/plain",
        deadline_s=5.0,
        attempt=1,
    )


def test_the_body_is_stdin_and_stdout_is_the_reply() -> None:
    assert b"".join(run_command(["cat"], message(b"\x00\xff bytes"))) == b"\x00\xff bytes"


def test_a_large_body_does_not_jam_the_pipes() -> None:
    body = b"x" * 1_000_000
    assert b"".join(run_command(["cat"], message(body))) == body


def test_a_command_need_not_read_its_stdin() -> None:
    assert b"".join(run_command(["echo", "done"], message(b"x" * 1_000_000))) == b"done\n"


def test_the_command_knows_sender_and_id() -> None:
    script = 'printf "%s %s %s" "$TEKTONMESH_FROM" "$TEKTONMESH_ID" "$TEKTONMESH_TO"'
    reply = b"".join(run_command(["sh", "-c", script], message()))
    assert reply == b"anna@west 0123abcd numa@east"


def test_what_is_printed_is_there_before_the_command_ends(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    parts = run_command(["sh", "-c", f"echo first; cat {gate}; echo last"], message())
    assert next(parts) == b"first\n"
    gate.write_bytes(b"between\n")
    assert b"".join(parts) == b"between\nlast\n"


def test_a_failure_is_the_last_line_of_stderr(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    script = "echo part; echo one >&2; echo the reason >&2; echo >&2; exit 3"
    parts = run_command(["sh", "-c", script], message())
    got: list[bytes] = []
    with pytest.raises(MeshError, match="sh exited with 3: the reason") as caught:
        got.extend(parts)
    assert got == [b"part\n"]
    assert caught.value.code.name == "ci_failed"


def test_a_failure_without_words_says_so() -> None:
    with pytest.raises(MeshError, match="exited with 1 and said nothing"):
        list(run_command(["false"], message()))


def test_a_command_ended_by_a_signal_failed() -> None:
    with pytest.raises(MeshError, match="ended by signal 9"):
        list(run_command(["sh", "-c", "kill -9 $$"], message()))


def test_a_cancelled_message_ends_its_command_and_what_that_started() -> None:
    request = message()
    parts = run_command(["sh", "-c", "echo begun; sleep 600 & wait"], request)
    assert next(parts) == b"begun\n"
    threading.Timer(0.05, request.cancelled.set).start()
    assert list(parts) == []


def test_a_reply_that_nobody_reads_further_ends_its_command() -> None:
    parts: Iterator[bytes] = run_command(["sh", "-c", "echo begun; sleep 600"], message())
    next(parts)
    assert hasattr(parts, "close")
    parts.close()


def test_a_large_body_is_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "x.in"
    path.write_bytes(b"line\n" * 200_000)
    shown = list(run_command(["wc", "-l"], replace(message(b""), file=path)))
    assert b"".join(shown).strip() == b"200000"
