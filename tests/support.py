"""What the tests of core and wire share: keys that depend on a number only, and a node's `Env`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from copy import copy
from typing import Any

from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.effects import Effect, Notice, Save, Send
from tektonmesh.core.head import Head
from tektonmesh.core.keydoc import KEYDOC_CONTEXT, KeyDoc, hash_doc, mac_proof
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import (
    Buckets,
    Delta,
    Graft,
    Ihave,
    Outlines,
    Proof,
    Prune,
    Refuses,
    Vector,
    Vouch,
    Want,
    WantOutlines,
)
from tektonmesh.core.owner import Owner
from tektonmesh.core.proofs import Proofs
from tektonmesh.core.record import RecordSet, kind_of
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.trust import Trust
from tektonmesh.core.types import (
    SCOPE_OF_KIND,
    Identity,
    NodeSettings,
    Saved,
    SealKey,
    SignedHead,
    SignedKeyDoc,
    Status,
)
from tektonmesh.wire.codec import KIND, Codec, decode_message, encode_message, pack
from tektonmesh.wire.keys import Keys

MESH = "test"
MESH_ID = hashlib.sha256(b"mesh " + MESH.encode()).digest()[:8]
MESH_KEY = hashlib.sha256(b"the secret of the test mesh").digest()
WALL_S = 1_750_000_000.0
"""The wall clock that tests give a node at its start."""


def seed_bytes(*words: object) -> bytes:
    """32 bytes that depend on `words` only."""
    return hashlib.sha256(" ".join(map(str, words)).encode()).digest()


def sign_keydoc(keys: Keys, *, key_epoch: int = 0, proof: bytes = b"") -> SignedKeyDoc:
    """The key document of `keys`, signed by its root key."""
    doc = KeyDoc(
        keys.root_public, keys.stack_id, key_epoch, keys.op_public, keys.box_public
    ).encode(Codec())
    return SignedKeyDoc(doc, keys.sign_root(KEYDOC_CONTEXT, doc), proof)


def seal_key_of(keys: Keys) -> SealKey:
    """What others need in order to seal to this stack now."""
    return SealKey(keys.box_public, *keys.prekey())


def make_keys(
    n: int, *, name: str = "", mesh_key: bytes | None = MESH_KEY, instance: bytes = b""
) -> tuple[Keys, Identity]:
    """The keys and identity of stack number `n`, always the same for the same `n`. With
    `mesh_key` None its key document proves no membership."""
    rng = random.Random(n)
    seeds = [seed_bytes("stack", n, kind) for kind in ("root", "op", "box", "prekey")]
    keys = Keys.from_seeds(*seeds, randbytes=rng.randbytes)
    proof = b"" if mesh_key is None else mac_proof(Codec(), mesh_key, keys.stack_id)
    identity = Identity(
        stack_id=keys.stack_id,
        name=name or f"stack{n}",
        mesh=MESH,
        mesh_id=MESH_ID,
        instance=instance or seed_bytes("instance", n)[:8],
        keydoc=sign_keydoc(keys, proof=proof),
    )
    return keys, identity


def number_of(name: str) -> int:
    """The number that `make_env` uses for a stack's keys: 1 for "a", 2 for "b" ..."""
    number = 0
    for letter in name.encode():
        number = number * 256 + letter
    return number - 96


def make_env(
    name: str = "a",
    rng_seed: int = 1,
    *,
    now: float = 1000.0,
    mesh_key: bytes | None = MESH_KEY,
    instance: bytes = b"",
    **settings: Any,
) -> Env:
    """The `Env` of a stack called `name` with real keys, those of `make_keys(number_of(name))`.

    By default the mesh has a secret; with `mesh_key=None` it has none. `settings` are fields of
    `NodeSettings`.
    """
    keys, identity = make_keys(number_of(name), name=name, mesh_key=mesh_key, instance=instance)
    settings.setdefault("mesh_keys", () if mesh_key is None else (mesh_key,))
    return Env(
        identity,
        NodeSettings(**settings),
        crypto=keys,
        codec=Codec(),
        chance=random.Random(rng_seed),
        now=now,
    )


def advance(env: Env, seconds: float) -> list[Effect]:
    """Let time pass to every deadline within `seconds` and to the end of them; returns the
    effects of all these turns."""
    end = env.now + seconds
    while env.deadlines.earliest() <= end:
        env.now = max(env.now, env.deadlines.earliest())
        env.deadlines.run_due(env.now)
    env.now = end
    return env.take()


def only(effects: Iterable[Effect], kind: type) -> list[Any]:
    """The effects of one class, in order."""
    return [effect for effect in effects if type(effect) is kind]


class Author:
    """A stack whose heads and deltas a test writes by hand, right or wrong. `hlc` is the mesh time
    of its next head in ms; `keydoc` what it sends as its key document."""

    def __init__(self, n: int = 2, *, mesh_key: bytes | None = MESH_KEY, epoch: int = 5) -> None:
        self.keys, self.identity = make_keys(n, mesh_key=mesh_key)
        self.id = self.identity.stack_id
        self.keydoc = self.identity.keydoc
        self.records = RecordSet()
        self.key_epoch, self.epoch, self.ver, self.content_ver = 0, epoch, 0, 0
        self.hlc = int(WALL_S * 1000)

    def twin(self) -> Author:
        """Somebody else with the same keys, who goes on from what was said so far."""
        return copy(self)

    def rotate(self, key_epoch: int, seed: int) -> Author:
        """Sign by another operational key from now on; its key document has this key epoch."""
        other = make_keys(seed)[0]
        keys = copy(self.keys)
        keys.op_public, keys._op = other.op_public, other._op
        proof, self.keys = self.keydoc.proof, keys
        self.keydoc = sign_keydoc(keys, key_epoch=key_epoch, proof=proof)
        self.key_epoch = key_epoch
        return self

    def head(self, **changes: Any) -> Head:
        """The head over the records of now, with some fields changed."""
        fields: dict[str, Any] = {
            "mesh_id": MESH_ID,
            "stack_id": self.id,
            "key_epoch": self.key_epoch,
            "epoch": self.epoch,
            "ver": self.ver,
            "content_ver": self.content_ver,
            "hlc": self.hlc,
            "lease_s": 300,
            "status": Status.UP,
            "instance": self.identity.instance,
            "roots": self.records.roots(),
            "keydoc_hash": hash_doc(self.keydoc.doc),
        }
        return Head(**fields | changes)

    def sign(self, **changes: Any) -> SignedHead:
        return self.head(**changes).sign(Codec(), self.keys)

    def delta(
        self,
        values: dict[str, Any] | None = None,
        *,
        delete: tuple[str, ...] = (),
        full: bool = False,
        keydoc: bool = True,
        **changes: Any,
    ) -> Delta:
        """Change the records and tell what changed (`full`: all of them) in a delta. Without
        anything to change it only refreshes."""
        values = values or {}
        base = None if full or self.ver == 0 else self.head().content_version
        packed = [(scope_of(k), k, v if type(v) is bytes else pack(v)) for k, v in values.items()]
        deletes = tuple(sorted((scope_of(key), key) for key in delete))
        self.records = self.records.changed(sorted(packed), deletes)
        self.ver += 1
        self.content_ver += bool(values or delete)
        return Delta(
            self.sign(**changes),
            base,
            self.records.puts() if base is None else tuple(sorted(packed)),
            () if base is None else deletes,
            self.keydoc if keydoc else None,
        )


def scope_of(key: str) -> int:
    """The scope of a record by its kind; 5 for the unknown."""
    return int(SCOPE_OF_KIND.get(kind_of(key), 5))


class Member:
    """The registry machines of one stack, wired as `Node` wires them, without neighbours: links
    are what the test says. `sent` gathers what each link was sent, `changes` what changed."""

    def __init__(
        self, name: str = "a", *, saved: Saved | None = None, wall_s: float = WALL_S, **more: Any
    ) -> None:
        self.name = name
        self.env = make_env(name, **more)
        saved = saved or {}
        self.clock = MeshTime(self.env, saved, wall_s)
        self.trust = Trust(self.env, saved, self.clock)
        self.replica = Replica(self.env, self.trust, self.clock, saved)
        self.owner = Owner(self.env, self.replica, self.clock, saved)
        self.dissemination = Dissemination(self.env, self.replica)
        self.antientropy = AntiEntropy(self.env, self.replica, self.dissemination)
        self.proofs = Proofs(self.env, self.replica)
        self.changes: list[Change] = []
        self.effects: list[Effect] = []
        self.sent: dict[int, list[Any]] = {}
        self.disk: Saved = dict(saved)
        self.replica.watch(self.dissemination.on_change)
        self.replica.watch(self.antientropy.on_change)
        self.replica.watch(self.proofs.on_change)
        self.replica.watch(self.changes.append)

    @property
    def id(self) -> bytes:
        return self.env.me

    def start(self) -> Member:
        """Start, with a disk that is durable at once, and publish."""
        self.owner.start()
        self.antientropy.start()
        self.settle()
        return self

    def settle(self) -> list[Effect]:
        """Finish the turn: run what is due and carry out what can be carried out here."""
        effects: list[Effect] = []
        while self.env.deadlines.earliest() <= self.env.now or not effects:
            self.env.deadlines.run_due(self.env.now)
            turn = self.env.take()
            effects.extend(turn)
            for effect in turn:
                self._carry_out(effect)
            if not turn:
                break
        rest = self.env.take()
        for effect in rest:
            self._carry_out(effect)
        effects.extend(rest)
        self.effects.extend(effects)
        return effects

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Send):
            self.sent.setdefault(effect.link, []).extend(effect.messages)
        elif isinstance(effect, Save):
            for table, key, value in effect.rows:
                if value is None:
                    self.disk.pop((table, key), None)
                else:
                    self.disk[table, key] = value
            if effect.ticket is not None:
                self.owner.saved(effect.ticket)

    def wait(self, seconds: float) -> list[Effect]:
        """Let time pass, deadline by deadline."""
        end = self.env.now + seconds
        effects = self.settle()
        while self.env.deadlines.earliest() <= end:
            self.env.now = max(self.env.now, self.env.deadlines.earliest())
            effects.extend(self.settle())
        self.env.now = end
        return effects

    def link(self, link: int, peer: bytes) -> None:
        """A link is up."""
        self.clock.link_up(link, peer)
        self.dissemination.link_up(link, peer)
        self.antientropy.link_up(link, peer)
        self.proofs.link_up(link)
        self.settle()

    def unlink(self, link: int) -> None:
        """A link is gone."""
        self.antientropy.link_down(link)
        self.proofs.link_down(link)
        self.dissemination.link_down(link)
        self.clock.drop_link(link)
        self.settle()

    def receive(self, link: int, message: Any) -> None:
        """One message came. Raises what the machines raise."""
        table = {
            Delta: self.dissemination.on_delta,
            Want: self.dissemination.on_want,
            WantOutlines: self.antientropy.on_want_outlines,
            Outlines: self.antientropy.outliner.on_outlines,
            Ihave: self.dissemination.on_ihave,
            Graft: self.dissemination.on_graft,
            Prune: self.dissemination.on_prune,
            Vector: self.antientropy.on_vector,
            Buckets: self.antientropy.on_buckets,
            Refuses: self.antientropy.on_refuses,
            Proof: self.proofs.on_proof,
            Vouch: self.trust.on_vouch,
        }
        table[type(message)](link, message)
        self.settle()

    def taken(self, link: int) -> list[Any]:
        """What was sent on a link since the last call, through the wire's codec."""
        sent = self.sent.pop(link, [])
        return [decode_message(KIND[type(m)], encode_message(m)) for m in sent]

    def notices(self, kind: str) -> list[dict[str, Any]]:
        """What was said of one kind so far."""
        return [e.data for e in self.effects if isinstance(e, Notice) and e.kind == kind]

    def shown(self, owner: bytes) -> dict[str, bytes] | None:
        """The records of an owner as this stack holds them; None if it does not know it."""
        held = self.replica.owners.get(owner)
        return None if held is None else dict(held.records)


def talk(*links: tuple[Member, int, Member, int], rounds: int = 50) -> None:
    """Carry messages over these links (a member and its link id, twice) until all are silent."""
    for _ in range(rounds):
        moved = False
        for one, link_one, two, link_two in links:
            for sender, at, receiver, to in (
                (one, link_one, two, link_two),
                (two, link_two, one, link_one),
            ):
                for message in sender.taken(at):
                    moved = True
                    receiver.receive(to, message)
        if not moved:
            return
    raise AssertionError("the members do not stop talking")


def join(one: Member, link_one: int, two: Member, link_two: int) -> tuple[Member, int, Member, int]:
    """Bring a link up between two members; returns it for `talk`."""
    one.link(link_one, two.id)
    two.link(link_two, one.id)
    return one, link_one, two, link_two
