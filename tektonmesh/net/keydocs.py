"""The key documents of a stack on disk, and how its keys change: rotate, revoke, export, import.

`keydocs` in the identity folder holds every document that the root key signed, one a line, each
naming the one before it. The newest names the keys that count; they lie beside it as `op.N.key`
and `box.N.key`. Replacing that one file is the moment at which new keys come to count, so a crash
before it leaves the old ones in force. Until the first rotation there is no such file: the root key
makes the first document anew at every start. With the root key taken away (`root.pub` in its place)
a stack runs, and cannot change its keys.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tektonmesh.core.keydoc import FIRST_PREV_HASH, KEYDOC_CONTEXT, KeyDoc, hash_doc
from tektonmesh.core.types import SignedKeyDoc
from tektonmesh.errors import LocalError, RemoteError, StoreError
from tektonmesh.net import identity as files
from tektonmesh.net.auditlog import AuditLog
from tektonmesh.net.lock import locked_home
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import SEED_SIZE, Keys, verify

DOCS_MAX = 64
"""Rotations that are kept; the audit log of these years can still be checked."""


def read_docs(folder: Path) -> list[SignedKeyDoc]:
    """Every document, oldest first; empty before the first rotation. Raises LocalError unless each
    is signed by the root key and follows the one before it."""
    path = folder / files.KEYDOCS_FILE
    if not os.path.lexists(path):
        return []
    docs: list[SignedKeyDoc] = []
    before: KeyDoc | None = None
    for number, line in enumerate(files.read_private(path, size_max=1 << 20).splitlines(), 1):
        found = _LINE.fullmatch(line)
        if found is None:
            raise files.broken(path, f"holds no key document in line {number}")
        signed = SignedKeyDoc(bytes.fromhex(found[1]), bytes.fromhex(found[2]), b"")
        before = _follows(path, number, signed, docs[-1] if docs else None, before)
        docs.append(signed)
    if not docs:
        raise files.broken(path, "holds no key document")
    return docs


_LINE = re.compile("([0-9a-f]{64,4096}) ([0-9a-f]{128})")


def _follows(
    path: Path, number: int, signed: SignedKeyDoc, last: SignedKeyDoc | None, before: KeyDoc | None
) -> KeyDoc:
    try:
        doc = KeyDoc.decode(Codec(), signed.doc)
    except RemoteError as error:
        raise files.broken(path, f"holds a broken document in line {number}: {error}") from None
    genuine = verify(doc.root_pk, KEYDOC_CONTEXT, signed.doc, signed.sig)
    if before is not None and last is not None:
        chained = doc.prev_hash == hash_doc(last.doc) and doc.key_epoch == before.key_epoch + 1
        genuine = genuine and chained and doc.root_pk == before.root_pk
    if not genuine:
        raise files.broken(path, f"holds a document in line {number} that does not follow")
    return doc


def history(home: Path, keys: Keys) -> list[SignedKeyDoc]:
    """Every document of this stack, the first one too if the root key is here to make it."""
    docs = read_docs(home / files.FOLDER)
    return docs or [files.first_keydoc(keys)]


def op_keys(home: Path, keys: Keys) -> list[bytes]:
    """Every operational key that this stack has signed with, newest last."""
    return [KeyDoc.decode(Codec(), signed.doc).op_pk for signed in history(home, keys)]


def status(home: Path) -> dict[str, Any]:
    """What `keys status` shows. Raises LocalError as `identity.load`."""
    keys = files.load(home)
    docs = [KeyDoc.decode(Codec(), signed.doc) for signed in history(home, keys)]
    return {
        "id": keys.stack_id,
        "key_epoch": docs[-1].key_epoch,
        "op": docs[-1].op_pk.hex(),
        "root": "here" if keys.has_root else "offline",
        "documents": [{"key_epoch": doc.key_epoch, "op": doc.op_pk.hex()} for doc in docs],
    }


def rotate(home: Path, *, root_file: Path | None = None, revoke: bool = False) -> int:
    """New operational and box keys, under the next key epoch, which is returned. `revoke` forgets
    the prekeys as well: what others sealed with the old ones cannot be opened any more, by us or by
    a thief. Raises LocalError while a daemon runs, or without the root key."""
    with locked_home(home):
        keys = files.load(home)
        docs = history(home, keys)
        signer = keys if root_file is None else _with_root(keys, root_file)
        if not signer.has_root:
            raise LocalError(
                "The root key is not here, and only it can sign new keys.",
                hint="Name its file with --root, or put it back with `tektonmesh keys import`.",
            )
        last = KeyDoc.decode(Codec(), docs[-1].doc)
        epoch = last.key_epoch + 1
        _record(home, keys, epoch, revoke=revoke)
        _commit(home / files.FOLDER, signer, docs, epoch)
        if revoke:
            files.forget_prekeys(home)
        _drop_old(home / files.FOLDER, epoch)
        return epoch


def _record(home: Path, keys: Keys, epoch: int, *, revoke: bool) -> None:
    """The last thing that the old key signs."""
    log = AuditLog(home, keys.stack_id, keys, None)
    log.add("keys_revoked" if revoke else "keys_rotated", key_epoch=epoch)
    log.close()


def _commit(folder: Path, signer: Keys, docs: list[SignedKeyDoc], epoch: int) -> None:
    seeds = {kind: os.urandom(SEED_SIZE) for kind in ("op", "box")}
    for kind, seed in seeds.items():
        files.replace_private(folder / files.key_name(kind, epoch), files.key_text(kind, seed))
    made = Keys.from_seeds(
        os.urandom(SEED_SIZE),
        seeds["op"],
        seeds["box"],
        os.urandom(SEED_SIZE),
        randbytes=os.urandom,
    )
    before = hash_doc(docs[-1].doc) if docs else FIRST_PREV_HASH
    doc = KeyDoc(
        signer.root_public, signer.stack_id, epoch, made.op_public, made.box_public, before
    ).encode(Codec())
    signed = SignedKeyDoc(doc, signer.sign_root(KEYDOC_CONTEXT, doc), b"")
    _write(folder, [*docs, signed][-DOCS_MAX:])


def _write(folder: Path, docs: list[SignedKeyDoc]) -> None:
    text = "".join(f"{signed.doc.hex()} {signed.sig.hex()}\n" for signed in docs)
    files.replace_private(folder / files.KEYDOCS_FILE, text)


def _drop_old(folder: Path, epoch: int) -> None:
    """Keys that no document names any more are not left for a thief."""
    kept = {files.key_name(kind, epoch) for kind in ("op", "box")}
    for path in folder.glob("*.key"):
        if path.name != files.key_name("root", 0) and path.name not in kept:
            path.unlink()


def _with_root(keys: Keys, root_file: Path) -> Keys:
    seed = files.read_key_file(root_file, "root")
    blank = os.urandom(SEED_SIZE)
    signer = Keys.from_seeds(seed, blank, blank, blank, randbytes=os.urandom)
    if signer.root_public != keys.root_public:
        raise LocalError(f"{root_file} holds the root key of another stack.")
    return signer


# --- the root key, here or elsewhere -------------------------------------------------------------


def export_root(home: Path, target: Path, *, offline: bool) -> None:
    """Copy the root key to a new private file. With `offline` it is removed from the home, after
    the copy has been read back. Raises LocalError, StoreError."""
    with locked_home(home):
        folder = home / files.FOLDER
        keys = files.load(home)
        if not keys.has_root:
            raise LocalError("The root key is not here any more.")
        text = files.read_private(folder / files.key_name("root", 0))
        try:
            files.write_new(target, text)
        except FileExistsError:
            raise LocalError(f"{target} is there already.", hint="Name a new file.") from None
        except OSError as error:
            raise StoreError(f"{target} cannot be written: {error.strerror}.") from None
        _with_root(keys, target)
        if offline:
            _write(folder, history(home, keys))
            files.replace_private(
                folder / files.ROOT_PUBLIC_FILE, files.key_text("rootpub", keys.root_public)
            )
            (folder / files.key_name("root", 0)).unlink()
            log = AuditLog(home, keys.stack_id, keys, None)
            log.add("root_key_exported", offline=True)
            log.close()


def import_root(home: Path, source: Path) -> None:
    """Put the root key back. Raises LocalError unless it is this stack's."""
    with locked_home(home):
        folder = home / files.FOLDER
        keys = files.load(home)
        _with_root(keys, source)
        if keys.has_root:
            raise LocalError("The root key is here already.")
        files.replace_private(folder / files.key_name("root", 0), files.read_private(source))
        (folder / files.ROOT_PUBLIC_FILE).unlink()
