"""Large bodies through the doors of a real daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import trio

from tektonmesh.api.client import Client
from tektonmesh.errors import MeshError
from tests.doors import lines_to, open_stack, until
from tests.integration.test_api_http import http_to

BODY = os.urandom(1 << 20) + b"end"
TEXT = "größer " * 60_000


async def answer_large(ci: Any) -> bytes:
    """What the CI's next message has in its file; it is answered with how much that is."""
    asked = await ci.read()
    assert asked is not None and "body" not in asked["params"], asked
    got = Path(asked["params"]["body_file"]).read_bytes()
    assert len(got) == asked["params"]["body_size"]
    await ci.write({"id": asked["id"], "result": {"body": str(len(got))}})
    return got


async def test_http_takes_a_large_body_as_it_is(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        http_to(doors) as http,
        lines_to(doors.daemon) as ci,
    ):
        await ci.call(1, "register", name="numa")
        got = []
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                headers = {"content-type": "application/octet-stream"}
                answer = await http.post("/api/message/numa", content=BODY, headers=headers)
                got.append((answer.status_code, answer.json()["response"]))

            nursery.start_soon(send)
            assert await answer_large(ci) == BODY
        assert got == [(200, str(len(BODY)))]
        await until(lambda: not list((tmp_path / "west" / "bodies").iterdir()))


async def test_a_long_object_with_message_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with open_stack(tmp_path) as doors, http_to(doors) as http:
        answer = await http.post("/api/message/numa", json={"message": "x" * (1 << 20)})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "Content-Type" in answer.text


async def test_what_fits_into_a_line_and_into_no_envelope_goes_by_the_disk(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        await user.write({"id": 7, "method": "send", "params": {"to": "numa", "body": TEXT}})
        assert (await answer_large(ci)).decode() == TEXT
        reply = await user.read()
        assert reply is not None and reply["result"]["body"] == str(len(TEXT.encode()))


async def test_a_body_is_handed_in_first_and_named_once(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        http_to(doors) as http,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        handed = (await http.post("/api/bodies", content=BODY)).json()
        assert handed["size"] == len(BODY)
        params = {"to": "numa", "body_ref": handed["body_ref"]}
        await user.write({"id": 1, "method": "send", "params": params})
        assert await answer_large(ci) == BODY
        assert (await user.read() or {})["result"]["body"] == str(len(BODY))
        again = await user.call(2, "send", **params)
        assert again["error"]["data"]["code"] == "not_found"


async def test_the_reply_to_a_large_body_streams(tmp_path: Path) -> None:
    async with (
        open_stack(tmp_path) as doors,
        lines_to(doors.daemon) as ci,
        lines_to(doors.daemon) as user,
    ):
        await ci.call(1, "register", name="numa")
        params = {"to": "numa", "body": TEXT, "stream": True}
        await user.write({"id": 7, "method": "send", "params": params})
        asked = await ci.read()
        assert asked is not None and asked["params"]["body_size"] == len(TEXT.encode())
        await ci.write({"method": "reply.chunk", "params": {"id": asked["id"], "data": "a word "}})
        first = await user.read()
        assert first is not None and first["params"] == {"id": 7, "data": "a word "}
        await ci.write({"id": asked["id"], "result": {"body": "more"}})
        assert (await user.read() or {})["params"]["data"] == "more"
        assert (await user.read() or {})["result"]["body"] == ""


async def test_a_message_that_is_refused_leaves_no_file_for_long(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tektonmesh.net.spool.TIDY_S", 0.02)
    async with open_stack(tmp_path) as doors, Client(doors.daemon.socket_path) as client:
        with pytest.raises(MeshError, match="nobody"):
            await client.send("nobody", BODY)
        await until(lambda: not list((tmp_path / "west" / "bodies").iterdir()))


async def test_the_client_hands_in_what_is_large_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    path.write_bytes(BODY)
    async with (
        open_stack(tmp_path) as doors,
        Client(doors.daemon.socket_path) as client,
        lines_to(doors.daemon) as ci,
    ):
        await ci.call(1, "register", name="numa")
        async with trio.open_nursery() as nursery:
            got: list[str] = []

            async def send(body: bytes | Path) -> None:
                got.append((await client.send("numa", body)).body)

            for body in (BODY, path):
                nursery.start_soon(send, body)
                assert await answer_large(ci) == BODY
        assert got == [str(len(BODY))] * 2
