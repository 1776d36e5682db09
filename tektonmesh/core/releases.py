"""The codes with which hops give envelopes back, in one table: who may say what, and what it means.

A hop may speak of links, paths and its own policy only, and its word proves nothing: it could pass
an envelope on and say that it did not. What a destination decides it says in a sealed nack, with a
code of the table in `errors`. `docs/reference/errors.md` is made from both.
"""

from __future__ import annotations

from typing import NamedTuple


class Release(NamedTuple):
    """`scope` is what the code speaks of; `certain` that no copy can be on its way, if the hop is
    honest; `next_step` what the hop that gets it back does."""

    scope: str
    certain: bool
    meaning: str
    next_step: str


_OTHER_WAY = "tries its next best candidate"

RELEASES: dict[str, Release] = {
    "no_path": Release("path", True, "Nobody leads on from here.", _OTHER_WAY),
    "busy": Release("link", True, "The memory for relaying is full.", _OTHER_WAY),
    "hops": Release("path", True, "The hop limit is used up.", _OTHER_WAY),
    "tries": Release("path", True, "The tries are used up.", _OTHER_WAY),
    "expired": Release("path", True, "It is older than its time to live.", _OTHER_WAY),
    "refused": Release("policy", True, "This stack does not relay for these two.", _OTHER_WAY),
    "too_large": Release("link", True, "It could outgrow the next link's limit.", _OTHER_WAY),
    "version": Release("link", True, "Its version is not known here.", _OTHER_WAY),
    "quota": Release(
        "path", True, "Its origin sends more through here than this stack passes on.", _OTHER_WAY
    ),
    "full": Release(
        "destination", True, "The destination itself has no room.", "gives it back to the origin"
    ),
    "duplicate": Release("path", False, "It has been here before.", _OTHER_WAY),
    "lost": Release("path", False, "Nobody knows what became of it.", _OTHER_WAY),
}


def is_certain(code: str) -> bool:
    """Whether, after a release with this code, no copy can be on its way. Of a code that is not
    known here nothing is certain."""
    known = RELEASES.get(code)
    return known is not None and known.certain
