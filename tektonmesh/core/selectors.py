"""Selectors: targets that name what is wanted instead of who answers.

`specialty:vision` and `capability:code-review` mean one CI that says so, `ci:athena@*` one CI of
that name on whatever stack, `team:reviewers` every CI of that team. Only the words are read here;
who fits them is `directory`'s, who of those gets the message `choosing`'s.
"""

from __future__ import annotations

from typing import NamedTuple

from tektonmesh.core.names import NAME
from tektonmesh.errors import LocalError

SPECIALTY, CAPABILITY, CI, TEAM = "specialty", "capability", "ci", "team"
KINDS = (SPECIALTY, CAPABILITY, CI, TEAM)
ANYWHERE = "@*"
WORD_SIZE_MAX = 64
"""As long as a word of a registration can be."""


class Selector(NamedTuple):
    """`word` is in lower case, the form that words and names are compared in."""

    kind: str
    word: str

    def shown(self) -> str:
        """As people write it."""
        return f"{self.kind}:{self.word}{ANYWHERE if self.kind == CI else ''}"


def is_selector(target: str) -> bool:
    """Whether a target is meant as a selector: a colon is in no address."""
    return ":" in target


def parse_selector(target: str) -> Selector:
    """Read a selector. Raises LocalError `bad_request` for what is none."""
    kind, _, word = target.strip().partition(":")
    kind, word = kind.strip().lower(), word.strip().lower()
    if kind not in KINDS:
        raise LocalError(
            f"'{target}' is not a selector.",
            hint="Write specialty:WORD, capability:WORD, ci:NAME@* or team:WORD.",
        )
    if kind == CI:
        word = word.removesuffix(ANYWHERE)
        if NAME.fullmatch(word) is None:
            raise LocalError(
                f"'{target}' names no CI.",
                hint="Write ci:NAME@* for any of that name, or NAME@STACK for a certain one.",
            )
    elif not 0 < len(word) <= WORD_SIZE_MAX or not word.isprintable():
        raise LocalError(
            f"'{target}' says no word of 1 to {WORD_SIZE_MAX} characters.",
            hint=f"Write {kind}:WORD.",
        )
    return Selector(kind, word)
