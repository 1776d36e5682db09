"""JSON-RPC lines: what is read, what is refused, what errors look like."""

from __future__ import annotations

import json

import pytest

from tektonmesh.errors import DeliveryError, LocalError
from tektonmesh.wire.jsonrpc import (
    BadLine,
    Failure,
    LineReader,
    Request,
    Result,
    read_json,
    read_line,
    write_error,
    write_request,
    write_result,
)
from tektonmesh.wire.limits import JSON_DEPTH_MAX, JSON_PARTS_MAX, LINE_SIZE_MAX


@pytest.mark.parametrize(
    "request_",
    [Request(1, "send", {"body": "hällo\n"}), Request("a", "list"), Request(None, "reply.chunk")],
    ids=lambda request: request.method,
)
def test_a_request_is_read_as_it_was_written_on_one_line(request_: Request) -> None:
    line = write_request(request_)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert read_line(line) == request_


def test_a_notification_has_no_id_on_the_line() -> None:
    assert "id" not in json.loads(write_request(Request(None, "x")))


def test_a_result_is_read_as_it_was_written() -> None:
    assert read_line(write_result(7, {"a": [1, None]})) == Result(7, {"a": [1, None]})
    assert read_line(write_result(None, None)) == Result(None, None)


def test_an_error_carries_its_code_number_sentence_and_data() -> None:
    error = LocalError("It is so.", hint="Try this.", code="ambiguous", data={"candidates": ["a"]})
    shown = json.loads(write_error(7, error))
    assert shown["error"]["code"] == -32009
    assert shown["error"]["message"] == "It is so. Try this."
    assert shown["error"]["data"] == {"code": "ambiguous", "retry": "never", "candidates": ["a"]}


def test_a_failure_is_read_as_it_was_written() -> None:
    read = read_line(write_error(7, DeliveryError("Gone.", outcome="indeterminate")))
    assert isinstance(read, Failure) and read.id == 7
    assert read.error["message"] == "Gone."
    assert read.error["data"]["outcome"] == "indeterminate"


def test_half_a_surrogate_pair_does_not_stop_a_line() -> None:
    assert read_line(write_result(1, "a\ud800b")) == Result(1, "a?b")


def test_a_hand_typed_line_may_leave_out_the_version_and_the_params() -> None:
    assert read_line(b'{"id":1,"method":"status"}') == Request(1, "status")
    assert read_line(b'{"id":1,"method":"status","params":null}') == Request(1, "status")


BAD_JSON = {
    "nothing": b"",
    "no json": b"hello",
    "not utf-8": b'{"a":"\xff"}',
    "doubled key": b'{"id":1,"id":2,"method":"x"}',
    "doubled key inside": b'{"id":1,"method":"x","params":{"a":1,"a":2}}',
    "nan": b'{"a":NaN}',
    "infinity": b'{"a":-Infinity}',
    "endless integer": b'{"a":' + b"9" * 5000 + b"}",
    "two values": b"{} {}",
    "deep": b"[" * (JSON_DEPTH_MAX + 1) + b"]" * (JSON_DEPTH_MAX + 1),
    "very deep": b"[" * 200_000,
    "endless fraction": b'{"a":1e999}',
    "endless negative fraction": b'{"a":-' + b"9" * 400 + b".0}",
    "many lists": b"[" + b"[]," * JSON_PARTS_MAX + b"0]",
    "many numbers": b"[" + b"1," * JSON_PARTS_MAX + b"1]",
    "many texts": b"[" + b'"a",' * JSON_PARTS_MAX + b"1]",
    "many short texts": b"[" + b'"",' * (3 * JSON_PARTS_MAX) + b"1]",
    "many pairs": b"{" + b'"a":1,' * (JSON_PARTS_MAX // 2) + b'"b":1}',
    "a text without an end": b'["' + b'\\",' * (JSON_PARTS_MAX + 1),
}


@pytest.mark.parametrize("line", BAD_JSON.values(), ids=BAD_JSON.keys())
def test_what_two_readers_could_read_differently_is_no_json(line: bytes) -> None:
    with pytest.raises(BadLine) as caught:
        read_line(line)
    assert caught.value.code.name == "bad_json"


BAD_REQUEST = {
    "array": b"[]",
    "number": b"5",
    "nothing to do": b'{"id":3}',
    "method as number": b'{"id":3,"method":5}',
    "params as array": b'{"id":3,"method":"x","params":[1]}',
    "error as text": b'{"id":3,"error":"x"}',
    "error without message": b'{"id":3,"error":{}}',
    "id as object": b'{"id":{},"method":"x"}',
    "id as truth": b'{"id":true,"method":"x"}',
    "id as fraction": b'{"id":1.5,"method":"x"}',
}


@pytest.mark.parametrize("line", BAD_REQUEST.values(), ids=BAD_REQUEST.keys())
def test_json_that_is_no_call_is_a_bad_request(line: bytes) -> None:
    with pytest.raises(BadLine) as caught:
        read_line(line)
    assert caught.value.code.name == "bad_request"
    assert caught.value.id in (3, None)


def test_a_bad_request_names_the_call_it_belongs_to() -> None:
    with pytest.raises(BadLine) as caught:
        read_line(b'{"id":3,"method":5}')
    assert caught.value.id == 3


def test_as_many_parts_are_read_as_the_limit_says() -> None:
    assert read_json(b"[" + b"1," * (JSON_PARTS_MAX - 1) + b"1]") == [1] * JSON_PARTS_MAX


@pytest.mark.parametrize("inner", [",", ":", "[", "{", '\\",', "\\\\,", "\\u005b,"], ids=repr)
def test_what_stands_in_a_text_is_no_part_of_the_line(inner: str) -> None:
    line = f'["a","{inner * JSON_PARTS_MAX * 2}","b"]'
    assert len(read_json(line.encode())) == 3


def test_nesting_is_read_up_to_the_limit() -> None:
    assert read_json(b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX) != []


# --- lines ---------------------------------------------------------------------------------------


def test_lines_come_out_whole_however_the_bytes_came() -> None:
    reader = LineReader()
    assert reader.feed(b"one\ntw") == [b"one"]
    assert reader.feed(b"") == []
    assert reader.feed(b"o") == []
    assert reader.feed(b"\r\n\n  \nthree\n") == [b"two\r", b"three"]
    assert reader.feed(b"rest") == []
    assert reader.rest == b"rest"


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_over_the_limit_is_refused_with_and_without_its_end(end: bytes) -> None:
    reader = LineReader()
    assert reader.feed(b"x" * LINE_SIZE_MAX) == []
    with pytest.raises(LocalError) as caught:
        reader.feed(b"x" + end)
    assert caught.value.code.name == "too_large"
