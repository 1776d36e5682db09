"""The identity on disk: made once, kept, and refused with a precise sentence when it is damaged."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tektonmesh.core.keydoc import membership_mac, read_keydoc, read_proof
from tektonmesh.errors import LocalError, StoreError
from tektonmesh.net.credentials import REISSUE_S
from tektonmesh.net.daemon import open_daemon
from tektonmesh.net.identity import (
    ISSUED_AT_FILE,
    KEY_KINDS,
    PREKEY_KEPT_MS,
    PREKEY_LIFE_MS,
    load_or_create,
    next_issued_at,
    renew_prekey,
)
from tektonmesh.net.link import LinkRefused
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys, mesh_id_of
from tektonmesh.wire.limits import PREKEYS_MAX
from tests.doors import config_of
from tests.support import seal_key_of

MESH_KEY = b"k" * 32


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def load(home: Path) -> Keys:
    return load_or_create(home, "west", "lab", ())[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_first_start_makes_an_identity_and_the_next_ones_keep_it(home: Path) -> None:
    first, keys = load_or_create(home, "west", "lab", ())
    before = contents(home / "identity")
    second, again = load_or_create(home, "west", "lab", ())
    assert first.stack_id == second.stack_id == keys.stack_id
    assert (keys.op_public, keys.box_public, keys.prekey()) == (
        again.op_public,
        again.box_public,
        again.prekey(),
    )
    assert first.keydoc == second.keydoc
    assert contents(home / "identity") == before


def test_every_start_is_an_instance_of_its_own(home: Path) -> None:
    one, two = (load_or_create(home, "west", "lab", ())[0] for _ in range(2))
    assert len(one.instance) == 8
    assert one.instance != two.instance


def test_the_key_document_verifies_and_names_the_keys(home: Path) -> None:
    identity, keys = load_or_create(home, "west", "lab", ())
    keydoc = read_keydoc(Codec(), keys, identity.keydoc)
    assert (keydoc.stack_id, keydoc.op_pk, keydoc.box_pk) == (
        identity.stack_id,
        keys.op_public,
        keys.box_public,
    )
    assert identity.keydoc.proof == b""
    assert identity.mesh_id == mesh_id_of("lab")


def test_with_a_mesh_secret_the_newest_key_proves_membership(home: Path) -> None:
    identity, _ = load_or_create(home, "west", "lab", (MESH_KEY, b"old" * 10))
    mac, _ = read_proof(Codec(), identity.keydoc.proof)
    assert mac == membership_mac(MESH_KEY, identity.stack_id)


def test_files_are_for_their_owner_alone_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        load(home)
        next_issued_at(home, 5)
    finally:
        os.umask(before)
    folder = home / "identity"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(["root.key", "op.key", "box.key", "prekeys", "issued_at"], 0o600)


def test_nothing_is_left_beside_the_identity(home: Path) -> None:
    load(home)
    assert [path.name for path in home.iterdir()] == ["identity"]


# --- damage --------------------------------------------------------------------------------------


def replaced_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replaced_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replaced_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-20]), "is cut"),
    "not a key": (lambda path: path.write_bytes(b"hello\n"), "does not hold a key"),
    "binary": (lambda path: path.write_bytes(os.urandom(64)), "does not hold a key"),
    "more than a key": (lambda path: path.write_bytes(path.read_bytes() * 2), "does not hold"),
    "huge": (lambda path: path.write_bytes(path.read_bytes() + b"0" * 9000), "does not hold"),
    "readable by the group": (lambda path: path.chmod(0o640), "is open to others \\(mode 640\\)"),
    "readable by all": (lambda path: path.chmod(0o604), "is open to others"),
    "a link": (replaced_by_link, "cannot be opened as an ordinary file"),
    "a folder": (replaced_by_folder, "is not an ordinary file"),
    "a pipe": (replaced_by_pipe, "is not an ordinary file"),
}


@pytest.mark.parametrize("kind", KEY_KINDS)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_key_is_refused_and_nothing_is_made_anew(
    home: Path, kind: str, damage: tuple[Callable[[Path], object], str]
) -> None:
    load(home)
    path = home / "identity" / f"{kind}.key"
    spoil, sentence = damage
    spoil(path)
    before = [entry.name for entry in sorted((home / "identity").iterdir())]
    with pytest.raises(LocalError, match=sentence) as caught:
        load(home)
    assert str(path) in caught.value.detail
    assert caught.value.hint
    assert [entry.name for entry in sorted((home / "identity").iterdir())] == before


def test_a_key_of_another_kind_is_noticed(home: Path) -> None:
    load(home)
    folder = home / "identity"
    os.replace(folder / "box.key", folder / "op.key")
    with pytest.raises(LocalError, match="holds a box key, not the op key"):
        load(home)


@pytest.mark.parametrize("text", [b"", b"\n", b"0 abc\n", b"junk"], ids=repr)
def test_damaged_prekeys_are_refused(home: Path, text: bytes) -> None:
    load(home)
    (home / "identity" / "prekeys").write_bytes(text)
    with pytest.raises(LocalError, match=r"prekeys (is empty|holds a line)"):
        load(home)


def test_an_identity_folder_that_others_can_enter_is_refused(home: Path) -> None:
    load(home)
    (home / "identity").chmod(0o755)
    with pytest.raises(LocalError, match="open to others \\(mode 755\\)") as caught:
        load(home)
    assert "chmod 700" in caught.value.hint


def test_an_identity_folder_that_is_a_link_or_a_file_is_refused(home: Path) -> None:
    load(home)
    (home / "identity").rename(home / "elsewhere")
    (home / "identity").symlink_to("elsewhere")
    with pytest.raises(LocalError, match="is not a folder"):
        load(home)
    (home / "identity").unlink()
    (home / "identity").write_text("hello")
    with pytest.raises(LocalError, match="is not a folder"):
        load(home)


def test_an_empty_identity_folder_is_not_filled(home: Path) -> None:
    """Whoever emptied it had a stack there; a new one under its name would be a surprise."""
    (home / "identity").mkdir(parents=True, mode=0o700)
    with pytest.raises(LocalError, match="is missing"):
        load(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_key_of_another_user_is_refused(home: Path) -> None:
    load(home)
    os.chown(home / "identity" / "op.key", 12345, -1)
    with pytest.raises(LocalError, match="belongs to another user \\(uid 12345\\)"):
        load(home)


def test_a_home_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        load(tmp_path / "file")


# --- what outlives a start -----------------------------------------------------------------------


def test_a_leaf_is_always_newer_than_the_ones_before(home: Path) -> None:
    load(home)
    assert next_issued_at(home, 1000) == 1000
    assert next_issued_at(home, 1000) == 1001
    assert next_issued_at(home, 5) == 1002
    assert next_issued_at(home, 2000) == 2000
    assert next_issued_at(home, 2001, above=5000) == 5001
    assert next_issued_at(home, 2002) == 5002


def test_a_peer_cannot_use_up_the_numbers_with_one_lie(home: Path) -> None:
    load(home)
    assert next_issued_at(home, 1000, above=2**63) == 2**48 + 1


def test_a_damaged_memory_of_the_newest_leaf_is_refused(home: Path) -> None:
    load(home)
    next_issued_at(home, 1000)
    (home / "identity" / ISSUED_AT_FILE).write_text("soon")
    with pytest.raises(LocalError, match="does not hold a number"):
        next_issued_at(home, 2000)


def test_a_memory_that_cannot_be_written_is_a_store_error(home: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        next_issued_at(home, 2000)


def test_a_prekey_is_replaced_after_a_day_and_the_old_one_still_opens(home: Path) -> None:
    day = 1_750_000_000_000
    keys, other = load(home), load(home.with_name("other"))
    assert renew_prekey(home, keys, day)
    to = seal_key_of(keys)
    sealed = other.seal(to, b"", b"body")
    assert not renew_prekey(home, keys, day + PREKEY_LIFE_MS - 1)
    assert renew_prekey(home, keys, day + PREKEY_LIFE_MS)
    assert keys.prekey()[0] != to.key_id
    again = load(home)
    assert again.prekey() == keys.prekey()
    assert again.open(other.box_public, to.key_id, b"", sealed) == b"body"


def test_a_prekey_is_kept_for_eight_days_after_the_next_one_came(home: Path) -> None:
    now = 1_750_000_000_000
    keys, other = load(home), load(home.with_name("other"))
    renew_prekey(home, keys, now)
    to = seal_key_of(keys)
    sealed = other.seal(to, b"", b"body")
    renew_prekey(home, keys, now + PREKEY_LIFE_MS)
    assert keys.open(other.box_public, to.key_id, b"", sealed) == b"body"
    replaced = now + PREKEY_LIFE_MS
    assert not renew_prekey(home, keys, replaced + 1)
    renew_prekey(home, keys, replaced + PREKEY_KEPT_MS - 1)
    assert keys.open(other.box_public, to.key_id, b"", sealed) == b"body"
    assert not renew_prekey(home, keys, replaced + PREKEY_KEPT_MS)  # it forgets all the same
    for of in (keys, load(home)):
        with pytest.raises(LocalError) as caught:
            of.open(other.box_public, to.key_id, b"", sealed)
        assert caught.value.code.name == "not_found"
    assert load(home).prekey() == keys.prekey()


def test_with_one_prekey_a_day_nine_are_held(home: Path) -> None:
    keys = load(home)
    for day in range(30):
        renew_prekey(home, keys, 1_750_000_000_000 + day * PREKEY_LIFE_MS)
    assert len((home / "identity" / "prekeys").read_text().splitlines()) == 9
    assert load(home).prekey() == keys.prekey()


def test_a_clock_that_keeps_going_back_holds_so_many_and_no_more(home: Path) -> None:
    keys = load(home)
    for day in range(PREKEYS_MAX + 5):
        renew_prekey(home, keys, 1_750_000_000_000 - day * PREKEY_LIFE_MS)
    assert len((home / "identity" / "prekeys").read_text().splitlines()) == PREKEYS_MAX
    assert load(home).prekey() == keys.prekey()


def test_a_clock_that_jumps_renews_once_and_drops_nothing(home: Path) -> None:
    keys = load(home)
    assert renew_prekey(home, keys, 10**13)
    assert renew_prekey(home, keys, 1000)
    assert not renew_prekey(home, keys, 2000)
    assert len((home / "identity" / "prekeys").read_text().splitlines()) == 3


async def test_a_full_disk_and_a_peers_stale_leaf_do_not_end_the_daemon(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_daemon(config_of(tmp_path, "west")) as daemon:

        def full(*_given: object, **_more: object) -> int:
            raise StoreError("The disk is full.")

        monkeypatch.setattr("tektonmesh.net.identity.next_issued_at", full)
        await trio.sleep(REISSUE_S + 1)
        before = daemon.credentials.context().leaf
        told = LinkRefused("stale_leaf", "a newer one was seen")
        told.by_peer, told.highest = True, 2**40
        daemon._links.refused(told)
        assert daemon.credentials.context().leaf is before
        assert "no newer certificate" in caplog.text
