"""Notices for whoever watches: which of them a watcher asked for.

Shared by `subscribe` on the socket and by `/api/events`. Which notices exist is decided in the
core, how many may wait for a slow watcher in `net.notices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tektonmesh.api import validate


def wanted_kinds(value: Any) -> list[str]:
    """The `kinds` of a subscription: words, or one text with commas; empty for all."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    return validate.words("kinds", value)


def matches(kind: str, kinds: Sequence[str]) -> bool:
    """`stack` stands for `stack_up`, `stack_left` and all others of its family."""
    return not kinds or any(kind == word or kind.startswith(word + "_") for word in kinds)
