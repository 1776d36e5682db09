"""Two stacks of one mesh with real keys, always the same, and what they sign and say.

Random bytes never carry a signature that holds; seeds made here do, so that what stands behind the
check of a signature is reached.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Any

from tektonmesh.core.head import Head
from tektonmesh.core.keydoc import Voucher, hash_doc, mac_proof, write_proof
from tektonmesh.core.trust import Verdict
from tektonmesh.core.types import SealKey, SignedKeyDoc, StackId, Status
from tektonmesh.sim.keyring import MESH_ID, MESH_KEY, HostKeys, host_keys
from tektonmesh.wire.codec import Codec, pack
from tektonmesh.wire.handshake import HELLO_CONTEXT, Channel, Handshake, Local, Role
from tektonmesh.wire.keys import Keys

CODEC = Codec()
LEAVES = (b"the leaf of the client", b"the leaf of the server")
INSTANCE = b"instance"
MESH_KEYS = (MESH_KEY, bytes(32))
ADDRESSES = ("192.0.2.1:7700", "[2001:db8::1]:7700", "lab.example:7700")
WHEN_MS = 1_750_000_000_000
CLIENT, SERVER = 0, 1


@cache
def host(number: int) -> HostKeys:
    return host_keys(number)


@cache
def keys_of(number: int) -> Keys:
    return host(number).keys(Random(number))


def begun(role: Role) -> tuple[Handshake, bytes]:
    """A machine that has started and admits everybody, and what it sent."""
    number, peer = (CLIENT, SERVER) if role is Role.CLIENT else (SERVER, CLIENT)
    local = Local(host(number).identity(INSTANCE), keys_of(number), MESH_KEYS, ADDRESSES)
    channel = Channel(*LEAVES, keys_of(peer).op_public, 5)
    machine = Handshake(role, local, channel, judge=_admit, highest=lambda _key: 0)
    return machine, machine.start()


def _admit(_who: StackId, _name: str, _keydoc: SignedKeyDoc, _proved: bool) -> Verdict:
    return Verdict(True, "secret")


def signed_claim(role: Role, claim: bytes) -> bytes:
    """The body of a HELLO or WELCOME of `role` with a signature over whatever `claim` is."""
    keys = keys_of(CLIENT if role is Role.CLIENT else SERVER)
    sized = [len(leaf).to_bytes(2, "big") + leaf for leaf in LEAVES]
    return pack([claim, keys.sign(HELLO_CONTEXT, b"".join([role.value, *sized, claim]))])


def head(**changes: Any) -> Head:
    """A head of the client's."""
    said: dict[str, Any] = {
        "mesh_id": MESH_ID,
        "stack_id": host(CLIENT).stack_id,
        "key_epoch": 0,
        "epoch": WHEN_MS,
        "ver": 7,
        "content_ver": 3,
        "hlc": WHEN_MS,
        "lease_s": 900,
        "status": Status.UP,
        "instance": INSTANCE,
        "roots": {0: bytes(32), 1: b"r" * 32},
        "keydoc_hash": hash_doc(host(CLIENT).keydoc.doc),
    }
    return Head(**(said | changes))


def voucher(role: str = "member") -> bytes:
    """The server's word for the client."""
    word = Voucher(MESH_ID, host(CLIENT).stack_id, role, WHEN_MS, host(SERVER).stack_id)
    return word.sign(CODEC, keys_of(SERVER))


def proof(vouchers: int) -> bytes:
    """The client's proof of membership with so many vouchers."""
    mac = mac_proof(CODEC, MESH_KEY, host(CLIENT).stack_id)
    return write_proof(CODEC, mac, [voucher()] * vouchers) if vouchers else mac


def seal_key() -> SealKey:
    """What the client needs to seal to the server."""
    keys = keys_of(SERVER)
    return SealKey(keys.box_public, *keys.prekey())
