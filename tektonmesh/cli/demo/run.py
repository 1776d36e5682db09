"""One demonstration from beginning to end: a folder, the steps in order, the verdict, the end of
every process that was started."""

from __future__ import annotations

import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio

from tektonmesh.cli.demo.processes import Processes, StepFailed
from tektonmesh.cli.demo.report import Report
from tektonmesh.cli.demo.shape import two_chains
from tektonmesh.cli.demo.steps import ECHO, STEPS, Stage, Step
from tektonmesh.cli.failures import telling_one
from tektonmesh.errors import MeshError

STEP_WAIT_S = 60.0
"""No step may hang for longer; a hung step is a failed one."""


def run_demo(
    *, stacks: int, as_json: bool = False, keep: bool = False, steps: Sequence[Step] = STEPS
) -> int:
    """Run the steps on a new mesh of `stacks` daemons. 0 if every step did what it says, else 1;
    130 when interrupted."""
    return trio.run(_run, stacks, as_json, keep, steps)


async def _run(stacks: int, as_json: bool, keep: bool, steps: Sequence[Step]) -> int:
    # Short, because the paths of sockets hang below it.
    folder = Path(tempfile.mkdtemp(prefix="tm-demo-"))
    processes = Processes(folder)
    code = 130
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(_stop_on_signal, nursery.cancel_scope)
            code = await _play(stacks, processes, Report(as_json=as_json), steps)
            nursery.cancel_scope.cancel()
        if keep and code == 0:
            _say_how_to_talk(processes, two_chains(stacks).first)
            return code
    finally:
        if not (keep and code == 0):
            await processes.stop()
            shutil.rmtree(folder, ignore_errors=True)
    return code


async def _stop_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def _play(stacks: int, processes: Processes, report: Report, steps: Sequence[Step]) -> int:
    began = time.monotonic()
    stage = Stage(two_chains(stacks), processes)
    good = True
    for number, step in enumerate(steps, 1):
        report.begin(step, number, len(steps))
        good = await _play_one(step, stage, report)
        if not good:
            break
    report.close(time.monotonic() - began)
    return 0 if good else 1


async def _play_one(step: Step, stage: Stage, report: Report) -> bool:
    began = time.monotonic()
    try:
        with trio.fail_after(STEP_WAIT_S):
            measured = await step.act(stage)
    except Exception as error:
        cause = telling_one(error) if isinstance(error, ExceptionGroup) else error
        if not isinstance(cause, StepFailed | MeshError | OSError | trio.TooSlowError):
            raise
        detail = str(cause) or f"The step took more than {STEP_WAIT_S:.0f} s."
        report.end(step, time.monotonic() - began, {"detail": detail}, ok=False)
        return False
    report.end(step, time.monotonic() - began, measured, ok=True)
    return True


def program_here() -> str:
    """What to type for `tektonmesh` where it may not be on the path."""
    if shutil.which("tektonmesh"):
        return "tektonmesh"
    if Path(sys.argv[0]).name == "tektonmesh":
        return shlex.quote(str(Path(sys.argv[0]).absolute()))
    return f"{shlex.quote(sys.executable)} -m tektonmesh"


def _say_how_to_talk(processes: Processes, first: str) -> None:
    """What a person may type now; on stderr, since `--json` keeps stdout for the steps."""
    home = processes.stacks[first].home
    pids = [process.pid for process in processes.attached]
    pids += [stack.process.pid for stack in processes.stacks.values()]
    last = max(processes.stacks)
    program = program_here()
    for line in (
        "The mesh is left running. Talk to it:",
        f"  {program} stacks --home {home}",
        f'  {program} send {ECHO}@{last} "hello" --home {home}',
        "End it:",
        f"  kill {' '.join(str(pid) for pid in pids)}; rm -r {processes.folder}",
    ):
        print(line, file=sys.stderr)
