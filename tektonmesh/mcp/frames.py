"""A call of MCP between two stacks, in bytes: the body of the message, and the lines of its reply.

The reply to a call is a stream of JSON lines: notifications while the CI works, `alive` while it is
silent, and last the result or the error. Results travel as the CI gave them, since typed models
would drop what they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tektonmesh.errors import RemoteError

METHODS = (
    "tools/call",
    "resources/read",
    "prompts/get",
    "completion/complete",
    "subscriptions/listen",
    CATALOGUE := "catalogue",
)
"""What may be called across the mesh. Lists are read from the catalogue instead, which is a method
of ours where it is not gossiped."""

ALIVE = b'{"alive":true}\n'
ALIVE_S = 10.0
"""A CI that works in silence is vouched for this often by its stack."""
IDLE_S = 60.0
"""A call of which nothing at all is heard for so long is given up."""
CALL_MAX_S = 900.0
"""No call takes longer, whatever is heard of it."""
LINE_SIZE_MAX = 4 << 20
CALLER = "tektonmesh/caller"
"""Where a server reads, in the `_meta` of a call, who makes it: {"ci", "stack", "depth", "call"}. A
server that calls on puts `call` into the same place of its own call, which says for what it is."""


def pack_call(method: str, params: dict[str, Any]) -> bytes:
    """The body of a call. Who makes it is said beside it, signed (`core/assertions`)."""
    return _line({"method": method, "params": params})[:-1]


def unpack_call(body: bytes) -> tuple[str, dict[str, Any]]:
    """The method and params of a call. Raises RemoteError for what is none."""
    found = _read(body)
    method, params = found.get("method"), found.get("params")
    if method not in METHODS or not isinstance(params, dict):
        raise RemoteError("This is no call of MCP.")
    return str(method), params


def meta_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says of itself; empty if that is nothing."""
    found = params.get("_meta")
    return found if isinstance(found, dict) else {}


def notification_line(method: str, params: dict[str, Any]) -> bytes:
    return _line({"method": method, "params": params})


def result_line(result: dict[str, Any]) -> bytes:
    return _line({"result": result})


def error_line(code: int, message: str, data: Any = None) -> bytes:
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    return _line({"error": error})


class Lines:
    """Joins the pieces of a reply and gives its lines as objects."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The objects that these bytes complete. Raises RemoteError for what is none."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_SIZE_MAX:
            raise RemoteError("A line of a reply is over 4 MiB.")
        for line in lines:
            if line:
                yield _read(line)


def _line(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace") + b"\n"


def _read(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise RemoteError("What was said of a call is no JSON.") from None
    if not isinstance(found, dict):
        raise RemoteError("What was said of a call is no object.")
    return found
