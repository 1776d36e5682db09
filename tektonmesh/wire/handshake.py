"""Who is at the other end, and do both ends want the link: one exchange inside TLS.

    client  HELLO    claim without addresses, signed over the role, both leaf keys and the claim
    server  WELCOME  its own claim, signed likewise; or REFUSED, and not a word about itself
    client  ACCEPT   its addresses; or REFUSED

A TLS 1.3 client believes itself done before the server has judged it, so it says nothing that is
not for strangers before WELCOME, and neither end sends anything else before ACCEPT. A man in the
middle with an admitted identity has other leaf keys than the two ends and cannot sign for them.
The mesh secret is proved by a MAC over both leaf keys and never sent. Who is admitted is the
judge's decision; TLS, time limits and sockets are `net/link`'s.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, IntEnum
from typing import Any

from tektonmesh.core.frozen import frozen
from tektonmesh.core.invites import INVITE_ID_SIZE, proof_of
from tektonmesh.core.keydoc import read_keydoc
from tektonmesh.core.oldlinks import OLD_KEYS
from tektonmesh.core.strikes import HELD_OFF
from tektonmesh.core.trust import Verdict
from tektonmesh.core.types import Identity, SignedKeyDoc, StackId
from tektonmesh.errors import MeshError, RemoteError
from tektonmesh.wire import limits
from tektonmesh.wire.codec import Codec, pack, unpack
from tektonmesh.wire.frames import cut, take_first
from tektonmesh.wire.keys import Keys

JudgeInvite = Callable[[bytes, bytes, bytes], Verdict]
"""`(id of the invite, what its proof covers, the proof)`; asked when nothing else admits."""
Judge = Callable[[StackId, str, SignedKeyDoc, bool], Verdict]
"""`(id, name, key document, proved the mesh secret)`; asked once the peer has signed for itself."""

Invite = tuple[bytes, bytes]
HELLO_CONTEXT = b"tektonmesh/hello/1\0"
SECRET_CONTEXT = b"tektonmesh/secret/1\0"

_PENDING = "The owner of that stack must approve this one first."
_NOT_ADMITTED = "That stack does not admit this one."
_REPLACED = "It knows newer keys of this stack than those that this one runs with (an old backup?)."

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%_a-z-]{2,100}\]|[0-9A-Za-z._-]{1,249}):[0-9]{1,5}")


class Kind(IntEnum):
    """The numbers of the handshake's frames. Final."""

    HELLO = 1
    WELCOME = 2
    ACCEPT = 3
    REFUSED = 4


class Role(Enum):
    """Which end of the TCP connection this is; signed, so that nothing can be reflected."""

    CLIENT = b"client"
    SERVER = b"server"

    @property
    def other(self) -> Role:
        return Role.SERVER if self is Role.CLIENT else Role.CLIENT


class State(Enum):
    """`*_DUE` states wait for that frame of the peer."""

    START = "start"
    HELLO_DUE = "hello due"
    WELCOME_DUE = "welcome due"
    ACCEPT_DUE = "accept due"
    DONE = "done"
    REFUSED = "refused"


@frozen
class Channel:
    """What TLS has established: both leaf keys (DER), and whose leaf the peer's claims to be."""

    client_leaf: bytes
    server_leaf: bytes
    peer_key: bytes
    peer_issued_at: int


@frozen
class Local:
    """What this end says of itself. `mesh_keys` newest first, `addresses` where it listens,
    `invite` (id, secret) what it proves to the stack it dials."""

    identity: Identity
    keys: Keys
    mesh_keys: tuple[bytes, ...]
    addresses: tuple[str, ...]
    invite: tuple[bytes, bytes] | None = None
    judge_invite: JudgeInvite | None = None


@frozen
class Peer:
    """Who the other end is, proved by its signature over this very channel."""

    stack_id: StackId
    name: str
    keydoc: SignedKeyDoc
    instance: bytes
    addresses: tuple[str, ...]
    invite: bytes = b""
    """The id of the invite it showed, if it was asked for one."""


class Refused(Exception):
    """The handshake ended without a link. Not an error of this program, so not in its table.

    `code` is one of self, wrong_identity, mesh, version, stale_leaf, not_admitted, held_off,
    old_keys, protocol;
    `by_peer` tells whose decision it was; `peer` is known once it has signed for itself;
    `told` is the sentence for the peer, `detail` ours; `reply` is what to send before closing;
    `highest` goes with stale_leaf.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        told: str = "",
        by_peer: bool = False,
        highest: int = 0,
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.told = told or detail
        self.by_peer = by_peer
        self.highest = highest
        self.peer: Peer | None = None
        self.reply = b""


class Handshake:
    """One end's machine: `start` once, then `receive` until `state` is DONE.

    `highest(operational_key)` is the highest `issued_at` of a leaf seen from it, 0 for none.
    """

    def __init__(
        self,
        role: Role,
        local: Local,
        channel: Channel,
        *,
        judge: Judge,
        highest: Callable[[bytes], int],
        expect: StackId | None = None,
    ) -> None:
        self.state = State.START
        self.peer: Peer | None = None
        self.rest = b""
        self._role = role
        self._local = local
        self._channel = channel
        self._judge = judge
        self._highest = highest
        self._expect = expect
        self._buffer = b""

    def start(self) -> bytes:
        """What to send first. Raises Refused (`self`) before a word when the leaf is our own."""
        assert self.state is State.START
        if self._channel.peer_key == self._local.keys.op_public:
            raise self._refuse(Refused("self", "This connection leads back to this stack."))
        if self._role is Role.SERVER:
            self.state = State.HELLO_DUE
            return b""
        self.state = State.WELCOME_DUE
        return self._claim(Kind.HELLO, ())

    def receive(self, data: bytes) -> bytes:
        """What to send back after these bytes. Raises Refused; its `reply` is to be sent then.
        Once DONE, `peer` is who is there and `rest` what came behind ACCEPT."""
        assert self.state in _STEPS
        try:
            first = take_first(self._buffer + data)
            if first is None:
                self._buffer += data
                return b""
            kind, body, self.rest = first
            self._buffer = b""
            if kind == Kind.REFUSED:
                raise _told(body)
            due, step = _STEPS[self.state]
            if kind != due:
                raise RemoteError(f"A frame of kind {kind} came where {due.name} was due.")
            reply = step(self, body)
            if self.rest and kind != Kind.ACCEPT:
                raise RemoteError("Something was sent before the handshake was over.")
            return reply
        except Refused as refused:
            raise self._refuse(refused) from None
        except MeshError as error:
            raise self._refuse(Refused("protocol", error.detail)) from None

    # --- steps -----------------------------------------------------------------------------------

    def _on_hello(self, body: bytes) -> bytes:
        self._read_claim(body)
        self.state = State.ACCEPT_DUE
        return self._claim(Kind.WELCOME, self._local.addresses)

    def _on_welcome(self, body: bytes) -> bytes:
        self._read_claim(body)
        self.state = State.DONE
        addresses = list(self._local.addresses[: limits.ADDRESSES_MAX])
        return _frame(Kind.ACCEPT, pack([addresses]))

    def _on_accept(self, body: bytes) -> bytes:
        (shown,) = _read_fields(body, 1)
        peer = self.peer
        assert peer is not None
        self.peer = Peer(
            peer.stack_id,
            peer.name,
            peer.keydoc,
            peer.instance,
            _read_addresses(shown),
            peer.invite,
        )
        self.state = State.DONE
        return b""

    # --- claims ----------------------------------------------------------------------------------

    def _claim(self, kind: Kind, addresses: tuple[str, ...]) -> bytes:
        identity, keydoc = self._local.identity, self._local.identity.keydoc
        fields: list[Any] = [
            [limits.PROTOCOL_MIN, limits.PROTOCOL_MAX],
            identity.mesh_id,
            [keydoc.doc, keydoc.sig, keydoc.proof],
            identity.name,
            identity.instance,
            addresses[: limits.ADDRESSES_MAX],
            [self._mac(key, self._role) for key in self._local.mesh_keys],
        ]
        if self._local.invite is not None:
            invite, secret = self._local.invite
            fields.append([invite, proof_of(secret, self._signed(self._role, b""))])
        claim = pack(fields)
        sig = self._local.keys.sign(HELLO_CONTEXT, self._signed(self._role, claim))
        return _frame(kind, pack([claim, sig]))

    def _read_claim(self, body: bytes) -> None:
        """Authenticate the peer, then decide. Sets `peer` as soon as it has proved who it is."""
        claim, sig = _read_fields(body, 2)
        _require(isinstance(claim, bytes) and isinstance(sig, bytes))
        fields, invite = _read_fields(claim, 7), _read_invite(claim)
        versions, mesh_id, keydoc, name, instance, addresses, proofs = fields
        _require(_is_list(keydoc, 3, bytes) and _is_list(versions, 2, int))
        _require(_is_text(name, _NAME) and isinstance(instance, bytes))
        _require(0 < len(instance) <= limits.INSTANCE_SIZE_MAX)
        signed = SignedKeyDoc(*keydoc)
        document = read_keydoc(Codec(), self._local.keys, signed)
        if not hmac.compare_digest(document.op_pk, self._channel.peer_key):
            raise RemoteError("The certificate was issued by another key than the key document's.")
        context = self._signed(self._role.other, claim)
        if not self._local.keys.verify(document.op_pk, HELLO_CONTEXT, context, sig):
            raise RemoteError("The signature is not the peer's for this very connection.")
        self.peer = Peer(document.stack_id, name, signed, instance, _read_addresses(addresses))
        self._check_identity(self.peer)
        self._check_common_ground(versions, mesh_id)
        self._ask_judge(self.peer, invite, proved_secret=self._proved(proofs))

    def _check_identity(self, peer: Peer) -> None:
        if peer.stack_id == self._local.identity.stack_id:
            raise Refused("self", "The other end has this stack's own identity.")
        if self._expect is not None and peer.stack_id != self._expect:
            raise Refused("wrong_identity", "Another stack answers at this address.")
        highest = self._highest(self._channel.peer_key)
        if self._channel.peer_issued_at < highest:
            raise Refused(
                "stale_leaf", "The certificate is older than one seen before.", highest=highest
            )

    def _check_common_ground(self, versions: list[int], mesh_id: Any) -> None:
        if mesh_id != self._local.identity.mesh_id:
            raise Refused("mesh", "The two stacks are of different meshes.")
        lowest, highest = versions
        if lowest > limits.PROTOCOL_MAX or highest < limits.PROTOCOL_MIN:
            raise Refused("version", "The two stacks have no protocol version in common.")

    def _ask_judge(self, peer: Peer, invite: Invite | None, *, proved_secret: bool) -> None:
        verdict = self._judge(peer.stack_id, peer.name, peer.keydoc, proved_secret)
        judge_invite = self._local.judge_invite
        if verdict.reason == "pending" and invite is not None and judge_invite is not None:
            shown, mac = invite
            self.peer = replace(peer, invite=shown)
            verdict = judge_invite(shown, self._signed(self._role.other, b""), mac)
        if verdict.reason == HELD_OFF:
            raise Refused(HELD_OFF, "It broke the protocol several times; it may try later.")
        if verdict.reason == OLD_KEYS:
            raise Refused(OLD_KEYS, "It shows keys that were replaced.", told=_REPLACED)
        if not verdict.admitted:
            told = _PENDING if verdict.reason == "pending" else _NOT_ADMITTED
            raise Refused("not_admitted", verdict.reason, told=told)

    def _signed(self, role: Role, claim: bytes) -> bytes:
        """What a claim's signature covers: fixed-size parts first, so that it reads one way."""
        leaves = (self._channel.client_leaf, self._channel.server_leaf)
        sized = [len(leaf).to_bytes(2, "big") + leaf for leaf in leaves]
        return b"".join([role.value, *sized, claim])

    def _mac(self, mesh_key: bytes, role: Role) -> bytes:
        return hmac.digest(mesh_key, SECRET_CONTEXT + self._signed(role, b""), "sha256")

    def _proved(self, proofs: Any) -> bool:
        _require(isinstance(proofs, list) and len(proofs) <= limits.SECRET_PROOFS_MAX)
        _require(_is_list(proofs, len(proofs), bytes))
        own = [self._mac(key, self._role.other) for key in self._local.mesh_keys]
        return any(hmac.compare_digest(mac, proof) for mac in own for proof in proofs)

    # --- refusals --------------------------------------------------------------------------------

    def _refuse(self, refused: Refused) -> Refused:
        self.state = State.REFUSED
        refused.peer = self.peer
        if not refused.by_peer:
            told = refused.told[: limits.REFUSED_DETAIL_MAX]
            refused.reply = _frame(Kind.REFUSED, pack([refused.code, told, refused.highest]))
        return refused


_STEPS: dict[State, tuple[Kind, Callable[[Handshake, bytes], bytes]]] = {
    State.HELLO_DUE: (Kind.HELLO, Handshake._on_hello),
    State.WELCOME_DUE: (Kind.WELCOME, Handshake._on_welcome),
    State.ACCEPT_DUE: (Kind.ACCEPT, Handshake._on_accept),
}


def _frame(kind: Kind, body: bytes) -> bytes:
    assert len(body) <= limits.HELLO_SIZE_MAX, "our own claim is over the limit"
    return cut(kind, 0, body)[0]


def _told(body: bytes) -> Refused:
    """The refusal that the peer sent. Its words are shown to people, so they are cleaned."""
    code, detail, highest = _read_fields(body, 3)
    _require(isinstance(code, str) and isinstance(detail, str) and type(highest) is int)
    shown = "".join(char if char.isprintable() else "?" for char in detail)
    return Refused(
        code if code in _CODES else "refused",
        shown[: limits.REFUSED_DETAIL_MAX],
        by_peer=True,
        highest=highest,
    )


_CODES = (
    "self",
    "wrong_identity",
    "mesh",
    "version",
    "stale_leaf",
    "not_admitted",
    HELD_OFF,
    OLD_KEYS,
    "protocol",
)


def _read_fields(body: bytes, count: int) -> list[Any]:
    """The first `count` fields of a packed array; later versions may add more behind them."""
    fields = unpack(body, nodes_max=limits.HELLO_NODES_MAX)
    _require(isinstance(fields, list) and len(fields) >= count)
    return list(fields[:count])


def _read_addresses(shown: Any) -> tuple[str, ...]:
    """Dial targets from a peer are attacker input: few, short, and of the one form."""
    _require(isinstance(shown, list) and len(shown) <= limits.ADDRESSES_MAX)
    _require(all(_is_text(address, _ADDRESS) for address in shown))
    return tuple(shown)


def _read_invite(claim: bytes) -> Invite | None:
    """The eighth field of a claim, if there is one: an invite's id and the proof of its secret."""
    fields = unpack(claim, nodes_max=limits.HELLO_NODES_MAX)
    if len(fields) < 8:
        return None
    shown = fields[7]
    sized = _is_list(shown, 2, bytes) and len(shown[0]) == INVITE_ID_SIZE
    return (shown[0], shown[1]) if sized else None


def _is_list(value: Any, count: int, kind: type) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(v) is kind for v in value)


def _is_text(value: Any, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _require(fits: bool) -> None:
    if not fits:
        raise RemoteError("A field of the handshake is malformed.")
