"""What both clients say and how they read answers."""

from __future__ import annotations

import json

import pytest

from tektonmesh.api import dialect
from tektonmesh.core.types import NodeSettings
from tektonmesh.errors import DeliveryError, LocalError, MeshError


def test_a_request_leaves_out_what_was_not_given() -> None:
    line = dialect.request_line(3, "send", {"to": "numa", "timeout_s": None})
    assert line.endswith(b"\n")
    assert json.loads(line) == {
        "jsonrpc": "2.0",
        "id": 3,
        "method": "send",
        "params": {"to": "numa"},
    }


def test_what_json_cannot_hold_is_refused_before_it_is_sent() -> None:
    for value in (b"bytes", float("nan"), "\ud800"):
        with pytest.raises(LocalError):
            dialect.request_line(1, "ping", {"x": value})


@pytest.mark.parametrize("body", [b"", b"text", "grüße".encode(), b"\xff\x00", bytes(range(256))])
def test_any_body_comes_back_as_it_was(body: bytes) -> None:
    shown = dialect.shown_body(body)
    assert dialect.bytes_of(json.loads(json.dumps(shown))) == body


def test_broken_base64_is_the_daemons_fault() -> None:
    with pytest.raises(MeshError, match="base64"):
        dialect.bytes_of({"body_b64": "%%%"})


def test_the_parameters_of_send_use_the_names_of_the_socket() -> None:
    params = dialect.send_params("numa", b"\xff", {"timeout": 3, "sender": "a", "no_reply": False})
    assert params == {"to": "numa", "body_b64": "/w==", "timeout_s": 3, "from": "a"}


def test_options_that_do_not_exist_are_refused() -> None:
    with pytest.raises(LocalError, match="colour"):
        dialect.register_params("numa", {"colour": "blue"})
    with pytest.raises(LocalError, match="colour"):
        dialect.send_params("numa", "x", {"colour": "blue"})


def test_an_error_is_rebuilt_with_code_and_outcome() -> None:
    data = {"code": "timeout", "retry": "later", "outcome": "indeterminate"}
    response = {"id": 1, "error": {"code": -32006, "message": "Too late.", "data": data}}
    with pytest.raises(DeliveryError) as failure:
        dialect.result_of(response)
    assert failure.value.code.name == "timeout"
    assert failure.value.outcome == "indeterminate"
    assert failure.value.detail == "Too late."


@pytest.mark.parametrize("error", ["Too late.", 7, [], True], ids=repr)
def test_an_error_of_no_known_form_is_the_daemons_fault(error: object) -> None:
    with pytest.raises(MeshError, match="no known form"):
        dialect.result_of({"id": 1, "error": error})


@pytest.mark.parametrize("data", [None, [], {}, {"code": []}, {"code": {}}, {"code": "odd"}])
def test_an_error_without_a_code_of_ours_is_internal(data: object) -> None:
    with pytest.raises(MeshError) as failure:
        dialect.result_of({"id": 1, "error": {"message": "Odd.", "data": data}})
    assert failure.value.code.name == "internal" and failure.value.detail == "Odd."


def test_a_foreign_error_is_internal() -> None:
    with pytest.raises(MeshError) as failure:
        dialect.result_of({"id": 1, "error": {"code": 1, "message": "Odd."}})
    assert failure.value.code.name == "internal"


@pytest.mark.parametrize(
    "line", [b"SSH-2.0-x", b"[1]", b"\xff", b"[" * 100_000], ids=lambda line: repr(line[:9])
)
def test_what_is_no_daemon_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(MeshError, match="not a tektonmesh daemon"):
        dialect.read_line(line)


def test_a_reply_is_shown_as_send_prints_it() -> None:
    result = {
        "id": "ab",
        "to": "numa@west",
        "from": "a",
        "body": "hi",
        "content_type": "text/plain",
        "path": ["a", "b"],
        "ms": 1.5,
        "hops": [{"stack": "b", "dwell_ms": 0.1}],
    }
    reply = dialect.reply_from(result)
    assert reply.body == "hi"
    assert reply.data == b"hi"
    assert reply.path == ("a", "b")
    assert reply.as_dict() == result


def test_chunks_are_cut_between_characters_and_the_reply_has_them_all() -> None:
    chunks = dialect.Chunks()
    euro = "€".encode()
    texts = [chunks.add(b"a" + euro[:1]), chunks.add(euro[1:])]
    last, reply = chunks.finish({"id": "x", "body": " end"})
    assert [*texts, last] == ["a", "€", " end"]
    assert reply.data == "a€ end".encode()


def test_a_chunk_that_ends_inside_a_character_is_not_lost() -> None:
    chunks = dialect.Chunks()
    assert chunks.add(b"\xe2\x82") == ""
    last, reply = chunks.finish({})
    assert last == "\ufffd"
    assert reply.data == b"\xe2\x82"


def test_the_socket_is_the_one_given_else_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEKTONMESH_SOCKET", "/env.sock")
    assert dialect.resolve_socket("/given.sock") == "/given.sock"
    assert dialect.resolve_socket() == "/env.sock"
    monkeypatch.delenv("TEKTONMESH_SOCKET")
    monkeypatch.setenv("TEKTONMESH_HOME", "/home-of-stack")
    assert dialect.resolve_socket() == "/home-of-stack/tektonmesh.sock"


def test_no_daemon_says_what_to_do() -> None:
    error = dialect.no_daemon("/x", ConnectionRefusedError())
    assert error.code.name == "no_daemon"
    assert "tektonmesh run" in error.sentence()
    assert "another user" in dialect.no_daemon("/x", PermissionError()).detail


def test_a_handlers_failure_is_told_with_its_text_or_its_own_code() -> None:
    shown = json.loads(dialect.failure_line(7, ValueError("no such tool")))
    assert shown["id"] == 7
    assert shown["error"]["data"]["code"] == "ci_failed"
    assert "no such tool" in shown["error"]["message"]
    shown = json.loads(dialect.failure_line(7, MeshError("Later.", code="busy")))
    assert shown["error"]["data"]["code"] == "busy"


def test_a_served_message_has_its_fields() -> None:
    message = {
        "id": 4,
        "method": "message",
        "params": {"id": "ab", "from": "x@a", "to": "numa", "body": "hi", "deadline_ms": 1500},
    }
    request = dialect.Request(**dialect.request_fields(message))
    assert (request.delivery, request.sender, request.body) == (4, "x@a", "hi")
    assert (request.deadline_s, request.attempt) == (1.5, 0)


def test_a_body_that_json_would_blow_up_goes_as_base64() -> None:
    params = dialect.send_params("numa", b"\x00" * 200_000, {})
    assert dialect.bytes_of(params) == b"\x00" * 200_000
    assert len(dialect.request_line(1, "send", params)) < 300_000


def test_a_body_over_the_limit_is_refused_before_it_is_sent() -> None:
    assert NodeSettings().body_size_max == dialect.BODY_SIZE_MAX
    assert dialect.send_params("numa", b"x" * dialect.BODY_SIZE_MAX, {})
    for refused in (b"x" * (dialect.BODY_SIZE_MAX + 1), "ü" * (dialect.BODY_SIZE_MAX // 2 + 1)):
        with pytest.raises(LocalError) as failure:
            dialect.send_params("numa", refused, {})
        assert (failure.value.code.name, failure.value.code.exit) == ("too_large", 2)


def test_only_registrations_without_an_endpoint_are_served_here() -> None:
    assert dialect.attaches({"name": "a"})
    assert not dialect.attaches({"name": "a", "attach": False})
    assert not dialect.attaches({"name": "a", "endpoint": "http://127.0.0.1:1"})
