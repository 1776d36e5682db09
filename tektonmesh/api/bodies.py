"""Bodies in the parameters and answers of operations: text where it is text, base64 where not."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from tektonmesh.api import validate
from tektonmesh.api.dialect import shown_body


def body_of(given: Mapping[str, Any], key: str = "body") -> bytes:
    """The bytes of `key` (text) or `key_b64`; empty when neither is there."""
    encoded = given.get(f"{key}_b64")
    if encoded is not None:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise validate.field_error(f"{key}_b64", "is not base64") from None
    body = given.get(key)
    if body is None:
        return b""
    if not isinstance(body, str):
        raise validate.field_error(key, "must be text", f"Send other bytes as '{key}_b64'.")
    return encode_text(key, body)


def encode_text(field_name: str, body: str) -> bytes:
    """UTF-8; a lone surrogate (which JSON can spell) is refused, since it has no bytes."""
    try:
        return body.encode()
    except UnicodeEncodeError:
        raise validate.field_error(field_name, "holds half of a surrogate pair") from None


def reply_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of the core as the doors show it: the body as text where it is text. The answer
    of a team has a body in each of its rows that has one, and none of its own."""
    shown = dict(result)
    if "targets" in shown:
        rows = shown["targets"]
        shown["targets"] = [reply_of(row) if "body" in row else row for row in rows]
        return shown
    body = shown.pop("body", b"")
    return shown | shown_body(body)
