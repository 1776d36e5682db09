"""Notices for whoever watches: which of them a watcher asked for.

Shared by `subscribe` on the socket and by `/api/events`. Which notices exist is decided in the
core, how many may wait for a slow watcher in `net.notices`.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from tektonmesh.api import validate
from tektonmesh.core.notices import KINDS

_FAMILIES = tuple(dict.fromkeys(kind.partition("_")[0] for kind in KINDS))


def wanted_kinds(value: Any) -> list[str]:
    """The `kinds` of a subscription: words, or one text with commas; empty for all. Raises
    LocalError for a word that stands for no kind there is."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    kinds = validate.words("kinds", value)
    for word in kinds:
        if not any(matches(kind, [word]) for kind in KINDS):
            near = get_close_matches(word, [*KINDS, *_FAMILIES], n=1, cutoff=0.0)
            raise validate.field_error(
                "kinds", f"names no kind of notice: '{word}'", f"The nearest is '{near[0]}'."
            )
    return kinds


def matches(kind: str, kinds: Sequence[str]) -> bool:
    """`stack` stands for `stack_up`, `stack_left` and all others of its family."""
    return not kinds or any(kind == word or kind.startswith(word + "_") for word in kinds)
