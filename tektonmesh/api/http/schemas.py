"""The shapes that the HTTP routes take and give, as JSON Schema for the OpenAPI page."""

from __future__ import annotations

from typing import Any

from tektonmesh.api.validate import NAME_PATTERN, SHARES
from tektonmesh.errors import CODES
from tektonmesh.net.endpoints import FORMATS

Schema = dict[str, Any]


def _text(description: str = "", **more: Any) -> Schema:
    shown: Schema = {"type": "string"}
    return shown | ({"description": description} if description else {}) | more


def _number(description: str = "") -> Schema:
    return {"type": "number"} | ({"description": description} if description else {})


def _list(items: Schema | None = None) -> Schema:
    return {"type": "array", "items": {"type": "string"} if items is None else items}


def _object(required: str = "", /, **properties: Schema) -> Schema:
    shown: Schema = {"type": "object", "properties": properties}
    return shown | ({"required": required.split()} if required else {})


def _maybe(schema: Schema) -> Schema:
    return schema | {"type": [schema["type"], "null"]}


_BOOL: Schema = {"type": "boolean"}
_WHOLE: Schema = {"type": "integer"}
_ANY: Schema = {"type": "object"}
_HOP = _object(stack=_text(), dwell_ms=_number())
_VERSION = _list(_WHOLE) | {"description": "(key_epoch, epoch, ver)."}
_CLAIM = _maybe(_object(cost=_WHOLE, state=_text("", enum=["up", "suspect"])))
_STACK: dict[str, Schema] = {
    "name": _text(),
    "id": _text(),
    "state": _text("", enum=["self", "up", "unreachable", "deregistered", "left"]),
    "path": _list(),
    "rtt_ms": _maybe(_number()),
    "lease_left_s": _number(),
    "version": _text(),
    "head": _VERSION,
    "cis": _WHOLE,
    "specialties": _list(),
    "capabilities": _list(),
    "age_s": _number(),
    "since": _maybe(_WHOLE),
    "draining": _BOOL | {"description": "Whether it says that it is about to leave."},
    "observers": _WHOLE | {"description": "How many stacks are linked to it."},
    "why": _text("Why it is in its state."),
}
_WORDS = _list() | {"description": "Words of at most 64 letters, at most 32 of them."}

SCHEMAS: dict[str, Schema] = {
    "Object": _ANY,
    "Text": {"type": "string"},
    "Error": _object(
        "detail code",
        detail=_text("What is wrong and what to try."),
        code=_text("Stable.", enum=list(CODES)),
        retry=_text("", enum=["never", "later", "now"]),
        outcome=_text("Whether the message may have arrived.", enum=["released", "indeterminate"]),
        field=_text("The field that is wrong."),
    ),
    "Registration": _object(
        "name",
        name=_text("Compared without case.", pattern=f"^{NAME_PATTERN}$"),
        type=_text("`tekton` or `external` with a `host` is a whole stack."),
        endpoint=_text("A URL on this machine that takes messages."),
        format=_text("How the endpoint is spoken to.", enum=list(FORMATS)),
        headers=_ANY | {"description": "Sent to the endpoint; never leaves this machine."},
        port=_WHOLE | {"description": "The seed's form: a port on this machine."},
        host=_text("The seed's form for a whole stack."),
        protocol=_text("", enum=["http", "https"]),
        message_endpoint=_text("The seed's form: the path that takes messages."),
        message_format=_text("The seed's form of `format`; unknown ones are kept."),
        specialties=_WORDS,
        capabilities={"oneOf": [_WORDS, _ANY, _list(_ANY)]},
        teams=_WORDS,
        share=_text("Who sees it; by default what the settings say.", enum=list(SHARES)),
        description=_text(),
        persist=_BOOL | {"description": "No heartbeat is expected; kept over restarts."},
        lease_s=_number("Seconds without a heartbeat after which it is removed."),
        stream=_BOOL,
        metadata=_ANY,
        token=_text("What the first registration returned."),
    )
    | {"additionalProperties": True},
    "Registered": _object(
        "success id name stack token",
        success=_BOOL,
        id=_text(),
        name=_text(),
        stack=_text(),
        token=_text("Keep it: it proves the registration."),
        lease_s=_maybe(_number()),
        heartbeat_s=_maybe(_number("How often a heartbeat is expected.")),
    ),
    "CiName": _object(name=_text(), id=_text(), token=_text()),
    "Ci": _object(
        "address name stack state",
        address=_text("Such as `numa@west`."),
        name=_text(),
        stack=_text(),
        type=_text(),
        state=_text("`up`, `offline` or `unreachable`."),
        local=_BOOL,
        specialties=_list(),
        capabilities=_list(),
        share=_text(),
    ),
    "Stack": _object(
        "name id state",
        **_STACK,
    ),
    "Explanation": _object(
        "name id state why links holders changes",
        **_STACK,
        flags=_list(),
        signed=_maybe(
            _object(
                version=_VERSION,
                content_version=_list(_WHOLE),
                hash=_text(),
                status=_text("", enum=["up", "draining", "left"]),
                at=_number("Seconds since 1970, of the mesh's voted clock."),
                age_s=_number(),
                heard_s=_number(),
                lease_s=_WHOLE,
                instance=_text("Of one run of the stack."),
                key_epoch=_WHOLE,
                keydoc=_text("The hash of the key document that it is signed under."),
                records=_WHOLE,
                record_bytes=_WHOLE,
            )
        ),
        links=_list(
            _object(
                stack=_text(),
                id=_text(),
                state=_text("Of that stack."),
                own=_CLAIM | {"description": "What the stack itself says of the link."},
                peer=_CLAIM | {"description": "What the other end says of it."},
                one_sided=_BOOL,
                counts=_BOOL,
                lost=_maybe(_text("The other end's last word that the link is not up.")),
                lost_s=_maybe(_number()),
            )
        ),
        holders=_list(
            _object(
                stack=_text(),
                id=_text(),
                version=_maybe(_list(_WHOLE)),
                **{"is": _text("", enum=["same", "older", "newer", "unknown"])},
            )
        ),
        refreshes=_WHOLE | {"description": "Heads that only refreshed, beside the changes."},
        changes=_list(
            _object(
                at=_number("Seconds since 1970, of the mesh's voted clock."),
                age_s=_number(),
                kind=_text("", enum=["new", "content", "left", "expired", "flagged"]),
                keys=_list(),
                keys_total=_WHOLE,
                what=_text("The same for people."),
                version=_VERSION,
                content_version=_list(_WHOLE),
                hash=_text(),
                latency_ms=_maybe(_WHOLE),
                evidence=_text(),
                **{"from": _maybe(_text("The neighbour whose link brought it."))},
            )
        ),
    ),
    "Status": _object(
        "name id mesh version",
        name=_text(),
        id=_text(),
        mesh=_text(),
        version=_text(),
        uptime_s=_number(),
        socket=_text(),
        listen=_list(),
        http=_maybe(_text()),
        links=_list(
            _object(stack=_text(), id=_text(), rtt_ms=_number(), since_s=_number(), outbound=_BOOL)
        ),
        converged=_BOOL,
        diverged=_list(),
        divergence=_list(
            _object(
                stack=_text(),
                id=_text(),
                owners=_maybe(_WHOLE | {"description": "Null while only the prints are known."}),
                since_s=_number(),
            )
        ),
        fingerprint=_text(),
        stacks=_object(up=_WHOLE, unreachable=_WHOLE),
        cis=_object(local=_WHOLE, remote=_WHOLE),
        queues=_ANY,
        registry=_ANY | {"description": "What the daemon counts of its registry."},
        last_problem=_maybe(_text()),
        draining=_BOOL,
    ),
    "Message": _object(
        "message",
        message=_text(),
        **{"from": _text("The local CI that sends.")},
        timeout_s=_number(),
        content_type=_text(),
        idempotent=_BOOL | {"description": "As in the query."},
        conversation=_text("As in the query."),
    ),
    "FederatedMessage": _object(
        "message target",
        message=_text(),
        target=_text("Such as `numa` or `numa@west`."),
        **{"from": _text()},
        timeout_s=_number(),
    ),
    "HandedIn": _object("body_ref size", body_ref=_text("Its name, good once."), size=_number()),
    "Reply": _object(
        "id",
        response=_text("The body as text."),
        response_b64=_text("The body in base64 where it is no text."),
        id=_text(),
        to=_text(),
        **{"from": _text()},
        content_type=_text(),
        path=_list(),
        ms=_number(),
        hops=_list(_HOP),
        selector=_text("The selector it was sent to, if any."),
        tried=_list(_object(to=_text(), code=_text())),
        targets=_list(
            _object(ok=_BOOL, **{"from": _text()}, response=_text(), id=_text(), error=_ANY)
        )
        | {"description": "Of a team: each member's reply or error."},
    ),
    "MessageHistory": _object(
        "id state transitions",
        id=_text(),
        state=_text(),
        transitions=_list(_object(state=_text(), at=_number("Seconds since 1970."))),
    ),
    "RouteView": _object(
        target=_text(),
        stack=_text(),
        ci=_text(),
        state=_text(),
        path=_list(),
        candidates=_list(_ANY),
        rejected=_list(_object(stack=_text(), to=_text(), why=_text())),
        selector=_text("Of a selector: then candidates and rejected are CIs."),
        sends_to=_text("", enum=["one", "all"]),
    ),
    "Trace": _object(
        path=_list(),
        hops=_list(
            _object(hop=_WHOLE, stack=_text(), rtt_ms=_maybe(_number()), queue_bytes=_WHOLE)
        ),
    ),
    "Peer": _object(
        "id state",
        id=_text(),
        name=_text(),
        state=_text("", enum=["admitted", "pending", "evicted", "refused"]),
        last_seen=_maybe(_number()),
        reason=_text(),
        strikes=_WHOLE | {"description": "Faults of this peer within ten minutes."},
        held_off_s=_number("Seconds for which no link with it is wanted; 0 for none."),
    ),
    "Notice": _object("seq at kind", seq=_WHOLE, at=_number("Seconds since 1970."), kind=_text()),
    "HermesRegistration": _object(
        "name",
        name=_text(),
        version=_text(),
        type=_text(),
        endpoint=_text(),
        capabilities={"oneOf": [_WORDS, _ANY, _list(_ANY)]},
        metadata=_ANY,
    )
    | {"additionalProperties": True},
}
