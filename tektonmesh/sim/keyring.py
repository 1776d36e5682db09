"""The keys of the hosts of all worlds, and the node's `Crypto` with a memory for signatures.

Host 3 has the same keys in every world, so key documents are signed once per process. Signatures
are real; a world verifies each one once, however many nodes see it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from random import Random

from tektonmesh.core.keydoc import KEYDOC_CONTEXT, KeyDoc, mac_proof
from tektonmesh.core.types import Identity, SignedKeyDoc, StackId
from tektonmesh.wire.codec import Codec
from tektonmesh.wire.keys import Keys, mesh_id_of, mesh_key_of

MESH = "world"
MESH_ID = mesh_id_of(MESH)
MESH_KEY = mesh_key_of("the secret of every simulated world", MESH)
_PARTS = ("root", "op", "box", "prekey")


@dataclass(frozen=True, slots=True)
class HostKeys:
    """Who a host is, for ever. `seeds` are those of `_PARTS`."""

    index: int
    name: str
    stack_id: StackId
    keydoc: SignedKeyDoc
    seeds: tuple[bytes, ...]

    def identity(self, instance: bytes) -> Identity:
        """The identity of one start."""
        return Identity(self.stack_id, self.name, MESH, MESH_ID, instance, self.keydoc)

    def keys(self, chance: Random) -> Keys:
        """The private keys; `chance` gives ephemerals and nonces."""
        return Keys.from_seeds(*self.seeds, randbytes=chance.randbytes)


@cache
def host_keys(index: int) -> HostKeys:
    """The keys of host number `index`."""
    seeds = tuple(hashlib.sha256(f"host {index} {part}".encode()).digest() for part in _PARTS)
    keys = Keys.from_seeds(*seeds, randbytes=Random(index).randbytes)
    codec = Codec()
    doc = KeyDoc(keys.root_public, keys.stack_id, 0, keys.op_public, keys.box_public).encode(codec)
    proof = mac_proof(codec, MESH_KEY, keys.stack_id)
    signed = SignedKeyDoc(doc, keys.sign_root(KEYDOC_CONTEXT, doc), proof)
    return HostKeys(index, f"n{index:02d}", keys.stack_id, signed, seeds)


Memory = dict[tuple[bytes, bytes, bytes, bytes], bool]


class WorldCrypto:
    """`core.types.Crypto` over one host's keys; `memory` is shared by the whole world."""

    def __init__(self, keys: Keys, memory: Memory) -> None:
        self._keys = keys
        self._memory = memory
        self.sign = keys.sign
        self.vouch = keys.vouch
        self.prekey = keys.prekey
        self.seal = keys.seal
        self.open = keys.open
        self.lock = keys.lock
        self.unlock = keys.unlock

    def verify(self, public: bytes, context: bytes, data: bytes, sig: bytes) -> bool:
        question = (public, context, data, sig)
        known = self._memory.get(question)
        if known is None:
            known = self._memory[question] = self._keys.verify(public, context, data, sig)
        return known
