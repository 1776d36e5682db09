"""The method `keys` of a running daemon: what it does with each call, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tektonmesh.api.keykeeping import KeyKeeping
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.errors import LocalError, StoreError
from tektonmesh.net import credentials as creds
from tektonmesh.net import identity, keydocs
from tektonmesh.net.auditcheck import last_entries
from tektonmesh.net.daemon import open_daemon
from tektonmesh.wire.codec import Codec
from tests.integration.daemons import config_of, until


def known_epoch(daemon: Any, of: Any) -> int:
    return int(daemon.node.replica.key_epoch_of(of.identity.stack_id))


async def test_new_keys_count_at_once_here_at_peers_and_on_the_disk(tmp_path: Path) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as west:
        seeds = (west.listen[0],)
        async with open_daemon(config_of(tmp_path, "east", seeds=seeds)) as east:
            await until(lambda: known_epoch(east, west) == 0 and len(east.node.replica.owners) == 2)
            keep = KeyKeeping(west)
            before = await keep.keys({})
            assert (before["key_epoch"], before["root"]) == (0, "here")
            assert not west.credentials.keys.has_root
            leaf = west.credentials.context().leaf
            shown = await keep.keys({"change": "rotate"})
            assert shown["key_epoch"] == 1 and shown["op"] != before["op"]
            assert west.credentials.context().leaf is not leaf
            assert west.node.env.crypto is west.credentials.keys
            assert identity.load(west.config.home).op_public.hex() == shown["op"]
            await until(lambda: known_epoch(east, west) == 1)
            assert len(west._links) == len(east._links) == 1
            kept = west.credentials.keys.prekey()
            assert (await keep.keys({"change": "revoke"}))["key_epoch"] == 2
            assert west.credentials.keys.prekey() != kept
            await until(lambda: known_epoch(east, west) == 2)
    kinds = [entry["kind"] for entry in last_entries(west.config.home / "audit", 100)]
    assert kinds.index("keys_rotated") < kinds.index("keys_revoked")


async def test_a_minute_after_a_change_the_keys_before_are_used_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(creds, "SETTLE_S", 0.05)
    async with open_daemon(config_of(tmp_path, "west")) as west:
        old = west.credentials.keys
        await KeyKeeping(west).keys({"change": "rotate"})
        keys = west.credentials.keys
        assert keys.vouch(b"c", b"data") == old.sign(b"c", b"data")
        await until(lambda: keys.vouch(b"c", b"data") == keys.sign(b"c", b"data"))


async def test_a_document_is_signed_elsewhere_and_only_the_last_prepared_counts(
    tmp_path: Path,
) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as west:
        keep, home = KeyKeeping(west), west.config.home
        root = tmp_path / "root.key"
        keydocs.write_copy(keydocs.KeyFolder(home).root_text(), root)
        assert (await keep.keys({"root": "away"}))["root"] == "offline"
        with pytest.raises(LocalError, match="root key is not here"):
            await keep.keys({"change": "rotate"})
        first, _ = keydocs.read_carried((await keep.keys({"prepare": "rotate"}))["document"])
        second, _ = keydocs.read_carried((await keep.keys({"prepare": "revoke"}))["document"])
        assert KeyDoc.decode(Codec(), first).grace and not KeyDoc.decode(Codec(), second).grace
        stale, signed = (
            keydocs.signed_text(keydocs.sign_with(root, doc)).strip() for doc in (first, second)
        )
        wrong = signed[:-2] + ("00" if signed[-2:] != "00" else "11")
        for text, why in [
            (stale, "other keys than those that were prepared"),
            (wrong, "not signed by its root key"),
            (keydocs.request_text(second).strip(), "not signed yet"),
            ("nonsense", "no key document"),
        ]:
            with pytest.raises(LocalError, match=why):
                await keep.keys({"commit": text})
        assert west.credentials.key_epoch == 0
        assert (await keep.keys({"commit": signed}))["key_epoch"] == 1
        with pytest.raises(LocalError, match="does not follow"):
            await keep.keys({"commit": signed})
        assert (await keep.keys({"root": root.read_text().strip()}))["root"] == "here"
        with pytest.raises(LocalError, match="here already"):
            await keep.keys({"root": root.read_text().strip()})
        with pytest.raises(LocalError, match="must be one of rotate, revoke"):
            await keep.keys({"prepare": "burn"})


async def test_a_disk_that_refuses_leaves_the_old_keys_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise StoreError("No space left.")

    async with open_daemon(config_of(tmp_path, "west")) as west:
        monkeypatch.setattr(keydocs, "_write", full)
        with pytest.raises(StoreError):
            await KeyKeeping(west).keys({"change": "rotate"})
        monkeypatch.undo()
        assert west.credentials.key_epoch == 0
        assert identity.load(west.config.home).op_public == west.credentials.keys.op_public
        assert (await KeyKeeping(west).keys({"change": "rotate"}))["key_epoch"] == 1
