"""Who calls, as the owner of a tool learns it: in its policy, at its server, and in both logs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.e2e.hosts import attach, host, said
from tests.e2e.stacks import Stack, a_mesh, wait_until
from tests.e2e.test_mcp import HELLO, run

# The official client leaves inner generators of its HTTP library to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
Chain = tuple[Stack, Stack, Stack]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """a - b - c; b and c have a CI `tool` with an MCP server."""
    with a_mesh(tmp_path_factory.mktemp("mesh")) as mesh:
        a, b, c = mesh.chain("abc")
        attach(b, "tool")
        attach(c, "tool")
        wait_until(
            "a sees them", lambda: {"tool@b/onward", "tool@c/caller"} <= refs(a), within_s=10
        )
        yield a, b, c


def refs(stack: Stack) -> set[str]:
    return {tool["ref"] for tool in stack.rpc("tools")}


def entries(stack: Stack, **wanted: Any) -> list[dict[str, Any]]:
    """The newest entries of the audit log that are so, as a person reads them."""
    found = stack.cli("audit", "tail", "-n", "500", "--json").lines()
    return [one for one in found if wanted.items() <= one.items()]


def audited(stack: Stack, **wanted: Any) -> dict[str, Any]:
    return wait_until(f"{wanted}", lambda: entries(stack, **wanted), within_s=5)[-1]


def onward(b: Stack, ref: str, **given: Any) -> str:
    return json.dumps({"socket": str(b.home / "tektonmesh.sock"), "ref": ref, "given": given})


def test_a_call_has_one_id_in_the_logs_of_both_ends(chain: Chain) -> None:
    a, _b, c = chain
    assert a.cli("call", "tool@c/echo", '{"text": "canary"}').out == "canary\n"
    verb = "tool.call:echo"
    here = audited(a, kind="allow", side="caller", verb=verb, ci="tool")
    there = audited(c, kind="allow", side="owner", verb=verb, ci="tool")
    assert here["ref"] == there["ref"] and len(here["ref"]) == 32
    assert here["stack"] == c.status()["id"] and there["stack"] == a.status()["id"]
    for stack in (a, c):
        assert "canary" not in "".join(map(str, entries(stack)))


def test_a_call_that_fails_tells_its_host_the_id_of_the_logs(chain: Chain) -> None:
    a, _b, c = chain

    async def act() -> str:
        async with host(a) as client:
            with pytest.raises(MCPError) as raised:
                await client.call_tool("c__tool__die", {})
            return str(raised.value.error.data["call"])

    number = run(act)
    verb = "tool.call:die"
    assert audited(a, side="caller", verb=verb)["ref"] == number
    assert audited(c, side="owner", verb=verb)["ref"] == number


def test_a_server_that_calls_on_is_named_to_the_next_owner(chain: Chain) -> None:
    a, b, c = chain
    text = a.cli("call", "tool@b/onward", onward(b, "tool@c/caller")).out
    told = json.loads(text)
    assert (told["ci"], told["stack"], told["depth"]) == ("tool", "b", 1)
    there = audited(c, side="owner", verb="tool.call:caller")
    here = audited(b, side="caller", verb="tool.call:caller")
    assert there["ref"] == here["ref"] == told["call"]
    assert (there["caller"], there["depth"]) == (here["caller"], here["depth"]) == ("tool", 1)
    direct = json.loads(a.cli("call", "tool@c/caller").out)
    assert (direct["ci"], direct["stack"], direct["depth"]) == ("", "a", 0)


def test_a_host_cannot_say_who_it_is_in_the_place_of_its_stack(chain: Chain) -> None:
    lie = {"tektonmesh/caller": {"ci": "root", "stack": "c", "depth": 0, "call": "00"}}

    async def act() -> str:
        async with host(chain[0]) as client:
            return said(await client.call_tool("c__tool__caller", {}, meta=lie))

    told = json.loads(run(act))
    assert (told["ci"], told["stack"]) == ("", "a")


def test_an_attached_ci_is_named_when_it_calls(chain: Chain) -> None:
    a, _b, c = chain
    with a.connect() as link:
        link.say(id=1, method="register", params={"name": "numa"})
        link.hear()
        link.say(id=2, method="call", params={"ref": "tool@c/caller"})
        answer = link.hear()
    told = json.loads(answer["result"]["content"][0]["text"])
    assert (told["ci"], told["stack"]) == ("numa", "a")
    assert audited(c, side="owner", caller="numa")["ref"] == told["call"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_host_of_a_ci_is_named_by_the_token_that_it_shows(chain: Chain, mode: str) -> None:
    a = chain[0]
    token = a.rpc("register", name=f"agent-{mode}", attach=False, persist=True)["token"]
    headers = {"Tektonmesh-CI": f"agent-{mode}", "Tektonmesh-CI-Token": token}

    async def act(shown: dict[str, str]) -> str:
        async with host(a, mode=mode, headers=shown) as client:
            return said(await client.call_tool("c__tool__caller", {}))

    assert json.loads(run(act, headers))["ci"] == f"agent-{mode}"
    with pytest.raises(MCPError, match="does not speak"):
        run(act, headers | {"Tektonmesh-CI-Token": "wrong"})
    for stack in chain:
        held = [path.read_bytes() for path in [stack.log, *stack.home.rglob("*")] if path.is_file()]
        assert not [data for data in held if token.encode() in data]


def test_the_pipe_of_a_ci_is_named_too(chain: Chain, tmp_path: Path) -> None:
    a = chain[0]
    file = tmp_path / "token"
    file.write_text(a.rpc("register", name="piped", attach=False, persist=True)["token"] + "\n")
    asked = [
        {"id": 1, "method": "initialize", "params": HELLO},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "caller", "arguments": {}}},
    ]
    text = "".join(json.dumps({"jsonrpc": "2.0"} | one) + "\n" for one in asked)
    pipe = ("mcp", "--ci", "tool@c", "--from", "piped")
    done = a.cli(*pipe, "--token-file", str(file), text=text)
    answers = {one["id"]: one for one in done.lines()}
    assert json.loads(answers[2]["result"]["content"][0]["text"])["ci"] == "piped"
    file.write_text("wrong")
    done = a.cli(*pipe, "--token-file", str(file), text=text)
    assert "does not speak" in done.out
    assert a.cli(*pipe).code == 2


def test_caveats_about_the_caller_and_the_chain_hold_end_to_end(chain: Chain) -> None:
    a, b, c = chain
    c.rpc("terms", stack="b", mode="partial", shared_cis=["none"])
    grant = c.rpc("grant", stack="b", verb="tool.call:caller", ci="tool", depth_max=0)
    wait_until("b lists it alone", lambda: of_c(b) == ["tool@c/caller"], within_s=10)
    assert b.cli("call", "tool@c/caller").code == 0
    refused = json.loads(a.cli("call", "tool@b/onward", onward(b, "tool@c/caller")).out)
    assert refused["data"]["code"] == "refused"
    assert audited(c, kind="deny", caller="tool", depth=1)["code"] == "refused"
    c.rpc("revoke", grant=grant["id"])
    c.rpc("grant", stack="b", verb="tool.call:caller", ci="tool", caller_ci="tool")
    wait_until("granted", lambda: of_c(b) == ["tool@c/caller"], within_s=10)
    assert b.cli("call", "tool@c/caller").code == 6
    told = json.loads(a.cli("call", "tool@b/onward", onward(b, "tool@c/caller")).out)
    assert (told["ci"], told["depth"]) == ("tool", 1)


def of_c(stack: Stack) -> list[str]:
    return sorted(ref for ref in refs(stack) if "@c/" in ref)
