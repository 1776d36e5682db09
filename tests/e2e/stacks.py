"""Real daemons as separate processes, driven only by what contract pages promise: the command
line, the Unix socket, files and signals. Optionally each in a network namespace of its own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.nursery import Forked, nursery

COMMAND = [sys.executable, "-m", "tektonmesh"]
ECHO_CI = Path(__file__).with_name("echo_ci.py")
HASH_CI = Path(__file__).with_name("hash_ci.py")
TALKER_CI = Path(__file__).with_name("talker_ci.py")
TICKER_CI = Path(__file__).with_name("ticker_ci.py")
KEEPER_CI = Path(__file__).with_name("keeper_ci.py")


T = TypeVar("T")


def wait_until(what: str, probe: Callable[[], T], *, within_s: float, every_s: float = 0.05) -> T:
    """Poll a real process until `probe` gives something true; fail with `what` otherwise."""
    give_up = time.monotonic() + within_s
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {within_s} s: {what}; last seen: {value!r}")
        pause(every_s)


def pause(seconds: float) -> None:
    """Let real time pass between two looks at another process."""
    with contextlib.suppress(TimeoutError):
        idle, _other = socket.socketpair()
        with idle, _other:
            idle.settimeout(seconds)
            idle.recv(1)


def free_ports(count: int) -> list[int]:
    """Different ports below those that the system gives to outgoing connections, which could take
    one again before the process that is to listen there has started."""
    found: dict[int, None] = {}
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found[port] = None
    return list(found)


class Connection:
    """JSON-RPC lines over a Unix socket, with nothing but the standard library."""

    def __init__(self, path: Path, patience_s: float = 30.0) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience_s)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\n")

    def say(self, **message: Any) -> None:
        self.socket.sendall(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    def hear(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.lines.readline())
        return message

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


class Stack:
    """One daemon process and its home."""

    quick = False
    """Whether programs are forked from the nursery, where nothing is measured that it changes."""

    def __init__(self, name: str, folder: Path, *run: str, netns: str | None = None) -> None:
        self.name = name
        self.home = folder / name
        self.run_arguments = run
        self.program = COMMAND
        self.netns = netns
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | Forked | None = None
        self.children: list[subprocess.Popen[bytes]] = []
        self.port = 0
        self.ready_at = 0.0
        self.patience_s = 30.0
        self._ready_before = 0

    def environment(self) -> dict[str, str]:
        # An installed daemon has its bytecode; without it each start would compile everything anew.
        dropped = ("TEKTON", "TILL", "PYTHONDONTWRITEBYTECODE")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        return clean | {"TEKTONMESH_HOME": str(self.home), "NO_COLOR": "1"}

    def inside(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.netns, *command] if self.netns else command

    def spawn(self) -> None:
        """Start without waiting, so that several can start at once."""
        self._ready_before = self.ready_lines()
        command = [*self.program, "run", "--name", self.name, *self.run_arguments]
        with self.log.open("ab") as log, Path(os.devnull).open() as nothing:
            if self.quick:
                files = nothing.fileno(), log.fileno(), log.fileno()
                self.process = nursery().start(command[1:], self.environment(), files, self.netns)
                return
            self.process = subprocess.Popen(
                self.inside(command),
                env=self.environment(),
                stderr=log,
                stdout=log,
                stdin=nothing,
            )

    def wait_ready(self, within_s: float = 20.0, every_s: float = 0.02) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended:\n{self.log.read_text()}"
            return self.ready_lines() > self._ready_before

        wait_until(f"{self.name} ready", ready, within_s=within_s, every_s=every_s)
        self.ready_at = time.perf_counter()
        self._ready_before = self.ready_lines()
        self.port = int(self.status()["listen"][0].rsplit(":", 1)[1])

    def ready_lines(self) -> int:
        text = self.log.read_text() if self.log.exists() else ""
        return sum("ready" in line and "socket=" in line for line in text.splitlines())

    def start(self) -> Stack:
        self.spawn()
        self.wait_ready()
        return self

    @property
    def seed(self) -> str:
        return f"127.0.0.1:{self.port}"

    def pid(self) -> int:
        """The daemon's own pid: `ip netns exec` replaces itself, so it is the process started."""
        assert self.process is not None
        return self.process.pid

    def cpu_s(self) -> float:
        """What its process has used so far, in user and system together."""
        fields = Path(f"/proc/{self.pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        for line in Path(f"/proc/{self.pid()}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid(), number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM and the exit code; the daemon has 5 s to leave."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(15)

    def close(self) -> None:
        for process in [*self.children, self.process]:
            if process is None:
                continue
            if process.poll() is None:
                process.kill()
                process.wait(10)
            if process.stdout is not None:
                process.stdout.close()

    def cli(self, *words: str, text: str | None = None, within_s: float = 60.0) -> Result:
        command = [*COMMAND, *words]
        if self.quick:
            environment = self.environment()
            return Result(*nursery().run(command[1:], environment, text, within_s, self.netns))
        done = subprocess.run(
            self.inside(command),
            env=self.environment(),
            capture_output=True,
            input=text,
            text=True,
            timeout=within_s,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def rpc(self, method: str, **params: Any) -> Any:
        """One JSON-RPC call over the Unix socket with nothing but the standard library."""
        with self.connect() as stream:
            stream.say(id=1, method=method, params=params)
            answer = stream.hear()
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def connect(self) -> Connection:
        return Connection(self.home / "tektonmesh.sock", self.patience_s)

    def status(self) -> dict[str, Any]:
        return self.rpc("status")

    def stacks(self) -> dict[str, dict[str, Any]]:
        """name -> row of `stacks`."""
        return {row["name"]: row for row in rows(self.rpc("stacks"))}

    def cis(self) -> dict[str, dict[str, Any]]:
        """address -> row of `cis`."""
        return {row["address"]: row for row in rows(self.rpc("list"))}

    def up(self) -> list[str]:
        return sorted(n for n, row in self.stacks().items() if row["state"] in ("self", "up"))

    def start_echo(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """An attached CI in a process of its own (`echo_ci.py`), registered when this returns."""
        return self._start_ci(ECHO_CI, name, *options)

    def start_keeper(self, name: str) -> Path:
        """A CI that writes down what it gets (`keeper_ci.py`); the file, which all that were ever
        started under this name share."""
        kept = self.home.parent / f"{name}-{self.name}.jsonl"
        self._start_ci(KEEPER_CI, name, str(kept))
        return kept

    def start_hash(self, name: str) -> subprocess.Popen[bytes]:
        """A CI that says what it got (`hash_ci.py`)."""
        return self._start_ci(HASH_CI, name)

    def start_ticker(self, name: str) -> subprocess.Popen[bytes]:
        """A CI that streams timed tokens (`ticker_ci.py`)."""
        return self._start_ci(TICKER_CI, name)

    def start_talker(self, name: str) -> subprocess.Popen[bytes]:
        """A CI that streams numbered tokens (`talker_ci.py`)."""
        return self._start_ci(TALKER_CI, name)

    def _start_ci(self, program: Path, name: str, *options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, str(program), str(self.home / "tektonmesh.sock"), name, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
        )
        self.children.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"registered\n"
        return process


def rows(result: Any) -> list[dict[str, Any]]:
    """A listing is a list, or an object that holds one."""
    if isinstance(result, list):
        return result
    lists = [value for value in result.values() if isinstance(value, list)]
    assert len(lists) == 1, result
    return lists[0]


class Result:
    """What one command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit {self.code}\nstdout: {self.out}\nstderr: {self.err}"

    def lines(self) -> list[dict[str, Any]]:
        assert self.code == 0, self
        return [json.loads(line) for line in self.out.splitlines() if line.strip()]


class Mesh:
    """The stacks of one test; ends every process it started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "mesh.secret"
        self.stacks: dict[str, Stack] = {}

    def add(self, name: str, *run: str, netns: str | None = None) -> Stack:
        stack = Stack(name, self.folder, *run, netns=netns)
        self.stacks[name] = stack
        return stack

    def private(self, name: str, *seeds: Stack, mesh: str = "own") -> Stack:
        """A stack of a private mesh that links only with its seed peers and those who dial it."""
        words = [*self.by_secret(mesh), "--seeds-only", "--listen", "127.0.0.1:0"]
        for seed in seeds:
            words += ["--seed", seed.seed]
        return self.add(name, *words)

    def by_secret(self, mesh: str = "own") -> list[str]:
        """The options that make a stack one of a private mesh; the secret is made when missing."""
        if not self.secret.exists():
            self.secret.write_text("a secret of more than thirty-two characters\n")
            self.secret.chmod(0o600)
        return ["--mesh", mesh, "--secret-file", str(self.secret), "--no-mdns"]

    def chain(self, names: str) -> list[Stack]:
        """One private stack a letter, each linked with the one before it, converged."""
        made: list[Stack] = []
        for name in names:
            made.append(self.private(name, *made[-1:]).start())
        self.wait_all_see(made)
        return made

    def wait_all_see(self, stacks: list[Stack], within_s: float = 15.0) -> float:
        """Until each lists all as up; gives the seconds it took."""
        began = time.monotonic()
        names = sorted(stack.name for stack in stacks)
        for stack in stacks:
            wait_until(
                f"{stack.name} sees {names}",
                lambda stack=stack: stack.up() == names or None,
                within_s=within_s,
            )
        return time.monotonic() - began

    def close(self) -> None:
        for stack in self.stacks.values():
            stack.close()


@contextlib.contextmanager
def a_mesh(folder: Path) -> Iterator[Mesh]:
    mesh = Mesh(folder)
    try:
        yield mesh
    finally:
        mesh.close()
