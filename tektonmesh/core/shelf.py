"""The rows in which a replica outlives its process: how owners and version floors are written,
and how they are read back, trusting nothing.

Every owner is verified at start as if a peer had sent it (a disk can be damaged too); what fails
is deleted and comes again from the peers. When rows are written is for `core/replica`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tektonmesh.core.equivocation import Evidence, level_of, read_evidence, verify_evidence
from tektonmesh.core.head import Head, signed_by
from tektonmesh.core.held import Held
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Proof
from tektonmesh.core.record import RecordSet
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import ID_SIZE, Saved, SignedHead, SignedKeyDoc, StackId, Version
from tektonmesh.errors import PolicyError, RemoteError

Row = tuple[str, bytes, bytes | None]

_EXPIRED = 2
_PASSES = 4
"""A voucher's issuer may come after the stack it vouches for; chains have at most 3 vouchers."""


# --- writing -------------------------------------------------------------------------------------


def head_row(env: Env, held: Held) -> Row:
    packed = env.codec.pack([held.signed.head, held.signed.sig, held.expired * _EXPIRED])
    return "head", held.head.stack_id, packed


def proof_row(env: Env, held: Held) -> Row:
    """The proof against an owner; without one, that there is none."""
    if held.proof is None:
        return "proof", held.head.stack_id, None
    proof = held.proof.proof
    heads = [[head.head, head.sig] for head in proof.heads]
    keydocs = [[keydoc.doc, keydoc.sig] for keydoc in proof.keydocs]
    return "proof", held.head.stack_id, env.codec.pack([heads, keydocs])


def keydoc_row(env: Env, held: Held) -> Row:
    signed = held.signed_keydoc
    return "keydoc", held.head.stack_id, env.codec.pack([signed.doc, signed.sig, signed.proof])


def record_rows(
    owner: StackId, old: RecordSet, new: RecordSet, keys: Iterable[str]
) -> Iterator[Row]:
    """The rows that turn `old` into `new`, which differ in `keys`."""
    for key in keys:
        before = _record_key(owner, old, key)
        after = _record_key(owner, new, key)
        if before is not None and before != after:
            yield "record", before, None
        if after is not None:
            yield "record", after, new.records[key]


def _record_key(owner: StackId, records: RecordSet, key: str) -> bytes | None:
    if key not in records.records:
        return None
    return owner + bytes([records.scope_of(key)]) + key.encode()


def owner_gone_rows(owner: StackId, records: RecordSet) -> list[Row]:
    """The rows that forget an owner."""
    gone = list(record_rows(owner, records, RecordSet(), records.records))
    return [*gone, *((table, owner, None) for table in ("head", "keydoc", "proof"))]


def floor_row(env: Env, owner: StackId, floor: tuple[Version, int]) -> Row:
    version, hlc = floor
    return "floor", owner, env.codec.pack([*version, hlc])


# --- reading -------------------------------------------------------------------------------------


def read_floors(env: Env, saved: Saved) -> dict[StackId, tuple[Version, int]]:
    """Owner to (version, mesh time of its head), oldest first. Damaged rows count as none."""
    floors: dict[StackId, tuple[Version, int]] = {}
    for (table, owner), packed in saved.items():
        if table == "floor" and (row := _unpack_list(env, packed, (int,) * 4)):
            floors[owner] = (Version(*row[:3]), row[3])
    return dict(sorted(floors.items(), key=lambda item: (item[1][1], item[0])))


def read_owners(env: Env, trust: Trust, saved: Saved) -> dict[StackId, Held]:
    """All owners whose rows are whole. The others' rows are deleted."""
    puts: dict[StackId, list[tuple[int, str, bytes]]] = {}
    waiting: list[StackId] = []
    for (table, key), value in saved.items():
        if table == "head":
            waiting.append(key)
        elif table == "record" and len(key) > ID_SIZE:
            name = key[ID_SIZE + 1 :].decode(errors="replace")
            puts.setdefault(key[:ID_SIZE], []).append((key[ID_SIZE], name, value))
    owners: dict[StackId, Held] = {}
    for _ in range(_PASSES):
        left, waiting = sorted(waiting), []
        for owner in left:
            try:
                owners[owner] = _read_owner(env, trust, saved, owner, puts.get(owner, []))
            except PolicyError:
                waiting.append(owner)
            except RemoteError:
                continue
    _delete_unread(env, saved, owners)
    return owners


def _read_owner(
    env: Env, trust: Trust, saved: Saved, owner: StackId, puts: list[tuple[int, str, bytes]]
) -> Held:
    row = _unpack_list(env, saved["head", owner], (bytes, bytes, int))
    doc_row = _unpack_list(env, saved.get(("keydoc", owner), b""), (bytes, bytes, bytes))
    if row is None or doc_row is None:
        raise RemoteError("The rows of an owner are damaged.")
    signed, signed_keydoc = SignedHead(row[0], row[1]), SignedKeyDoc(*doc_row)
    head = Head.decode(env.codec, signed.head)
    keys = trust.accept(signed_keydoc), signed_keydoc
    records = RecordSet().changed(sorted(puts), ())
    held = Held(env.codec, head, signed, keys, records, env.now)
    mine = head.stack_id == held.keydoc.stack_id == owner and owner != env.me
    if not mine or head.keydoc_hash != held.keydoc_hash or head.mesh_id != env.identity.mesh_id:
        raise RemoteError("The rows of an owner do not belong together.")
    if not signed_by(env.crypto, held.keydoc.op_pk, signed):
        raise RemoteError("A saved head is not signed by its owner.")
    held.expired = bool(row[2] & _EXPIRED)
    if not held.expired and not held.record_set.matches(head.roots):
        raise RemoteError("The saved records of an owner do not match its head.")
    held.proof = _read_proof(env, saved.get(("proof", owner)), head)
    return held


def _read_proof(env: Env, packed: bytes | None, head: Head) -> Evidence | None:
    """The saved proof against the owner of `head`; a damaged one is deleted and comes again."""
    if packed is None:
        return None
    try:
        evidence = read_evidence(env.codec, env.identity.mesh_id, _unpack_proof(env, packed))
        verify_evidence(env.codec, env.crypto, evidence)
    except RemoteError:
        evidence = None
    if evidence is None or evidence.owner != head.stack_id or evidence.level < level_of(head):
        env.save("proof", head.stack_id, None)
        return None
    return evidence


def _unpack_proof(env: Env, packed: bytes) -> Proof:
    row = _unpack_list(env, packed, (list, list))
    pairs = [pair for part in row or () for pair in part]
    if row is None or not all(_is_pair(pair) for pair in pairs):
        raise RemoteError("The row of a proof is damaged.")
    heads = tuple(SignedHead(*pair) for pair in row[0])
    return Proof(heads, tuple(SignedKeyDoc(doc, sig, b"") for doc, sig in row[1]))


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and [type(item) for item in value] == [bytes, bytes]


def _unpack_list(env: Env, packed: bytes, kinds: tuple[type, ...]) -> list[Any] | None:
    try:
        row = env.codec.unpack(packed)
    except RemoteError:
        return None
    fits = isinstance(row, list) and tuple(type(item) for item in row) == kinds
    return row if fits else None


def _delete_unread(env: Env, saved: Saved, owners: dict[StackId, Held]) -> None:
    for table, key in saved:
        if table in ("head", "keydoc", "record", "proof") and key[:ID_SIZE] not in owners:
            env.save(table, key, None)
