"""Quick starts of real processes: forked from one that has imported everything already.

Nine tenths of the CPU of a start are imports, which the suite would pay for thousands of times.
What is forked is a process like any other: its own pid, memory, signals and end. Whoever measures
a start or memory starts programs the ordinary way (`Stack.quick`).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import json
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REQUEST_MAX = 1 << 17
WORD = struct.Struct("!i")
CLONE_NEWNET = 0x40000000
MODULE = ["-m", "tektonmesh"]


class Forked:
    """A process of the nursery, with the face of `subprocess.Popen` as far as tests need it."""

    stdout = None

    def __init__(self, report: socket.socket) -> None:
        self._report = report
        (self.pid,) = WORD.unpack(report.recv(WORD.size))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended. Raises TimeoutExpired."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
            (status,) = WORD.unpack(self._report.recv(WORD.size))
            self.returncode = os.waitstatus_to_exitcode(status)
            self._report.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Nursery:
    """The process that forks, as seen from the tests."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.e2e.nursery", str(other.fileno())],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                cwd=Path(__file__).parents[2],
            )
        atexit.register(self.close)

    def close(self) -> None:
        """It ends, and with it whatever it forked and still runs."""
        self._socket.close()
        self._process.wait(10)

    def start(
        self,
        words: Sequence[str],
        environment: dict[str, str],
        files: tuple[int, int, int],
        netns: str | None = None,
    ) -> Forked:
        """Run `python WORDS` (a module of `MODULE`, or a file) with these standard files."""
        request = {
            "words": list(words),
            "environment": environment,
            "cwd": str(Path.cwd()),
            "netns": netns,
        }
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            data = json.dumps(request).encode()
            socket.send_fds(self._socket, [data], [*files, there.fileno()])
        return Forked(here)

    def run(
        self,
        words: Sequence[str],
        environment: dict[str, str],
        text: str | None,
        within_s: float,
        netns: str | None = None,
    ) -> tuple[int, str, str]:
        """Run to the end; the exit code, and what was printed. Raises TimeoutExpired."""
        with contextlib.ExitStack() as open_files:
            given, out, err = (open_files.enter_context(tempfile.TemporaryFile()) for _ in range(3))
            given.write((text or "").encode())
            given.seek(0)
            process = self.start(
                words, environment, (given.fileno(), out.fileno(), err.fileno()), netns
            )
            try:
                code = process.wait(within_s)
            finally:
                process.kill()
            out.seek(0)
            err.seek(0)
            return code, out.read().decode(), err.read().decode()


@functools.cache
def nursery() -> Nursery:
    """The nursery of this process."""
    return Nursery()


# --- in the process that forks -------------------------------------------------------------------


def _import_everything() -> None:
    import tektonmesh

    for module in pkgutil.walk_packages(tektonmesh.__path__, "tektonmesh."):
        if not module.name.endswith("__main__"):
            __import__(module.name)
    gc.collect()
    gc.freeze()  # what is shared stays shared


def _serve(control: socket.socket) -> tuple[dict[str, object], list[int]]:
    """Fork until the tests are gone. Returns in each new process, with what it was asked for."""
    looking = selectors.DefaultSelector()
    looking.register(control, selectors.EVENT_READ)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for key, _events in looking.select():
            if key.fd == control.fileno():
                data, files, _flags, _address = socket.recv_fds(control, REQUEST_MAX, 4)
                if not data:
                    for pid, _report in running.values():
                        os.kill(pid, signal.SIGKILL)
                    os._exit(0)
                *standard, report = files
                pid = os.fork()
                if not pid:
                    looking.close()
                    control.close()
                    for descriptor in [*running, *(other for _, other in running.values()), report]:
                        os.close(descriptor)
                    return json.loads(data), standard
                for descriptor in standard:
                    os.close(descriptor)
                os.write(report, WORD.pack(pid))
                running[watch := os.pidfd_open(pid)] = pid, report
                looking.register(watch, selectors.EVENT_READ)
            else:
                pid, report = running.pop(key.fd)
                looking.unregister(key.fd)
                _pid, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):  # nobody waits for it
                    os.write(report, WORD.pack(status))
                os.close(key.fd)
                os.close(report)


def _become(request: dict[str, object], standard: list[int]) -> None:
    """Be the process that was asked for."""
    words, environment = request["words"], request["environment"]
    assert isinstance(words, list) and isinstance(environment, dict)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for target, descriptor in enumerate(standard):
        os.dup2(descriptor, target)
        os.close(descriptor)
    if request["netns"]:
        with open(f"/run/netns/{request['netns']}") as name:
            if ctypes.CDLL(None, use_errno=True).setns(name.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot enter the network namespace")
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(environment)
    if words[:2] == MODULE:
        sys.argv = ["tektonmesh", *words[2:]]
        runpy.run_module("tektonmesh", run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(words)
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_everything()
    _become(*_serve(socket.socket(fileno=int(sys.argv[1]))))
