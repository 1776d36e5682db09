"""What the tests of links share: contexts of numbered stacks, and both ends over loopback."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio
import trio.testing

from tektonmesh.core.trust import Verdict
from tektonmesh.net.link import Link, LinkContext, LinkRefused, accept_link, open_link
from tektonmesh.net.tls import SeenLeaves, issue_leaf
from tests.support import MESH_KEY, make_keys


def admit(*_about: object) -> Verdict:
    """A judge that lets everybody in."""
    return Verdict(True, "allowed")


def turn_away(*_about: object) -> Verdict:
    """A judge that lets nobody in."""
    return Verdict(False, "pending")


def make_context(n: int, *, issued_at: int = 1, **changes: Any) -> LinkContext:
    """The context of stack `n`; `changes` are fields of LinkContext."""
    keys, identity = make_keys(n)
    context = LinkContext(
        identity=identity,
        keys=keys,
        leaf=issue_leaf(keys, issued_at),
        mesh_keys=(MESH_KEY,),
        listen=lambda: (f"127.0.0.1:{7700 + n}",),
        judge=admit,
        seen=SeenLeaves(),
    )
    return replace(context, **changes)


async def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback: the dialling and the accepting one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dialled = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    return dialled, accepted


class Door:
    """A listener that takes one connection at a time; `address` is where it listens."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"

    async def accept(self, context: LinkContext) -> Link | LinkRefused:
        sock, _ = await self._listener.socket.accept()
        try:
            return await accept_link(sock, context)
        except LinkRefused as refused:
            return refused

    async def accept_raw(self) -> socket.socket:
        sock, _ = await self._listener.socket.accept()
        return socket.socket(fileno=sock.detach())


@asynccontextmanager
async def open_door() -> AsyncIterator[Door]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        yield Door(listener)


async def meet(
    c: LinkContext, s: LinkContext, *, expect: bytes | None = None
) -> tuple[Link | LinkRefused, Link | LinkRefused]:
    """What a handshake between the two brings the client and the server."""
    ends: dict[str, Link | LinkRefused] = {}

    async def dial(address: str) -> None:
        try:
            ends["client"] = await open_link(address, c, expect=expect)
        except LinkRefused as refused:
            ends["client"] = refused

    async def take(door: Door) -> None:
        ends["server"] = await door.accept(s)

    async with open_door() as door, trio.open_nursery() as nursery:
        nursery.start_soon(take, door)
        nursery.start_soon(dial, door.address)
    return ends["client"], ends["server"]


@asynccontextmanager
async def linked(
    c: LinkContext | None = None, s: LinkContext | None = None
) -> AsyncIterator[tuple[Link, Link]]:
    """Two ends of a link whose writers run."""
    client, server = await meet(c or make_context(1), s or make_context(2))
    assert isinstance(client, Link) and isinstance(server, Link)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(server.run)
        await trio.testing.wait_all_tasks_blocked()
        yield client, server
        nursery.cancel_scope.cancel()
