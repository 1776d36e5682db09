"""Who may see and use what of MCP: the policy of `core/rights`, in the words of MCP.

It is asked by the owner before a catalogue is told to another stack and before each call, and by
the caller before a list, a search, a description and a call. What a stack may not use it is not
told of, and a call to it is answered as one to what does not exist.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from tektonmesh.core.ci import Offered, key_of
from tektonmesh.core.node import Node
from tektonmesh.core.policy import Act
from tektonmesh.core.types import StackId
from tektonmesh.mcp.catalogue import KEY_OF, KINDS, Catalogue, Item, definition_hash, digest_of

DISCOVER = "discover"
VERB = {
    "tools": "tool.call",
    "resources": "resource.read",
    "templates": "resource.read",
    "prompts": "prompt.get",
}
"""The verb that uses an item of each kind."""


class Use(NamedTuple):
    """What a call uses: an item by its kind and name or URI."""

    kind: str
    key: str

    @property
    def verb(self) -> str:
        return f"{VERB[self.kind]}:{self.key}"

    def missing(self) -> MCPError:
        """The answer for what is not there, and for what the caller may not know of."""
        if self.kind == "resources":
            return MCPError(INVALID_PARAMS, "Resource not found", {"uri": self.key})
        word = "tool" if self.kind == "tools" else "prompt"
        return MCPError(INVALID_PARAMS, f"Unknown {word}: {self.key[:100]}")


def uses_of(method: str, params: dict[str, Any]) -> list[Use]:
    """Everything that a call uses. Raises MCPError for one that does not say."""
    if method == "tools/call":
        return [Use("tools", str(params.get("name")))]
    if method == "prompts/get":
        return [Use("prompts", str(params.get("name")))]
    if method == "resources/read":
        return [Use("resources", str(params.get("uri")))]
    if method == "subscriptions/listen":
        return [Use("resources", uri) for uri in listened_to(params)]
    ref = params.get("ref")
    if not isinstance(ref, dict):
        raise MCPError(INVALID_PARAMS, "What is to be completed is missing.")
    if ref.get("type") == "ref/prompt":
        return [Use("prompts", str(ref.get("name")))]
    return [Use("resources", str(ref.get("uri")))]


def act_of(method: str, params: dict[str, Any]) -> str:
    """What a call does, for the audit log of the caller's stack. Raises as `uses_of`."""
    return uses_of(method, params)[0].verb


def listened_to(params: dict[str, Any]) -> list[str]:
    """The resources of which a call wants to hear. Raises MCPError for anything else."""
    filters = params.get("notifications")
    uris = filters.get("resourceSubscriptions") if isinstance(filters, dict) else None
    if not isinstance(uris, list) or not uris or not all(isinstance(uri, str) for uri in uris):
        raise MCPError(INVALID_PARAMS, "Only changes of resources can be listened to here.")
    return uris[:100]


def reads_only(tool: Item | None) -> bool:
    """Whether a tool says that it changes nothing; one that says nothing may."""
    hints = (tool or {}).get("annotations")
    return isinstance(hints, dict) and hints.get("readOnlyHint") is True


def offered(kind: str, item: Item) -> Offered:
    """An item as the policy knows it."""
    tool = kind == "tools"
    return Offered(
        Use(kind, str(item[KEY_OF[kind]])).verb,
        digest_of(item),
        tool_hash=definition_hash(item) if tool else "",
        effects=tool and not reads_only(item),
    )


def all_offered(catalogue: Catalogue) -> tuple[Offered, ...]:
    return tuple(offered(kind, item) for kind in KINDS for item in catalogue.items(kind))


def part_for(node: Node, stack: StackId, ci: str, whole: Catalogue) -> Catalogue:
    """What of a catalogue another stack may know: the items that it may use. Of a part nothing is
    said that could be about the rest."""

    def keeps(kind: str, item: Item) -> bool:
        return node.sharing.usable.allows(stack, key_of(ci), offered(kind, item))

    kept = {kind: tuple(it for it in whole.items(kind) if keeps(kind, it)) for kind in KINDS}
    if all(len(kept[kind]) == len(whole.items(kind)) for kind in KINDS):
        return whole
    info = {word: whole.info[word] for word in ("server", "era") if word in whole.info}
    has = {"tools": kept["tools"], "prompts": kept["prompts"]}
    has["resources"] = kept["resources"] + kept["templates"]
    told: dict[str, Item] = {capability: {} for capability, items in has.items() if items}
    return Catalogue(info | {"capabilities": told}, **kept)


def may_use(node: Node, owner: StackId, verb: str, ci: str, item: str = "") -> bool:
    """Whether callers here may do that at that stack: the import policy. What its owner grants
    shows in what it told this stack."""
    act = Act(f"{verb}:{item}" if item else verb, key_of(ci))
    return owner == node.env.me or node.rights.check_use(owner, act).allowed
