"""One message of an attached command: run it, stream its stdout, and judge how it ended.

It decides what the command sees (body on stdin, two environment variables) and what counts as a
failure. The command is killed when nobody waits for its answer any more.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

from tektonmesh.errors import MeshError

if TYPE_CHECKING:
    from tektonmesh.api.replies_sync import Message

_READ_SIZE = 65_536
_LOOK_S = 0.1
"""How often a silent command's message is looked at: has it been cancelled?"""
_LAST_LINE_MAX = 500


def run_command(words: Sequence[str], message: Message) -> Iterator[bytes]:
    """Yield what the command prints, as it prints it. Raises MeshError (`ci_failed`) with the last
    line of its stderr when it exits with something other than 0."""
    environment = os.environ | {
        "TEKTONMESH_FROM": message.sender,
        "TEKTONMESH_ID": message.id,
        "TEKTONMESH_TO": message.to,
    }
    given = message.file.open("rb") if message.file is not None else None
    process = subprocess.Popen(
        words,
        stdin=given if given is not None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout and process.stderr
    last_words = _LastLine(process.stderr)
    feeder = threading.Thread(target=_feed, args=(process.stdin, given, message), daemon=True)
    feeder.start()
    try:
        while not message.cancelled.is_set():
            if not select.select([process.stdout], [], [], _LOOK_S)[0]:
                continue
            data = os.read(process.stdout.fileno(), _READ_SIZE)
            if not data:
                _judge(words[0], process.wait(), last_words)
                return
            yield data
    finally:
        _end(process)
        feeder.join()
        last_words.close()
        process.stdout.close()


def _feed(stdin: IO[bytes] | None, given: IO[bytes] | None, message: Message) -> None:
    """A command need not read its stdin; then the rest of the body is thrown away. A large body is
    its stdin (`given`), and needs no hand to feed it."""
    if given is not None:
        given.close()
        return
    assert stdin is not None
    try:
        with stdin:
            stdin.write(message.data)
    except BrokenPipeError:
        return


def _judge(name: str, code: int, last_words: _LastLine) -> None:
    if code == 0:
        return
    how = f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
    said = last_words.text()
    detail = f"{name} {how}: {said}" if said else f"{name} {how} and said nothing."
    raise MeshError(detail, code="ci_failed")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of an answered or cancelled message keeps running. The command leads a process
    group of its own, so its children go as well."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            return
        finally:
            process.wait()


class _LastLine:
    """Passes a command's stderr on to ours and remembers its last line."""

    def __init__(self, stderr: IO[bytes]) -> None:
        self._stderr = stderr
        self._line = b""
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def _pass_on(self) -> None:
        for line in self._stderr:
            self._line = line.strip() or self._line
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()

    def text(self) -> str:
        """The last line that was not empty. A child that keeps stderr open does not hold us up."""
        self._thread.join(_LOOK_S)
        return self._line.decode(errors="replace")[-_LAST_LINE_MAX:]

    def close(self) -> None:
        self._thread.join(_LOOK_S)
        if not self._thread.is_alive():
            self._stderr.close()
