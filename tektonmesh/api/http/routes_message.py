"""Messages over HTTP: to any CI of the mesh, and the seed's entry for stacks without a daemon."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any

from starlette.responses import JSONResponse

from tektonmesh.api import validate
from tektonmesh.api.dialect import shown_body
from tektonmesh.api.http.guard import Access
from tektonmesh.api.http.stream import EventStream, event
from tektonmesh.api.http.table import BODY_SIZE_MAX, Call, Route, seconds
from tektonmesh.api.operations import TARGET_SIZE_MAX, target_of
from tektonmesh.errors import LocalError, MeshError

JSON = "application/json"
STACK_HEADER = "x-tekton-stack"
UNNAMED, FOREIGN = "someone", "external"
"""What stands for a CI or a stack that the seed's entry was not told."""
_UNSAID = ("", "application/x-www-form-urlencoded")
"""What `curl -d` says of any body; nobody means it."""
_OWN_KEYS = (
    *("from", "timeout_s", "content_type", "no_reply", "durable", "ttl_s"),
    *("may_park", "idempotent", "conversation"),
)


async def message(call: Call) -> Any:
    params = await _message_params(call)
    return await _answer(call, params)


async def federated(call: Call) -> Any:
    """For stacks without a daemon. Any further key of the body is accepted and means nothing."""
    given = await call.json()
    text = given.get("message")
    if not isinstance(text, str):
        raise validate.field_error("message", "is missing: a text is needed")
    params = {"to": target_of(given, "target"), "body": text}
    if given.get("timeout_s") is not None:
        params["timeout_s"] = given["timeout_s"]
    call.caller.label = _foreign_sender(call, given)
    return await _answer(call, params | _repeat_key(call))


def _foreign_sender(call: Call, given: dict[str, Any]) -> str:
    """How the sender is shown: `rhetor.east`, the CI and the stack it said; the API key vouches for
    it. It never reads like a CI that is registered here."""
    said = validate.text(given, "from", default="", size_max=TARGET_SIZE_MAX)
    name, _, stack = said.partition("@")
    stack = call.header(STACK_HEADER) or stack
    if not name and not stack:
        return ""
    label = f"{name or UNNAMED}.{stack or FOREIGN}"
    if len(label) > validate.NAME_SIZE_MAX:
        raise validate.field_error("from", "and X-Tekton-Stack are too long together")
    validate.ci_name("from", label)
    if call.operations.daemon.node.cis.get(label) is not None:
        raise LocalError(f"'{label}' is registered here and does not send this.", code="refused")
    return label


def _repeat_key(call: Call) -> dict[str, str]:
    key = call.header("idempotency-key")
    return {"idempotency_key": key} if key else {}


async def _message_params(call: Call) -> dict[str, Any]:
    """A JSON object with `message` is the common form; anything else is sent as it is."""
    handed = await call.body_or(partial(_hand_in, call))
    params: dict[str, Any] = {"to": call.place["target"]}
    query = call.query
    if "timeout_s" in query:
        params["timeout_s"] = seconds("timeout_s", query["timeout_s"])
    if "ttl_s" in query:
        params["ttl_s"] = seconds("ttl_s", query["ttl_s"])
    if "offset" in query:
        params["offset"] = seconds("offset", query["offset"])
    for key in ("from", "conversation"):
        if key in query:
            params[key] = query[key]
    if "idempotent" in query:
        params["idempotent"] = query["idempotent"] in ("", "1", "true")
    kind, body = _kind_of(call), await call.body()
    if handed is not None:
        params["body_ref"] = handed["body_ref"]
        return params | _content_type(call) | _token(call) | _repeat_key(call)
    given = await call.json() if kind in (*_UNSAID, JSON) and body[:1] == b"{" else None
    if given is not None and "message" in given:
        if not isinstance(given["message"], str):
            raise validate.field_error("message", "must be text")
        params["body"] = given["message"]
        params |= {key: given[key] for key in _OWN_KEYS if given.get(key) is not None}
    else:
        params |= shown_body(body) | _content_type(call)
    return params | _token(call) | _repeat_key(call)


def _kind_of(call: Call) -> str:
    return call.header("content-type").partition(";")[0].strip().lower()


def _content_type(call: Call) -> dict[str, str]:
    return {} if _kind_of(call) in _UNSAID else {"content_type": call.header("content-type")}


def _token(call: Call) -> dict[str, str]:
    token = call.header("x-registration-token")
    return {"token": token} if token else {}


async def _hand_in(call: Call, parts: AsyncIterator[bytes]) -> dict[str, Any]:
    """A body over 1 MiB goes to the disk as it comes. It is never read as JSON."""
    if _kind_of(call) in (*_UNSAID, JSON) and (await call.body())[:1] == b"{":
        raise LocalError(
            f"An object with 'message' has at most {BODY_SIZE_MAX} bytes.",
            code="too_large",
            hint="Send the text itself, with a Content-Type such as text/plain.",
        )
    return await call.operations.uploads.hand_in(parts)


async def bodies(call: Call) -> dict[str, Any]:
    return await call.operations.uploads.hand_in(call.request.stream())


async def _answer(call: Call, params: dict[str, Any]) -> Any:
    if "text/event-stream" in call.header("accept"):
        # What is wrong with the request itself is still told by the status.
        params = dict(await call.operations.uploads.fitting(params))
        call.operations.message_event(params, call.caller, stream=True)
        return EventStream(_stream(call, params))
    if "respond-async" in call.header("prefer"):
        reply = await call.operations.send(params | {"durable": True}, call.caller)
        shown = {"id": reply["id"]}
        where = {"Location": f"/api/messages/{reply['id']}", "Preference-Applied": "respond-async"}
        return JSONResponse(shown, status_code=202, headers=where)
    return _shown(await call.until_gone(lambda: call.operations.send(params, call.caller)))


def _shown(reply: dict[str, Any]) -> dict[str, Any]:
    """The reply as Tekton's callers read it: its body is `response`, and it is `from` the CI that
    answered (the socket's words describe the message instead)."""
    names = {"body": "response", "body_b64": "response_b64", "to": "from", "from": "to"}
    shown = {names.get(key, key): value for key, value in reply.items()}
    if "targets" in shown:
        shown["targets"] = [_shown(row) for row in shown["targets"]]
    return shown


async def _stream(call: Call, params: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """`chunk` events, then one `reply` (whose `response` is what followed the chunks) or one
    `error`."""
    try:
        async with call.operations.stream(params, call.caller) as parts:
            async for part in parts:
                if isinstance(part, dict):
                    yield event("reply", _shown(part))
                else:
                    yield event("chunk", shown_body(part, "data"))
    except MeshError as error:
        yield event("error", error.as_dict())


_FAILURES = (
    "bad_request",
    "not_found",
    "ambiguous",
    "conflict",
    "refused",
    "unreachable",
    "timeout",
    "ci_offline",
    "ci_failed",
    "busy",
    "too_large",
)

ROUTES = (
    Route(
        "POST",
        "/api/bodies",
        bodies,
        "Hand in a large body (any bytes) before the message that it is of: `send` takes its"
        " `body_ref`, once, within 10 minutes. `POST /api/message/{target}` takes a large body as"
        " it is.",
        answer="HandedIn",
        errors=("too_large", "busy", "store"),
    ),
    Route(
        "POST",
        "/api/message/{target}",
        message,
        "Send to a CI, or a selector such as `specialty:vision`, and wait for its reply."
        " `Accept: text/event-stream` streams it,"
        " `Prefer: respond-async` only waits until the message is safe on the"
        " disk (202). With an `Idempotency-Key`, sending again gets what became of the first.",
        answer="Reply",
        body="Message",
        query={
            "timeout_s": "How long to wait, in seconds.",
            "ttl_s": "With `Prefer: respond-async`: how long it is worth delivering, in seconds.",
            "offset": "With a streamed reply and an Idempotency-Key: go on behind so many bytes.",
            "from": "The local CI that sends.",
            "conversation": "With a selector: later messages with the same word go to the same CI.",
            "idempotent": "With a selector: it may go to another CI though one may have had it.",
        },
        errors=_FAILURES,
    ),
    Route(
        "POST",
        "/api/federated/message",
        federated,
        "For stacks without a daemon: as above, with an API key (Bearer or X-API-Key).",
        answer="Reply",
        body="FederatedMessage",
        errors=("unauthorized", *_FAILURES),
        access=Access.KEY,
    ),
)
