"""The identity of a stack on disk: keys in `HOME/identity`, and what must outlive a start.

`root.key`, `op.key` and `box.key` are 32-byte seeds, `prekeys` the newest few, `issued_at` the
highest leaf this stack has issued. All are 0600 in a 0700 folder that appears whole or not at all.
A key that others can read, that is cut or is not a key is refused with a sentence that says so;
nothing is ever made anew in its place, for that would be another stack. What the keys do is left
to `wire/keys`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tektonmesh.core.keydoc import KEYDOC_CONTEXT, KeyDoc, mac_proof
from tektonmesh.core.types import Identity, SignedKeyDoc
from tektonmesh.errors import LocalError, StoreError
from tektonmesh.net.chance import SystemChance
from tektonmesh.wire import limits
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import SEED_SIZE, Keys, mesh_id_of

FOLDER = "identity"
KEY_KINDS = ("root", "op", "box")
PREKEYS_FILE = "prekeys"
KEYDOCS_FILE = "keydocs"
ROOT_PUBLIC_FILE = "root.pub"
ISSUED_AT_FILE = "issued_at"
INSTANCE_SIZE = 8
PREKEY_LIFE_MS = 86_400_000
"""A day, after which a new prekey is published; old ones still open what is on its way."""
PREKEY_KEPT_MS = 8 * PREKEY_LIFE_MS
"""After that no message can be on its way that was sealed to it (they live seven days at most), and
nobody who gets hold of the disk can read what was."""

FORMER_MAX = 4
"""Key epochs before the present one for which messages may still be on their way."""
_FILE_SIZE_MAX = 4096
_ISSUED_AT_TOLD_MAX = 2**48
_KEY_LINE = re.compile(r"tektonmesh (\w+) key 1: ([0-9a-f]*)(?: ([0-9a-f]{8}))?\n?")
"""With eight digits of a sum, since a changed digit would be another key, and another stack. Files
of before the sum are read without it."""
_PREKEY_LINE = re.compile(r"([0-9]{1,15}) ([0-9a-f]{64})")


def load_or_create(
    home: Path, name: str, mesh: str, mesh_keys: Sequence[bytes]
) -> tuple[Identity, Keys]:
    """The identity in `home`, made on the first start. `mesh_keys` newest first, empty without a
    secret. Raises LocalError for anything wrong with the files, StoreError if the disk fails."""
    folder = home / FOLDER
    if not _exists(folder):
        _create(folder)
    keys, signed = _load(folder)
    proof = mac_proof(Codec(), mesh_keys[0], keys.stack_id) if mesh_keys else b""
    identity = Identity(
        stack_id=keys.stack_id,
        name=name,
        mesh=mesh,
        mesh_id=mesh_id_of(mesh),
        instance=os.urandom(INSTANCE_SIZE),
        keydoc=SignedKeyDoc(signed.doc, signed.sig, proof),
    )
    return identity, keys


def load(home: Path) -> Keys:
    """The keys in a home that has them. Raises LocalError."""
    folder = home / FOLDER
    if not _exists(folder):
        raise LocalError(
            f"There is no identity in {home}.",
            code="not_found",
            hint="`tektonmesh init` makes one.",
        )
    return _load(folder)[0]


def next_issued_at(home: Path, wall_ms: int, *, above: int = 0) -> int:
    """The `issued_at` of a new leaf: the wall clock, but higher than any before and than `above`
    (what a peer says it has seen). Durable before it is used."""
    folder = home / FOLDER
    before = 0
    if _exists(folder / ISSUED_AT_FILE):
        text = read_private(folder / ISSUED_AT_FILE).strip()
        if not text.isascii() or not text.isdigit() or len(text) > 19:
            raise broken(folder / ISSUED_AT_FILE, "does not hold a number")
        before = int(text)
    # A peer's word may push this only so far, or one lie would use up the numbers.
    chosen = max(wall_ms, before + 1, min(above, _ISSUED_AT_TOLD_MAX) + 1)
    replace_private(folder / ISSUED_AT_FILE, f"{chosen}\n")
    return chosen


def renew_prekey(home: Path, keys: Keys, wall_ms: int) -> bool:
    """Make and keep a new prekey if the newest is a day old, and forget those that were replaced
    eight days ago. True if `keys.prekey()` changed."""
    path = home / FOLDER / PREKEYS_FILE
    before = _read_prekeys(path)
    held, renewed = list(before), abs(wall_ms - before[-1][0]) >= PREKEY_LIFE_MS
    if renewed:
        held.append((wall_ms, os.urandom(SEED_SIZE)))
    held = _still_kept(held, wall_ms)
    if held != before:
        replace_private(path, _prekey_text(held))
        keys.set_prekeys([seed for _, seed in held])
    return renewed


def _still_kept(held: Sequence[tuple[int, bytes]], wall_ms: int) -> list[tuple[int, bytes]]:
    """The newest prekey and those that another replaced less than eight days ago, by this clock.
    A clock that jumps ahead forgets some too early: their senders are told `unknown_key` and seal
    again. One that goes back keeps them longer, and then their number ends it."""
    old = [
        (made_ms, seed)
        for (made_ms, seed), (replaced_ms, _) in pairwise(held)
        if wall_ms - replaced_ms < PREKEY_KEPT_MS
    ]
    return [*old, held[-1]][-limits.PREKEYS_MAX :]


def first_keydoc(keys: Keys) -> SignedKeyDoc:
    """Ed25519 is deterministic, so the first document needs no file of its own."""
    document = KeyDoc(keys.root_public, keys.stack_id, 0, keys.op_public, keys.box_public)
    doc = document.encode(Codec())
    return SignedKeyDoc(doc, keys.sign_root(KEYDOC_CONTEXT, doc), b"")


def forget_prekeys(home: Path) -> None:
    """Begin anew with one prekey: what was sealed to the others cannot be opened any more."""
    replace_private(home / FOLDER / PREKEYS_FILE, _prekey_text([(0, os.urandom(SEED_SIZE))]))


# --- making --------------------------------------------------------------------------------------


def _create(folder: Path) -> None:
    """Written aside and renamed, so that a crash leaves no half identity behind."""
    aside = folder.with_name(f"{FOLDER}.{os.urandom(8).hex()}")
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside.mkdir(mode=0o700)
        try:
            for kind in KEY_KINDS:
                write_new(aside / f"{kind}.key", key_text(kind, os.urandom(SEED_SIZE)))
            write_new(aside / PREKEYS_FILE, _prekey_text([(0, os.urandom(SEED_SIZE))]))
            _sync_folder(aside)
            os.rename(aside, folder)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        _sync_folder(folder.parent)
    except OSError as error:
        raise StoreError(
            f"The identity folder {folder} cannot be made: {error.strerror}.",
            hint="The home must be a folder that this user may write.",
        ) from None


def key_text(kind: str, seed: bytes) -> str:
    return f"tektonmesh {kind} key 1: {seed.hex()} {_sum_of(kind, seed.hex())}\n"


def _sum_of(kind: str, digits: str) -> str:
    return hashlib.sha256(f"{kind} {digits}".encode()).hexdigest()[:8]


def _prekey_text(prekeys: Sequence[tuple[int, bytes]]) -> str:
    return "".join(f"{made_ms} {seed.hex()}\n" for made_ms, seed in prekeys)


def write_new(path: Path, text: str) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_WRONLY
    with os.fdopen(os.open(path, flags, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def replace_private(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.{os.urandom(8).hex()}")
    try:
        try:
            write_new(aside, text)
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- reading -------------------------------------------------------------------------------------


def _load(folder: Path) -> tuple[Keys, SignedKeyDoc]:
    """The keys that count, and the document that names them."""
    from tektonmesh.net.keydocs import read_docs

    _check_folder(folder)
    docs = read_docs(folder)
    newest = KeyDoc.decode(Codec(), docs[-1].doc) if docs else None
    epoch = newest.key_epoch if newest is not None else 0
    away = newest is not None and _exists(folder / ROOT_PUBLIC_FILE)
    root = (
        _read_key(folder / ROOT_PUBLIC_FILE, "rootpub")
        if away
        else _read_key(folder / key_name("root", 0), "root")
    )
    op, box = (_read_key(folder / key_name(kind, epoch), kind) for kind in ("op", "box"))
    prekeys = [seed for _, seed in _read_prekeys(folder / PREKEYS_FILE)]
    keys = Keys(root, op, box, prekeys, randbytes=SystemChance().randbytes, root_away=away)
    keys.also_known_by(_former_boxes(docs))
    if newest is None:
        return keys, first_keydoc(keys)
    named = (newest.root_pk, newest.op_pk, newest.box_pk)
    if named != (keys.root_public, keys.op_public, keys.box_public):
        raise broken(folder / KEYDOCS_FILE, "names other keys than those beside it")
    return keys, docs[-1]


def _former_boxes(docs: list[SignedKeyDoc]) -> list[bytes]:
    """The box keys under which others may still know this stack, newest first. Only the prekeys
    open anything, so that these may be known to a thief."""
    return [KeyDoc.decode(Codec(), signed.doc).box_pk for signed in docs[:-1]][::-1][:FORMER_MAX]


def key_name(kind: str, epoch: int) -> str:
    """The file of a key; of the first key epoch without a number."""
    return f"{kind}.{epoch}.key" if epoch else f"{kind}.key"


def _exists(path: Path) -> bool:
    """Whether something is there, be it a link to nowhere."""
    return os.path.lexists(path)


def _check_folder(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise broken(folder, "is not a folder")
    _check_private(folder, found, "700")


def _check_private(path: Path, found: os.stat_result, mode: str) -> None:
    if found.st_uid != os.geteuid():
        raise LocalError(
            f"{path} belongs to another user (uid {found.st_uid}).",
            hint="Run the daemon as the owner of its home.",
        )
    if found.st_mode & 0o077:
        raise LocalError(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):03o}).",
            hint=f"Run `chmod {mode} {path}`; if others may have read a key, use a new home.",
        )


def read_private(path: Path, *, size_max: int = _FILE_SIZE_MAX) -> str:
    """The text of a small ordinary file that only we can read. Raises LocalError otherwise."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise broken(path, "is missing") from None
    except OSError as error:
        # With O_NOFOLLOW a symbolic link ends here too.
        raise broken(path, f"cannot be opened as an ordinary file ({error.strerror})") from None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise broken(path, "is not an ordinary file")
        _check_private(path, found, "600")
        data = os.read(handle, size_max)
    finally:
        os.close(handle)
    if not data:
        raise broken(path, "is empty")
    return data.decode("ascii", "replace")


def read_key_file(path: Path, kind: str) -> bytes:
    """The seed in a key file anywhere. Raises LocalError."""
    try:
        return _read_key(path, kind)
    except LocalError as error:
        hint = f"Name the file of the {kind} key, as `tektonmesh keys export` wrote it."
        raise LocalError(error.detail, hint=hint) from None


def _read_key(path: Path, kind: str) -> bytes:
    return read_key_text(read_private(path), kind, path)


def read_key_text(text: str, kind: str, where: Path | str) -> bytes:
    """The seed in the text of a key file; `where` it came from is for the error."""
    found = _KEY_LINE.fullmatch(text)
    if found is None:
        raise broken(where, "does not hold a key")
    if found[1] != kind:
        raise broken(where, f"holds a {found[1]} key, not the {kind} key")
    if len(found[2]) != 2 * SEED_SIZE:
        raise broken(where, f"is cut: {len(found[2])} of {2 * SEED_SIZE} digits are there")
    if found[3] is not None and found[3] != _sum_of(kind, found[2]):
        raise broken(where, "was changed: its digits do not fit its sum")
    return bytes.fromhex(found[2])


def _read_prekeys(path: Path) -> list[tuple[int, bytes]]:
    lines = [_PREKEY_LINE.fullmatch(line) for line in read_private(path).splitlines()]
    whole = [line for line in lines if line is not None]
    if not whole or len(whole) != len(lines):
        raise broken(path, "holds a line that is not a prekey")
    return [(int(line[1]), bytes.fromhex(line[2])) for line in whole]


def broken(path: Path | str, what: str) -> LocalError:
    return LocalError(
        f"{path} {what}.",
        hint="Nothing was changed. Restore the identity folder from a backup, or use a new home.",
    )
