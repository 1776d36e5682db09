"""The ways to a server of this stack, each to a real one: a process, a listener, a connection."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
import trio
from mcp.shared.message import SessionMessage

from tektonmesh.api.lines import LineSocket
from tektonmesh.api.mcplink import McpLink
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.mcp.transports import LINE_SHOWN, by_http, by_link, by_process
from tektonmesh.net.reach import Reach
from tektonmesh.net.rounds import Rounds
from tektonmesh.wire.jsonrpc import Request, Result

ECHO = """
import json, os, sys
sys.stderr.write(os.environ.get("SAY", "") + chr(0x202e) + chr(10)); sys.stderr.flush()
for line in sys.stdin:
    asked = json.loads(line)
    about = {"id": asked["id"], "cwd": os.getcwd(), "env": os.environ.get("SAY"), "argv": sys.argv}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": about}), flush=True)
"""


def asked(number: int = 1, method: str = "ping") -> SessionMessage:
    return SessionMessage(types.JSONRPCRequest(jsonrpc="2.0", id=number, method=method))


async def answer(streams: Any, number: int = 1) -> Any:
    """What comes back for one request."""
    incoming, outgoing = streams
    with trio.fail_after(10):
        await outgoing.send(asked(number))
        return (await incoming.receive()).message


# --- a process -----------------------------------------------------------------------------------


async def test_a_process_is_started_as_its_registration_says_and_ends_with_the_block(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tektonmesh.mcp.transports")
    wrote: list[str] = []
    stdio = {
        "command": [sys.executable, "-c", ECHO, "word"],
        "env": {"SAY": "first\nlast" + "x" * 300},
        "cwd": str(tmp_path),
    }
    async with by_process(stdio, "numa", wrote.append) as streams:
        result = (await answer(streams)).result
        assert (result["cwd"], result["argv"][1:]) == (str(tmp_path), ["word"])
        assert result["env"] == stdio["env"]["SAY"]
        assert not wrote
    # The last line alone, as it may be shown.
    assert wrote == [("last" + "x" * 300)[:LINE_SHOWN]]
    assert "the MCP server of numa wrote: first" in caplog.text


async def test_a_process_that_writes_nothing_has_nothing_to_show(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "tektonmesh.mcp.transports")
    wrote: list[str] = []
    async with by_process({"command": ["cat"]}, "numa", wrote.append):
        pass
    assert wrote == [""] and "wrote" not in caplog.text


async def test_a_command_that_is_not_there_is_said() -> None:
    wrote: list[str] = []
    with pytest.raises(LocalError, match="'/no/such/program' cannot be started: No such file"):
        async with by_process({"command": ["/no/such/program"]}, "numa", wrote.append):
            raise AssertionError
    assert wrote == [""]


# --- a listener ----------------------------------------------------------------------------------


class Web:
    """An HTTP server that answers every request with `lines` and a body."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.head = "HTTP/1.1 200 OK\r\ncontent-type: application/json"
        self.body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"said": "hello"}})

    async def serve(self, stream: trio.SocketStream) -> None:
        got = b""
        async for data in stream:
            got += data
            head, end, body = got.partition(b"\r\n\r\n")
            size = int(next((line.split(b":")[1] for line in head.lower().split(b"\r\n")
                             if line.startswith(b"content-length")), b"0"))  # fmt: skip
            if end and len(body) >= size:
                self.heard.append(head.decode())
                got = body[size:]
                answer = f"{self.head}\r\ncontent-length: {len(self.body)}\r\n\r\n{self.body}"
                await stream.send_all(answer.encode())


@asynccontextmanager
async def a_web(path: Path | None = None) -> AsyncIterator[tuple[Web, str]]:
    """A listener on loopback or on a Unix socket, and its URL."""
    web = Web()
    family = socket.AF_INET if path is None else socket.AF_UNIX
    listening = trio.socket.socket(family, socket.SOCK_STREAM)
    await listening.bind(("127.0.0.1", 0) if path is None else str(path))
    listening.listen()
    url = (
        f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        if path is None
        else f"http+unix://{str(path).replace('/', '%2F')}/mcp"
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, web.serve, [trio.SocketListener(listening)])
        yield web, url
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def a_reach(*hosts: str) -> AsyncIterator[Reach]:
    reach = Reach(hosts)
    yield reach
    await reach.aclose()


async def test_a_listener_is_called_at_the_address_that_was_checked() -> None:
    async with a_web() as (web, url), a_reach() as reach:
        http = {"url": url.replace("127.0.0.1", "localhost"), "headers": {"X-Own": "word"}}
        async with by_http(http, reach) as streams:
            assert (await answer(streams)).result == {"said": "hello"}
        head = web.heard[0].lower()
        assert "post /mcp http/1.1" in head and "x-own: word" in head
        assert f"host: localhost:{url.rpartition(':')[2].split('/')[0]}" in head


async def test_a_listener_on_a_socket_is_called_there_and_nowhere_else(tmp_path: Path) -> None:
    async with a_web(tmp_path / "s") as (web, url), a_reach() as reach:
        async with by_http({"url": url}, reach) as streams:
            assert (await answer(streams)).result == {"said": "hello"}
        assert len(web.heard) == 1


async def test_one_that_wants_a_sign_in_is_called_by_its_own_name() -> None:
    async with a_web() as (web, url), a_reach() as reach:
        auth = httpx2.BasicAuth("somebody", "word")
        async with by_http({"url": url.replace("127.0.0.1", "localhost")}, reach, auth) as streams:
            assert (await answer(streams)).result == {"said": "hello"}
        assert "authorization: basic" in web.heard[0].lower()


async def test_a_host_that_nobody_allowed_is_not_called() -> None:
    async with a_reach() as reach:
        with pytest.raises(MeshError):
            async with by_http({"url": "http://192.0.2.1/mcp"}, reach):
                raise AssertionError


@pytest.mark.parametrize("where", ["http://192.0.2.1/secret", "https://127.0.0.1/", "http://[bad"])
async def test_where_a_redirect_leads_to_another_origin_is_not_followed_and_not_told(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_web() as (web, url), a_reach() as reach:
        web.head = f"HTTP/1.1 307 Temporary Redirect\r\nlocation: {where}"
        web.body = ""
        async with by_http({"url": url}, reach) as streams:
            told = await answer(streams)
        assert isinstance(told, types.JSONRPCError)
        assert where not in str(told) and "192.0.2.1" not in str(told)
        assert len(web.heard) == 1
        assert "is not followed" in caplog.text


async def test_a_redirect_within_the_origin_is_left_to_the_sdk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with a_web() as (web, url), a_reach() as reach:
        web.head = "HTTP/1.1 307 Temporary Redirect\r\nlocation: /other"
        web.body = ""
        async with by_http({"url": url}, reach) as streams:
            await answer(streams)
        assert len(web.heard) >= 1
        assert "is not followed" not in caplog.text


# --- the connection of an attached CI ------------------------------------------------------------


async def test_a_ci_that_is_not_connected_has_no_way_to_it() -> None:
    with pytest.raises(LocalError, match="'numa' is not connected"):
        async with by_link(None, "numa"):
            raise AssertionError


async def test_a_connection_carries_requests_both_ways_and_its_end() -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        far.settimeout(5.0)
        link = McpLink(LineSocket(near, b"", Rounds()))
        async with by_link(link, "numa") as (incoming, outgoing):
            with incoming, outgoing, trio.fail_after(5):
                await outgoing.send(asked(7, "tools/list"))
                line = await trio.to_thread.run_sync(far.recv, 4096)
                said = {"jsonrpc": "2.0", "id": "mcp:7", "method": "tools/list"}
                assert json.loads(line) == said
                assert link.takes(Result("mcp:7", {"tools": []}))
                told = (await incoming.receive()).message
                assert (told.id, told.result) == (7, {"tools": []})
                assert link.takes(Request("q", "roots/list"))
                assert (await incoming.receive()).message.method == "roots/list"
                bad: Any = [1]
                # What is no message of MCP is for the session to pass over.
                assert link.takes(Request(None, "notifications/x", bad))
                assert isinstance(await incoming.receive(), ValueError)
                link.close()
                with pytest.raises(anyio.EndOfStream):
                    await incoming.receive()
