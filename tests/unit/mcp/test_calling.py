"""Calls that leave: what is borne, for how long, and what a host is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from tektonmesh.core import events as ev
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.errors import DeliveryError, MeshError
from tektonmesh.mcp import calling, frames

NUMBER = b"0123456789abcdef"


class Mesh:
    """A daemon whose replies are given: each step a pause in seconds, then bytes or an error."""

    def __init__(self, *steps: tuple[float, bytes | MeshError]) -> None:
        self.steps = steps
        self.sent: list[ev.SendMessage] = []
        self.cancelled = False

    def new_id(self) -> bytes:
        return NUMBER

    @asynccontextmanager
    async def stream(self, make: Callable[[int], ev.Event]) -> AsyncIterator[Any]:
        event = make(1)
        assert isinstance(event, ev.SendMessage)
        self.sent.append(event)
        try:
            yield _Steps(self.steps)
        except trio.Cancelled:
            self.cancelled = True
            raise

    async def ask(self, make: Callable[[int], ev.Event]) -> dict[str, Any]:
        event = make(1)
        assert isinstance(event, ev.SendMessage)
        self.sent.append(event)
        if isinstance(self.steps[0][1], MeshError):
            raise self.steps[0][1]
        return {"body": self.steps[0][1]}


class _Steps:
    def __init__(self, steps: tuple[tuple[float, bytes | MeshError], ...]) -> None:
        self._steps = iter(steps)

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> bytes:
        for pause, data in self._steps:
            await trio.sleep(pause)
            if isinstance(data, MeshError):
                raise data
            return data
        raise StopAsyncIteration


async def call(
    mesh: Mesh,
    told: list[Any] | None = None,
    caller: calling.Calling = calling.ANYBODY,
    **more: Any,
) -> dict[str, Any]:
    async def heard(method: str, params: dict[str, Any]) -> None:
        if told is not None:
            told.append((method, params))

    params = {"name": "x"} | more
    return await calling.call(mesh, "numa@west", "tools/call", params, heard=heard, caller=caller)


async def test_a_call_is_a_streamed_message_of_its_own_kind() -> None:
    mesh = Mesh((0.0, frames.result_line({"content": []})))
    assert await call(mesh) == {"content": []}
    sent = mesh.sent[0]
    assert (sent.target, sent.content_type, sent.stream) == ("numa@west", CALL_TYPE, True)
    assert sent.timeout_s == frames.CALL_MAX_S == 900.0


async def test_a_call_says_who_makes_it_what_it_does_and_what_it_is_made_for() -> None:
    mesh = Mesh((0.0, frames.result_line({})))
    await call(mesh, caller=calling.Calling("numa", "tool.call:x", b"7"))
    assert mesh.sent[0].sender == "numa"
    assert mesh.sent[0].options == {"id": NUMBER, "act": "tool.call:x", "within": b"7"}


@pytest.mark.parametrize(
    ("about", "within"),
    [({"call": "00ff"}, b"\0\xff"), ({"call": "no hex"}, b""), ({"call": 7}, b""), ("00ff", b"")],
)
async def test_the_call_that_led_to_a_call_is_known_here_and_not_sent(
    about: Any, within: bytes
) -> None:
    mesh = Mesh((0.0, frames.result_line({})))
    await call(mesh, _meta={frames.CALLER: about, "progressToken": 7})
    assert mesh.sent[0].options["within"] == within
    _method, params = frames.unpack_call(mesh.sent[0].body)
    assert params["_meta"] == {"progressToken": 7}


async def test_notifications_come_in_order_before_the_result() -> None:
    told: list[Any] = []
    steps = [(0.0, frames.notification_line("n", {"at": number})) for number in range(3)]
    await call(Mesh(*steps, (0.0, frames.ALIVE), (0.0, frames.result_line({}))), told)
    assert told == [("n", {"at": 0}), ("n", {"at": 1}), ("n", {"at": 2})]


async def test_a_call_of_fifteen_minutes_with_silences_of_a_minute_survives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    alive = [(10.0, frames.ALIVE)] * 89
    assert await call(Mesh(*alive, (9.0, frames.result_line({"ok": 1})))) == {"ok": 1}


async def test_a_call_of_which_nothing_is_heard_for_a_minute_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    mesh = Mesh((30.0, frames.ALIVE), (61.0, frames.result_line({})))
    with pytest.raises(calling.CallFailed) as raised:
        await call(mesh)
    assert raised.value.data["code"] == "timeout"
    assert mesh.cancelled


async def test_an_error_of_the_server_keeps_its_code_and_data() -> None:
    with pytest.raises(calling.CallFailed) as raised:
        await call(Mesh((0.0, frames.error_line(-32042, "No.", {"x": 1}))))
    assert (raised.value.code, raised.value.message, raised.value.data) == (-32042, "No.", {"x": 1})


async def test_a_failure_of_the_mesh_says_where_and_why() -> None:
    error = DeliveryError("No way.", code="unreachable")
    with pytest.raises(calling.CallFailed) as raised:
        await call(Mesh((0.0, error)))
    data = raised.value.data
    assert raised.value.code == calling.MESH_FAILED
    assert (data["stack"], data["ci"], data["code"]) == ("west", "numa", "unreachable")
    assert data["call"] == NUMBER.hex()


@pytest.mark.parametrize(
    "data",
    [b"", b"7\n", b'{"error": 7}\n', b'{"error": {"code": "x"}}\n', b'{"result": []}\n'],
)
async def test_a_reply_that_is_none_is_a_failure(data: bytes) -> None:
    with pytest.raises(calling.CallFailed) as raised:
        await call(Mesh((0.0, data)))
    assert raised.value.data["code"] == "protocol"


async def test_a_message_to_a_ci_is_a_tool() -> None:
    mesh = Mesh((0.0, b"hello"))
    result = await calling.say(mesh, "numa@west", "hi")
    assert result == {"content": [{"type": "text", "text": "hello"}]}
    assert mesh.sent[0].body == b"hi"


@pytest.mark.parametrize("text", [None, "", 7])
async def test_a_message_needs_a_text(text: Any) -> None:
    mesh = Mesh()
    assert (await calling.say(mesh, "numa@west", text))["isError"]
    assert not mesh.sent


async def test_a_message_that_fails_is_a_result_that_says_so() -> None:
    mesh = Mesh((0.0, DeliveryError("It is gone.", code="ci_offline")))
    result = await calling.say(mesh, "numa@west", "hi")
    assert result["isError"] and result["content"][0]["text"] == "It is gone."
