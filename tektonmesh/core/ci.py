"""One local CI: what it registered, whether it takes messages, and what others may know of it.

`Ci` keeps the facts and gives them their forms (the record for the mesh, the row for the disk, the
answer to who registered it). What a registration may do is `cis`'. Endpoints, headers and metadata
are in the row only: the record is built from a list of what may leave the stack.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from tektonmesh.core.types import Chance

TOKEN_PREFIX = "tmr_"
CALL_TYPE = "application/vnd.tektonmesh.mcp+json"
"""The content type of a call of MCP (docs/design/mcp.md); it goes to the CI's MCP server and never
to the CI's own way of taking messages."""
UP = "up"
OFFLINE = "offline"

_KEPT = (
    "name",
    "type",
    "specialties",
    "capabilities",
    "teams",
    "share",
    "persist",
    "lease_s",
    "description",
    "stream",
    "how",
    "metadata",
    "via",
)
_KEPT_LATER = ("mcp",)
"""What rows of earlier versions lack; None then."""
_PUBLISHED = ("name", "type", "specialties", "capabilities", "share", "description", "stream")


def new_token(chance: Chance) -> str:
    """A registration token of 32 random bytes; shown once, never stored."""
    return TOKEN_PREFIX + b32encode(chance.randbytes(32)).decode().rstrip("=").lower()


def hash_token(token: str) -> bytes:
    """What is stored. A plain hash is enough for 256 random bits."""
    return hashlib.sha256(token.encode()).digest()


def key_of(name: str) -> str:
    """CI names are compared without case and shown as they were registered."""
    return name.lower()


class Offered(NamedTuple):
    """One item of a CI's catalogue, as far as the policy has to know it: `verb` is the act that
    uses it ("tool.call:echo"), `digest` stands for all that is told of it, `tool_hash` for what
    a grant may name, and `effects` says whether using it may change something."""

    verb: str
    digest: bytes
    tool_hash: str = ""
    effects: bool = False


@dataclass(slots=True, eq=False)
class Ci:
    """A registration.

    `spec` is the validated one (docs/design/cis.md); `catalogue` what its MCP server offers, as a
    reference to a blob, None while that is not known, and `offered` its items; `connection` the
    attached connection, None while there is none; `problem` what the health check of its endpoint
    found wrong, empty while it is well; `expires` the instant at which it is removed unless
    something is heard of it, `heard` that of the last sign of life.
    """

    spec: dict[str, Any]
    id: str
    token_hash: bytes
    connection: int | None = None
    catalogue: dict[str, Any] | None = None
    offered: tuple[Offered, ...] = ()
    problem: str = ""
    heard: float = 0.0
    expires: float = inf
    key: str = field(init=False)

    def __post_init__(self) -> None:
        self.key = key_of(self.name)

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def share(self) -> str:
        return str(self.spec["share"])

    @property
    def how(self) -> dict[str, Any]:
        """How it gets its messages: {"kind": "attached" | "http" | "none", ...}."""
        how: dict[str, Any] = self.spec["how"]
        return how

    @property
    def mcp(self) -> dict[str, Any] | None:
        """How its MCP server is reached; None if it has none."""
        found: dict[str, Any] | None = self.spec.get("mcp")
        return found

    @property
    def attached(self) -> bool:
        """Whether it lives on a connection (also while that is gone)."""
        return bool(self.how["kind"] == "attached")

    @property
    def persist(self) -> bool:
        return bool(self.spec["persist"])

    @property
    def via(self) -> str:
        return str(self.spec["via"])

    @property
    def state(self) -> str:
        """`UP` while it takes messages, as far as this stack can tell; else `OFFLINE`."""
        if self.attached and self.connection is None:
            return OFFLINE
        if self.how["kind"] == "none" and self.mcp is None:
            return OFFLINE
        return OFFLINE if self.problem else UP

    def takes(self, content_type: str) -> bool:
        """Whether messages of this kind can be handed to it now."""
        if self.state != UP:
            return False
        if content_type == CALL_TYPE:
            return self.mcp is not None
        return bool(self.how["kind"] != "none")

    @property
    def lease_s(self) -> float | None:
        """Seconds it lives without a heartbeat; None if it needs none."""
        lease_s: float | None = self.spec["lease_s"]
        return None if self.attached or self.persist else lease_s

    @property
    def remote(self) -> bool:
        """Whether every member of the mesh may know of it, so that its record is gossiped. What is
        for partners goes to these alone (`core/sharing`)."""
        return self.share == "public"

    def record(self) -> dict[str, Any]:
        """What the mesh sees of it: the value of `ci/<key>`."""
        record = {word: self.spec[word] for word in _PUBLISHED} | {"state": self.state}
        teams = {"teams": self.spec["teams"]} if self.spec["teams"] else {}
        return record | teams | ({} if self.mcp is None else {"mcp": True})

    def catalogue_record(self) -> dict[str, Any] | None:
        """The value of `catalog/<key>`; None while there is nothing to refer to."""
        return self.catalogue if self.mcp is not None else None

    def row(self) -> dict[str, Any]:
        """What the disk keeps of it."""
        kept = {word: self.spec[word] for word in _KEPT}
        kept |= {word: self.spec.get(word) for word in _KEPT_LATER}
        row = {"spec": kept, "id": self.id, "token": self.token_hash}
        if self.catalogue is None:
            return row
        return row | {"catalogue": self.catalogue, "offered": [list(one) for one in self.offered]}

    def delivery_how(self) -> dict[str, Any]:
        """`how` for a `Deliver`, with the connection of an attached CI."""
        return self.how | {"connection": self.connection} if self.attached else self.how

    def fits(self, token: str | None) -> bool:
        """Whether `token` is the one of this registration. Hashes are compared, so how long it
        takes tells nothing of the token."""
        return token is not None and hash_token(token) == self.token_hash


def ci_of_row(row: Any) -> Ci | None:
    """A `Ci` from its row; None for a row that is not of this form (a damaged disk)."""
    if not isinstance(row, dict) or not isinstance(row.get("spec"), dict):
        return None
    spec, ci_id, token_hash = row["spec"], row.get("id"), row.get("token")
    spec.setdefault("teams", [])  # a row from before there were teams
    whole = all(word in spec for word in _KEPT) and isinstance(spec["how"], dict)
    if not whole or "kind" not in spec["how"]:
        return None
    if not isinstance(ci_id, str) or not isinstance(token_hash, bytes):
        return None
    catalogue = row.get("catalogue")
    if not isinstance(catalogue, dict):
        return Ci(spec, ci_id, token_hash)
    return Ci(spec, ci_id, token_hash, catalogue=catalogue, offered=_offered_of(row.get("offered")))


def _offered_of(rows: Any) -> tuple[Offered, ...]:
    """The items as the row keeps them; those that are damaged are offered to nobody."""
    whole = (row for row in (rows if isinstance(rows, list) else ()) if isinstance(row, list))
    return tuple(Offered(*row) for row in whole if [type(it) for it in row] == _OFFERED)


_OFFERED = [str, bytes, str, bool]
