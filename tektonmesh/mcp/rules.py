"""Who may see and use what of MCP: the policy of `core/rights`, in the words of MCP.

It is asked by the owner before a call, and by the caller before a list, a search, a description and
a call, so that what is denied here is absent from all of them alike.
"""

from __future__ import annotations

from typing import Any

from tektonmesh.core.ci import key_of
from tektonmesh.core.node import Node
from tektonmesh.core.policy import Act
from tektonmesh.core.types import StackId

DISCOVER = "discover"
USE = {
    "tools/call": "tool.call",
    "resources/read": "resource.read",
    "subscriptions/listen": "resource.read",
    "prompts/get": "prompt.get",
    "completion/complete": "prompt.get",
}
"""The verb of each method."""


def reads_only(tool: dict[str, Any] | None) -> bool:
    """Whether a tool says that it changes nothing; one that says nothing may."""
    hints = (tool or {}).get("annotations")
    return isinstance(hints, dict) and hints.get("readOnlyHint") is True


def may_use(node: Node, owner: StackId, verb: str, ci: str, item: str = "") -> bool:
    """Whether callers here may do that at that stack: the import policy. What its owner grants is
    known to the owner alone."""
    act = Act(verb if verb == DISCOVER else f"{verb}:{item}", key_of(ci))
    return owner == node.env.me or node.rights.check_use(owner, act).allowed
