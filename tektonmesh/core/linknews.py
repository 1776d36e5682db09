"""What one link was told of the news of owners, and what waits to be told to it.

A memory of `core/dissemination`, which decides what goes into it and what is sent when.
"""

from __future__ import annotations

from typing import NamedTuple

from tektonmesh.core.held import Held
from tektonmesh.core.types import ContentVersion, SignedKeyDoc, StackId, Version

WANT_MAX = 4096
KNOWN_MAX = 512
"""Owners of which a link's holdings are remembered, the ones heard of last. Of the others a link
whose replica once agreed with ours is assumed to hold what we held before the news; where that is
wrong it asks, which costs one round trip."""

Asked = tuple[StackId, ContentVersion | None]


class Known(NamedTuple):
    """What a link is known to hold of an owner, from what was last sent on it or came from it.
    `version` is None if only the record set is known; `keydoc` None if it may lack the newest."""

    version: Version | None
    head_hash: bytes
    content: ContentVersion | None
    keydoc: SignedKeyDoc | None


class LinkNews:
    """`news`, `refreshes` and `told` (to be announced) are the queues: owners, in the order they
    changed. Until `paused_until` the link digests the last flush. Of the owners `left_out` the peer
    wants no news. `wanted` was asked for on this link. `agreed` says that the peer once held all
    that we hold."""

    __slots__ = (
        "agreed",
        "eager",
        "known",
        "left_out",
        "news",
        "paused_until",
        "refreshes",
        "stack_id",
        "told",
        "wanted",
    )

    def __init__(self, stack_id: StackId) -> None:
        self.stack_id = stack_id
        self.eager = True
        self.agreed = False
        self.known: dict[StackId, Known] = {}
        self.news: dict[StackId, None] = {}
        self.told: dict[StackId, None] = {}
        self.refreshes: dict[StackId, None] = {}
        self.left_out: dict[StackId, None] = {}
        self.wanted: dict[StackId, None] = {}
        self.paused_until = 0.0

    def note(self, owner: StackId, known: Known) -> None:
        """Remember what the link holds of an owner; what was noted longest ago makes room."""
        self.known.pop(owner, None)
        self.known[owner] = known
        if len(self.known) > KNOWN_MAX:
            del self.known[next(iter(self.known))]

    def ask(self, owners: list[Asked]) -> None:
        """Remember what is asked for: its coming does not show that the link is one too many."""
        self.wanted |= dict.fromkeys(owner for owner, _have in owners)
        while len(self.wanted) > WANT_MAX:
            del self.wanted[next(iter(self.wanted))]


def contradicted(known: Known, held: Held) -> bool:
    """Whether the link holds another head of the version we hold, and so other records."""
    return known.version == held.version and known.head_hash != held.head_hash


def has(state: LinkNews, held: Held) -> bool:
    known = state.known.get(held.head.stack_id)
    return known is not None and known[:2] == (held.version, held.head_hash)
