"""The demonstration does what it says, and says so when it does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tektonmesh.cli.demo import steps
from tektonmesh.cli.demo.run import run_demo
from tests.e2e.stacks import COMMAND, wait_until


def processes_of(folder: Path) -> list[int]:
    """The pids of all processes that name something below `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in words:
                found.append(int(entry.name))
    return found


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where temporary folders are made; nothing may be left there, and nothing running. Its path
    is short, so that sockets are in their homes."""
    folder = Path(tempfile.mkdtemp(prefix="tm"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_every_step_is_ok_and_nothing_is_left_behind(place: Path) -> None:
    done = subprocess.run([*COMMAND, "demo", "--json"], capture_output=True, text=True, timeout=90)
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [step["step"] for step in shown] == [step.name for step in steps.STEPS]
    assert all(step["ok"] is True and step["ms"] > 0 for step in shown)
    measured = {step["step"]: step for step in shown}
    assert measured["send"]["hops"] >= 3
    assert len(measured["tools"]["path"]) == 3
    assert measured["reroute"]["killed"] not in measured["reroute"]["new_path"]
    assert sum(step["ms"] for step in shown) < 40_000
    assert list(place.iterdir()) == []
    assert processes_of(place) == []


def planted(name: str, act: object) -> list[steps.Step]:
    """The steps up to `name`, which does something else instead."""
    kept = list(steps.STEPS)
    at = [step.name for step in kept].index(name)
    return [*kept[:at], replace(kept[at], act=act)]


def test_a_message_to_a_missing_ci_fails_the_demonstration(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = planted("send", partial(steps.send, ci="nobody"))
    assert run_demo(stacks=6, as_json=True, steps=broken) == 1
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [step["ok"] for step in shown] == [True, True, True, False]
    assert "nobody" in shown[-1]["detail"]
    assert list(place.iterdir()) == []
    assert processes_of(place) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_ends_what_it_started(
    place: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tektonmesh", "demo"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_until("some daemons run", lambda: len(processes_of(place)) >= 2, within_s=20)
    process.send_signal(number)
    _out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert list(place.iterdir()) == []
    assert processes_of(place) == []
