"""How the clients hand a large body in."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from tektonmesh.api.dialect import BODY_SIZE_MAX, Request, request_fields
from tektonmesh.api.largeparts import PART_SIZE, begun, framed, parts_of, plain_of, ref_of
from tektonmesh.errors import MeshError

LONG = b"x" * (BODY_SIZE_MAX + 1)


def test_what_fits_goes_as_it_is() -> None:
    assert plain_of(b"short") == b"short" and plain_of("kürz") == "kürz"
    assert plain_of("x" * BODY_SIZE_MAX) is not None
    assert plain_of(LONG) is None and plain_of("ü" * (BODY_SIZE_MAX // 2 + 1)) is None


def test_a_short_file_goes_as_it_is_and_a_long_one_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"short")
    assert plain_of(path) == b"short"
    path.write_bytes(LONG + LONG)
    assert plain_of(path) is None
    parts = list(parts_of(path))
    assert b"".join(parts) == LONG + LONG and len(parts[0]) == PART_SIZE


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="cannot be read"):
        plain_of(tmp_path / "none")
    with pytest.raises(MeshError, match="cannot be read"):
        list(parts_of(tmp_path / "none"))


@pytest.mark.parametrize("body", [LONG + b"end", ("ü" * 400_000)])
def test_the_parts_are_the_body(body: str | bytes) -> None:
    whole = body.encode() if isinstance(body, str) else body
    assert b"".join(parts_of(body)) == whole


def test_a_stream_that_is_long_is_sent_from_its_first_byte() -> None:
    assert begun(io.BytesIO(b"short")) == b"short"
    body = begun(io.BytesIO(LONG + b"end"))
    assert plain_of(body) is None
    assert b"".join(parts_of(body)) == LONG + b"end"


def test_a_part_is_framed_as_http_has_it() -> None:
    assert framed(b"a" * 26) == b"1a\r\n" + b"a" * 26 + b"\r\n"


def answer(status: str, shown: object) -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\r\n"
    return head.encode() + json.dumps(shown).encode()


def test_the_answer_names_the_body() -> None:
    assert ref_of(answer("200 ", {"body_ref": "ab.out", "size": 5})) == "ab.out"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (
            answer("413 ", {"detail": "At most 5 bytes.", "code": "too_large"}),
            "too_large",
        ),
        (answer("200 ", {"other": 1}), "protocol"),
        (answer("500 ", []), "protocol"),
        (b"", "no_daemon"),
        (b"HTTP/1.1 200 \r\n\r\n{", "no_daemon"),
    ],
)
def test_what_went_wrong_is_raised(said: bytes, code: str) -> None:
    with pytest.raises(MeshError) as caught:
        ref_of(said)
    assert caught.value.code.name == code


def test_a_ci_reads_a_large_body_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.in"
    path.write_bytes(b"a large one")
    params = {"id": "1", "body_file": str(path), "body_size": 11}
    request = Request(**request_fields({"id": 3, "params": params}))
    assert (request.data, request.body, request.file) == (b"a large one", "a large one", path)
