"""The one table of error codes and the exceptions that carry them.

Every door shows the same code: JSON-RPC errors, HTTP statuses, nacks between stacks and exit codes
are all read from `CODES`. A code is stable; its sentence may change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Code:
    """One row of the table.

    `exit` is the command's exit code, `http` the status, `jsonrpc` the JSON-RPC error number and
    `retry` the rule for the caller: "never", "later" (the same call may succeed) or "now".
    """

    name: str
    exit: int
    http: int
    jsonrpc: int
    retry: str
    meaning: str


_ROWS = (
    Code("bad_request", 2, 422, -32602, "never", "The request is malformed or a value is refused."),
    Code("unknown_method", 2, 404, -32601, "never", "There is no such method or route."),
    Code("bad_json", 2, 400, -32700, "never", "The line is not valid JSON."),
    Code("no_daemon", 3, 503, -32000, "later", "No daemon answers on the socket."),
    Code("not_found", 4, 404, -32004, "never", "No such stack, CI or thing is known here."),
    Code(
        "unknown_ci", 4, 404, -32014, "never", "No CI of that name is registered; register again."
    ),
    Code("ambiguous", 4, 409, -32009, "never", "The short name fits several stacks."),
    Code("unreachable", 5, 503, -32005, "later", "No path leads to the stack at this moment."),
    Code("timeout", 5, 504, -32006, "later", "No answer came before the deadline."),
    Code("expired", 5, 504, -32018, "later", "The message's time was over before its end."),
    Code("ci_offline", 5, 503, -32015, "later", "The CI is registered but takes no messages now."),
    Code("ci_failed", 1, 502, -32016, "later", "The CI took the message and failed."),
    Code("busy", 5, 429, -32029, "later", "A bounded queue is full; try again shortly."),
    Code("refused", 6, 403, -32003, "never", "Policy refuses this act."),
    Code("unauthorized", 6, 401, -32001, "never", "The token is missing or wrong."),
    Code("conflict", 1, 409, -32010, "never", "The name is taken by another registration."),
    Code("too_large", 2, 413, -32013, "never", "The body is over the limit."),
    Code("cancelled", 130, 499, -32800, "never", "The caller cancelled the request."),
    Code("leaving", 5, 503, -32017, "later", "This stack is leaving the mesh."),
    Code("protocol", 1, 502, -32020, "never", "The peer broke the protocol."),
    Code("store", 1, 507, -32021, "later", "The disk refused; nothing was accepted."),
    Code("internal", 1, 500, -32603, "later", "A fault of this daemon; please report it."),
)
CODES: dict[str, Code] = {row.name: row for row in _ROWS}


class MeshError(Exception):
    """The root of every error this package raises on purpose.

    `detail` is one sentence that says what is wrong; `hint` one that says what to try;
    `data` carries what else a program may want (never secrets, never bodies).
    """

    default_code = "internal"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: str = "",
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = CODES[code or self.default_code]
        self.detail = detail
        self.hint = hint
        self.data = dict(data or {})

    def sentence(self) -> str:
        """The one line a person reads: what is wrong, then what to try."""
        return f"{self.detail} {self.hint}".strip()

    def as_dict(self) -> dict[str, Any]:
        """The error as the doors send it: `code`, `detail`, `retry` and the extra data."""
        shown = {"code": self.code.name, "detail": self.sentence(), "retry": self.code.retry}
        return shown | self.data


class LocalError(MeshError):
    """You asked for what cannot be; nothing changed."""

    default_code = "bad_request"


class RemoteError(MeshError):
    """The peer broke the protocol; its link closes, and it is told `detail`."""

    default_code = "protocol"


class NoveltyError(RemoteError):
    """Something that a later version may mean well: it is passed over, and nobody is at fault."""


class DeliveryError(MeshError):
    """The mesh could not deliver. `outcome` is "released" (certainly not delivered) or
    "indeterminate" (it may have been)."""

    default_code = "unreachable"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: str = "",
        outcome: str = "released",
        data: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail, code=code, hint=hint, data=data)
        assert outcome in ("released", "indeterminate")
        self.outcome = outcome

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"outcome": self.outcome}


class PolicyError(MeshError):
    """A rule refuses the act; asking again will not help."""

    default_code = "refused"


class StoreError(MeshError):
    """The disk failed; nothing was accepted."""

    default_code = "store"


def error_from(shown: dict[str, Any]) -> MeshError:
    """Rebuild the exception that `MeshError.as_dict` described, as a client of any door does."""
    known = {"code", "detail", "retry", "outcome"}
    data = {key: value for key, value in shown.items() if key not in known}
    code = shown.get("code")
    name = code if code in CODES else "internal"
    detail = str(shown.get("detail", "The daemon gave no reason."))
    if shown.get("outcome") in ("released", "indeterminate"):
        return DeliveryError(detail, code=name, outcome=shown["outcome"], data=data)
    kinds: dict[int, type[MeshError]] = {2: LocalError, 4: LocalError, 6: PolicyError}
    return kinds.get(CODES[name].exit, MeshError)(detail, code=name, data=data)
