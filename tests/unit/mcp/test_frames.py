"""Calls and their replies in bytes."""

from __future__ import annotations

import json

import pytest

from tektonmesh.errors import RemoteError
from tektonmesh.mcp import frames


def test_a_call_comes_back_as_it_was() -> None:
    body = frames.pack_call("tools/call", {"name": "é", "x": [1]})
    assert frames.unpack_call(body) == ("tools/call", {"name": "é", "x": [1]})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"no json",
        b"[" * 100_000,
        json.dumps({"method": "tools/list", "params": {}}).encode(),
        json.dumps({"method": ["tools/call"], "params": {}}).encode(),
        json.dumps({"method": "tools/call", "params": []}).encode(),
    ],
)
def test_what_is_no_call_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteError):
        frames.unpack_call(body)


def test_lines_are_joined_however_they_are_cut() -> None:
    told = frames.notification_line("notifications/progress", {"progress": 1})
    whole = told + frames.ALIVE + frames.error_line(-1, "No.", {"x": 1}) + frames.result_line({})
    for size in (1, 7, len(whole)):
        lines, found = frames.Lines(), []
        for at in range(0, len(whole), size):
            found += lines.feed(whole[at : at + size])
        assert found == [
            {"method": "notifications/progress", "params": {"progress": 1}},
            {"alive": True},
            {"error": {"code": -1, "message": "No.", "data": {"x": 1}}},
            {"result": {}},
        ]


def test_an_endless_line_and_what_is_no_object_are_refused() -> None:
    with pytest.raises(RemoteError):
        list(frames.Lines().feed(b"x" * (frames.LINE_SIZE_MAX + 1)))
    with pytest.raises(RemoteError):
        list(frames.Lines().feed(b"7\n"))


def test_a_line_with_nothing_on_it_says_nothing() -> None:
    assert list(frames.Lines().feed(b'\n{"result":{}}\n\n')) == [{"result": {}}]


def test_half_a_surrogate_pair_cannot_break_a_line() -> None:
    assert list(frames.Lines().feed(frames.result_line({"x": "\ud800"}))) == [
        {"result": {"x": "?"}}
    ]
