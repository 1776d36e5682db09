"""How a registration names its MCP server, and how a connection says that it wants MCP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tektonmesh.api.mcpdoor import Wanted, face_of
from tektonmesh.api.validate import LOOPBACK_ONLY, mcp_server
from tektonmesh.errors import LocalError


def server(value: Any, kind: str = "none", *, may_start: bool = True) -> Any:
    return mcp_server(value, LOOPBACK_ONLY, kind, may_start=may_start)


def test_a_command_may_be_said_in_each_usual_form() -> None:
    wanted = {"stdio": {"command": ["npx", "-y", "x"], "env": {}, "cwd": None}}
    for what in (
        ["npx", "-y", "x"],
        {"command": ["npx", "-y", "x"]},
        {"command": "npx", "args": ["-y", "x"]},
    ):
        assert server({"stdio": what}) == wanted


def test_an_address_is_of_this_machine() -> None:
    url = "http://127.0.0.1:8931/mcp"
    assert server({"http": url}) == {"http": {"url": url, "headers": {}}}
    for far in ("http://example.com/mcp", "http://2130706433/", "file:///etc/passwd", 7, None):
        with pytest.raises(LocalError):
            server({"http": {"url": far}})


def test_a_connection_carries_mcp_only_if_there_is_one() -> None:
    assert server({"socket": True}, "attached") == {"socket": True}
    for value, kind in ((True, "none"), (True, "http"), (False, "attached"), (1, "attached")):
        with pytest.raises(LocalError):
            server({"socket": value}, kind)


@pytest.mark.parametrize(
    "value",
    [
        7,
        {},
        {"stdio": ["x"], "http": "http://127.0.0.1/"},
        {"pipe": ["x"]},
        {"stdio": []},
        {"stdio": "x"},
        {"stdio": {"command": []}},
        {"stdio": {"command": [7]}},
        {"stdio": {"command": ["a\x00b"]}},
        {"stdio": {"command": ["x"] * 100}},
        {"stdio": {"command": "x", "args": "y"}},
        {"stdio": {"command": "x", "env": ["y"]}},
        {"stdio": {"command": "x", "env": {"A": 1}}},
        {"stdio": {"command": "x", "cwd": 7}},
    ],
)
def test_what_is_malformed_names_its_field(value: Any) -> None:
    with pytest.raises(LocalError) as raised:
        server(value)
    assert raised.value.data["field"].startswith("mcp")


def test_commands_are_refused_from_those_who_may_not_start_any() -> None:
    with pytest.raises(LocalError) as raised:
        server({"stdio": ["x"]}, may_start=False)
    assert raised.value.code.name == "refused"
    assert server({"http": "http://127.0.0.1/"}, may_start=False)
    assert server(None, may_start=False) is None


def first(**message: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0"} | message).encode()


def test_the_first_line_says_whether_a_connection_speaks_mcp() -> None:
    meta = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    assert face_of(first(id=1, method="initialize", params={})) == Wanted()
    assert face_of(first(id=1, method="server/discover", params={})) == Wanted()
    assert face_of(first(id=1, method="tools/list", params=meta)) == Wanted()
    said = first(method="mcp", params={"ci": "a@b"})
    assert face_of(said) == Wanted(ci="a@b", said=True)
    assert face_of(first(method="mcp", params={"view": "v"})) == Wanted(view="v", said=True)
    said = first(method="mcp", params={"from": "numa", "token": "t"})
    assert face_of(said) == Wanted(said=True, sender="numa", token="t")


@pytest.mark.parametrize(
    "line",
    [
        first(id=1, method="status"),
        first(id=1, method="mcp", params={}),
        first(id=1, method="register", params={"name": "x", "mcp": {"socket": True}}),
        b'"initialize"',
        b"initialize",
        b'{"method": "initialize"',
    ],
)
def test_our_own_methods_are_not_taken_for_mcp(line: bytes) -> None:
    assert face_of(line) is None
