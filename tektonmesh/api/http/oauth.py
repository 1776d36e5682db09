"""OAuth as a resource server: who holds a token (JWT) of the issuer that the owner named.

The keys of the issuer come from a file of the owner's, never from an address that a token names, so
no request leaves this machine. The signature, the issuer, the audience, the times and the algorithm
are checked by PyJWT; which algorithms count is fixed here, so that a token cannot choose `none` or
turn a public key into an HMAC secret.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tektonmesh.errors import LocalError, PolicyError
from tektonmesh.net.tokens import SCOPES

ALGORITHMS = ("RS256", "RS512", "PS256", "ES256", "ES384", "EdDSA")
LEEWAY_S = 30.0
TOKEN_SIZE_MAX = 8192
SCOPE_PREFIX = "tektonmesh:"
_NEEDED = ("exp", "iss", "aud", "sub")


class ResourceServer:
    """One issuer and its keys. Raises LocalError for a key file that is of no use."""

    def __init__(self, issuer: str, audience: str, jwks: Path) -> None:
        import jwt

        self._issuer = issuer
        self._audience = audience
        try:
            given = json.loads(jwks.read_text(encoding="utf-8"))
            keys = jwt.PyJWKSet.from_dict(given).keys
        except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError) as error:
            raise LocalError(
                f"The keys of the OAuth issuer in {jwks} cannot be used: {error}.",
                hint="Save the issuer's JWKS document there.",
            ) from None
        self._keys = {key.key_id or "": key for key in keys}

    def check(self, text: str) -> tuple[str, ...]:
        """The scopes of a token. Raises PolicyError `unauthorized`; the words say what is wrong,
        for whoever has to mend it, and nothing of the token itself."""
        import jwt

        if len(text) > TOKEN_SIZE_MAX:
            raise _refusal("it is too long")
        try:
            header = jwt.get_unverified_header(text)
            key = self._keys.get(str(header.get("kid") or ""))
            if key is None:
                raise _refusal("its key is none of the issuer's")
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[*ALGORITHMS],
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": [*_NEEDED]},
            )
        except jwt.PyJWTError as error:
            raise _refusal(type(error).__name__) from None
        return _scopes(claims.get("scope"))


def _scopes(told: Any) -> tuple[str, ...]:
    words = told.split() if isinstance(told, str) else []
    return tuple(scope for scope in SCOPES if SCOPE_PREFIX + scope in words)


def _refusal(why: str) -> PolicyError:
    return PolicyError(f"The token is refused: {why}.", code="unauthorized")
