"""Making sealed envelopes and opening them: which keys, which ids, what stands in the body.

The body of an envelope is a msgpack map that only its two ends can read; the clear header is the
seal's associated data. `Sealer` finds the keys in the replica (the sender's static key in its key
document, the receiver's prekey in its `stack/self` record), so what it opens is authenticated: the
source in the header is the stack that sealed it. It decides nothing about delivery.

Bodies, by kind (docs/design/forwarding.md):
    REQUEST  to, from (CI names), ct, body, left (ms to answer in), st (stream), nr (no reply),
             cr (with st: up to which byte of the reply may be sent); of a call of MCP also dp (how
             many calls led to it), sg (its stack's signature, `assertions`)
    REPLY    body, ct, off (where `body` begins in the whole reply), tr (trace of the request),
             ld (messages that the CI has in hand)
    CHUNK    data, off            RECEIPT  tr, ld         CANCEL   nothing
    NACK     code, detail, out (outcome), and for `unknown_key` id, pk (the newest prekey)
    RESEND   off, cr              CREDIT   off (what is there), cr
    PULL     at (offsets of parts of a large body)       PART     off, data; or gone
    TRACE_REPLY  tr, rep (reports of the hops)
    PARK     in (a packed envelope), left (ms that it is worth)
    SHARED   as REQUEST, with k and h (key and hash of the shared part) for body and ct; then the
             shared part: body, ct, locked with that key
    SHARE    v (version), cis (the records that are shared with this partner alone), uses (what it
             may use: say, the CIs it may speak to; lists, by CI a digest of what that offers it)
    WITNESS  a question has nothing, its answer n, h, at (the end of the asker's audit log)
What durable messages add is listed in `durable`; with the setting `padding` every body has a
filling, which nobody reads (`padding`).
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

from tektonmesh.core.envelope import (
    CONTROL_KINDS,
    NO_ID,
    START_SIZE_MAX,
    Envelope,
    Flags,
    Header,
    Kind,
    SendClass,
    join_parts,
    parts_of,
)
from tektonmesh.core.keydoc import KeyDoc
from tektonmesh.core.machine import Env
from tektonmesh.core.padding import pack_padded
from tektonmesh.core.refusals import Refusals
from tektonmesh.core.replica import Replica
from tektonmesh.core.types import SealKey, StackId
from tektonmesh.errors import DeliveryError, RemoteError

Body = dict[str, Any]

CLASS_OF: dict[Kind, SendClass] = {
    Kind.REQUEST: SendClass.NORMAL,
    Kind.SHARED: SendClass.NORMAL,
    Kind.REPLY: SendClass.NORMAL,
    Kind.CHUNK: SendClass.NORMAL,
    **dict.fromkeys(CONTROL_KINDS, SendClass.CONTROL),
    Kind.PULL: SendClass.INTERACTIVE,
    Kind.PART: SendClass.BULK,
    Kind.PARK: SendClass.BULK,
    Kind.TRACE: SendClass.INTERACTIVE,
    Kind.TRACE_REPLY: SendClass.INTERACTIVE,
    Kind.SHARE: SendClass.INTERACTIVE,
    Kind.WITNESS: SendClass.INTERACTIVE,
}

TTL_MIN_MS = 1000
"""Below this the guesses of transit times would decide instead of the deadline."""
TTL_MAX_MS = 0xFFFF_FFFF

CONTROL_PLAIN_MAX = 2048
"""Of what is sealed as control; with the header, a long trace and a list of stacks to avoid it
stays within `envelope.CONTROL_SIZE_MAX`."""
BULK_SIZE = 32 << 10
"""At 50 Mbit/s larger bodies keep a link busy for longer than a token may be late (5 ms)."""

PADDED_MAX = START_SIZE_MAX - 256
"""So far a body may be filled up: header and seal take 195 bytes besides."""

KEYS_MAX = 4096
"""Keys of other stacks kept ready; looking them up anew is not dear."""


class Shared(NamedTuple):
    """What all copies of one multicast have in common: the `group` it is known by, and the body,
    locked. `digest` is the hash of `locked`: the members share the key, so the lock alone would let
    one of them put another text in."""

    group: bytes
    key: bytes
    digest: bytes
    locked: bytes


class Copy(NamedTuple):
    """Which copy of which message an envelope is, the short ids (packed) it should avoid, and what
    it shares with others (a request without `body` and `ct` of its own then)."""

    msg_id: bytes
    attempt: int = 0
    avoid: bytes = b""
    shared: Shared | None = None
    flags: int = Flags.NONE


class Sealer:
    """Seals for others and opens what others sealed for us."""

    def __init__(self, env: Env, replica: Replica) -> None:
        self.env = env
        self.refusals = Refusals(env, replica)
        self._replica = replica
        self._fresher: dict[StackId, tuple[bytes, SealKey]] = {}
        self._keys: dict[StackId, tuple[KeyDoc, object, SealKey]] = {}

    def new_id(self) -> bytes:
        """16 bytes: 6 of mesh time in ms, then chance. They sort by time of making."""
        return self.now_ms().to_bytes(6) + self.env.chance.randbytes(10)

    def now_ms(self) -> int:
        return max(0, self._replica.clock.now_ms()) & 0xFFFF_FFFF_FFFF

    def seal(
        self,
        kind: Kind,
        to: StackId,
        body: Body,
        *,
        ttl_s: float,
        reply_to: bytes = NO_ID,
        copy: Copy | None = None,
    ) -> Envelope:
        """A sealed envelope; without `copy` the only one of a new id.

        Raises DeliveryError (unreachable) while the destination's keys are not known here.
        """
        key = self._key_of(to)
        if copy is None:
            copy = Copy(self.new_id())
        shared = copy.shared
        if shared is not None:
            assert kind == Kind.REQUEST and reply_to == NO_ID
            kind, reply_to = Kind.SHARED, shared.group
            body = body | {"k": shared.key, "h": shared.digest}
        plain = self._pack(body)
        header = Header(
            kind=kind,
            msg_id=copy.msg_id,
            source=self.env.me,
            destination=to,
            created_ms=self.now_ms(),
            ttl_ms=min(max(int(ttl_s * 1000), TTL_MIN_MS), TTL_MAX_MS),
            size=len(plain) + (len(shared.locked) if shared is not None else 0),
            key_id=key.key_id,
            reply_to=reply_to,
            attempt=min(copy.attempt, 0xFFFF),
            flags=copy.flags,
            send_class=_class_of(kind, len(plain)),
        )
        head = header.pack()
        try:
            sealed = self.env.crypto.seal(key, head, plain)
        except RemoteError as error:
            raise DeliveryError(f"The keys of the stack are of no use: {error.detail}") from None
        if shared is not None:
            sealed = join_parts(sealed, shared.locked)
        return Envelope(header, head, sealed, avoid=copy.avoid)

    def share(self, group: bytes, body: bytes, content_type: str) -> Shared:
        """Lock a body for many. Raises LocalError if it cannot be packed."""
        key = self.env.chance.randbytes(32)
        locked = self.env.crypto.lock(key, self._pack({"body": body, "ct": content_type}))
        return Shared(group, key, blake2b(locked, digest_size=32).digest(), locked)

    def open(self, envelope: Envelope) -> Body:
        """The body, proved to come from the header's source.

        Raises RemoteError if it was not sealed so or is no map; LocalError with code `not_found`
        if it was sealed to a prekey that is not ours (any more).
        """
        held = self._replica.owners.get(envelope.header.source)
        if held is None:
            raise RemoteError("The envelope is from a stack that is not known here.")
        header, sealed, locked = envelope.header, envelope.body, b""
        if header.kind == Kind.SHARED:
            sealed, locked = parts_of(sealed)
        plain = self._unseal(held.keydoc, envelope, sealed)
        body = self._map(plain)
        if header.kind == Kind.SHARED:
            if blake2b(locked, digest_size=32).digest() != body.get("h"):
                raise RemoteError("The shared part of the message is not the one it names.")
            body |= self._map(self.env.crypto.unlock(bytes_of(body, "k"), locked))
        return body

    def _unseal(self, keydoc: KeyDoc, envelope: Envelope, sealed: bytes) -> bytes:
        """As `open`. The keys of the source may have changed while the envelope was on its way."""
        key_id, open_by = envelope.header.key_id, self.env.crypto.open
        former = self._replica.trust.former.of(keydoc)
        try:
            return open_by(keydoc.box_pk, key_id, envelope.head, sealed)
        except RemoteError:
            if former is None:
                raise
            return open_by(former.box_pk, key_id, envelope.head, sealed)

    def _pack(self, body: Body) -> bytes:
        if self.env.settings.padding:
            return pack_padded(self.env.codec.pack, body, PADDED_MAX)
        return self.env.codec.pack(body)

    def _map(self, plain: bytes) -> Body:
        body = self.env.codec.unpack(plain)
        if not isinstance(body, dict):
            raise RemoteError("The body of the envelope is not a map.")
        return body

    def learn_prekey(self, stack_id: StackId, body: Body) -> bool:
        """Take the prekey from an authenticated `unknown_key` nack, until the stack's own record
        brings another. False if the nack holds none."""
        held = self._replica.owners.get(stack_id)
        key_id, prekey = bytes_of(body, "id"), bytes_of(body, "pk")
        if held is None or not _is_key(key_id, prekey):
            return False
        key = SealKey(held.keydoc.box_pk, key_id, prekey)
        self._fresher[stack_id] = (self._published(stack_id)[0], key)
        self._keys.pop(stack_id, None)
        return True

    def _key_of(self, to: StackId) -> SealKey:
        held = self._replica.owners.get(to)
        said = held.value("stack/self") if held is not None else None
        known = self._keys.get(to)
        if known is not None and held is not None:
            keydoc, once_said, key = known
            if held.keydoc is keydoc and said is once_said:
                return key
        key_id, prekey = self._published(to)
        fresher = self._fresher.get(to)
        if fresher is not None:
            if fresher[0] == key_id:
                return fresher[1]
            del self._fresher[to]
        if held is None or not prekey:
            raise DeliveryError("The keys of the stack are not known here yet.")
        if len(self._keys) >= KEYS_MAX:
            self._keys.clear()
        key = SealKey(held.keydoc.box_pk, key_id, prekey)
        self._keys[to] = (held.keydoc, said, key)
        return key

    def _published(self, stack_id: StackId) -> tuple[bytes, bytes]:
        """`(key_id, prekey)` of the stack's own record; empty bytes if it has none."""
        held = self._replica.owners.get(stack_id)
        box = ((held.value("stack/self") or {}) if held is not None else {}).get("box")
        if isinstance(box, dict):
            key_id, prekey = bytes_of(box, "id"), bytes_of(box, "pk")
            if _is_key(key_id, prekey):
                return key_id, prekey
        return b"", b""


def _class_of(kind: Kind, size: int) -> SendClass:
    """Large requests leave behind everything else, and what is long is no control. Parts of a reply
    keep one class, large or not, so that the end of it does not overtake the rest."""
    usual = CLASS_OF[kind]
    if usual == SendClass.CONTROL and size > CONTROL_PLAIN_MAX:
        return SendClass.INTERACTIVE
    return SendClass.BULK if kind == Kind.REQUEST and size > BULK_SIZE else usual


def _is_key(key_id: bytes, prekey: bytes) -> bool:
    return len(key_id) == 8 and len(prekey) == 32


def text_of(body: Body, key: str, limit: int = 256) -> str:
    """A text field of a body that a stranger may have written; empty if it is none."""
    value = body.get(key)
    return value[:limit] if isinstance(value, str) else ""


def bytes_of(body: Body, key: str) -> bytes:
    value = body.get(key)
    return value if isinstance(value, bytes) else b""


def number_of(body: Body, key: str, limit: int) -> int:
    """A whole number of a body, between 0 and `limit`."""
    value = body.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), limit)
