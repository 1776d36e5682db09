"""Programs that others wrote: reference servers, attached here and used two hops away, and the
official Inspector as a host."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.test_conformance import MODULES, chain, node, relayed
from tests.e2e.stacks import Stack, wait_until

__all__ = ["chain", "node"]
SERVERS = MODULES / "@modelcontextprotocol"


def attach_node(stack: Stack, name: str, node: Path, *words: str, env: dict[str, str]) -> None:
    main = SERVERS / f"server-{name}" / "dist" / "index.js"
    command = [str(node), str(main), *words]
    mcp = {"stdio": {"command": command, "env": env}}
    stack.rpc("register", name=name, attach=False, persist=True, mcp=mcp)


def call(stack: Stack, ref: str, arguments: dict[str, Any]) -> str:
    result = stack.rpc("call", ref=ref, arguments=arguments)
    assert not result.get("isError"), result
    return str(result["content"][0]["text"])


def test_the_reference_servers_are_used_from_two_hops_away(
    node: Path, chain: tuple[Stack, Stack], tmp_path: Path
) -> None:
    a, c = chain
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "one.txt").write_text("the first note")
    attach_node(c, "everything", node, "stdio", env={})
    attach_node(c, "filesystem", node, str(tmp_path / "notes"), env={})
    attach_node(c, "memory", node, env={"MEMORY_FILE_PATH": str(tmp_path / "memory.json")})
    for name in ("everything", "filesystem", "memory"):
        wait_until(name, lambda n=name: f"{n}@c" in a.cis(), within_s=10)
        wait_until(f"tools of {name}", lambda n=name: a.rpc("tools", ci=f"{n}@c"), within_s=30)
    assert "two hops" in call(a, "everything@c/echo", {"message": "two hops"})
    read = {"path": str(tmp_path / "notes" / "one.txt")}
    assert call(a, "filesystem@c/read_text_file", read) == "the first note"
    entity = {"name": "numa", "entityType": "ci", "observations": ["answers"]}
    call(a, "memory@c/create_entities", {"entities": [entity]})
    assert "answers" in call(a, "memory@c/read_graph", {})


@pytest.mark.parametrize("era", ["modern", "legacy"])
def test_the_inspector_lists_and_calls_in_both_eras(
    node: Path, chain: tuple[Stack, Stack], tmp_path: Path, era: str
) -> None:
    with relayed(chain[0]) as address:
        url = f"{address}/mcp/ci/new@c"
        servers = {"mesh": {"type": "streamable-http", "url": url, "protocolEra": era}}
        settings = tmp_path / "settings.json"
        settings.write_text(json.dumps({"mcpServers": servers}))
        inspect = [str(node), str(MODULES / ".bin" / "mcp-inspector"), "--cli"]
        inspect += ["--config", str(settings), "--server", "mesh"]
        listed = subprocess.run(
            [*inspect, "--method", "tools/list"], capture_output=True, text=True, timeout=60
        )
        assert "test_simple_text" in listed.stdout, listed
        words = ["--method", "tools/call", "--tool-name", "test_simple_text"]
        called = subprocess.run([*inspect, *words], capture_output=True, text=True, timeout=60)
        assert "simple text response" in called.stdout, called
