"""Who may see and use what of MCP: the one question that every face asks.

It knows what a mesh grants by default: in a mesh of one's own stacks members use one another's
tools, resources and prompts; in any other they may discover what is shared, and use nothing. It is
asked by the owner before a call, and by the caller before a list, a search, a description and a
call, so that what is denied is absent from all of them alike.
"""

from __future__ import annotations

from tektonmesh.config import Config

DISCOVER = "discover"
USE = {
    "tools/call": "tool.call",
    "resources/read": "resource.read",
    "subscriptions/listen": "resource.read",
    "prompts/get": "prompt.get",
    "completion/complete": "prompt.get",
}
"""The verb of each method."""


def may(config: Config, verb: str, *, own: bool, ci: str, item: str = "") -> bool:
    """Whether `verb` on an item of a CI is granted; `own` says that asker and owner are one
    stack."""
    assert ci, "what is asked about belongs to a CI"
    return own or bool(config.secret) or verb == DISCOVER
