"""A2A over HTTP: agent cards, messages to CIs (`SendMessage`), and the AI catalogue."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from tektonmesh.api import cards
from tektonmesh.api.http.table import Call, Route
from tektonmesh.core import views
from tektonmesh.errors import MeshError

VERSION_HEADER = {"A2A-Version": cards.A2A_VERSION}
INVALID_REQUEST, METHOD_NOT_FOUND = -32600, -32601


def _base(call: Call) -> str:
    return str(call.request.base_url).rstrip("/")


def _row(call: Call) -> dict[str, Any]:
    return views.record(call.operations.daemon.node, call.place["address"])


async def own_card(call: Call) -> dict[str, Any]:
    return cards.stack_card(call.operations, _base(call))


async def card(call: Call) -> dict[str, Any]:
    return cards.card_of(call.operations, _row(call), _base(call))


async def keys(call: Call) -> dict[str, Any]:
    return cards.keys_of(call.operations)


async def catalogue(call: Call) -> dict[str, Any]:
    return cards.catalogue(call.operations, _base(call))


async def a2a(call: Call) -> JSONResponse:
    """One JSON-RPC request of A2A 1.0. Only `SendMessage` is served: a CI answers at once or not,
    so there are no tasks to ask about."""
    number: Any = None
    try:
        asked = await call.json()
        number = asked.get("id")
        if asked.get("method") != "SendMessage" or not isinstance(asked.get("params"), dict):
            code = METHOD_NOT_FOUND if isinstance(asked.get("method"), str) else INVALID_REQUEST
            error: dict[str, Any] = {"code": code, "message": "Only SendMessage is served here."}
            return _answer(number, {"error": error})
        return _answer(number, {"result": await _send(call, asked["params"])})
    except MeshError as problem:
        data = problem.as_dict()
        shown = {"code": problem.code.jsonrpc, "message": data.pop("detail"), "data": [data]}
        return _answer(number, {"error": shown})


async def _send(call: Call, params: dict[str, Any]) -> dict[str, Any]:
    given = params.get("message")
    text = cards.text_of(given)
    address = _row(call)["address"]
    sent = {"to": address, "body": text}
    key = given.get("messageId") if isinstance(given, dict) else None
    if isinstance(key, str) and key:
        # A2A's own rule against doubles: the same message id is the same message.
        sent["idempotency_key"] = key
    reply = await call.until_gone(lambda: call.operations.send(sent, call.caller))
    said: dict[str, Any] = {
        "messageId": reply["id"],
        "role": "ROLE_AGENT",
        "parts": [{"text": reply.get("body", "")}],
    }
    if isinstance(given, dict) and isinstance(given.get("contextId"), str):
        said["contextId"] = given["contextId"]
    return {"message": said}


def _answer(number: Any, what: dict[str, Any]) -> JSONResponse:
    return JSONResponse({"jsonrpc": "2.0", "id": number} | what, headers=VERSION_HEADER)


ROUTES = (
    Route("GET", "/.well-known/agent-card.json", own_card, "A2A: the signed card of this stack."),
    Route("GET", "/.well-known/jwks.json", keys, "The key that the cards are signed with."),
    Route("GET", "/.well-known/ai-catalog.json", catalogue, "All CIs by their cards."),
    Route(
        "GET",
        "/a2a/{address}/agent-card.json",
        card,
        "A2A: the signed card of one CI.",
        errors=("not_found",),
    ),
    Route("POST", "/a2a/{address}", a2a, "A2A 1.0 as JSON-RPC: SendMessage to one CI."),
)
