"""Who may call over TCP: this machine only, with the owner's token, and never by way of a browser
that was led here.

A web page in the owner's browser can reach loopback ports; `Host` is checked against DNS rebinding
and `Origin` against cross-site requests (docs/design/security.md, local callers). The token is in
a private file of the home, so that whoever can read it could read the socket as well.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from tektonmesh.api.validate import is_loopback
from tektonmesh.errors import LocalError, MeshError, PolicyError
from tektonmesh.net.tokens import SCOPES

TOKEN_NAME = "http-token"
TOKEN_PREFIX = "tmk_"
TOKEN_BYTES = 32


class Access(Enum):
    """Who may call over TCP; on the Unix socket everything is the owner's."""

    OWNER = "owner"
    """With the bearer token."""
    ANYONE = "anyone"
    """Without a token: says only whether the daemon is well."""
    TEKTON = "tekton"
    """Components of the Tekton installation on this machine, which have no token to show."""
    KEY = "key"
    """With an API key, on the Unix socket as well: the caller is another program's messenger."""


def make_token(home: Path) -> str:
    """The token of this home; made (mode 0600 from its first instant) when there is none."""
    found = read_token(home)
    if found is not None:
        return found
    token = TOKEN_PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    path = home / TOKEN_NAME
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(token + "\n")
    except OSError as error:
        raise LocalError(f"The token file {path} cannot be made: {error.strerror}.") from None
    return token


def read_token(home: Path) -> str | None:
    """The token of this home, if one was made. One that others may read is refused."""
    path = home / TOKEN_NAME
    try:
        with path.open(encoding="ascii") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise LocalError(f"{path} may be read by others.", hint=f"chmod 600 {path}")
            token = file.read().strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LocalError(f"The token file {path} cannot be read: {error}.") from None
    return token or None


def bearer(headers: Mapping[str, str]) -> str:
    """The bearer token or API key of a request; never one of its address."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")


def check_key(headers: Mapping[str, str], token: str | None) -> None:
    """Raises PolicyError (`unauthorized`) unless the bearer token or API key is `token`."""
    given = bearer(headers)
    if token is None or not hmac.compare_digest(given.encode(), token.encode()):
        raise PolicyError(
            "The token is missing or wrong.",
            code="unauthorized",
            hint="Send `Authorization: Bearer` with the text of http-token in the home.",
        )


Scopes = tuple[str, ...]
ALL_SCOPES: Scopes = SCOPES


def scope_of(method: str, path: str) -> str:
    """The scope that a route needs. What is not named here is for the owner."""
    if path in ("/api/audit", "/api/peers"):
        return "owner"
    if path.startswith("/api/registry") and method != "GET":
        return "register"
    if path.startswith(("/api/message/", "/api/federated/", "/api/bodies")):
        return "send"
    if path == "/mcp" or path.startswith("/mcp/"):
        return "tools"
    return "read" if method == "GET" else "owner"


class TcpGuard:
    """The rules for one TCP door at `host:port`. `hosts` are names under which it is called besides
    this machine's; `known(text)` gives the scopes of any other token, or None."""

    def __init__(
        self,
        token: str,
        address: str,
        *,
        tekton: bool,
        hosts: tuple[str, ...] = (),
        tls: bool = False,
        known: Callable[[str], Scopes | None] = lambda _text: None,
    ) -> None:
        self._token = token
        self._port = address.rpartition(":")[2]
        self._tekton = tekton
        self._hosts = hosts
        self._scheme = "https" if tls else "http"
        self._known = known

    def check(
        self, headers: Mapping[str, str], access: Access | None, scope: str = "owner"
    ) -> Scopes:
        """The scopes of the caller. Raises MeshError unless a request with these headers may go on
        to a route of this `access` (None: no such route) that needs this `scope`."""
        self._check_host(headers.get("host", ""))
        origin = headers.get("origin")
        if access is Access.TEKTON:
            if not self._tekton:
                raise MeshError("There is no such route here.", code="unknown_method")
            if origin is not None:
                raise PolicyError("A page in a browser may not call this.")
            return ALL_SCOPES
        if origin is not None:
            self._check_origin(origin)
        if access is Access.ANYONE:
            return ()
        scopes = self._known(bearer(headers))
        if scopes is None:
            check_key(headers, self._token)
            return ALL_SCOPES
        if scope not in scopes and "owner" not in scopes:
            raise PolicyError(
                f"This token has not the scope '{scope}'.", hint="`tektonmesh token list` shows it."
            )
        return scopes

    def _check_host(self, host: str) -> None:
        name, colon, port = host.rpartition(":")
        if not colon or host.endswith("]"):
            name, port = host, self._port
        named = is_loopback(name) or name.strip("[]").lower() in self._hosts
        if not named or (port != self._port and not (named and host == name)):
            raise PolicyError(f"This door is not '{host[:100]}'.", hint="Use 127.0.0.1.")

    def _check_origin(self, origin: str) -> None:
        scheme, _, host = origin.partition("://")
        if scheme != self._scheme or not host:
            raise PolicyError("A page from elsewhere may not call this.")
        try:
            self._check_host(host)
        except PolicyError:
            raise PolicyError("A page from elsewhere may not call this.") from None
