"""The processes of the demonstration: real daemons and real CIs, each started and ended by pid.

Each runs in a session of its own, so that Ctrl-C reaches the demonstration alone, which then ends
them. Nothing else on the machine is ever signalled.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import trio

READY_WAIT_S = 20.0
STOP_WAIT_S = 5.0
_POLL_S = 0.02
_READY = "tektonmesh: ready "


class StepFailed(Exception):
    """A step did not do what it says; the sentence says what was seen instead."""


@dataclass(slots=True)
class Stack:
    """One daemon: its home, and while it runs what its ready line told."""

    name: str
    home: Path
    process: trio.Process
    socket: Path
    listen: str
    stack_id: str


class Processes:
    """All processes of one demonstration. `stop` ends every one of them, however it went."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stacks: dict[str, Stack] = {}
        self.addresses: dict[str, str] = {}
        self.attached: list[trio.Process] = []

    async def start_stack(self, name: str, seeds: list[str]) -> Stack:
        """Start a daemon and wait for its ready line. Raises StepFailed with its last words.

        One that ran before gets its old address again, by which others know it as their seed.
        """
        listen = self.addresses.get(name, "127.0.0.1:0")
        home = self.folder / name
        home.mkdir(mode=0o700, exist_ok=True)
        command = ["run", "--home", str(home), "--name", name, "--listen", listen]
        command += ["--mesh", "demo", "--secret-file", str(self.folder / "mesh.secret")]
        command += ["--seeds-only", "--no-mdns"]
        for seed in seeds:
            command += ["--seed", seed]
        log = home / "daemon.log"
        process = await self._start(command, log)
        # Known before it is ready: it must be ended even if it never gets there.
        self.stacks[name] = Stack(name, home, process, Path(), "", "")
        ready = await self._ready_line(name, process, log)
        facts = dict(word.partition("=")[::2] for word in shlex.split(ready) if "=" in word)
        listen = self.addresses[name] = facts["listen"].split(",")[0]
        stack = Stack(name, home, process, Path(facts["socket"]), listen, facts["id"])
        self.stacks[name] = stack
        return stack

    async def start_ci(self, stack: Stack, name: str, command: list[str]) -> None:
        """Make a CI of a command, attached to a stack's socket."""
        words = ["attach", name, "--socket", str(stack.socket), "--", *command]
        self.attached.append(await self._start(words, self.folder / f"ci-{name}.log"))

    async def _start(self, words: list[str], log: Path) -> trio.Process:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("TEKTON")
        }
        with log.open("wb") as file:
            return await trio.lowlevel.open_process(
                [sys.executable, "-m", "tektonmesh", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,
            )

    async def _ready_line(self, name: str, process: trio.Process, log: Path) -> str:
        with trio.move_on_after(READY_WAIT_S):
            while True:
                lines = log.read_text(errors="replace").splitlines(keepends=True)
                for line in lines:
                    if line.startswith(_READY) and line.endswith("\n"):
                        return line.strip()
                if process.poll() is not None:
                    last = lines[-1].strip() if lines else "It said nothing."
                    raise StepFailed(f"The daemon of {name} ended at once. {last}")
                await trio.sleep(_POLL_S)
        raise StepFailed(f"The daemon of {name} was not ready within {READY_WAIT_S:.0f} s.")

    async def kill(self, name: str) -> None:
        """kill -9, as a crash of the machine would; no goodbye is said."""
        stack = self.stacks.pop(name)
        stack.process.kill()
        await stack.process.wait()

    async def stop(self) -> None:
        """End what still runs: politely, and after a few seconds without asking."""
        running = [*self.attached, *(stack.process for stack in self.stacks.values())]
        with trio.CancelScope(shield=True):
            for process in running:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            with trio.move_on_after(STOP_WAIT_S):
                for process in running:
                    await process.wait()
            for process in running:
                if process.poll() is None:
                    process.kill()
                    await process.wait()
