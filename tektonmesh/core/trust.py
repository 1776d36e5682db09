"""Who may link to us, and whom we believe to be a member of the mesh.

Two questions that must not be mixed up. `judge` decides about links: it wants the mesh secret or
the word of this stack's own people. `accept` decides whose records get a place in the replica,
often of stacks never met: it wants a proof of membership in the key document. An evicted id fails
both, for ever. What members may do is for policy; the keys themselves are `core/keydoc`.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tektonmesh.core import keydoc as kd
from tektonmesh.core.effects import CloseLink, Send
from tektonmesh.core.events import LinkUp, PeerRefused
from tektonmesh.core.former import Former
from tektonmesh.core.frozen import frozen
from tektonmesh.core.ids import show_id
from tektonmesh.core.keydoc import KeyDoc, SignedVoucher, Voucher, membership_mac
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.messages import Vouch
from tektonmesh.core.oldlinks import OLD_KEYS, OldLinks
from tektonmesh.core.strikes import HELD_OFF, Strikes
from tektonmesh.core.types import Crypto, LinkId, Saved, SignedKeyDoc, StackId
from tektonmesh.errors import LocalError, PolicyError, RemoteError

PENDING_MAX = 256
"""Refused peers that are remembered; a stranger can fill the list, so the oldest goes."""
ADMITTED_MAX = 4096
"""Peers that the secret admitted and that are remembered for `peers`; the oldest goes."""
ACCEPTED_MAX = 32_768
"""Key documents held as possible issuers of vouchers: twice the owners of a full replica."""
VOUCHER_MS = 30 * 86_400_000
DEPTH_MAX = 3
"""Vouchers between an accepted stack and one that was admitted by hand."""
PER_ISSUER_MAX = 256
BY_HAND = ("approved", "invited")
"""Reasons that are a decision of this stack's people, once for all."""


@frozen
class Verdict:
    """Whether a peer is admitted. `reason` is "allowed", "approved", "invited", "introduced" or
    "secret"; or, if it is not, "evicted", "self", "bad_keydoc", "held_off", "bad_invite",
    "old_keys" or "pending"."""

    admitted: bool
    reason: str


@dataclass(slots=True)
class _Peer:
    """A row of the table `peer`. `state` is "admitted", "pending", "evicted" or "refused" (it
    refused us); `voucher` is the newest one it issued for us."""

    state: str
    name: str = ""
    last_seen: int = 0
    reason: str = ""
    voucher: bytes = b""


@frozen
class _Standing:
    """Why an owner is accepted: its role, and how many vouchers lie in between."""

    role: str
    depth: int


class Trust:
    """The memory of whom this stack admits, evicts and accepts. `watch` callbacks run when the
    own key document has a new proof."""

    def __init__(self, env: Env, saved: Saved, clock: MeshTime) -> None:
        self.env = env
        self.clock = clock
        self.strikes = Strikes(env)
        self.former = Former(env, clock, saved)
        self.old_links = OldLinks(env)
        self._peers: dict[StackId, _Peer] = {}
        self._linked: dict[LinkId, StackId] = {}
        self._accepted: dict[StackId, tuple[KeyDoc, _Standing]] = {}
        self._vouched: dict[StackId, dict[StackId, int]] = {}
        self._watchers: list[Callable[[], None]] = []
        self.key_epoch_of: Callable[[StackId], int] = lambda _stack_id: 0
        """The newest key epoch that is known of a stack; told by whoever has the replica."""
        self.introduces: Callable[[StackId], bool] = lambda _stack_id: False
        """Whether the vouchers of a stack admit others; told by `core/rights`."""
        self.role_given: Callable[[StackId], str] = lambda _stack_id: ""
        """In which role this stack vouches for another, if not as a member; told likewise."""
        for (table, key), packed in saved.items():
            if table == "peer" and (peer := _read_peer(env, packed)) is not None:
                self._peers[key] = peer

    def watch(self, callback: Callable[[], None]) -> None:
        self._watchers.append(callback)

    # --- links -----------------------------------------------------------------------------------

    def judge(
        self, stack_id: StackId, name: str, keydoc: SignedKeyDoc, proved_secret: bool
    ) -> Verdict:
        """Whether this peer may have a link. Changes nothing. `name` is its own label and counts
        for nothing."""
        if self.refuses(stack_id):
            return Verdict(False, "evicted")
        if stack_id == self.env.me:
            return Verdict(False, "self")
        if not self._keydoc_is_of(stack_id, keydoc):
            return Verdict(False, "bad_keydoc")
        if kd.KeyDoc.decode(self.env.codec, keydoc.doc).key_epoch < self.key_epoch_of(stack_id):
            return Verdict(False, OLD_KEYS)
        if self.strikes.held_off_s(stack_id) > 0.0:
            return Verdict(False, HELD_OFF)
        if stack_id in self.env.settings.allowed_ids:
            return Verdict(True, "allowed")
        held = self._peers.get(stack_id)
        admitted = held is not None and held.state == "admitted"
        if held is not None and admitted and held.reason in BY_HAND:
            return Verdict(True, held.reason)
        if self._is_introduced(stack_id, keydoc):
            return Verdict(True, "introduced")
        if proved_secret and (admitted or not self._by_approval()):
            return Verdict(True, "secret")
        return Verdict(False, "pending")

    def _is_introduced(self, stack_id: StackId, signed: SignedKeyDoc) -> bool:
        """Whether a stack that was admitted by hand, and may introduce others, vouches for this
        one. What is introduced can introduce nobody: its own issuers must be admitted by hand."""
        _mac, vouchers = kd.read_proof(self.env.codec, signed.proof)
        for voucher in self._readable(vouchers):
            issuer = voucher.voucher.issuer
            if not self.introduces(issuer) or not self._is_by_hand(issuer):
                continue
            known = self._accepted.get(issuer)
            current = self._is_current(voucher.voucher, stack_id)
            if current and known and self._is_signed(voucher, known[0]):
                return True
        return False

    def is_linked(self, stack_id: StackId) -> bool:
        """Whether a link with it is up."""
        return stack_id in self._linked.values()

    def is_approved(self, stack_id: StackId) -> bool:
        """Whether people here said its id, or used an invite of it."""
        held = self._peers.get(stack_id)
        return held is not None and (held.state, held.reason) == ("admitted", "approved")

    def _is_by_hand(self, stack_id: StackId) -> bool:
        held = self._peers.get(stack_id)
        by_hand = held is not None and held.state == "admitted" and held.reason in BY_HAND
        return by_hand or (stack_id in self.env.settings.allowed_ids and not self.refuses(stack_id))

    def _keydoc_is_of(self, stack_id: StackId, signed: SignedKeyDoc) -> bool:
        try:
            return kd.read_keydoc(self.env.codec, self.env.crypto, signed).stack_id == stack_id
        except RemoteError:
            return False

    def _by_approval(self) -> bool:
        """Whether the secret only opens the door to the pending list: by the settings, or because
        somebody was evicted who knows the secret and could come back under another id."""
        if self.env.settings.extra.get("admission") == "approve":
            return True
        return any(peer.state == "evicted" for peer in self._peers.values())

    def refuses(self, stack_id: StackId) -> bool:
        """Whether this id was evicted here."""
        held = self._peers.get(stack_id)
        return held is not None and held.state == "evicted"

    def role_of(self, stack_id: StackId) -> str:
        """In which role this id is admitted: by this stack's people, or by vouchers of those it
        accepts. Empty for any other."""
        held = self._peers.get(stack_id)
        if held is not None and held.state == "evicted":
            return ""
        introduced = held is not None and held.reason == "introduced"
        admitted = held is not None and held.state == "admitted" and not introduced
        if stack_id in self.env.settings.allowed_ids or admitted:
            return "member"
        accepted = self._accepted.get(stack_id)
        return accepted[1].role if accepted is not None else ""

    def evicted(self) -> list[StackId]:
        """The ids evicted here, sorted."""
        return sorted(one for one, peer in self._peers.items() if peer.state == "evicted")

    def link_up(self, event: LinkUp) -> None:
        """Remember the peer; in a mesh without a secret, vouch for it before the others. One that
        was evicted while it was shaking hands is closed."""
        if self.refuses(event.stack_id):
            self.env.emit(CloseLink(event.link, "evicted", "This stack was evicted."))
            return
        self._linked[event.link] = event.stack_id
        self.old_links.link_up(event.link, KeyDoc.decode(self.env.codec, event.keydoc.doc))
        peer = self._peers.setdefault(event.stack_id, _Peer("admitted"))
        if peer.state != "admitted" or not peer.reason:
            by_hand = event.stack_id in self.env.settings.allowed_ids
            other = "secret" if self.env.settings.mesh_keys else "introduced"
            peer.state, peer.reason = "admitted", "allowed" if by_hand else other
        peer.name, peer.last_seen = event.name, self.clock.now_ms() // 1000
        self._save(event.stack_id)
        self._bound(("admitted",), ADMITTED_MAX)
        if not self.env.settings.mesh_keys:
            self._vouch_for(event)

    def link_down(self, link: LinkId) -> None:
        """Until now the peer was seen."""
        self.old_links.link_down(link)
        peer = self._peers.get(self._linked.pop(link, b""))
        if peer is not None:
            peer.last_seen = self.clock.now_ms() // 1000

    def _vouch_for(self, event: LinkUp) -> None:
        try:
            self.accept(event.keydoc)
        except (PolicyError, RemoteError):
            return  # the peer admits us, but nobody here admitted it: there is nothing to say
        end = self.clock.now_ms() + VOUCHER_MS
        role = self.role_given(event.stack_id) or "member"
        voucher = Voucher(self.env.identity.mesh_id, event.stack_id, role, end, self.env.me)
        packed = voucher.sign(self.env.codec, self.env.crypto)
        self.env.emit(Send(event.link, (Vouch(packed),)))

    def on_refused(self, event: PeerRefused) -> None:
        """A handshake ended without admission, on our side or on theirs."""
        if event.stack_id == self.env.me:
            return
        if event.reason == OLD_KEYS:
            self.old_links.refused(event)
            return
        peer = self._peers.pop(event.stack_id, None) or _Peer("pending")
        self._peers[event.stack_id] = peer
        peer.name, peer.last_seen = event.name, self.clock.now_ms() // 1000
        if peer.state in ("pending", "refused"):
            known = peer.reason == event.reason
            peer.state, peer.reason = "refused" if event.outbound else "pending", event.reason
            self._bound(("pending", "refused"), PENDING_MAX)
            if not known:
                self._notice(f"peer_{peer.state}", event.stack_id, address=event.address)

    # --- what people decide ----------------------------------------------------------------------

    def admit(self, stack_id: StackId) -> dict[str, Any]:
        """Admit this id from now on. Raises PolicyError if it was evicted: that is for ever; and
        LocalError for our own id."""
        if stack_id == self.env.me:
            raise LocalError(
                "This is the id of this stack itself.",
                hint="Give the id of the other stack; `tektonmesh peers` lists those that wait.",
            )
        if self.refuses(stack_id):
            raise PolicyError(
                "This stack was evicted, and an eviction is permanent.",
                hint="It can come back with a new identity (`tektonmesh init` in a new home).",
            )
        peer = self._peers.setdefault(stack_id, _Peer("admitted"))
        peer.state, peer.reason = "admitted", "approved"
        self.strikes.forgive(stack_id)
        self._save(stack_id)
        self._notice("peer_admitted", stack_id)
        self.env.audit("approve", stack=show_id(stack_id), name=peer.name)
        return {"id": show_id(stack_id), "name": peer.name, "state": "admitted"}

    def invited(self, stack_id: StackId, name: str) -> None:
        """Admit this id from now on: it proved the secret of an invite."""
        assert not self.refuses(stack_id), "an eviction is permanent"
        peer = self._peers.setdefault(stack_id, _Peer("admitted"))
        peer.state, peer.name = "admitted", name
        if peer.reason != "approved":
            peer.reason = "invited"
        self._save(stack_id)
        self._notice("peer_admitted", stack_id)

    def evict(self, stack_id: StackId) -> dict[str, Any]:
        """Refuse this id for ever. `rotate_secret` says that it knows the mesh secret and could
        come back under another id. Raises PolicyError for our own id."""
        if stack_id == self.env.me:
            raise PolicyError(
                "A stack cannot evict itself.", hint="Stop its daemon and it leaves the mesh."
            )
        peer = self._peers.setdefault(stack_id, _Peer("evicted"))
        peer.state, peer.reason, peer.voucher = "evicted", "evicted", b""
        self.release(stack_id)
        self._save(stack_id)
        self._notice("peer_evicted", stack_id)
        self.env.audit("evict", stack=show_id(stack_id), name=peer.name)
        rotate = bool(self.env.settings.mesh_keys)
        shown = {"id": show_id(stack_id), "name": peer.name, "state": "evicted"}
        return shown | {"rotate_secret": rotate}

    def peers(self) -> list[dict[str, Any]]:
        """All peers known here by id: `id`, `name`, `state` (admitted, pending, evicted or
        refused), `last_seen` (seconds since 1970, 0 for never, now while linked), `reason`,
        `strikes` and `held_off_s` (0 unless no link with it is wanted for so long)."""
        linked, now_s = dict.fromkeys(self._linked.values()), self.clock.now_ms() // 1000
        return [
            {
                "id": show_id(stack_id),
                "name": peer.name,
                "state": peer.state,
                "last_seen": now_s if stack_id in linked else peer.last_seen,
                "reason": peer.reason,
                "strikes": self.strikes.count(stack_id),
                "held_off_s": round(self.strikes.held_off_s(stack_id), 1),
            }
            for stack_id, peer in sorted(self._peers.items())
        ]

    # --- members of the mesh ---------------------------------------------------------------------

    def accept(self, signed: SignedKeyDoc) -> KeyDoc:
        """The key document, if its stack is a member. Raises RemoteError if the document or its
        proof is broken, PolicyError if nothing says that the stack belongs to this mesh."""
        keydoc = KeyDoc.decode(self.env.codec, signed.doc)
        stack_id = keydoc.stack_id
        standing = None if self.refuses(stack_id) else self._standing(stack_id, signed.proof)
        if standing is None:
            raise PolicyError("Nothing proves that this stack belongs to the mesh.")
        kd.verify_keydoc(self.env.crypto, keydoc, signed)
        if not self.env.settings.mesh_keys:
            self._remember_issuer(keydoc, standing)
        return keydoc

    def _remember_issuer(self, keydoc: KeyDoc, standing: _Standing) -> None:
        """It may vouch for others. Where a secret proves membership, vouchers count for nothing
        and ten thousand key documents are not kept."""
        stack_id = keydoc.stack_id
        held = self._accepted.get(stack_id)
        room = held is not None or len(self._accepted) < ACCEPTED_MAX
        if room and (held is None or keydoc.key_epoch >= held[0].key_epoch):
            if held is not None:
                self.former.note(held[0], keydoc)
            self._accepted[stack_id] = (keydoc, standing)

    def _standing(self, stack_id: StackId, proof: bytes) -> _Standing | None:
        mac, vouchers = kd.read_proof(self.env.codec, proof)
        if stack_id == self.env.me or self._is_by_hand(stack_id):
            return _Standing("member", 0)
        for mesh_key in self.env.settings.mesh_keys:
            if hmac.compare_digest(membership_mac(mesh_key, stack_id), mac):
                return _Standing("member", 0)
        if self.env.settings.mesh_keys:
            return None
        found = [self._vouched_for(stack_id, voucher) for voucher in self._readable(vouchers)]
        ranked = sorted((s for s in found if s is not None), key=lambda s: (s.depth, s.role))
        return ranked[0] if ranked else None

    def _readable(self, vouchers: list[bytes]) -> list[SignedVoucher]:
        """One that is broken, or of a later version, proves nothing and is nobody's fault: whoever
        believes the stack for another reason passes its vouchers on without a look at them."""
        found = []
        for packed in vouchers:
            with suppress(RemoteError):
                found.append(kd.read_voucher(self.env.codec, packed))
        return found

    def _vouched_for(self, stack_id: StackId, signed: SignedVoucher) -> _Standing | None:
        voucher = signed.voucher
        if not self._is_current(voucher, stack_id):
            return None
        issuer = self._issuer(voucher.issuer)
        if issuer is None or not self._is_signed(signed, issuer[0]):
            return None
        if issuer[1].role != "member" or issuer[1].depth >= DEPTH_MAX:
            return None
        subjects = self._vouched.setdefault(voucher.issuer, {})
        if stack_id not in subjects and len(subjects) >= PER_ISSUER_MAX:
            now = self.clock.now_ms()
            for subject in [one for one, end in subjects.items() if end <= now]:
                del subjects[subject]
            if len(subjects) >= PER_ISSUER_MAX:
                return None
        subjects[stack_id] = max(subjects.get(stack_id, 0), voucher.not_after_ms)
        return _Standing(voucher.role, issuer[1].depth + 1)

    def _is_signed(self, voucher: SignedVoucher, issuer: KeyDoc) -> bool:
        """Whether its issuer signed it, with the keys of now or those before that still count."""
        if voucher.signed_by(self.env.crypto, issuer.op_pk):
            return True
        former = self.former.of(issuer)
        return former is not None and voucher.signed_by(self.env.crypto, former.op_pk)

    def _is_current(self, voucher: Voucher, stack_id: StackId) -> bool:
        mine = voucher.mesh_id == self.env.identity.mesh_id
        return mine and voucher.stack_id == stack_id and voucher.not_after_ms > self.clock.now_ms()

    def _issuer(self, issuer: StackId) -> tuple[KeyDoc, _Standing] | None:
        if issuer == self.env.me:
            own = KeyDoc.decode(self.env.codec, self.env.identity.keydoc.doc)
            return own, _Standing("member", 0)
        return None if self.refuses(issuer) else self._accepted.get(issuer)

    def release(self, stack_id: StackId) -> None:
        """The replica forgot this owner: free what was kept for it."""
        self.former.forget(stack_id)
        self._accepted.pop(stack_id, None)
        self._vouched.pop(stack_id, None)
        for subjects in self._vouched.values():
            subjects.pop(stack_id, None)

    # --- our own membership ----------------------------------------------------------------------

    def own_keydoc(self) -> SignedKeyDoc:
        """Our key document with its newest proof: the MAC, or the vouchers that hold longest."""
        own = self.env.identity.keydoc
        held = [self._own_voucher(peer.voucher) for peer in self._peers.values() if peer.voucher]
        valid = [v for v in held if v.voucher.not_after_ms > self.clock.now_ms()]
        if self.env.settings.mesh_keys or not valid:
            return own
        ranked = sorted(valid, key=lambda v: (-v.voucher.not_after_ms, v.voucher.issuer))
        packed = [self._peers[v.voucher.issuer].voucher for v in ranked]
        return SignedKeyDoc(own.doc, own.sig, kd.write_proof(self.env.codec, own.proof, packed))

    def _own_voucher(self, packed: bytes) -> SignedVoucher:
        return kd.read_voucher(self.env.codec, packed)

    def take_keys(self, signed: SignedKeyDoc, crypto: Crypto) -> dict[str, Any]:
        """This stack has new keys. What the old ones made counts on if the document says so."""
        env, now = self.env, KeyDoc.decode(self.env.codec, signed.doc)
        assert now.stack_id == env.me, "other keys are another stack"
        self.former.note(KeyDoc.decode(env.codec, env.identity.keydoc.doc), now)
        env.identity, env.crypto = replace(env.identity, keydoc=signed), crypto
        return {"id": show_id(env.me), "key_epoch": now.key_epoch, "op": now.op_pk.hex()}

    def on_vouch(self, link: LinkId, message: Vouch) -> None:
        """A peer vouches for us. Raises RemoteError if it is not for us or not by who it says;
        ignored in a mesh with a secret, from stacks that are no peers here, and if it has run out
        by our clock, since theirs may be the one that is right."""
        signed = kd.read_voucher(self.env.codec, message.voucher)
        voucher = signed.voucher
        if (voucher.mesh_id, voucher.stack_id) != (self.env.identity.mesh_id, self.env.me):
            raise RemoteError("A voucher is for another stack or mesh.")
        if not self._is_current(voucher, self.env.me):
            return
        issuer, peer = self._accepted.get(voucher.issuer), self._peers.get(voucher.issuer)
        if issuer is None or peer is None or self.env.settings.mesh_keys:
            return
        if not self._is_signed(signed, issuer[0]):
            raise RemoteError("A voucher is not signed by its issuer.")
        if peer.voucher and self._lasts(self._own_voucher(peer.voucher), issuer[0]):
            return
        peer.voucher = message.voucher
        self._save(voucher.issuer)
        for callback in self._watchers:
            callback()

    def _lasts(self, held: SignedVoucher, issuer: KeyDoc) -> bool:
        """Whether half its time is left, under the keys of now; until then a new one would only
        make traffic."""
        left_ms = held.voucher.not_after_ms - self.clock.now_ms()
        return left_ms > VOUCHER_MS // 2 and held.signed_by(self.env.crypto, issuer.op_pk)

    # --- rows ------------------------------------------------------------------------------------

    def _save(self, stack_id: StackId) -> None:
        peer = self._peers[stack_id]
        row = [peer.state, peer.name, peer.last_seen, peer.reason, peer.voucher]
        self.env.save("peer", stack_id, self.env.codec.pack(row))

    def _bound(self, states: tuple[str, ...], most: int) -> None:
        """Forget the peer that was added first; those admitted or evicted by hand stay."""
        found = [
            stack_id
            for stack_id, peer in self._peers.items()
            if peer.state in states and peer.reason not in ("allowed", *BY_HAND)
        ]
        for stack_id in found[: max(0, len(found) - most)]:
            if self._peers.pop(stack_id).state == "admitted":
                self.env.save("peer", stack_id, None)

    def _notice(self, kind: str, stack_id: StackId, **data: Any) -> None:
        name = self._peers[stack_id].name
        self.env.notice(kind, id=show_id(stack_id), name=name, **data)


def _read_peer(env: Env, packed: bytes) -> _Peer | None:
    """A row of the table `peer`; None if it is damaged. An eviction that reads at all counts."""
    try:
        row = env.codec.unpack(packed)
    except RemoteError:
        return None
    if not isinstance(row, list) or [type(item) for item in row] != [str, str, int, str, bytes]:
        return None
    peer = _Peer(*row)
    try:
        if peer.voucher:
            kd.read_voucher(env.codec, peer.voucher)
    except RemoteError:
        peer.voucher = b""
    return peer
