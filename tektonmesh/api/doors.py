"""The doors of a daemon for local programs: the Unix socket, and HTTP over TCP where it is asked
for.

It decides which doors open and that none stays open behind a failure; what is said at them is
decided in `unix` and `http`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tektonmesh.api.http.server import HttpServer, bound_tcp
from tektonmesh.api.mcpdoor import McpDoor
from tektonmesh.api.operations import Operations
from tektonmesh.api.tasks import helpers
from tektonmesh.api.unix import bound_socket, serve_unix
from tektonmesh.net.daemon import Daemon


@asynccontextmanager
async def open_doors(daemon: Daemon) -> AsyncIterator[Operations]:
    """The doors, open and answering for the length of the block.

    Sets `daemon.http` to the address that was bound. Raises LocalError before the block when a
    door cannot be opened.
    """
    operations = Operations(daemon)
    http = HttpServer(operations)
    uids = daemon.config.allow_uids
    async with AsyncExitStack() as bound:
        unix = await bound.enter_async_context(bound_socket(daemon.socket_path, shared=bool(uids)))
        tcp = None
        if daemon.config.http is not None:
            tcp, daemon.http = await bound.enter_async_context(bound_tcp(daemon.config))
        async with helpers() as nursery:
            operations.mcp = McpDoor(operations, nursery)
            await operations.mcp.begin()
            nursery.start_soon(serve_unix, unix, operations, http.serve_unix, uids)
            if tcp is not None and daemon.http is not None:
                nursery.start_soon(http.serve_tcp, tcp, daemon.http)
            yield operations
