"""The table of notices names every notice there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tektonmesh.api.events import wanted_kinds
from tektonmesh.core.graph import _STATE_NOTICES
from tektonmesh.core.notices import KINDS
from tektonmesh.errors import LocalError

PACKAGE = Path(__file__).parents[3] / "tektonmesh"
_GIVEN = re.compile(
    r"""(?:notices?|_tell|_notice|\.say|Notice)\(\s*"([a-z]+_[a-z_]+|converged)\""""
)


def given() -> dict[str, None]:
    """The kinds that the source gives in so many words, and those made of parts."""
    found = dict.fromkeys(_STATE_NOTICES.values())
    found |= dict.fromkeys(("peer_pending", "peer_refused"))
    for path in sorted(PACKAGE.rglob("*.py")):
        if "cli" not in path.parts:
            found |= dict.fromkeys(_GIVEN.findall(path.read_text(encoding="utf-8")))
    return found


def test_the_table_holds_every_kind_that_is_given_and_no_other() -> None:
    assert sorted(given()) == sorted(KINDS)


def test_a_subscription_names_kinds_or_families() -> None:
    assert wanted_kinds("ci_up, stack") == ["ci_up", "stack"]
    assert wanted_kinds(None) == []


@pytest.mark.parametrize(("wrong", "near"), [("ci_upp", "ci_up"), ("stacks", "stack")])
def test_an_unknown_kind_is_refused_and_the_nearest_is_named(wrong: str, near: str) -> None:
    with pytest.raises(LocalError) as caught:
        wanted_kinds(["link", wrong])
    assert wrong in caught.value.detail and f"'{near}'" in caught.value.hint
