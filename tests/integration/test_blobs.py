"""Blobs between whole daemons, over TLS on loopback and through the disk."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.messages import BLOB_SIZE_MAX
from tektonmesh.core.stash import hash_blob
from tektonmesh.errors import MeshError
from tektonmesh.net.daemon import Daemon, open_daemon
from tests.integration.daemons import config_of, open_pair, state_of, until

DATA = (b"the catalogue of numa " * 50_000)[:BLOB_SIZE_MAX]


async def put(daemon: Daemon, data: bytes) -> bytes:
    """Put a blob in and publish a record that refers to it; its hash."""
    answer = await daemon.ask(lambda ticket: ev.PutBlob(ticket, data))
    blob = bytes.fromhex(answer["hash"])
    daemon.node.owner.put("catalog/numa", {"hash": blob, "length": answer["length"]})
    daemon.inject(ev.Tick())
    return blob


async def get(daemon: Daemon, blob: bytes, timeout_s: float = 10.0) -> bytes:
    answer = await daemon.ask(lambda ticket: ev.GetBlob(ticket, blob, timeout_s))
    assert isinstance(answer["data"], bytes)
    return answer["data"]


async def test_a_blob_is_read_two_hops_away_and_after_a_restart_without_its_owner(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        middle = await stack.enter_async_context(open_daemon(config_of(tmp_path, "middle")))
        near = {"seeds": (middle.listen[0],), "seeds_only": True}
        west = await stack.enter_async_context(open_daemon(config_of(tmp_path, "west", **near)))
        async with open_daemon(config_of(tmp_path, "east", **near)) as east:
            await until(lambda: state_of(west, "east") == state_of(east, "west") == "up")
            blob = await put(west, DATA)
            assert blob == hash_blob(DATA)
            await until(lambda: east.node.replica.owners[west.identity.stack_id].keys("catalog"))
            assert await get(east, blob) == DATA
    async with open_daemon(config_of(tmp_path, "east")) as east:
        assert await get(east, blob) == DATA


async def test_a_blob_is_fetched_before_anybody_asks_for_it(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (west, east):
        blob = await put(west, DATA[:200_000])
        await until(lambda: blob in east.node.blobs.stash)
        assert await get(east, blob, 0.0) == DATA[:200_000]


async def test_what_nobody_has_is_not_found(tmp_path: Path) -> None:
    async with open_pair(tmp_path) as (_west, east):
        with pytest.raises(MeshError) as raised:
            await get(east, hash_blob(b"nowhere"))
        assert raised.value.code.name == "not_found"
