"""MCP across a chain of three daemons, driven by the official client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from mcp.shared.exceptions import MCPError

from tests.e2e.hosts import attach, host, listed, said, tools
from tests.e2e.stacks import Stack, a_mesh, wait_until

# The official client leaves inner generators of its HTTP library to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
Chain = tuple[Stack, Stack, Stack]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """a - b - c, with a CI `tool` on c that has an MCP server, and a plain CI on b."""
    with a_mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        a, b, c = mesh.chain("abc")
        b.start_echo("plain")
        attach(c, "tool")
        attach(c, "odd", "--malformed")
        wait_until(
            "a sees them", lambda: {"tool@c", "odd@c", "plain@b"} <= set(a.cis()), within_s=10
        )
        yield a, b, c


def run(act: Any, *args: Any) -> Any:
    """One test's host, in a loop of its own; a sole error comes out of its groups."""
    try:
        return trio.run(partial(act, *args))
    except BaseExceptionGroup as group:
        found: BaseException = group
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        raise found from None


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_a_tool_two_hops_away_is_listed_and_called_in_both_eras(chain: Chain, mode: str) -> None:
    async def act() -> None:
        async with host(chain[0], mode=mode) as client:
            await listed(client, lambda names: "c__tool__echo" in names, 10)
            assert said(await client.call_tool("c__tool__echo", {"text": "two hops"})) == "two hops"
        async with host(chain[0], "/mcp/ci/tool@c", mode=mode) as client:
            assert "echo" in await tools(client)
            assert said(await client.call_tool("echo", {"text": "its own name"})) == "its own name"

    run(act)


def test_a_ci_without_mcp_is_used_by_its_messages(chain: Chain) -> None:
    async def act() -> None:
        async with host(chain[0]) as client:
            answer = await client.call_tool("b__plain__send_message", {"message": "hello"})
            assert "hello" in said(answer).lower()
        async with host(chain[0], "/mcp/ci/plain@b") as client:
            assert await tools(client) == ["send_message"]

    run(act)


def test_resources_come_under_uris_of_the_mesh_and_tell_of_their_changes(chain: Chain) -> None:
    async def act() -> None:
        async with host(chain[0]) as client:
            await listed(client, lambda names: "c__tool__touch" in names, 10)
            uris = [str(one.uri) for one in (await client.list_resources()).resources]
            assert "mesh://c/tool/note%3A%2F%2Fone" in uris
            uri = "mesh://c/tool/note%3A%2F%2Fone"
            async with client.listen(resource_subscriptions=[uri]) as changes:
                await trio.sleep(0.3)  # until the owner has been asked to tell
                await client.call_tool("c__tool__touch", {"text": "second"})
                with trio.fail_after(5):
                    event = await anext(aiter(changes))
                assert str(event.uri) == uri
            read = await client.read_resource(uri)
            assert (str(read.contents[0].uri), read.contents[0].text) == (uri, "second")

    run(act)


def test_progress_comes_through_and_a_cancelled_call_is_cancelled_at_its_server(
    chain: Chain, tmp_path: Path
) -> None:
    file = tmp_path / "seen"

    async def act() -> float:
        steps: list[float] = []

        async def progress(done: float, _total: float | None, _words: str | None) -> None:
            steps.append(done)

        async with host(chain[0]) as client:
            await listed(client, lambda names: "c__tool__wait" in names, 10)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def call() -> None:
                        arguments = {"file": str(file)}
                        await client.call_tool(
                            "c__tool__wait", arguments, progress_callback=progress
                        )

                    nursery.start_soon(call)
                    while len(steps) < 3:
                        await trio.sleep(0.01)
                    scope.cancel()
            began = trio.current_time()
            with trio.fail_after(5):
                while not file.exists():
                    await trio.sleep(0.01)
            assert steps == sorted(steps)
            return trio.current_time() - began

    assert run(act) < 0.5


def test_a_new_tool_is_told_of_and_a_dead_server_s_tools_go(chain: Chain) -> None:
    a, _b, c = chain
    attach(c, "changing")

    async def act() -> None:
        async with host(a) as client:
            await listed(client, lambda names: "c__changing__add" in names, 10)
            async with client.listen(tools_list_changed=True) as changes:
                told = aiter(changes)
                await client.call_tool("c__changing__add", {"name": "later"})
                began = trio.current_time()
                with trio.fail_after(5):
                    await anext(told)
                # A debounce at each end, and a propagation between them.
                assert trio.current_time() - began < 2.0
                assert "c__changing__later" in await tools(client)
                c.cli("deregister", "changing")
                with trio.fail_after(5):
                    await anext(told)
            await listed(client, lambda names: "c__changing__add" not in names, 2)

    run(act)


def test_a_server_that_dies_during_a_call_fails_it_at_once_and_comes_back(chain: Chain) -> None:
    async def act() -> None:
        async with host(chain[0]) as client:
            await listed(client, lambda names: "c__tool__die" in names, 10)
            began = trio.current_time()
            with pytest.raises(MCPError) as raised:
                await client.call_tool("c__tool__die", {})
            assert trio.current_time() - began < 2.0
            data = raised.value.error.data
            assert (data["stack"], data["ci"], data["code"]) == ("c", "tool", "ci_failed")
            with trio.fail_after(10):
                while True:
                    try:
                        answer = await client.call_tool("c__tool__echo", {"text": "again"})
                        break
                    except MCPError:
                        await trio.sleep(0.1)
            assert said(answer) == "again"

    run(act)


def test_malformed_tools_cost_themselves_and_not_the_list(chain: Chain) -> None:
    async def act() -> None:
        async with host(chain[0], "/mcp/ci/odd@c") as client:
            found = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert "echo" in found
            assert not {"noschema", "list", "huge", "numbers", "icons"} & set(found)
            assert found["hidden"].description == "Plain words[31m."
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool("noschema", {})

    run(act)


def test_arguments_that_do_not_fit_never_reach_the_server(chain: Chain) -> None:
    async def act() -> None:
        async with host(chain[0], "/mcp/ci/tool@c") as client:
            answer = await client.call_tool("echo", {"text": 7})
            assert answer.is_error
            assert "text" in said(answer)

    run(act)


def test_the_tools_of_the_mesh_find_describe_and_call(chain: Chain) -> None:
    async def act() -> None:
        async with host(chain[0]) as client:
            await listed(client, lambda names: "c__tool__echo" in names, 10)
            found = json.loads(said(await client.call_tool("mesh_search_tools", {"query": "echo"})))
            assert "c__tool__echo" in [tool["name"] for tool in found["tools"]]
            described = await client.call_tool("mesh_describe_tool", {"name": "c__tool__echo"})
            assert json.loads(said(described))["inputSchema"]["required"] == ["text"]
            given = {"name": "c__tool__echo", "arguments": {"text": "found"}}
            assert said(await client.call_tool("mesh_call_tool", given)) == "found"
            registry = await client.read_resource("mesh://registry")
            assert "tool@c" in registry.contents[0].text

    run(act)


def test_an_unknown_ci_has_no_face(chain: Chain) -> None:
    transport = httpx2.HTTPTransport(uds=str(chain[0].home / "tektonmesh.sock"))
    with httpx2.Client(transport=transport) as http:
        answer = http.post("http://localhost/mcp/ci/nobody@c", json={})
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_two_stacks_with_the_same_tool_are_both_called(chain: Chain) -> None:
    a, b, _c = chain
    attach(b, "tool")

    async def act() -> None:
        async with host(a) as client:
            await listed(client, lambda names: {"b__tool__echo", "c__tool__echo"} <= set(names), 10)
            for name in ("b__tool__echo", "c__tool__echo"):
                assert said(await client.call_tool(name, {"text": name})) == name

    run(act)
