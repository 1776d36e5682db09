"""What a client says to the daemon's socket and how it reads the answers; shared by both clients.

Pure functions and small values: no Trio, no sockets. The clients in `client` (Trio) and `sync`
decide only how lines travel, so that they cannot differ in meaning.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tektonmesh.errors import CODES, LocalError, MeshError, error_from

RETRY_MIN_S, RETRY_MAX_S = 0.2, 5.0
"""The pauses of a client that waits for its daemon to come back."""
PASSING = ("no_daemon", "leaving")
"""Codes of errors that a restart of the daemon mends."""
ANSWER_GRACE_S = 5.0
"""How much longer than a message's own time a client waits for the daemon to say so."""
CONNECTION_LOST = "The daemon closed the connection."
BODY_SIZE_MAX = 258_048
"""Bytes in one body, as `core.types.NodeSettings` has it; written here again so that a client
need not import the core."""
SEND_OPTIONS = (
    *("timeout", "sender", "token", "content_type", "no_reply", "idempotency_key"),
    *("durable", "ttl_s", "may_park", "idempotent", "conversation", "offset"),
)
REGISTER_OPTIONS = (
    *("type", "endpoint", "format", "headers", "specialties", "capabilities", "teams", "share"),
    *("description", "persist", "lease_s", "stream", "metadata", "token", "attach"),
    *("port", "message_endpoint", "message_format", "host", "protocol", "mcp"),
)


def resolve_socket(given: str | os.PathLike[str] | None = None) -> str:
    """The path of the socket: as given, else `$TEKTONMESH_SOCKET`, else that of the home."""
    if given:
        return os.fspath(given)
    if os.environ.get("TEKTONMESH_SOCKET"):
        return os.environ["TEKTONMESH_SOCKET"]
    from tektonmesh.config import resolve_home, socket_path

    return str(socket_path(resolve_home()))


def no_daemon(path: str, error: OSError) -> MeshError:
    """The error for a socket that nobody answers on."""
    if isinstance(error, PermissionError):
        detail, hint = f"The socket {path} belongs to another user.", "Run as its owner."
    else:
        detail, hint = f"No daemon answers on {path}.", "Start one with `tektonmesh run`."
    return MeshError(detail, code="no_daemon", hint=hint, data={"socket": path})


def lost() -> MeshError:
    """The error for a connection that ended while an answer was awaited."""
    return MeshError(CONNECTION_LOST, code="no_daemon", hint="Start it with `tektonmesh run`.")


def timed_out(method: str, timeout_s: float) -> MeshError:
    """The error for a daemon that keeps the connection and does not answer."""
    detail = f"The daemon did not answer '{method}' within {timeout_s:g} s."
    return MeshError(detail, code="timeout", hint="`tektonmesh doctor` looks at it.")


def pauses() -> Iterator[float]:
    """Ever longer pauses in seconds between attempts to come back, spread so that a hundred
    clients do not return in one instant."""
    pause_s = RETRY_MIN_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(pause_s * 2, RETRY_MAX_S)


# --- lines ---------------------------------------------------------------------------------------


def line_of(message: Mapping[str, Any]) -> bytes:
    """One message as its line. Raises LocalError for what JSON cannot hold."""
    try:
        shown = json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return shown.encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise LocalError(f"This cannot be sent as JSON: {error}.") from None


def request_line(request_id: int, method: str, params: Mapping[str, Any]) -> bytes:
    """A call; parameters that are None are left out."""
    given = {key: value for key, value in params.items() if value is not None}
    return line_of({"jsonrpc": "2.0", "id": request_id, "method": method, "params": given})


def cancel_line(request_id: int) -> bytes:
    """The notification that nobody waits for `request_id` any more."""
    return line_of({"jsonrpc": "2.0", "method": "cancel", "params": {"id": request_id}})


def read_line(line: bytes) -> dict[str, Any]:
    """One line of the daemon's. Raises MeshError (`protocol`) for anything else than an object."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise MeshError("What answers on the socket is not a tektonmesh daemon.", code="protocol")
    return message


def is_nameless_error(message: Mapping[str, Any]) -> bool:
    """Whether this is the answer to a line that the daemon could not read as a call."""
    return message.get("error") is not None and message.get("id") is None


def result_of(response: Mapping[str, Any]) -> Any:
    """The result of a response. Raises the error it carries, rebuilt as the daemon raised it."""
    error = response.get("error")
    if error is None:
        return response.get("result")
    if not isinstance(error, dict):
        raise MeshError("The daemon's answer has an error of no known form.", code="protocol")
    data = error.get("data")
    if isinstance(data, dict) and isinstance(data.get("code"), str) and data["code"] in CODES:
        raise error_from(data | {"detail": str(error.get("message", ""))})
    raise MeshError(str(error.get("message", "The daemon gave no reason.")), code="internal")


# --- parameters ----------------------------------------------------------------------------------


def register_params(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of `register`. Raises LocalError for an option that does not exist."""
    for option in options:
        if option not in REGISTER_OPTIONS:
            known = ", ".join(sorted(REGISTER_OPTIONS))
            raise LocalError(f"There is no option '{option}'.", hint=f"There are: {known}.")
    return {"name": name} | dict(options)


def attaches(params: Mapping[str, Any]) -> bool:
    """Whether a registration makes its connection take the messages."""
    elsewhere = ("endpoint", "port", "message_endpoint")
    return params.get("attach") is not False and not any(params.get(key) for key in elsewhere)


def send_params(
    target: str, body: str | bytes, options: Mapping[str, Any], ref: str = ""
) -> dict[str, Any]:
    """The parameters of `send`: text as it is, other bytes as base64, a large body by the name
    under which it was handed in. Options: `timeout` (s), `sender` (a CI of this connection, or with
    its `token`), `content_type`, `no_reply`, `idempotency_key`, `durable`, `ttl_s`, `may_park`,
    `idempotent`, `conversation`. Raises LocalError (`too_large`) for a body over the limit."""
    shown = {"to": target} | ({"body_ref": ref} if ref else shown_body(_fitting(body)))
    renamed = {"timeout": "timeout_s", "sender": "from"}
    for option, value in options.items():
        if option not in SEND_OPTIONS:
            raise LocalError(f"There is no option '{option}' for a message.")
        if value is not None and value is not False:
            shown[renamed.get(option, option)] = value
    return shown


def shown_body(body: str | bytes, key: str = "body") -> dict[str, Any]:
    """`{key: text}` or `{key_b64: ...}`, whichever holds exactly these bytes in a short line:
    JSON writes a control character as six, so what has many of them goes as base64."""
    try:
        text = body if isinstance(body, str) else body.decode()
        data = text.encode()
    except UnicodeEncodeError:
        return {key: body}  # Half a character is no text; the line is refused when it is written.
    except UnicodeDecodeError:
        return {f"{key}_b64": base64.b64encode(body).decode()}  # type: ignore[arg-type]
    if len(text) != len(data) or not text.isprintable():
        written = len(json.dumps(text, ensure_ascii=False).encode())
        if written > 2 * len(data) + 2:
            return {f"{key}_b64": base64.b64encode(data).decode()}
    return {key: text}


def _fitting(body: str | bytes) -> str | bytes:
    size = len(body.encode(errors="replace") if isinstance(body, str) else body)
    if size > BODY_SIZE_MAX:
        raise LocalError(
            f"The body has {size} bytes; at most {BODY_SIZE_MAX} fit.",
            code="too_large",
            hint="Send it in parts, or send where it can be fetched.",
        )
    return body


def bytes_of(shown: Mapping[str, Any], key: str = "body") -> bytes:
    """What `shown_body` was made from, as bytes."""
    encoded = shown.get(f"{key}_b64")
    if isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise MeshError("The daemon sent broken base64.", code="protocol") from None
    text = shown.get(key)
    return text.encode(errors="replace") if isinstance(text, str) else b""


# --- values --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a message. `data` is the exact body, `body` the same as text; `path` the
    names of all stacks from ours to the one that answered; `ms` the whole time; `hops` one
    `{"stack", "dwell_ms"}` for each stack on the way. Of a message to a selector `tried` are those
    that could not take it, `{"to", "code"}`; of one to a team there is no body, and `targets` has
    a row for each member: `ok`, `to`, and the fields of its reply or `error`."""

    data: bytes
    content_type: str
    id: str
    to: str
    sender: str
    path: tuple[str, ...]
    ms: float
    hops: tuple[dict[str, Any], ...]
    selector: str = ""
    tried: tuple[dict[str, Any], ...] = ()
    targets: tuple[dict[str, Any], ...] = ()

    @property
    def body(self) -> str:
        return self.data.decode(errors="replace")

    def as_dict(self) -> dict[str, Any]:
        """The object that `tektonmesh send --json` prints."""
        whom = {"id": self.id, "to": self.to, "from": self.sender}
        if self.targets:
            answered = sum(1 for row in self.targets if row["ok"])
            counts = {"answered": answered, "failed": len(self.targets) - answered}
            return whom | {"ms": self.ms} | counts | {"targets": list(self.targets)}
        chosen = {"selector": self.selector, "tried": list(self.tried)} if self.selector else {}
        return whom | {
            **shown_body(self.data),
            "content_type": self.content_type,
            "path": list(self.path),
            "ms": self.ms,
            "hops": list(self.hops),
            **chosen,
        }


def reply_from(result: Mapping[str, Any], before: bytes = b"") -> Reply:
    """The reply in the result of `send`; `before` is what came as chunks."""
    return Reply(
        data=before + bytes_of(result),
        content_type=str(result.get("content_type", "")),
        id=str(result.get("id", "")),
        to=str(result.get("to", "")),
        sender=str(result.get("from", "")),
        path=tuple(result.get("path", ())),
        ms=float(result.get("ms", 0.0)),
        hops=tuple(result.get("hops", ())),
        selector=str(result.get("selector", "")),
        tried=tuple(result.get("tried", ())),
        targets=tuple(result.get("targets", ())),
    )


@dataclass(slots=True)
class Chunks:
    """Collects a streamed reply: bytes in, text out, cut only between characters."""

    whole: bytearray = field(default_factory=bytearray)
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def add(self, data: bytes, *, final: bool = False) -> str:
        """The text that is complete now."""
        self.whole += data
        return self._decoder.decode(data, final)

    def finish(self, result: Mapping[str, Any]) -> tuple[str, Reply]:
        """The last text (which may be empty) and the reply with the whole body."""
        before = bytes(self.whole)
        reply = reply_from(result, before)
        return self.add(reply.data[len(before) :], final=True), reply


@dataclass(frozen=True, slots=True)
class Request:
    """A message for a CI that this client serves. `deadline_s` is what is left to answer in;
    `attempt` is 0 for the first try. `data` is the body, `body` its text. One that is larger than
    an envelope lies in a `file` until the message is answered; `data` reads it anew each time. With
    `reply_from` the reply resumes: so much of it was said in an earlier attempt."""

    delivery: int | str
    id: str
    sender: str
    to: str
    held: bytes
    content_type: str
    deadline_s: float
    attempt: int
    file: Path | None = None
    reply_from: int | None = None

    @property
    def data(self) -> bytes:
        return self.held if self.file is None else self.file.read_bytes()

    @property
    def body(self) -> str:
        return self.data.decode(errors="replace")


def request_fields(message: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `Request` from the daemon's `message` call."""
    params = message.get("params") or {}
    return {
        "delivery": message["id"],
        "id": str(params.get("id", "")),
        "sender": str(params.get("from", "")),
        "to": str(params.get("to", "")),
        "held": bytes_of(params),
        "content_type": str(params.get("content_type", "")),
        "deadline_s": float(params.get("deadline_ms", 0)) / 1000.0,
        "attempt": int(params.get("attempt", 0)),
        "file": Path(params["body_file"]) if params.get("body_file") else None,
        "reply_from": params.get("reply_from"),
    }


def answer_line(delivery: int | str, body: str | bytes | None, offset: int | None = None) -> bytes:
    """The response that ends a served message; with its `offset` where replies resume. Raises
    LocalError for one over the limit."""
    result = shown_body(_fitting("" if body is None else body))
    if offset is not None:
        result["offset"] = offset
    return line_of({"jsonrpc": "2.0", "id": delivery, "result": result})


def chunk_line(delivery: int | str, data: str | bytes, offset: int | None = None) -> bytes:
    """A part of the reply to a served message; with its `offset` where replies resume."""
    params = {"id": delivery} | shown_body(data, "data")
    if offset is not None:
        params["offset"] = offset
    return line_of({"jsonrpc": "2.0", "method": "reply.chunk", "params": params})


def failure_line(delivery: int | str, error: BaseException) -> bytes:
    """The response for a handler that failed: its own MeshError, or `ci_failed` with its text."""
    if not isinstance(error, MeshError):
        detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        error = MeshError(detail[:1000], code="ci_failed")
    shown = {"code": error.code.jsonrpc, "message": error.sentence(), "data": error.as_dict()}
    return line_of({"jsonrpc": "2.0", "id": delivery, "error": shown})
