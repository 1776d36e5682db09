"""The key documents of a stack on disk, and how its keys change: rotate, revoke, export, import.

A running daemon changes them itself (`api/keykeeping`), under the lock that it holds; without one
the verb does. Both go the same steps (`KeyFolder`).

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tektonmesh.core.keydoc import KEYDOC_CONTEXT, KeyDoc, hash_doc, read_keydoc
from tektonmesh.core.types import SignedKeyDoc, StackId
from tektonmesh.errors import LocalError, RemoteError, StoreError
from tektonmesh.net import identity as files
from tektonmesh.net.auditlog import AuditLog
from tektonmesh.net.lock import locked_home
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import SEED_SIZE, Keys, verify

Record = Callable[..., None]
"""`record(kind, **data)`: an entry for the audit log."""
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


# --- new keys ------------------------------------------------------------------------------------


class KeyFolder:
    """The keys in the identity folder of one home, changed by whoever holds its lock.

    New keys come in three steps, so that the root key need not be here: `prepare` makes them and
    the document that names them, somebody signs that, and `commit` lets them count.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._folder = home / files.FOLDER

    def prepare(self, *, revoke: bool) -> bytes:
        """New operational and box keys, and the document that is to be signed. What was prepared
        before is forgotten. Raises LocalError and StoreError as `identity.load`."""
        keys, last = self._now()
        epoch = last.key_epoch + 1
        seeds = {kind: os.urandom(SEED_SIZE) for kind in ("op", "box")}
        for kind, seed in seeds.items():
            path = self._folder / files.key_name(kind, epoch)
            files.replace_private(path, files.key_text(kind, seed))
        made = _keys_of(op=seeds["op"], box=seeds["box"])
        before = hash_doc(last.encode(Codec()))
        return KeyDoc(
            keys.root_public,
            keys.stack_id,
            epoch,
            made.op_public,
            made.box_public,
            before,
            grace=not revoke,
        ).encode(Codec())

    def signer(self) -> Keys:
        """The keys with the root key. Raises LocalError if that is kept elsewhere."""
        keys = files.load(self.home)
        if not keys.has_root:
            raise LocalError(
                "The root key is not here, and only it can sign new keys.",
                hint="Name its file with --root, or see `keys request` and `keys sign`.",
            )
        return keys

    def sign(self, doc: bytes) -> SignedKeyDoc:
        """Sign with the root key of this home. Raises LocalError if it is kept elsewhere."""
        signer = self.signer()
        return SignedKeyDoc(doc, signer.sign_root(KEYDOC_CONTEXT, doc), b"")

    def commit(self, signed: SignedKeyDoc) -> KeyDoc:
        """Let the prepared keys count. Without grace, the prekeys are forgotten as well: what
        others sealed to them can then not be opened any more, by us or by a thief. Raises
        LocalError, with nothing changed, unless the root key signed what was prepared last."""
        keys, last = self._now()
        doc = self._check(signed, keys, last)
        _write(self._folder, [*history(self.home, keys), signed][-DOCS_MAX:])
        if not doc.grace:
            files.forget_prekeys(self.home)
        _drop_old(self._folder, doc.key_epoch)
        return doc

    def _check(self, signed: SignedKeyDoc, keys: Keys, last: KeyDoc) -> KeyDoc:
        try:
            doc = read_keydoc(Codec(), keys, signed)
        except RemoteError as error:
            raise LocalError(f"This document cannot be taken: {error.detail}") from None
        if doc.root_pk != keys.root_public:
            raise LocalError("This document is of another stack.")
        if doc.key_epoch != last.key_epoch + 1 or doc.prev_hash != hash_doc(last.encode(Codec())):
            raise LocalError(
                f"This document does not follow the present one (key epoch {last.key_epoch}).",
                hint="Ask anew with `tektonmesh keys request FILE`.",
            )
        op, box = (
            files.read_key_file(self._folder / files.key_name(kind, doc.key_epoch), kind)
            for kind in ("op", "box")
        )
        made = _keys_of(op=op, box=box)
        if (made.op_public, made.box_public) != (doc.op_pk, doc.box_pk):
            raise LocalError(
                "This document names other keys than those that were prepared last.",
                hint="Ask anew with `tektonmesh keys request FILE`.",
            )
        return doc

    def _now(self) -> tuple[Keys, KeyDoc]:
        keys = files.load(self.home)
        return keys, KeyDoc.decode(Codec(), history(self.home, keys)[-1].doc)

    # --- the root key, here or elsewhere ---------------------------------------------------------

    def root_text(self) -> str:
        """The root key as it is in its file. Raises LocalError if it is kept elsewhere."""
        if not files.load(self.home).has_root:
            raise LocalError("The root key is not here any more.")
        return files.read_private(self._folder / files.key_name("root", 0))

    def take_root_away(self) -> None:
        """Leave only the public root key. Whoever calls this has a copy that was read back."""
        keys = files.load(self.home)
        _write(self._folder, history(self.home, keys))
        public = files.key_text("rootpub", keys.root_public)
        files.replace_private(self._folder / files.ROOT_PUBLIC_FILE, public)
        (self._folder / files.key_name("root", 0)).unlink()

    def put_root_back(self, text: str) -> None:
        """The text of a root key's file. Raises LocalError unless it is this stack's."""
        keys = files.load(self.home)
        seed = files.read_key_text(text, "root", "What was given")
        if _keys_of(root=seed).root_public != keys.root_public:
            raise LocalError("This is the root key of another stack.")
        if keys.has_root:
            raise LocalError("The root key is here already.")
        path = self._folder / files.key_name("root", 0)
        files.replace_private(path, files.key_text("root", seed))
        (self._folder / files.ROOT_PUBLIC_FILE).unlink()


def _keys_of(**seeds: bytes) -> Keys:
    """Keys for looking at one or two of them; the others are of no use."""
    order = [seeds.get(kind) or os.urandom(SEED_SIZE) for kind in (*files.KEY_KINDS, "prekey")]
    return Keys.from_seeds(*order, randbytes=os.urandom)


def _write(folder: Path, docs: list[SignedKeyDoc]) -> None:
    text = "".join(f"{signed.doc.hex()} {signed.sig.hex()}\n" for signed in docs)
    files.replace_private(folder / files.KEYDOCS_FILE, text)


def _drop_old(folder: Path, epoch: int) -> None:
    """Keys that no document names any more are not left for a thief."""
    kept = {files.key_name(kind, epoch) for kind in ("op", "box")}
    for path in folder.glob("*.key"):
        if path.name != files.key_name("root", 0) and path.name not in kept:
            path.unlink()


# --- documents on their way ----------------------------------------------------------------------


_MARK = "tektonmesh keydoc 1: "


def request_text(doc: bytes) -> str:
    """A document that is to be signed, as a line that can be carried to the root key."""
    return f"{_MARK}{doc.hex()}\n"


def signed_text(signed: SignedKeyDoc) -> str:
    """The same with its signature."""
    return f"{_MARK}{signed.doc.hex()} {signed.sig.hex()}\n"


_CARRIED = re.compile(_MARK + "([0-9a-f]{64,2048})(?: ([0-9a-f]{128}))?\\s*")


def read_carried(text: str) -> tuple[bytes, bytes]:
    """(document, signature or nothing). Raises LocalError for any other text."""
    found = _CARRIED.fullmatch(text)
    if found is None:
        raise LocalError(
            "This is no key document, signed or to be signed.",
            hint="`tektonmesh keys request FILE` writes one.",
        )
    return bytes.fromhex(found[1]), bytes.fromhex(found[2] or "")


def sign_with(root_file: Path, doc: bytes) -> SignedKeyDoc:
    """Sign a document where the root key is, which needs no home. Raises LocalError."""
    try:
        stack_id = KeyDoc.decode(Codec(), doc).stack_id
    except RemoteError as error:
        raise LocalError(f"This document cannot be signed: {error.detail}") from None
    signer = root_in(root_file, stack_id)
    return SignedKeyDoc(doc, signer.sign_root(KEYDOC_CONTEXT, doc), b"")


def root_in(root_file: Path, stack_id: StackId) -> Keys:
    """The root key in a file. Raises LocalError unless it is that of this stack."""
    signer = _keys_of(root=files.read_key_file(root_file, "root"))
    if signer.stack_id != stack_id:
        raise LocalError(f"{root_file} holds the root key of another stack.")
    return signer


# --- while no daemon runs ------------------------------------------------------------------------


@contextmanager
def stopped(home: Path) -> Iterator[tuple[KeyFolder, Record]]:
    """The folder of a home in which no daemon runs, and the way into its audit log, which is signed
    with the keys of the beginning. Raises LocalError while a daemon runs."""
    with locked_home(home):
        keys = files.load(home)
        entries: list[tuple[str, dict[str, Any]]] = []
        yield KeyFolder(home), lambda kind, **data: entries.append((kind, data))
        log = AuditLog(home, keys.stack_id, keys, None)
        for kind, data in entries:
            log.add(kind, **data)
        log.close()


def entry_of(doc: KeyDoc) -> str:
    """The kind of the audit entry for new keys."""
    return "keys_rotated" if doc.grace else "keys_revoked"


def rotate(home: Path, *, root_file: Path | None = None, revoke: bool = False) -> int:
    """New keys under the next key epoch, which is returned."""
    with stopped(home) as (folder, record):
        # Before anything is made.
        folder.signer() if root_file is None else root_in(root_file, files.load(home).stack_id)
        prepared = folder.prepare(revoke=revoke)
        signed = folder.sign(prepared) if root_file is None else sign_with(root_file, prepared)
        doc = folder.commit(signed)
        record(entry_of(doc), key_epoch=doc.key_epoch)
        return doc.key_epoch


def export_root(home: Path, target: Path, *, offline: bool) -> None:
    """Copy the root key to a new private file. With `offline` it is removed from the home, after
    the copy has been read back. Raises LocalError, StoreError."""
    with stopped(home) as (folder, record):
        write_copy(folder.root_text(), target)
        if offline:
            folder.take_root_away()
            record("root_key_exported", offline=True)


def write_copy(text: str, target: Path) -> None:
    """Write a key to a new private file and read it back. Raises LocalError, StoreError."""
    write_file(text, target)
    files.read_key_file(target, "root")


def write_file(text: str, target: Path) -> None:
    """A new private file. Raises LocalError if it is there, StoreError."""
    try:
        files.write_new(target, text)
    except FileExistsError:
        raise LocalError(f"{target} is there already.", hint="Name a new file.") from None
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}.") from None


def import_root(home: Path, source: Path) -> None:
    """Put the root key back. Raises LocalError unless it is this stack's."""
    with stopped(home) as (folder, record):
        folder.put_root_back(files.read_private(source))
        record("root_key_imported")
