"""The demonstration's step of MCP: a tool of another stack, found and called."""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any

import trio

from tektonmesh.api.client import Client
from tektonmesh.cli.demo import toolbox
from tektonmesh.cli.demo.processes import StepFailed
from tektonmesh.errors import MeshError

CI = "toolbox"
TEXT = "how many words are these"
WAIT_S = 30.0
"""The SDK is loaded by two daemons at once, which takes a busy machine seconds."""
_POLL_S = 0.1


def installed() -> bool:
    """Whether MCP can be shown at all."""
    return importlib.util.find_spec("mcp") is not None


async def use_tool(owner: Client, user: Client, owner_name: str) -> dict[str, Any]:
    """Attach a server to one stack and call its tool from another; what was measured. Raises
    StepFailed."""
    began = time.monotonic()
    command = [sys.executable, toolbox.__file__]
    mcp = {"stdio": {"command": command}}
    await owner.register(CI, persist=True, attach=False, mcp=mcp)
    ref = f"{CI}@{owner_name}/{toolbox.TOOL}"
    await _until_listed(user, ref)
    listed = time.monotonic()
    result = await user.call("call", ref=ref, arguments={"text": TEXT})
    called = time.monotonic()
    said = result["content"][0]["text"]
    if said != str(len(TEXT.split())):
        raise StepFailed(f"The tool said {said!r}.")
    path = (await user.route(f"@{owner_name}"))["path"]
    if len(path) != 3:
        raise StepFailed(f"The path {' > '.join(path)} has not two hops.")
    return {
        "tool": ref,
        "path": path,
        "answer": said,
        "listed_ms": round((listed - began) * 1000, 1),
        "call_ms": round((called - listed) * 1000, 1),
    }


async def _until_listed(user: Client, ref: str) -> None:
    with trio.move_on_after(WAIT_S):
        while True:
            try:
                found = await user.call("tools")
            except MeshError as error:
                raise StepFailed(error.sentence()) from None
            if any(tool["ref"] == ref for tool in found):
                return
            await trio.sleep(_POLL_S)
    raise StepFailed(f"After {WAIT_S:.0f} s there was still not the tool {ref} on the list.")
