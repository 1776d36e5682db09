"""Keys that change: documents that follow one another, an absent root key, and crashes."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tektonmesh.core.keydoc import KeyDoc, hash_doc, read_keydoc
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.net import identity, keydocs
from tektonmesh.net.auditcheck import check_log
from tektonmesh.net.lock import locked_home
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    identity.load_or_create(made, "west", "lab", ())
    return made


def document(home: Path) -> tuple[KeyDoc, Keys]:
    """The document that others are shown, checked as they check it."""
    shown, keys = identity.load_or_create(home, "west", "lab", ())
    return read_keydoc(Codec(), keys, shown.keydoc), keys


def names(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "identity").iterdir())


def test_a_rotation_keeps_the_id_and_chains_the_next_document_to_the_last(home: Path) -> None:
    before, old = document(home)
    first = identity.first_keydoc(old)
    assert keydocs.rotate(home) == 1
    after, new = document(home)
    assert after.stack_id == before.stack_id
    assert (after.key_epoch, after.prev_hash) == (1, hash_doc(first.doc))
    assert new.op_public != old.op_public and new.box_public != old.box_public
    assert new.prekey() == old.prekey()
    assert keydocs.rotate(home) == 2
    assert names(home) == ["box.2.key", "keydocs", "op.2.key", "prekeys", "root.key"]
    assert stat.S_IMODE((home / "identity" / "keydocs").stat().st_mode) == 0o600
    shown = keydocs.status(home)
    assert [row["key_epoch"] for row in shown["documents"]] == [0, 1, 2]
    assert shown["root"] == "here"


def test_a_revocation_forgets_the_keys_for_what_is_on_its_way(home: Path) -> None:
    _, old = document(home)
    keydocs.rotate(home, revoke=True)
    _, new = document(home)
    assert new.prekey() != old.prekey()


def test_every_change_is_in_the_audit_log_under_the_old_key(home: Path) -> None:
    _, keys = document(home)
    keydocs.rotate(home)
    keydocs.rotate(home, revoke=True)
    now = identity.load(home)
    found = check_log(home / "audit", keys.stack_id, keydocs.op_keys(home, now))
    assert found.good and found.entries == 4
    assert keys.op_public in keydocs.op_keys(home, now)


def test_the_root_key_can_be_kept_elsewhere(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "usb.key"
    before, _ = document(home)
    keydocs.export_root(home, copy, offline=True)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert "root.key" not in names(home) and "root.pub" in names(home)
    after, keys = document(home)
    assert after == before and not keys.has_root
    assert keydocs.status(home)["root"] == "offline"
    with pytest.raises(LocalError, match="root key is not here"):
        keydocs.rotate(home)
    with pytest.raises(LocalError, match="not here any more"):
        keydocs.export_root(home, tmp_path / "again.key", offline=False)
    assert keydocs.rotate(home, root_file=copy) == 1
    assert document(home)[0].key_epoch == 1
    keydocs.import_root(home, copy)
    assert "root.pub" not in names(home) and keydocs.rotate(home) == 2
    with pytest.raises(LocalError, match="here already"):
        keydocs.import_root(home, copy)


def test_a_copy_of_the_root_key_can_be_made_without_taking_it_away(
    home: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "usb.key"
    keydocs.export_root(home, copy, offline=False)
    assert document(home)[1].has_root
    with pytest.raises(LocalError, match="there already"):
        keydocs.export_root(home, copy, offline=False)
    with pytest.raises(MeshError, match="cannot be written"):
        keydocs.export_root(home, tmp_path / "no" / "folder", offline=True)
    assert document(home)[1].has_root


def test_the_root_key_of_another_stack_signs_nothing_here(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    identity.load_or_create(other, "east", "lab", ())
    foreign = other / "identity" / "root.key"
    before = names(home)
    with pytest.raises(LocalError, match="another stack"):
        keydocs.rotate(home, root_file=foreign)
    with pytest.raises(LocalError, match="another stack"):
        keydocs.import_root(home, foreign)
    assert names(home) == before and document(home)[0].key_epoch == 0


def test_keys_do_not_change_under_a_running_daemon(home: Path) -> None:
    with locked_home(home), pytest.raises(LocalError, match="in use"):
        keydocs.rotate(home)
    assert document(home)[0].key_epoch == 0


@pytest.mark.hostile("killed-between-keys")
def test_a_crash_before_the_document_is_written_leaves_the_old_keys_in_force(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, keys = document(home)

    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keydocs, "_write", crash)
    with pytest.raises(KeyboardInterrupt):
        keydocs.rotate(home)
    monkeypatch.undo()
    assert "op.1.key" in names(home)
    assert document(home)[0] == before and identity.load(home).op_public == keys.op_public
    assert keydocs.rotate(home) == 1


@pytest.mark.hostile("killed-between-keys")
def test_a_crash_after_the_document_is_written_leaves_the_new_keys_in_force(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(keydocs, "_drop_old", crash)
    with pytest.raises(KeyboardInterrupt):
        keydocs.rotate(home)
    assert document(home)[0].key_epoch == 1


def swap_keys(folder: Path) -> None:
    one, two = folder / "op.2.key", folder / "box.2.key"
    one.write_text(two.read_text().replace("box", "op"))


def drop_a_document(folder: Path) -> None:
    lines = (folder / "keydocs").read_text().splitlines(keepends=True)
    (folder / "keydocs").write_text("".join([lines[0], lines[2]]))


def forge_a_signature(folder: Path) -> None:
    text = (folder / "keydocs").read_text()
    (folder / "keydocs").write_text(text[:-3] + ("00" if text[-3:-1] != "00" else "11") + "\n")


def go_back(folder: Path) -> None:
    lines = (folder / "keydocs").read_text().splitlines(keepends=True)
    (folder / "keydocs").write_text("".join(lines[:2]))


@pytest.mark.parametrize(
    "damage",
    [
        swap_keys,
        drop_a_document,
        forge_a_signature,
        go_back,
        lambda folder: (folder / "keydocs").write_text("nonsense\n"),
        lambda folder: (folder / "keydocs").write_text(""),
        lambda folder: (folder / "keydocs").write_text("00" * 64 + " " + "00" * 64 + "\n"),
        lambda folder: (folder / "keydocs").chmod(0o644),
        lambda folder: (folder / "keydocs").unlink(),
        lambda folder: (folder / "op.2.key").unlink(),
    ],
)
def test_documents_that_do_not_fit_the_keys_are_refused_and_nothing_is_changed(
    home: Path, damage: object
) -> None:
    keydocs.rotate(home)
    keydocs.rotate(home)
    damage(home / "identity")  # type: ignore[operator]
    before = {path.name: path.read_bytes() for path in (home / "identity").iterdir()}
    with pytest.raises(LocalError):
        identity.load_or_create(home, "west", "lab", ())
    assert {path.name: path.read_bytes() for path in (home / "identity").iterdir()} == before
