"""How an explanation looks for people."""

from __future__ import annotations

from typing import Any

import pytest

from tektonmesh.cli.commands.explain import show

FOUND: dict[str, Any] = {
    "name": "west", "id": "a" * 52, "state": "unreachable", "why": "No path leads there.",
    "version": "0.1.0", "path": [], "rtt_ms": None, "lease_left_s": 250.0, "observers": 0,
    "flags": ["doubted"], "refreshes": 2,
    "signed": {
        "version": [0, 7, 12], "content_version": [0, 7, 9], "status": "up", "age_s": 42.0,
        "heard_s": 41.0, "lease_s": 300, "instance": "ab12", "key_epoch": 0, "keydoc": "c" * 64,
        "records": 4, "record_bytes": 376,
    },
    "links": [
        {"stack": "lab", "state": "up", "own": {"cost": 5, "state": "up"}, "peer": None,
         "one_sided": True, "counts": False, "lost": "withdrawn", "lost_s": 3.0},
        {"stack": "east", "state": "left", "own": None, "peer": {"cost": 7, "state": "suspect"},
         "one_sided": True, "counts": False, "lost": None, "lost_s": None},
    ],
    "holders": [
        {"stack": "lab", "version": [0, 7, 11], "is": "older"},
        {"stack": "east", "version": None, "is": "unknown"},
    ],
    "changes": [
        {"at": 1_750_000_000.0, "age_s": 41.0, "kind": "content", "version": [0, 7, 12],
         "from": "lab", "latency_ms": 12, "evidence": "signed with key epoch 0",
         "what": "link to lab"},
        {"at": 1_750_000_000.0, "age_s": 41.0, "kind": "expired", "version": [0, 7, 12],
         "from": None, "latency_ms": None, "evidence": "the lease was over", "what": ""},
    ],
}  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str], **changes: Any) -> list[str]:
    show(FOUND | changes)
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_the_state_and_its_reason_stand_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys)[:2] == ["west is unreachable.", "No path leads there."]


def test_facts_links_holders_and_changes_follow(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    for line in (
        "head 0.7.12, content 9",
        "signed 42 s ago, came here 41 s ago",
        "signed with key epoch 0, document cccccccccccccccc",
        "lease 4 min left of 300 s",
        "path none",
        "marked doubted",
        "lab up, 5 ms nothing no one-sided; withdrawn 3 s ago",
        "east nothing suspect, 7 ms no one-sided; east is left",
        "lab 0.7.11 older",
        "east nothing known unknown",
    ):
        assert line in lines, line
    assert any(line.endswith("content 0.7.12 lab 12.0 ms signed with key epoch 0 link to lab")
               for line in lines)  # fmt: skip
    assert any(line.endswith("expired 0.7.12 here - the lease was over -") for line in lines)


def test_what_is_empty_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    bare = {"signed": None, "links": [], "holders": [], "changes": [], "flags": [], "refreshes": 0}
    lines = shown(capsys, **bare, state="self", path=["west"], rtt_ms=0.0)
    assert lines[0] == "west is this stack."
    assert lines[3:] == [f"id {'a' * 52}", "version 0.1.0", "path west, 0.0 ms",
                         "observers 0 linked to it"]  # fmt: skip
