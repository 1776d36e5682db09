"""What other worlds know CIs by: A2A agent cards, signed, and an AI catalogue of them.

A card is A2A 1.0 in JSON; its signature (JWS, EdDSA, RFC 7515) is by the operational key of the
stack that shows it, over the RFC 8785 form without empty values. It tells nothing that the replica
does not.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import Any

from tektonmesh.api.operations import Operations
from tektonmesh.core import views
from tektonmesh.core.ids import show_id
from tektonmesh.core.keydoc import read_keydoc
from tektonmesh.core.views_cis import cis_of
from tektonmesh.errors import LocalError

A2A_VERSION = "1.0"
CARD_VERSION = "1"
CARD_TYPE = "application/a2a-agent-card+json"
MCP_TYPE = "application/mcp-server+json"
TEXT = ["text/plain"]
SKILLS_MAX = 100


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def card_of(operations: Operations, row: dict[str, Any], base: str) -> dict[str, Any]:
    """The signed card of a CI, given as a row of `views.record`; `base` is where this daemon is
    asked, such as http://127.0.0.1:7780."""
    address = row["address"]
    card: dict[str, Any] = {
        "name": address,
        "description": row.get("description") or f"The CI {address} of a tektonmesh federation.",
        "version": CARD_VERSION,
        "supportedInterfaces": [
            {
                "url": f"{base}/a2a/{address}",
                "protocolBinding": "JSONRPC",
                "protocolVersion": A2A_VERSION,
            }
        ],
        "capabilities": {},
        "defaultInputModes": TEXT,
        "defaultOutputModes": TEXT,
        "skills": skills_of(row),
    }
    return card | {"signatures": [_signature(operations, card)]}


def skills_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages first, then what the CI says it can do."""
    tags = [*row["specialties"], *row["capabilities"]]
    skills = [
        {
            "id": "message",
            "name": "Message",
            "description": f"Answers messages sent to {row['address']}.",
            "tags": tags or ["message"],
        }
    ]
    for word in row["capabilities"][:SKILLS_MAX]:
        about = f"{row['address']} says it can do this."
        skills.append({"id": word, "name": word, "description": about, "tags": [word]})
    return skills


def _signature(operations: Operations, card: dict[str, Any]) -> dict[str, str]:
    import rfc8785

    env = operations.daemon.node.env
    header = {"alg": "EdDSA", "kid": show_id(env.me), "typ": "JOSE"}
    protected = base64url(json.dumps(header, separators=(",", ":")).encode())
    payload = base64url(rfc8785.dumps(without_empty(card)))
    # No context of ours begins as a JWS does ("eyJ"), so neither can stand for the other.
    signed = env.crypto.sign(b"", f"{protected}.{payload}".encode())
    return {"protected": protected, "signature": base64url(signed)}


def without_empty(value: Any) -> Any:
    """The same without empty texts, lists and objects, at any depth."""
    if isinstance(value, dict):
        kept = {key: without_empty(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in ("", [], {})}
    if isinstance(value, list):
        return [inner for inner in map(without_empty, value) if inner not in ("", [], {})]
    return value


def keys_of(operations: Operations) -> dict[str, Any]:
    """The key that the cards are signed with, as a JWK set (RFC 7517, 8037)."""
    env = operations.daemon.node.env
    document = read_keydoc(env.codec, env.crypto, env.identity.keydoc)
    key = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig"}
    return {"keys": [key | {"kid": show_id(env.me), "x": base64url(document.op_pk)}]}


def stack_card(operations: Operations, base: str) -> dict[str, Any]:
    """The card of the stack itself: its CIs are its skills."""
    node = operations.daemon.node
    rows = cis_of(node, node.env.me)
    name = node.env.identity.name
    skills = [
        {
            "id": row["name"],
            "name": row["name"],
            "description": f"The CI {row['address']}; send to it at {base}/a2a/{row['address']}.",
            "tags": [*row["specialties"], *row["capabilities"]] or [row["type"] or "ci"],
        }
        for row in rows[:SKILLS_MAX]
    ]
    card: dict[str, Any] = {
        "name": name,
        "description": f"The stack {name} of a tektonmesh federation.",
        "version": CARD_VERSION,
        "supportedInterfaces": [
            {
                "url": f"{base}/a2a/{row['address']}",
                "protocolBinding": "JSONRPC",
                "protocolVersion": A2A_VERSION,
            }
            for row in rows[:1]
        ],
        "capabilities": {},
        "defaultInputModes": TEXT,
        "defaultOutputModes": TEXT,
        "skills": skills,
    }
    return card | {"signatures": [_signature(operations, card)]}


def catalogue(operations: Operations, base: str) -> dict[str, Any]:
    """Every CI of the mesh by its card, and this daemon's MCP server."""
    node = operations.daemon.node
    name = node.env.identity.name
    entries = [
        {
            "identifier": f"urn:tektonmesh:{show_id(node.env.me)}:mcp",
            "displayName": f"{name}: tools of the mesh",
            "mediaType": MCP_TYPE,
            "url": f"{base}/mcp",
        }
    ]
    for row in views.cis(node):
        entries.append(
            {
                "identifier": f"urn:tektonmesh:{row['address']}",
                "displayName": row["address"],
                "mediaType": CARD_TYPE,
                "url": f"{base}/a2a/{row['address']}/agent-card.json",
            }
        )
    host = {"displayName": name, "identifier": f"urn:tektonmesh:{show_id(node.env.me)}"}
    return {"specVersion": "1.0", "host": host, "entries": entries}


def text_of(message: Any) -> str:
    """The text of an A2A message. Raises LocalError for one without any."""
    parts = message.get("parts") if isinstance(message, dict) else None
    texts = [
        part["text"]
        for part in parts or []
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    ]
    if not texts:
        raise LocalError("The message has no part with text.", code="bad_request")
    return "\n".join(texts)
