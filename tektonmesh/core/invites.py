"""Invites: a secret that one stack gives another, good for being admitted once and for a while.

The secret is proved by a MAC over both leaf keys of the very connection (`wire/handshake`) and is
never sent, so a man in the middle gets nothing that he could use. The id of the issuer in the token
authenticates the issuer, so there is no gap of first trust on the other side. Who comes with a good
proof is admitted for good, under the terms that were written into the invite; five wrong proofs
burn it. Writing a token is here too; how it travels from person to person is theirs.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Any

from tektonmesh.core.events import Govern, LinkUp, PeerRefused
from tektonmesh.core.frozen import frozen
from tektonmesh.core.ids import show_id
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.policy import Terms
from tektonmesh.core.rights import Rights, terms_from
from tektonmesh.core.trust import Trust, Verdict
from tektonmesh.core.types import ID_SIZE, Codec, Saved, StackId
from tektonmesh.errors import LocalError, RemoteError

TOKEN_PREFIX = "tmi_"
TOKEN_FORMAT = 1
TOKEN_SIZE_MAX = 2048
INVITE_CONTEXT = b"tektonmesh/invite/1\0"
INVITE_ID_SIZE = 8
SECRET_SIZE = 16
"""128 bits: nobody guesses it offline either, so the MAC needs no slow derivation."""
EXPIRY_MAX_S = 24 * 3600.0
EXPIRY_S = 3600.0
USES_MAX = 32
WRONG_MAX = 5
INVITES_MAX = 256
ADDRESSES_MAX = 16
TABLE = "invite"
_JOINING = b"for"
BAD_INVITE = "bad_invite"


@frozen
class Token:
    """What an invited person was given, read."""

    mesh: str
    issuer: StackId
    invite: bytes
    secret: bytes
    not_after_ms: int
    addresses: tuple[str, ...]


@frozen
class Invite:
    """An invite of this stack. `wrong` counts the proofs that failed."""

    secret: bytes
    not_after_ms: int
    uses: int
    wrong: int
    terms: Terms


def proof_of(secret: bytes, context: bytes) -> bytes:
    """32 bytes that only a holder of the secret can make for this connection."""
    return hmac.digest(secret, INVITE_CONTEXT + context, "sha256")


def write_token(codec: Codec, token: Token) -> str:
    """The token as people pass it on."""
    fields = [TOKEN_FORMAT, token.mesh, token.issuer, token.invite, token.secret]
    packed = codec.pack([*fields, token.not_after_ms, list(token.addresses)])
    return TOKEN_PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def read_token(codec: Codec, text: str) -> Token:
    """Raises LocalError for what is no token, or one that was cut on its way."""
    plain = "".join(text.split())
    wrong = LocalError("This is no invite.", hint="Copy the whole token; it begins with 'tmi_'.")
    if not plain.startswith(TOKEN_PREFIX) or len(plain) > TOKEN_SIZE_MAX:
        raise wrong
    body = plain.removeprefix(TOKEN_PREFIX)
    try:
        fields = codec.unpack(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (RemoteError, binascii.Error, ValueError):
        raise wrong from None
    kinds = [int, str, bytes, bytes, bytes, int, list]
    if not isinstance(fields, list) or [type(field) for field in fields] != kinds:
        raise wrong
    number, mesh, issuer, invite, secret, not_after_ms, addresses = fields
    if number != TOKEN_FORMAT:
        raise LocalError("This invite is of a later version.", hint="Update this stack.")
    sized = (len(issuer), len(invite), len(secret)) == (ID_SIZE, INVITE_ID_SIZE, SECRET_SIZE)
    if not sized or not all(isinstance(one, str) for one in addresses):
        raise wrong
    told = tuple(addresses[:ADDRESSES_MAX])
    return Token(mesh, issuer, invite, secret, not_after_ms, told)


class Invites:
    """The invites that this stack gave, and those it was given and has not used yet."""

    def __init__(
        self, env: Env, trust: Trust, rights: Rights, clock: MeshTime, saved: Saved
    ) -> None:
        self.env = env
        self._trust = trust
        self._rights = rights
        self._clock = clock
        self._given: dict[bytes, Invite] = {}
        self._joining: dict[StackId, tuple[bytes, bytes]] = {}
        self._turned_down: dict[StackId, None] = {}
        for (table, key), packed in sorted(saved.items()):
            if table == TABLE:
                self._take_row(key, packed)

    # --- as the issuer ---------------------------------------------------------------------------

    def judge(self, invite: bytes, context: bytes, mac: bytes) -> Verdict:
        """Whether the proof that a stranger shows is one of an invite of ours. Changes nothing."""
        given = self._given.get(invite)
        # An id that is not known takes as long as one that is.
        secret = given.secret if given is not None else bytes(SECRET_SIZE)
        fits = hmac.compare_digest(proof_of(secret, context), mac)
        if given is None or not fits or self._clock.now_ms() >= given.not_after_ms:
            return Verdict(False, BAD_INVITE)
        return Verdict(True, "invited")

    def redeem(self, event: LinkUp) -> bool:
        """Admit whoever came with an invite, under its terms. False if it was used up meanwhile
        (two handshakes at once)."""
        given = self._given.get(event.invite)
        if given is None or self._trust.refuses(event.stack_id):
            return False
        self._trust.invited(event.stack_id, event.name)
        if given.terms != Terms():
            self._rights.set_terms(event.stack_id, given.terms)
        left = given.uses - 1
        self._put(event.invite, None if left < 1 else _with(given, uses=left))
        self.env.audit(
            "invite_used", stack=show_id(event.stack_id), invite=event.invite.hex(), left=left
        )
        return True

    def refused(self, event: PeerRefused) -> None:
        """A handshake ended without a link: a wrong proof burns an invite a little; one that was
        refused to us is told to whoever waits for the outcome of `join`."""
        if event.outbound:
            if event.stack_id in self._joining:
                self._turned_down[event.stack_id] = None
            return
        given = self._given.get(event.invite) if event.reason == BAD_INVITE else None
        if given is None:
            return
        wrong = given.wrong + 1
        burned = wrong >= WRONG_MAX
        self._put(event.invite, None if burned else _with(given, wrong=wrong))
        self.env.audit(
            "invite_burned" if burned else "invite_wrong",
            stack=show_id(event.stack_id),
            invite=event.invite.hex(),
        )

    def govern(self, command: Govern) -> dict[str, Any]:
        """What the owner of this stack does with invites. Raises LocalError and PolicyError."""
        acts = {"invite": self._invite, "uninvite": self._uninvite, "join": self._join}
        return acts[command.act](command.params)

    def list(self) -> list[dict[str, Any]]:
        """The open invites, without their secrets."""
        now_ms = self._clock.now_ms()
        return [
            {
                "id": invite.hex(),
                "expires_in_s": round((given.not_after_ms - now_ms) / 1000.0),
                "uses": given.uses,
                "wrong": given.wrong,
                "role": given.terms.role or "member",
                "mode": given.terms.mode,
                "shared_cis": [*given.terms.shared_cis],
            }
            for invite, given in self._given.items()
            if given.not_after_ms > now_ms
        ]

    def _invite(self, params: dict[str, Any]) -> dict[str, Any]:
        for_s, uses = params.get("for_s") or EXPIRY_S, params.get("uses") or 1
        if not 1.0 <= for_s <= EXPIRY_MAX_S or not 1 <= uses <= USES_MAX:
            raise LocalError(f"An invite holds for 24 h at most, and {USES_MAX} times.")
        self._forget_expired()
        if len(self._given) >= INVITES_MAX:
            raise LocalError("There are too many open invites.", code="busy")
        terms = terms_from(params, Terms())
        chance = self.env.chance
        invite, secret = chance.randbytes(INVITE_ID_SIZE), chance.randbytes(SECRET_SIZE)
        end = self._clock.now_ms() + int(for_s * 1000)
        self._put(invite, Invite(secret, end, uses, 0, terms))
        addresses = tuple(params.get("addresses", ())[:ADDRESSES_MAX])
        me = self.env.identity
        token = Token(me.mesh, me.stack_id, invite, secret, end, addresses)
        self.env.audit("invite", invite=invite.hex(), uses=uses, for_s=for_s, role=terms.role)
        shown = {"id": invite.hex(), "uses": uses, "for_s": for_s, "addresses": list(addresses)}
        return shown | {"token": write_token(self.env.codec, token)}

    def _uninvite(self, params: dict[str, Any]) -> dict[str, Any]:
        wanted = [invite for invite in self._given if invite.hex() == params.get("id")]
        if not wanted:
            hint = "`tektonmesh invite --list` shows the open ones."
            raise LocalError("There is no such invite.", code="not_found", hint=hint)
        self._put(wanted[0], None)
        self.env.audit("uninvite", invite=wanted[0].hex())
        return {"id": wanted[0].hex(), "withdrawn": True}

    def _forget_expired(self) -> None:
        now_ms = self._clock.now_ms()
        for invite in [one for one, given in self._given.items() if given.not_after_ms <= now_ms]:
            self._put(invite, None)

    # --- as the invited --------------------------------------------------------------------------

    def shows(self, stack_id: StackId) -> tuple[bytes, bytes] | None:
        """The invite (id, secret) to prove to that stack."""
        return self._joining.get(stack_id)

    def outcome(self, stack_id: StackId) -> str:
        """What became of `join`: "joined", "refused", or empty while it is tried."""
        if stack_id not in self._joining:
            return "joined"
        return "refused" if stack_id in self._turned_down else ""

    def joined(self, stack_id: StackId) -> None:
        """A link with that stack is up: what it gave us has served."""
        if self._joining.pop(stack_id, None) is not None:
            self._turned_down.pop(stack_id, None)
            self.env.save(TABLE, _JOINING + stack_id, None)
            self.env.audit("joined", stack=show_id(stack_id))

    def _join(self, params: dict[str, Any]) -> dict[str, Any]:
        """Admit the issuer of a token, whose id is in it, and show it the secret."""
        token = read_token(self.env.codec, params["token"])
        mesh = self.env.identity.mesh
        if token.mesh != mesh:
            raise LocalError(
                f"The invite is for the mesh '{token.mesh}', and this stack is of '{mesh}'.",
                hint=f'Set mesh = "{token.mesh}" in its settings, or use another home.',
            )
        if token.not_after_ms <= self._clock.now_ms():
            raise LocalError("The invite has expired.", hint="Ask for a new one.")
        shown = self._trust.admit(token.issuer)
        self._turned_down.pop(token.issuer, None)
        if self._trust.is_linked(token.issuer):
            return shown | {"addresses": list(token.addresses)}  # there is nothing left to prove
        self._joining[token.issuer] = (token.invite, token.secret)
        row = self.env.codec.pack([token.invite, token.secret])
        self.env.save(TABLE, _JOINING + token.issuer, row)
        self.env.audit("join", stack=show_id(token.issuer), invite=token.invite.hex())
        return shown | {"addresses": list(token.addresses)}

    # --- rows ------------------------------------------------------------------------------------

    def _put(self, invite: bytes, given: Invite | None) -> None:
        if given is None:
            del self._given[invite]
            self.env.save(TABLE, invite, None)
            return
        assert given.uses > 0 and given.wrong < WRONG_MAX, "a dead invite is no row"
        self._given[invite] = given
        terms = given.terms
        row = [given.secret, given.not_after_ms, given.uses, given.wrong]
        row += [terms.mode, list(terms.shared_cis), terms.role]
        self.env.save(TABLE, invite, self.env.codec.pack(row))

    def _take_row(self, key: bytes, packed: bytes) -> None:
        """A damaged row is no invite."""
        try:
            row = self.env.codec.unpack(packed)
        except RemoteError:
            return
        kinds = [type(one) for one in row] if isinstance(row, list) else []
        issuer = key.removeprefix(_JOINING)
        if kinds == [bytes, bytes] and len(issuer) == ID_SIZE:
            self._joining[issuer] = (row[0], row[1])
        elif kinds == [bytes, int, int, int, str, list, str] and row[2] > 0:
            terms = Terms(row[4], tuple(row[5]), row[6])
            self._given[key] = Invite(row[0], row[1], row[2], row[3], terms)


def _with(given: Invite, *, uses: int | None = None, wrong: int | None = None) -> Invite:
    return Invite(
        given.secret,
        given.not_after_ms,
        given.uses if uses is None else uses,
        given.wrong if wrong is None else wrong,
        given.terms,
    )
