"""JSON-RPC 2.0 with one object per line, as MCP frames it on stdio: bytes to requests and back.

Strict where two readers could disagree: no duplicate keys, no NaN, no endless numbers, bounded
depth, parts and line length. It decides form only; methods and their parameters are `api`'s.
Batches are not part of the protocol here and are refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import field
from math import isfinite
from typing import Any, NoReturn

from tektonmesh.core.frozen import frozen
from tektonmesh.errors import LocalError, MeshError
from tektonmesh.wire import limits

CallId = int | str


@frozen
class Request:
    """A call; `id` None is a notification, which gets no answer."""

    id: CallId | None
    method: str
    params: dict[str, Any] = field(default_factory=dict)


@frozen
class Result:
    """A call went well."""

    id: CallId | None
    result: Any


@frozen
class Failure:
    """A call failed; `error` is a JSON-RPC error object: code, message, data."""

    id: CallId | None
    error: dict[str, Any]


Line = Request | Result | Failure


class BadLine(LocalError):
    """A line that is no JSON-RPC; `id` is the call it belongs to, if that could be read."""

    def __init__(self, detail: str, *, code: str = "bad_json", id: CallId | None = None) -> None:
        super().__init__(detail, code=code)
        self.id = id


# --- writing -------------------------------------------------------------------------------------


def write_request(request: Request) -> bytes:
    """One line with its end."""
    shown: dict[str, Any] = {"jsonrpc": "2.0"}
    if request.id is not None:
        shown["id"] = request.id
    return _line(shown | {"method": request.method, "params": request.params})


def write_result(id: CallId | None, result: Any) -> bytes:
    return _line({"jsonrpc": "2.0", "id": id, "result": result})


def write_error(id: CallId | None, error: MeshError) -> bytes:
    """The error as every door shows it; `message` is the sentence for people."""
    data = error.as_dict()
    message = data.pop("detail")
    shown = {"code": error.code.jsonrpc, "message": message, "data": data}
    return _line({"jsonrpc": "2.0", "id": id, "error": shown})


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _line(shown: dict[str, Any]) -> bytes:
    text = _ENCODER.encode(shown)
    # Text from outside may hold half a surrogate pair, which UTF-8 cannot carry.
    return text.encode("utf-8", "replace") + b"\n"


# --- reading -------------------------------------------------------------------------------------


class LineReader:
    """Cuts what comes into lines; empty ones are skipped."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises LocalError (`too_large`); no resuming then."""
        if b"\n" not in data:
            self._rest += data
            lines: list[bytes] = []
        else:
            *lines, self._rest = (self._rest + data).split(b"\n")
        if any(len(line) > limits.LINE_SIZE_MAX for line in (*lines, self._rest)):
            raise LocalError(f"A line is over {limits.LINE_SIZE_MAX} bytes.", code="too_large")
        return [line for line in lines if line.strip()]

    @property
    def rest(self) -> bytes:
        """What came after the last line end."""
        return self._rest


def read_line(line: bytes) -> Line:
    """What one line says. Raises BadLine with the code `bad_json` or `bad_request`."""
    shown = read_json(line)
    if not isinstance(shown, dict):
        raise BadLine("A line holds one JSON object.", code="bad_request")
    call = _id_of(shown)
    if "method" in shown:
        return _read_request(shown, call)
    if "error" in shown:
        return Failure(call, _read_error(shown["error"], call))
    if "result" in shown:
        return Result(call, shown["result"])
    raise BadLine("The object has no method, result or error.", code="bad_request", id=call)


def read_json(data: bytes) -> Any:
    """Any JSON value, strictly. Raises BadLine."""
    try:
        text = data.decode("utf-8")
        if len(text) > limits.JSON_PARTS_MAX:
            _check_parts(text)
        value = _DECODER.decode(text)
    except BadLine:
        raise
    except (ValueError, RecursionError) as error:
        raise BadLine(f"The line is not valid JSON: {error}.") from None
    if text.count("{") + text.count("[") > limits.JSON_DEPTH_MAX:
        # With fewer brackets nothing can be nested so deep; nearly no line has as many.
        _check_depth(value, limits.JSON_DEPTH_MAX)
    return value


_MARKS = ("{", "[", ",", ":")
_TEXT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A text of a JSON value. Its end may be missing, so that looking for it is done once only."""


def _check_parts(text: str) -> None:
    """Refuse what would take long, before it is read. Marks in texts do not count; so many texts
    that looking for them would itself take long must have as many commas between them."""
    if _marks_in(text) > limits.JSON_PARTS_MAX:
        quotes = text.count('"') - text.count('\\"')
        many = quotes > 2 * limits.JSON_PARTS_MAX + 2
        if many or _marks_in(_TEXT.sub("", text)) > limits.JSON_PARTS_MAX:
            raise BadLine(f"The JSON has over {limits.JSON_PARTS_MAX} parts.")


def _marks_in(text: str) -> int:
    return sum(map(text.count, _MARKS))


def _id_of(shown: dict[str, Any]) -> CallId | None:
    """`jsonrpc` itself may be missing: people type these lines by hand."""
    call = shown.get("id")
    if call is None or type(call) in (int, str):
        return call
    raise BadLine("The id is neither a whole number nor text.", code="bad_request")


def _read_request(shown: dict[str, Any], call: CallId | None) -> Request:
    method, params = shown["method"], shown.get("params")
    if not isinstance(method, str):
        raise BadLine("The method is not text.", code="bad_request", id=call)
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise BadLine("The params are not an object.", code="bad_request", id=call)
    return Request(call, method, params)


def _read_error(error: Any, call: CallId | None) -> dict[str, Any]:
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        raise BadLine("The error is not an object with a message.", code="bad_request", id=call)
    return error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise BadLine("A key occurs twice in one JSON object.")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadLine(f"{name} is not a JSON value.")


def _read_int(digits: str) -> int:
    if len(digits) > limits.JSON_INT_DIGITS_MAX:
        raise BadLine("A whole number has too many digits.")
    return int(digits)


def _read_float(digits: str) -> float:
    """JSON has no infinities, but 1e999 would be read as one, and could not be written again."""
    value = float(digits)
    if not isfinite(value):
        raise BadLine("A number is too large.")
    return value


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, (dict, list)):
        if left == 0:
            raise BadLine(f"The JSON is nested over {limits.JSON_DEPTH_MAX} deep.")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


# Made once: `json.loads` with hooks would build a decoder for every line.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_doubles,
    parse_constant=_refuse_constant,
    parse_float=_read_float,
    parse_int=_read_int,
)
