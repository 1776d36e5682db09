"""Records and the set of them that one owner has: keys, scopes, quotas, leaves and roots.

A `RecordSet` never changes; a delta makes a new one, so that a set whose roots turn out wrong is
simply not kept. What is inside a value is for the readers of its kind; here it is bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from tektonmesh.core.types import SCOPE_OF_KIND, Scope
from tektonmesh.errors import RemoteError

KEY_SIZE_MAX = 128
VALUE_SIZE_MAX = 2048
RECORDS_MAX = 4096
RECORD_OVERHEAD = 16
"""What packing adds to one record in a delta, rounded up."""
SET_SIZE_MAX = (1 << 20) - 8192
"""Bytes of keys, values and overhead of one owner: a full snapshot with its head and key document
must fit into one delta of 1 MiB."""
SCOPE_RESTRICTED = 16
"""From this scope on a root is a commitment only; the records never travel in deltas."""

# ASCII only: normalising Unicode differs between Python versions, and two nodes that disagree on
# whether a key is valid would split the replica.
_KEY = re.compile(r"[a-z][a-z0-9-]{0,31}/[\x21-\x7e]{1,126}")

Put = tuple[int, str, bytes]
Delete = tuple[int, str]


def is_key(key: str) -> bool:
    """Whether `key` has the form `kind/name` in printable ASCII, at most 128 bytes."""
    return len(key) <= KEY_SIZE_MAX and _KEY.fullmatch(key) is not None


def size_of(key: str, value: bytes) -> int:
    """What a record counts towards `SET_SIZE_MAX`."""
    return len(key) + len(value) + RECORD_OVERHEAD


def kind_of(key: str) -> str:
    return key.partition("/")[0]


def leaf(key: str, value: bytes) -> bytes:
    """The 32 bytes that a record adds to its scope's root."""
    name = key.encode()
    sized = len(name).to_bytes(2, "big") + name + value
    return hashlib.blake2b(sized, digest_size=32).digest()


EMPTY_ROOT = hashlib.blake2b(b"", digest_size=32).digest()


class RecordSet:
    """All records of one owner at one content version.

    `records` maps keys to packed values. A kind that this version knows has its scope from
    `SCOPE_OF_KIND`; of other kinds the scope is remembered as it came.
    """

    __slots__ = ("_leaves", "_scopes", "records", "size")

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.size = 0
        self._leaves: dict[str, bytes] = {}
        self._scopes: dict[str, int] = {}

    def scope_of(self, key: str) -> int:
        """The scope of a record of this set."""
        return self._scopes[key]

    def changed(self, puts: Iterable[Put], deletes: Iterable[Delete]) -> RecordSet:
        """A new set with these changes; deletes come first, and deleting what is not there changes
        nothing. Raises RemoteError if a change is malformed or leaves the set over a quota."""
        new = RecordSet()
        new.records, new.size = dict(self.records), self.size
        new._leaves, new._scopes = dict(self._leaves), dict(self._scopes)
        for scope, key in deletes:
            if new._scopes.get(key) == scope:
                new._remove(key)
        for scope, key, value in puts:
            new._put(scope, key, value)
        if len(new.records) > RECORDS_MAX or new.size > SET_SIZE_MAX:
            raise RemoteError("A delta leaves its owner with more records than the quota allows.")
        return new

    def _put(self, scope: int, key: str, value: bytes) -> None:
        if len(value) > VALUE_SIZE_MAX:
            raise RemoteError("A record is over its size limit.")
        held = self._scopes.get(key)
        if held is None:
            _check_new(scope, key)
        elif held != scope:
            raise RemoteError("A record cannot be in two scopes.")
        else:
            self._remove(key)
        self.records[key] = value
        self._scopes[key] = scope
        self._leaves[key] = leaf(key, value)
        self.size += size_of(key, value)

    def _remove(self, key: str) -> None:
        self.size -= size_of(key, self.records.pop(key))
        del self._leaves[key], self._scopes[key]

    def roots(self) -> dict[int, bytes]:
        """The root of each scope, the two common ones always among them."""
        by_scope: dict[int, list[str]] = {Scope.TOPOLOGY: [], Scope.MEMBERS: []}
        for key in sorted(self.records):
            by_scope.setdefault(self._scopes[key], []).append(key)
        return {int(scope): self._root(keys) for scope, keys in sorted(by_scope.items())}

    def _root(self, keys: list[str]) -> bytes:
        leaves = self._leaves
        return hashlib.blake2b(b"".join([leaves[key] for key in keys]), digest_size=32).digest()

    def matches(self, roots: dict[int, bytes]) -> bool:
        """Whether these are exactly the roots of this set. Restricted scopes are not compared; a
        common scope may be missing from `roots` if the set has nothing in it."""
        mine = self.roots()
        told = {scope: root for scope, root in roots.items() if scope < SCOPE_RESTRICTED}
        scopes = sorted(mine | told)
        return all(mine.get(s, EMPTY_ROOT) == told.get(s, EMPTY_ROOT) for s in scopes)

    def outlines(self, roots: dict[int, bytes]) -> bool:
        """Whether these are exactly the topology records that `roots` commit to."""
        mine = self.roots()
        topology = mine.pop(Scope.TOPOLOGY)
        nothing_else = all(root == EMPTY_ROOT for root in mine.values())
        return nothing_else and topology == roots.get(Scope.TOPOLOGY, EMPTY_ROOT)

    def puts(self, keys: Iterable[str] | None = None) -> tuple[Put, ...]:
        """These records (or all) as a delta carries them, sorted."""
        chosen = self.records if keys is None else keys
        return tuple(sorted((self._scopes[key], key, self.records[key]) for key in chosen))


def _check_new(scope: int, key: str) -> None:
    if not is_key(key):
        raise RemoteError("A record has a malformed key.")
    if not 0 <= scope < SCOPE_RESTRICTED:
        raise RemoteError("A record is in a scope whose records do not travel so.")
    if SCOPE_OF_KIND.get(kind_of(key), scope) != scope:
        raise RemoteError("A record is not in the scope of its kind.")


def differing(old: RecordSet, new: RecordSet) -> tuple[str, ...]:
    """The keys whose record differs between two sets, sorted."""
    gone = [key for key in old.records if key not in new.records]
    fresh = [key for key, value in new.records.items() if old.records.get(key) != value]
    return tuple(sorted(gone + fresh))
