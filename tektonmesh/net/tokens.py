"""Bearer tokens for programs: made for a purpose, for a while, and taken back one by one.

A token is 32 random bytes; only its hash is kept, so the database shows nobody a token. What a
token may do is its scopes; which route needs which scope is the guard's to say.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tektonmesh.core.types import Saved
from tektonmesh.errors import LocalError, RemoteError
from tektonmesh.net.store import Store
from tektonmesh.net.wallclock import wall_s
from tektonmesh.wire.codec import Codec

TABLE = "token"
PREFIX = "tmk_"
TOKEN_BYTES = 32
ID_BYTES = 4
TOKENS_MAX = 256
SCOPES = ("read", "send", "register", "tools", "owner")
NAME_SIZE_MAX = 64


@dataclass(frozen=True, slots=True)
class Token:
    """A token without its text. `not_after_s` is 0 for one without end."""

    id: str
    name: str
    digest: bytes
    scopes: tuple[str, ...]
    not_after_s: float
    made_s: float
    used_s: float = 0.0


class Tokens:
    """The tokens of one home. `say(kind, **data)` makes an entry in the audit log."""

    def __init__(self, store: Store, saved: Saved, say: Callable[..., None]) -> None:
        self._store = store
        self._say = say
        self._tokens: dict[str, Token] = {}
        for (table, key), packed in sorted(saved.items()):
            if table == TABLE and (token := _read(key, packed)) is not None:
                self._tokens[token.id] = token

    def create(self, name: str, scopes: tuple[str, ...], for_s: float) -> tuple[str, Token]:
        """A new token and its text, which is not kept. Raises LocalError."""
        wrong = [scope for scope in scopes if scope not in SCOPES]
        if wrong or not scopes:
            said = f"'{wrong[0]}' is no scope." if wrong else "A token needs a scope."
            raise LocalError(said, hint=f"Write some of {', '.join(SCOPES)}.")
        if len(self._tokens) >= TOKENS_MAX:
            raise LocalError("There are too many tokens.", code="busy", hint="Revoke some.")
        text = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        now = wall_s()
        token = Token(
            secrets.token_hex(ID_BYTES),
            name[:NAME_SIZE_MAX],
            _digest(text),
            tuple(scope for scope in SCOPES if scope in scopes),
            now + for_s if for_s else 0.0,
            now,
        )
        self._tokens[token.id] = token
        self._save(token)
        self._say("token_created", id=token.id, name=token.name, scopes=token.scopes)
        return text, token

    def revoke(self, token_id: str) -> Token:
        """From now on it opens nothing. Raises LocalError `not_found`."""
        token = self._tokens.pop(token_id, None)
        if token is None:
            hint = "`tektonmesh token list` shows the ids."
            raise LocalError("There is no such token.", code="not_found", hint=hint)
        self._store.queue([(TABLE, token_id.encode(), None)])
        self._say("token_revoked", id=token.id, name=token.name)
        return token

    def list(self) -> list[Token]:
        return list(self._tokens.values())

    def find(self, text: str) -> Token | None:
        """The token with this text, if it has not expired. All hashes are compared, so the time
        this takes tells nothing of any of them."""
        digest, found = _digest(text), None
        for token in self._tokens.values():
            if hmac.compare_digest(token.digest, digest):
                found = token
        if found is None or 0 < found.not_after_s <= wall_s():
            return None
        self._tokens[found.id] = replace(found, used_s=wall_s())
        return found

    def _save(self, token: Token) -> None:
        row: list[Any] = [token.name, token.digest, list(token.scopes)]
        row += [int(token.not_after_s * 1000), int(token.made_s * 1000)]
        self._store.queue([(TABLE, token.id.encode(), Codec().pack(row))])


def _digest(text: str) -> bytes:
    """A plain hash is enough for 256 random bits."""
    return hashlib.sha256(text.encode()).digest()


def _read(key: bytes, packed: bytes) -> Token | None:
    """A row; a damaged one opens nothing."""
    try:
        row: Any = Codec().unpack(packed)
    except RemoteError:
        return None
    if not isinstance(row, list) or [type(one) for one in row] != [str, bytes, list, int, int]:
        return None
    end_s, made_s = row[3] / 1000, row[4] / 1000
    return Token(key.decode("ascii", "replace"), row[0], row[1], tuple(row[2]), end_s, made_s)
