"""The tools and resources of the mesh itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tektonmesh.mcp.mesh_tools import FOUND_DEFAULT, TOOLS, MeshTools, search
from tektonmesh.mcp.scopes import Everything
from tests.desks import Desks, catalogue, tool
from tests.unit.mcp.test_scopes import Known, entry

MADE = catalogue(
    tools=[
        tool("read_file", title="Read", description="Read one file of the disk."),
        tool("write_file", description="Write a file."),
        tool("weather", description="Says what to read in the sky."),
    ]
)


class Bench:
    """A stack `a` with the CI `numa`, beside `b`; both are listed with what they offer."""

    def __init__(self, *, search_only: bool = False) -> None:
        desks = Desks("a", "b")
        self.desk = desks["a"]
        desks["b"].member.register("plain")
        self.desk.member.register("numa")
        desks.settle(2.0)
        known: Any = Known([entry("numa", "a", MADE, local=True)])
        self.scope = Everything(known)
        self.mesh = MeshTools(self.desk, known, self.scope, search_only=search_only)
        self.used: list[tuple[str, Any]] = []

    async def use(self, name: str, arguments: dict[str, Any] | None) -> dict[str, Any]:
        self.used.append((name, arguments))
        return {"content": []}

    async def call(self, name: str, /, **arguments: Any) -> Any:
        """What a tool said, read as JSON; its text if it is none."""
        result = await self.mesh.call(name, arguments, self.use)
        text = result["content"][0]["text"] if result["content"] else ""
        try:
            return json.loads(text)
        except ValueError:
            return text


def test_each_of_them_is_listed_and_says_whether_it_only_reads() -> None:
    bench = Bench()
    reads = {one["name"]: one["annotations"]["readOnlyHint"] for one in bench.mesh.items("tools")}
    assert [name for name, only in reads.items() if not only] == ["mesh_call_tool", "mesh_send"]
    assert all(bench.mesh.has(one["name"]) for one in TOOLS) and not bench.mesh.has("other")
    assert [one["uri"] for one in bench.mesh.items("resources")] == ["mesh://registry"]
    assert len(bench.mesh.items("templates")) == 2
    assert bench.mesh.items("prompts") == []


async def test_tools_are_found_by_words_best_first() -> None:
    found = await Bench().call("mesh_search_tools", query="read file")
    assert [one["name"] for one in found["tools"]] == ["a__numa__read_file"]
    assert found["tools"][0]["description"].startswith("[numa@a]")


@pytest.mark.parametrize("limit", [0, 51, "1", True, None])
async def test_a_limit_that_is_none_is_the_usual_one(limit: Any) -> None:
    found = await Bench().call("mesh_search_tools", query="", limit=limit)
    assert (len(found["tools"]), found["found"]) == (3, 3)
    assert FOUND_DEFAULT > 3


async def test_a_limit_is_kept_and_what_is_beyond_it_counted() -> None:
    found = await Bench().call("mesh_search_tools", query="file", limit=1)
    assert (len(found["tools"]), found["found"]) == (1, 2)


def test_names_count_most_and_without_a_whole_match_the_most_words() -> None:
    shown = list(Bench().scope.shown("tools").values())
    assert [one.key for one in search(shown, "read")] == ["read_file", "weather"]
    assert [one.key for one in search(shown, "write sky nothing")] == ["write_file", "weather"]
    assert search(shown, "absent") == []


async def test_a_tool_is_described_if_it_is_listed() -> None:
    bench = Bench()
    assert (await bench.call("mesh_describe_tool", name="a__numa__weather"))["inputSchema"]
    assert "no tool 'absent'" in await bench.call("mesh_describe_tool", name="absent")


async def test_a_tool_is_called_by_its_name_but_not_the_mesh_s_own() -> None:
    bench = Bench()
    await bench.call("mesh_call_tool", name="x", arguments={"y": 1})
    await bench.call("mesh_call_tool", name="x")
    assert bench.used == [("x", {"y": 1}), ("x", {})]
    assert "must be an object" in await bench.call("mesh_call_tool", name="x", arguments=7)
    assert "itself" in await bench.call("mesh_call_tool", name="mesh_status")
    assert len(bench.used) == 2


async def test_cis_are_listed_with_what_each_offers() -> None:
    rows = {row["address"]: row for row in (await Bench().call("mesh_list_cis"))["cis"]}
    assert rows["numa@a"]["mcp"]["tools"] == 3
    assert "mcp" not in rows["plain@b"]


async def test_a_message_is_sent_to_any_ci() -> None:
    assert await Bench().call("mesh_send", to="plain@b", message="hello") == "HELLO"
    assert "missing" in await Bench().call("mesh_send", to="plain@b")


async def test_the_state_of_this_stack_is_told() -> None:
    assert (await Bench().call("mesh_status"))["name"] == "a"


def read(bench: Bench, uri: str) -> Any:
    result = bench.mesh.read(uri)
    return None if result is None else json.loads(result["contents"][0]["text"])


def test_resources_of_the_mesh_are_read() -> None:
    bench = Bench()
    assert [row["address"] for row in read(bench, "mesh://registry")] == ["numa@a", "plain@b"]
    assert read(bench, "mesh://stack/b")[0]["name"] == "b"
    assert read(bench, "mesh://ci/b/plain")[0]["address"] == "plain@b"


@pytest.mark.parametrize("uri", ["note://one", "mesh://west/files/x%3Ay", "mesh://other/one"])
def test_what_is_a_ci_s_is_not_read_here(uri: str) -> None:
    assert read(Bench(), uri) is None


@pytest.mark.parametrize("uri", ["mesh://stack/nobody", "mesh://ci/b/nobody"])
def test_what_is_not_there_is_not_found(uri: str) -> None:
    with pytest.raises(MCPError, match="Resource not found"):
        read(Bench(), uri)
