"""Hosts of MCP that others wrote, with `tektonmesh mcp` as the one server that they were given."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.hosts import attach
from tests.e2e.stacks import Stack, a_mesh

ROOT = Path(__file__).parents[2]
MODULES = ROOT / ".venv" / "hosts" / "node_modules"
PIPE = [str(Path(sys.executable).with_name("tektonmesh")), "mcp"]
QUIET = {
    "CI": "1",
    "NO_COLOR": "1",
    "DO_NOT_TRACK": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
}
"""They would ask their makers for news. Where that can be, they have no network at all."""


@pytest.fixture(scope="module")
def installed() -> Path:
    """The folder of both, installed if they can be. Where they cannot the tests are skipped, on CI
    they fail."""
    done = subprocess.run(
        [ROOT / "scripts" / "node", "hosts"], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1]
        if os.environ.get("CI"):
            pytest.fail(f"no host can be installed: {reason}")
        pytest.skip(f"no host can be installed: {reason}")
    return MODULES


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with a_mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        (one,) = mesh.chain("a")
        attach(one, "tool")
        yield one


def without_network() -> list[str]:
    """What a command is put behind so that it reaches nothing but this machine's files."""
    if not shutil.which("unshare"):
        return []
    alone = ["unshare", "--map-root-user", "--net"]
    tried = subprocess.run([*alone, "true"], capture_output=True)
    return [] if tried.returncode else alone


def gemini(modules: Path, home: Path, server: dict[str, object]) -> list[str]:
    settings = {"mcpServers": {"mesh": server | {"trust": True}}}
    settings["security"] = {"folderTrust": {"enabled": False}}  # type: ignore[assignment]
    settings["privacy"] = {"usageStatisticsEnabled": False}  # type: ignore[assignment]
    (home / ".gemini").mkdir()
    (home / ".gemini" / "settings.json").write_text(json.dumps(settings))
    nodes = [path / "bin" / "node" for path in modules.glob("node-linux-*")]
    program = modules / "@google" / "gemini-cli" / "bundle" / "gemini.js"
    return [*[str(path) for path in nodes if path.exists()][:1], str(program)]


def opencode(modules: Path, home: Path, server: dict[str, object]) -> list[str]:
    words = [server["command"], *server["args"]]  # type: ignore[misc]
    mesh = {"type": "local", "command": words, "environment": server["env"], "enabled": True}
    folder = home / ".config" / "opencode"
    folder.mkdir(parents=True)
    (folder / "opencode.json").write_text(json.dumps({"mcp": {"mesh": mesh}}))
    return [str(modules / "opencode-linux-x64-baseline" / "bin" / "opencode")]


@pytest.mark.parametrize("host", [gemini, opencode])
def test_a_host_that_was_given_the_pipe_reports_that_it_is_connected(
    installed: Path, stack: Stack, tmp_path: Path, host: Callable[..., list[str]]
) -> None:
    own = {"TEKTONMESH_HOME": str(stack.home)}
    server = {"command": PIPE[0], "args": PIPE[1:], "env": own}
    command = host(installed, tmp_path, server)
    if not Path(command[-1]).exists():
        pytest.skip("there is none for this machine")
    done = subprocess.run(
        [*without_network(), *command, "mcp", "list"],
        env=QUIET | {"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    shown = re.sub("\x1b\\[[0-9;]*m", "", done.stdout + done.stderr)
    assert re.search(r"\bmesh\b.*\bconnected\b", shown, re.IGNORECASE), done
