"""The ways to an MCP server of this stack: a process, an URL, or the connection of an attached CI.

Each gives two streams of messages for the length of a block. Commands come from the settings or
from a registration by the owner of this daemon, URLs pass the same check as every endpoint; nothing
that another stack says leads here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TextIO

import anyio
import httpx2
import mcp_types as types
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from tektonmesh.api.mcplink import McpLink
from tektonmesh.api.tasks import helpers
from tektonmesh.errors import LocalError
from tektonmesh.mcp.catalogue import clean_text
from tektonmesh.net.reach import Reach

_LOG = logging.getLogger(__name__)
# The SDK logs messages that it cannot read with what is in them: arguments and results, which are
# nobody's business. That a server failed is said by `servers`.
logging.getLogger("mcp").setLevel(logging.CRITICAL)

STDERR_SHOWN = 2000
LINE_SHOWN = 200
"""Characters of what a server wrote to stderr that are logged when it ends."""
HTTP_TIMEOUT_S = 30.0
READ_TIMEOUT_S = 900.0
"""A response stream may be silent for as long as a call may take."""

Streams = tuple[Any, Any]


@asynccontextmanager
async def by_process(
    stdio: dict[str, Any], name: str, wrote: Callable[[str], None]
) -> AsyncIterator[Streams]:
    """A server started here: its stdin is closed at the end, then it gets TERM, then KILL. `wrote`
    is told the last line that it wrote to stderr."""
    command, *arguments = stdio["command"]
    started = StdioServerParameters(
        command=command, args=arguments, env=stdio.get("env") or None, cwd=stdio.get("cwd")
    )
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as written:
        try:
            async with stdio_client(started, errlog=written) as streams:
                yield streams
        except OSError as error:
            raise LocalError(f"'{command}' cannot be started: {error.strerror}.") from None
        finally:
            wrote(_end_of(written, name))


def _end_of(written: TextIO, name: str) -> str:
    """The last line of what it wrote; more of it goes to the log."""
    size = written.seek(0, os.SEEK_END)
    written.seek(max(0, size - STDERR_SHOWN))
    text = clean_text(written.read()).strip()
    if text:
        _LOG.debug("the MCP server of %s wrote: %s", name, text)
    return text.rpartition("\n")[2][:LINE_SHOWN]


@asynccontextmanager
async def by_http(
    http: dict[str, Any], reach: Reach, auth: httpx2.Auth | None = None
) -> AsyncIterator[Streams]:
    """A server that listens at a URL or a Unix socket on this machine (or at an allowed host)."""
    timeout = httpx2.Timeout(HTTP_TIMEOUT_S, read=READ_TIMEOUT_S)
    headers = http.get("headers") or {}
    target = await reach.check(http["url"])
    # The address that was checked is called, but for https, where the name is needed.
    url = http["url"] if target.server_name or auth is not None else target.url
    if url == target.url:
        headers = {**headers, "Host": target.host}
    # Without the path of the socket its secrets would go to whatever listens on port 80.
    by_socket = httpx2.AsyncHTTPTransport(uds=target.socket) if target.socket else None
    async with (
        httpx2.AsyncClient(
            headers=headers,
            timeout=timeout,
            auth=auth,
            trust_env=False,
            transport=by_socket,
            event_hooks={"response": [_stay]},
        ) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


async def _stay(answer: httpx2.Response) -> None:
    """Take out where a redirect to another origin leads. It is not followed, and the SDK would tell
    the caller of it, who may be on another stack: which addresses there are here is not its
    business."""
    if not answer.has_redirect_location:
        return
    here, there = _origin(answer.request.url), ""
    with contextlib.suppress(httpx2.InvalidURL):
        there = _origin(answer.request.url.join(answer.headers["Location"]))
    if there != here:
        _LOG.warning("an MCP server redirects to '%s', which is not followed", there)
        del answer.headers["Location"]


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode()}"


@asynccontextmanager
async def by_link(link: McpLink | None, name: str) -> AsyncIterator[Streams]:
    """The connection of an attached CI, which carries MCP beside its messages."""
    if link is None:
        raise LocalError(f"'{name}' is not connected.")
    to_us, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, from_us = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with to_us:
            async for message in link.received:
                await to_us.send(_message_of(message))

    async def write() -> None:
        async with from_us:
            async for said in from_us:
                link.send(said.message.model_dump(by_alias=True, mode="json", exclude_unset=True))

    async with helpers() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(write)
        yield incoming, outgoing


def _message_of(message: dict[str, Any]) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_python(message, by_name=False))
    except ValueError as error:
        return error
