"""What makes a message the same one again: its idempotency key, and a print of what it says.

A key belongs to a sender and a target, so that callers do not need to know of one another.
"""

from __future__ import annotations

import hashlib

from tektonmesh.core.ci import key_of as ci_key
from tektonmesh.core.events import SendMessage
from tektonmesh.core.types import StackId
from tektonmesh.errors import LocalError

SIZE = 16


def key_of(command: SendMessage, stack: StackId, ci: str) -> bytes:
    """The caller's key with whom it belongs to; empty without one."""
    key = command.options.get("key")
    if not key:
        return b""
    said = "\0".join((command.sender, ci_key(ci), str(key))).encode()
    return hashlib.blake2b(stack + said, digest_size=SIZE).digest()


def print_of(command: SendMessage) -> bytes:
    """Of what a repetition must have in common."""
    no_reply = bool(command.options.get("no_reply"))
    large = command.options.get("large")
    body = command.body if large is None else large.root
    stream = "\0stream" if command.stream else ""
    said = f"{command.content_type}\0{no_reply}{stream}\0".encode() + body
    return hashlib.blake2b(said, digest_size=SIZE).digest()


def check_same(command: SendMessage, print: bytes) -> None:
    """Raises LocalError (`conflict`) if the key was used for another message."""
    if print_of(command) != print:
        raise LocalError(
            "This Idempotency-Key was used for another message to this target.",
            code="conflict",
            hint="Use a new key for a new message.",
            data={"field": "idempotency_key"},
        )


def is_durable(command: SendMessage) -> bool:
    """Whether its caller is answered as soon as it is accepted."""
    return bool(command.options.get("durable"))
