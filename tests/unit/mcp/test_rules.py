"""What a call uses, what an item is to the policy, and what answers for what may not be known."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tektonmesh.core import events as ev
from tektonmesh.core.policy import Act
from tektonmesh.mcp import catalogue as cat
from tektonmesh.mcp import rules
from tektonmesh.mcp.rules import Use
from tests.network import Network
from tests.support import make_keys

A, B = (make_keys(n)[1].stack_id for n in (1, 2))
TOOLS: list[Any] = [
    {"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}},
    {"name": "echo", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": "yes"}},
    {"name": "die", "inputSchema": {"type": "object"}},
]
LISTS = {
    "tools": TOOLS,
    "resources": [{"uri": "note://one", "name": "one"}],
    "templates": [{"uriTemplate": "file:///{name}", "name": "file"}],
    "prompts": [{"name": "ask"}],
}
INFO = {
    "server": {"name": "s"},
    "era": "2026-07-28",
    "instructions": "Use die last.",
    "capabilities": {"tools": {"listChanged": True}, "prompts": {}, "resources": {}, "logging": {}},
}
WHOLE = cat.make(INFO, LISTS, lambda _word: None)


def granted(*verbs: str) -> Network:
    """a of one organisation, with the CI `tool`; b of another, with these rights on it."""
    network = Network("a", "b", mesh_keys=(), allowed_ids=(A, B))
    network.join("a", "b")
    network["a"].register("tool", share="public")
    for verb in verbs:
        params = {"stack_id": B, "verb": verb}
        network["a"].do(lambda ticket, p=params: ev.Govern(ticket, "grant", p))  # type: ignore
    return network


@pytest.mark.parametrize(
    ("method", "params", "uses"),
    [
        ("tools/call", {"name": "echo"}, [("tools", "echo")]),
        ("prompts/get", {"name": "ask"}, [("prompts", "ask")]),
        ("resources/read", {"uri": "note://one"}, [("resources", "note://one")]),
        (
            "subscriptions/listen",
            {"notifications": {"resourceSubscriptions": ["a", "b"]}},
            [("resources", "a"), ("resources", "b")],
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "ask"}},
            [("prompts", "ask")],
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "x"}},
            [("resources", "x")],
        ),
    ],
)
def test_a_call_uses_what_it_names(method: str, params: Any, uses: list[Any]) -> None:
    assert rules.uses_of(method, params) == uses


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("completion/complete", {}),
        ("subscriptions/listen", {}),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": []}}),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [7]}}),
    ],
)
def test_a_call_that_does_not_say_what_it_uses_is_refused(method: str, params: Any) -> None:
    with pytest.raises(MCPError):
        rules.uses_of(method, params)


@pytest.mark.parametrize(
    ("use", "message", "data"),
    [
        (Use("tools", "x" * 200), f"Unknown tool: {'x' * 100}", None),
        (Use("prompts", "x"), "Unknown prompt: x", None),
        (Use("resources", "x:y"), "Resource not found", {"uri": "x:y"}),
    ],
)
def test_what_is_missing_is_named_by_what_was_asked(use: Use, message: str, data: Any) -> None:
    error = use.missing().error
    assert (error.message, error.data) == (message, data)


def test_only_a_tool_that_says_that_it_reads_has_no_effects() -> None:
    found = {one.verb: one for one in rules.all_offered(WHOLE)}
    assert [verb for verb, one in found.items() if one.effects] == [
        "tool.call:die",
        "tool.call:echo",
    ]
    assert found["tool.call:echo"].tool_hash == cat.definition_hash(TOOLS[1])
    assert found["prompt.get:ask"].tool_hash == ""
    kinds = [verb.partition(":")[0] for verb in found]
    assert kinds == ["tool.call"] * 3 + ["resource.read"] * 2 + ["prompt.get"]
    assert not rules.reads_only(None)


def test_whoever_may_use_everything_is_told_everything() -> None:
    network = granted("tool.call:*", "resource.read:*", "prompt.get:*")
    assert rules.part_for(network["a"].node, B, "Tool", WHOLE) is WHOLE


def test_a_part_holds_what_may_be_used_and_no_word_about_the_rest() -> None:
    network = granted("tool.call:l*", "resource.read:file:*")
    part = rules.part_for(network["a"].node, B, "tool", WHOLE)
    assert [tool["name"] for tool in part.tools] == ["look"]
    assert (part.resources, part.prompts) == ((), ())
    assert len(part.templates) == 1
    assert part.info == {
        "server": {"name": "s"},
        "era": "2026-07-28",
        "capabilities": {"tools": {}, "resources": {}},
    }


def test_callers_here_use_what_the_import_policy_lets_them() -> None:
    network = granted()
    b = network["b"]
    params = {"stack_id": A, "imports": ["tool"]}
    b.do(lambda ticket: ev.Govern(ticket, "terms", params))
    assert rules.may_use(b.node, A, "tool.call", "Tool", "echo")
    assert rules.may_use(b.node, A, rules.DISCOVER, "tool")
    assert not rules.may_use(b.node, A, "tool.call", "other", "echo")
    assert rules.may_use(b.node, B, "tool.call", "other", "echo")
    assert b.node.rights.check_use(A, Act("discover", "other")).code == "refused"
