"""Selectors as people write them."""

import pytest

from tektonmesh.core.selectors import Selector, is_selector, parse_selector
from tektonmesh.errors import LocalError


@pytest.mark.parametrize(
    ("target", "kind", "word"),
    [
        ("specialty:vision", "specialty", "vision"),
        (" Capability: Code-Review ", "capability", "code-review"),
        ("ci:Athena@*", "ci", "athena"),
        ("ci:athena", "ci", "athena"),
        ("team:night shift", "team", "night shift"),
    ],
)
def test_a_selector_is_a_kind_and_a_word_without_regard_to_case(
    target: str, kind: str, word: str
) -> None:
    assert parse_selector(target) == Selector(kind, word)


def test_a_selector_is_shown_as_it_would_be_written() -> None:
    assert Selector("team", "red").shown() == "team:red"
    assert Selector("ci", "athena").shown() == "ci:athena@*"


def test_no_address_is_taken_for_a_selector() -> None:
    assert not is_selector("numa@west") and not is_selector("numa")
    assert is_selector("nonsense:x")


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("colour:red", "is not a selector"),
        (":red", "is not a selector"),
        ("team:", "says no word"),
        ("team:" + "x" * 65, "says no word"),
        ("team:a\x1bb", "says no word"),
        ("ci:", "names no CI"),
        ("ci:athena@west", "names no CI"),
    ],
)
def test_what_is_no_selector_is_refused_with_what_to_write(target: str, says: str) -> None:
    with pytest.raises(LocalError, match=says) as refused:
        parse_selector(target)
    assert refused.value.code.name == "bad_request" and refused.value.hint.startswith("Write")
