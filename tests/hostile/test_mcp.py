"""Three stacks in a row, in namespaces: one has MCP servers that know secrets and name addresses
which no daemon should call, one relays, one uses them.

What is secret is searched for byte by byte in what the wire carried and in all that the stacks
wrote (their logs tell every detail). Where the addresses lead, somebody listens and counts.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import trio
from mcp.shared.exceptions import MCPError

from tests.e2e.hosts import SERVER, host, said, tools
from tests.e2e.lab import Lab, a_lab
from tests.e2e.stacks import Mesh, Stack, a_mesh, wait_until
from tests.hostile.mcp_http import KEPT, LINKS, LOOPBACK, METADATA, MOVED

# The official client leaves inner generators of its HTTP library to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

BEARER = "canary-bearer-token-77aa10"
REGISTERED = "canary-bearer-registered-0c4b"
ARGUMENT = "canary-in-an-argument-91fe"
WROTE = "canary-written-to-stderr-42bd"
EVERYWHERE = (KEPT, ARGUMENT, MOVED)
"""What only the caller's host and the server may know: no stack at all writes it down."""
OWN = (BEARER, REGISTERED, WROTE)
"""What its owner has to keep."""

FACE = "/mcp/ci/fading@w"
FADING = (
    "import pathlib, runpy, sys; known = pathlib.Path(sys.argv[1]); "
    "known.exists() and sys.exit(sys.argv[2]); known.touch(); "
    "runpy.run_path(sys.argv[3], run_name='__main__')"
)
"""A server that starts once, and from then on ends with its last words."""

NONE = [0, 0, 0, 0, 0]
ARP_FOR_METADATA = re.compile(
    rb"\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01.{16}\xa9\xfe\xa9\xfe", re.DOTALL
)
"""Somebody asks the network who has 169.254.169.254: what comes before any packet to it."""


class Row:
    """The stacks `w` (owner), `m` (relay) and `e` (caller), and who listens where."""

    def __init__(self, lab: Lab, mesh: Mesh, running: ExitStack) -> None:
        self.lab, self.mesh, self.running = lab, mesh, running
        self.folder = mesh.folder
        lab.bridge("lan")
        self.listening("wire.py", self.wire, netns=lab.router)
        self.spaces = {
            name: lab.host(name, "lan", f"10.88.1.{number}/24")
            for number, name in enumerate(("w", "m", "e", "meta"), 1)
        }
        ip("-n", self.spaces["meta"], "addr", "add", "169.254.169.254/32", "dev", "eth0")
        self.traps = [self.trap("meta", "169.254.169.254", 80)]
        for name in "wme":
            ip("-n", self.spaces[name], "route", "add", "169.254.169.254/32", "dev", "eth0")
            self.traps.append(self.trap(name, "127.0.0.1", 7999))
        self.traps.append(self.trap("w", "127.0.0.1", 80))
        self.seen = self.folder / "seen"
        self.at_socket = self.folder / "mcp.sock"
        for place in (7800, self.at_socket):
            self.listening("mcp_http.py", place, self.seen, netns=self.spaces["w"])

    @property
    def wire(self) -> Path:
        return self.folder / "wire"

    def __getitem__(self, name: str) -> Stack:
        return self.mesh.stacks[name]

    def listening(self, script: str, *words: object, netns: str) -> None:
        """Run a script of this folder until the end of the module."""
        path = str(Path(__file__).with_name(script))
        command = ["ip", "netns", "exec", netns, sys.executable, path, *map(str, words)]
        started = self.running.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE))
        self.running.callback(started.kill)
        assert started.stdout is not None and started.stdout.readline() == b"listening\n"

    def trap(self, name: str, address: str, port: int) -> Path:
        file = self.folder / f"trap-{name}-{port}"
        self.listening("trap.py", file, address, port, netns=self.spaces[name])
        return file

    def caught(self) -> list[int]:
        """Connections to the metadata service, to the loopback of each stack, to port 80 of w."""
        return [file.stat().st_size for file in self.traps]

    def start(self) -> None:
        before: list[str] = []
        for number, name in enumerate("wme", 1):
            here = f"10.88.1.{number}:7700"
            words = [*self.mesh.by_secret(), "--seeds-only", "--listen", here, *before]
            stack = self.mesh.add(name, *words, netns=self.spaces[name])
            stack.home.mkdir(mode=0o700)
            (stack.home / "tektonmesh.toml").write_text(settings(name))
            stack.spawn()
            before = ["--seed", here]
        for name in "wme":
            self[name].wait_ready(40)
        self.mesh.wait_all_see([self[name] for name in "wme"], within_s=20)


def settings(name: str) -> str:
    plain = 'log_level = "debug"\n'
    if name != "w":
        return plain
    return (
        'log_level = "debug"\nallow_endpoint_hosts = ["169.254.169.254"]\n'
        '[mcp.vault]\nurl = "http://127.0.0.1:7800/vault"\n'
        f'headers = {{ Authorization = "Bearer {BEARER}" }}\n'
        f'[mcp.metadata]\nurl = "{METADATA}"\n'
    )


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@contextmanager
def a_row(folder: Path) -> Iterator[Row]:
    with a_lab("mcp") as lab, a_mesh(folder) as mesh, ExitStack() as running:
        row = Row(lab, mesh, running)
        row.start()
        yield row


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    with a_row(tmp_path_factory.mktemp("row")) as made:
        wait_until("e knows the tools", lambda: "vault@w/give" in refs(made["e"]), within_s=20)
        yield made


def refs(stack: Stack) -> list[str]:
    return [tool["ref"] for tool in stack.rpc("tools")]


def register(stack: Stack, name: str, **mcp: Any) -> None:
    stack.rpc("register", name=name, attach=False, persist=True, mcp=mcp)


def failed(stack: Stack, name: str) -> bool:
    return f"mcp failed: ci={name} " in stack.log.read_text()


# --- links ---------------------------------------------------------------------------------------


@pytest.mark.hostile("links")
async def test_links_in_what_a_server_lists_and_answers_are_passed_on_and_never_followed(
    row: Row,
) -> None:
    async with host(row["e"], "/mcp/ci/vault@w") as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert METADATA in str(listed["give"].icons) and METADATA in str(listed["give"].description)
        uris = [str(one.uri) for one in (await client.list_resources()).resources]
        assert sorted(uris) == sorted(LINKS)
        for link in LINKS:
            assert link in str((await client.read_resource(link)).contents)
        assert METADATA in str(await client.list_resource_templates())
        assert METADATA in str(await client.list_prompts())
        assert LOOPBACK in str(await client.get_prompt("look"))
        result = str(await client.call_tool("links", {}))
        assert all(result.count(link) >= 2 for link in LINKS)
        await client.call_tool("pointing", {"x": 1, "y": 1})
    async with host(row["e"]) as client:
        assert "w__vault__links" in await tools(client)
        assert METADATA.partition("//")[2][:15] in str(await client.list_resources())
        described = await client.call_tool("mesh_describe_tool", {"name": "w__vault__links"})
        assert METADATA in said(described)
    transport = httpx2.HTTPTransport(uds=str(row["e"].home / "tektonmesh.sock"))
    with httpx2.Client(transport=transport) as http:
        assert http.get("http://localhost/a2a/vault@w/agent-card.json").status_code == 200
    assert row.caught() == NONE


@pytest.mark.hostile("links", "ssrf", "redirect")
def test_a_server_that_is_elsewhere_or_leads_there_is_not_called(row: Row) -> None:
    w, e = row["w"], row["e"]
    for url in (METADATA, "http://2852039166/", "http://0xa9fea9fe/", "http://[::ffff:a9fe:a9fe]/"):
        done = e.cli("register", "far", "--mcp-url", url)
        assert done.code == 2 and "mcp" in done.err, (url, done)
    # Not even the owner's own word opens the metadata service.
    wait_until("w refused it", lambda: failed(w, "metadata"), within_s=10)
    for name in ("away", "near", "locked"):
        url = f"http://127.0.0.1:7800/{name}"
        register(w, name, http={"url": url, "headers": {"Authorization": REGISTERED}})
    for name in ("away", "near", "locked"):
        wait_until(f"{name} failed", lambda name=name: failed(w, name), within_s=15)
    asked = row.seen.read_text()
    assert all(f"/{name} {REGISTERED}" in asked for name in ("away", "near", "locked"))
    assert row.caught() == NONE


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.hostile("canary")
def test_a_bearer_token_for_a_unix_socket_goes_there_and_not_to_a_port(row: Row) -> None:
    url = f"http+unix://{quote(str(row.at_socket), safe='')}/socket"
    headers = {"Authorization": REGISTERED}
    register(row["w"], "piped", http={"url": url, "headers": headers})
    wait_until("e knows it", lambda: "piped@w/give" in refs(row["e"]), within_s=15)
    assert f"/socket {REGISTERED}\n" in row.seen.read_text()
    assert row.caught() == NONE


@pytest.mark.hostile("canary", "links")
def test_a_caller_elsewhere_is_not_told_where_a_redirect_leads(row: Row) -> None:
    moved = row["e"].cli("call", "vault@w/moved")
    assert moved.code == 1 and "127.0.0.1" not in moved.err, moved
    assert "redirects to 'http://127.0.0.1:7999'," in row["w"].log.read_text()
    assert row.caught() == NONE


@pytest.mark.hostile("canary")
async def test_what_a_server_wrote_as_it_ended_is_told_to_its_owner_alone(row: Row) -> None:
    w, e = row["w"], row["e"]
    command = [sys.executable, "-c", FADING, str(row.folder / "known"), WROTE, str(SERVER)]
    register(w, "fading", stdio={"command": command})
    wait_until("e knows it", lambda: "fading@w/die" in refs(e), within_s=20)
    told: dict[str, list[str]] = {"w": [], "e": []}
    async with host(w, FACE) as own, host(e, FACE) as other:
        with pytest.raises(MCPError):
            await other.call_tool("die", {})
        # Until it has failed so often that its tools leave the lists.
        with trio.fail_after(20):
            while "Unknown tool" not in "".join(told["e"]):
                for name, client in (("w", own), ("e", other)):
                    with pytest.raises(MCPError) as raised:
                        await client.call_tool("echo", {"text": "x"})
                    told[name].append(str(raised.value))
                await trio.sleep(0.05)
    assert f"It wrote: {WROTE}" in "".join(told["w"])
    assert "The MCP server of 'fading' is not there." in told["e"]
    assert WROTE not in "".join(told["e"])
    assert f"It wrote: {WROTE}" in w.log.read_text()


@pytest.mark.hostile("canary")
def test_no_byte_of_a_secret_is_on_the_wire_or_in_what_a_stack_wrote(row: Row) -> None:
    """After the other tests of the module, so that everything has been said."""
    e = row["e"]
    given = json.dumps({"secret": ARGUMENT})
    assert e.cli("call", "vault@w/give", given).out.strip() == KEPT + ARGUMENT
    garbled = e.cli("call", "vault@w/garble", given)
    assert garbled.code == 1, garbled
    # Everything that e heard came by way of m.
    assert [link["stack"] for link in e.status()["links"]] == ["m"]
    for name in "wme":
        assert row[name].stop() == 0
    assert f"/vault Bearer {BEARER}\n" in row.seen.read_text()
    wire = row.wire.read_bytes()
    # ALPN is said in the clear: these are the links.
    assert len(wire) > 50_000 and b"tektonmesh/1" in wire
    searched = {name: held(row[name]) for name in "wme"} | {"the wire": wire}
    assert all(len(data) > 10_000 for data in searched.values())
    found = [
        (where, canary)
        for where, data in searched.items()
        for canary in (*EVERYWHERE, *OWN)
        if canary.encode() in data and not (where == "w" and canary in OWN)
    ]
    assert found == []
    assert all(canary.encode() in searched["w"] for canary in OWN)


def held(stack: Stack) -> bytes:
    """All that a stack wrote: its home, and its log with every detail."""
    files = [stack.log, *sorted(path for path in stack.home.rglob("*") if path.is_file())]
    return b"\0".join(path.read_bytes() for path in files)


@pytest.mark.hostile("links")
def test_the_traps_count_and_nobody_had_asked_for_the_metadata_service(row: Row) -> None:
    """The last test of the module: the daemons are gone, and the traps are tried."""
    assert row.caught() == NONE
    assert not ARP_FOR_METADATA.search(row.wire.read_bytes())
    reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)"
    for name in "wme":
        for address, port in (("169.254.169.254", "80"), ("127.0.0.1", "7999")):
            command = [sys.executable, "-W", "ignore", "-c", reach, address, port]
            subprocess.run(row[name].inside(command), check=True, timeout=20)
    wait_until("all are counted", lambda: row.caught() == [3, 1, 1, 1, 0], within_s=5)
    assert ARP_FOR_METADATA.search(row.wire.read_bytes())
