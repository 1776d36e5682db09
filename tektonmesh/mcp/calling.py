"""Calls of MCP from this stack to a CI anywhere in the mesh.

A call is a message with a streamed reply (`frames`). It decides how long silence is borne and what
a failure of the mesh looks like to a host: a JSON-RPC error that says where it happened. Whether a
call may be made is decided before, by whoever lists it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, Protocol

import trio

from tektonmesh.core import events as ev
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.errors import DeliveryError, MeshError, RemoteError
from tektonmesh.mcp import frames

TEXT = "text/plain; charset=utf-8"
SAY_TIMEOUT_S = 300.0
"""For a message that a model sends; CIs may think for long."""
MESH_FAILED = -32603
"""The JSON-RPC code of failures that are the mesh's; `data.code` says which."""


class Calling(NamedTuple):
    """Who calls, and what the policy has to know of it: the `ci` that does (empty: a person's
    host), the `act` in the words of the policy, and `within`, the id of the call that it is made
    for, if that is not said in the call itself."""

    ci: str = ""
    act: str = "discover"
    within: bytes = b""


ANYBODY = Calling()

Heard = Callable[[str, dict[str, Any]], Awaitable[None]]
"""Told each notification of a call, in order; while it waits, so does the call."""


class Streaming(Protocol):
    """The part of a daemon that sends messages."""

    def new_id(self) -> bytes: ...

    def stream(self, make: Callable[[int], ev.Event]) -> Any: ...

    async def ask(self, make: Callable[[int], ev.Event]) -> dict[str, Any]: ...


class CallFailed(Exception):
    """A call ended with a JSON-RPC error: the server's own, or the mesh's."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


async def call(
    daemon: Streaming,
    address: str,
    method: str,
    params: dict[str, Any],
    *,
    heard: Heard,
    caller: Calling = ANYBODY,
) -> dict[str, Any]:
    """The result as the CI gave it. Being cancelled here cancels the call at the CI. Raises
    CallFailed."""
    said, within = _without_caller(params)
    body = frames.pack_call(method, said)
    number = daemon.new_id()
    options = {"id": number, "act": caller.act, "within": caller.within or within}

    def make(ticket: int) -> ev.SendMessage:
        return ev.SendMessage(
            ticket, address, body, CALL_TYPE, caller.ci, frames.CALL_MAX_S, True, options
        )

    try:
        return await _result(daemon, make, heard)
    except MeshError as error:
        raise failed(error, address, number.hex()) from None


def _without_caller(params: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What is said to the owner, and the call that this one is made for, which stays here: the
    owner is told by this stack who calls, and not by the caller."""
    meta = frames.meta_of(params)
    if frames.CALLER not in meta:
        return params, b""
    about = meta[frames.CALLER]
    told = about.get("call") if isinstance(about, dict) else None
    said = params | {"_meta": {key: meta[key] for key in meta if key != frames.CALLER}}
    try:
        return said, bytes.fromhex(told) if isinstance(told, str) else b""
    except ValueError:
        return said, b""


async def unheard(_method: str, _params: dict[str, Any]) -> None:
    """Progress is for hosts."""


async def _result(
    daemon: Streaming, make: Callable[[int], ev.SendMessage], heard: Heard
) -> dict[str, Any]:
    with trio.CancelScope(deadline=trio.current_time() + frames.IDLE_S) as idle:
        async with daemon.stream(make) as parts:
            return await _read(parts, heard, idle)
    raise DeliveryError(
        f"Nothing was heard of the call for {frames.IDLE_S:g} s.",
        code="timeout",
        outcome="indeterminate",
    )


async def _read(
    parts: AsyncIterator[bytes | dict[str, Any]], heard: Heard, idle: trio.CancelScope
) -> dict[str, Any]:
    lines = frames.Lines()
    async for part in parts:
        idle.deadline = trio.current_time() + frames.IDLE_S
        for line in lines.feed(part["body"] if isinstance(part, dict) else part):
            if "result" in line or "error" in line:
                return _end(line)
            await _tell(heard, line)
    raise RemoteError("The reply to the call ended without a result.")


async def _tell(heard: Heard, line: dict[str, Any]) -> None:
    method, params = line.get("method"), line.get("params")
    if isinstance(method, str):
        await heard(method, params if isinstance(params, dict) else {})


def _end(line: dict[str, Any]) -> dict[str, Any]:
    result = line.get("result")
    if isinstance(result, dict):
        return result
    error = line.get("error")
    if not isinstance(error, dict) or type(error.get("code")) is not int:
        raise RemoteError("The result of the call is malformed.")
    raise CallFailed(error["code"], str(error.get("message", "")), error.get("data"))


def failed(error: MeshError, address: str, number: str) -> CallFailed:
    """A failure of the mesh as a host sees it. `call` is the id in the audit logs of both ends."""
    ci, _, stack = address.rpartition("@")
    data = error.as_dict()
    shown = {"stack": stack, "ci": ci or address, "code": error.code.name, "call": number}
    return CallFailed(MESH_FAILED, error.sentence(), shown | {"hop": data.get("scope", "")})


async def say(daemon: Streaming, address: str, text: Any) -> dict[str, Any]:
    """A plain message to a CI, and its reply as the result of a tool."""
    if not isinstance(text, str) or not text:
        return tool_error("The argument 'message' is missing: a text is needed.")

    def make(ticket: int) -> ev.SendMessage:
        body = text.encode("utf-8", "replace")
        return ev.SendMessage(ticket, address, body, TEXT, "", SAY_TIMEOUT_S, False, {})

    try:
        reply = await daemon.ask(make)
    except MeshError as error:
        return tool_error(error.sentence())
    said = bytes(reply["body"]).decode("utf-8", "replace")
    return {"content": [{"type": "text", "text": said}]}


def tool_error(text: str) -> dict[str, Any]:
    """A result that says that the tool failed."""
    return {"content": [{"type": "text", "text": text}], "isError": True}
