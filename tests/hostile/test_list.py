"""The list of hostile tries and the tests are held against each other."""

from __future__ import annotations

from pathlib import Path

from tests import marks


def entries() -> dict[str, str]:
    """id -> sentence."""
    listed = marks.entries(Path(__file__).parent / "list.toml")
    return {name: text for group in listed.values() for name, text in group.items()}


def test_every_entry_of_the_list_has_a_test_that_names_it() -> None:
    assert sorted(entries().keys() - marks.named("hostile").keys()) == []


def test_every_test_names_an_entry_of_the_list() -> None:
    assert sorted(marks.named("hostile").keys() - entries().keys()) == []


def test_every_entry_says_in_a_sentence_what_is_tried_and_what_comes_of_it() -> None:
    for name, text in entries().items():
        assert isinstance(text, str), f"{name}: an entry is a sentence; none waits for anything"
        assert ": " in text and text.endswith("."), name
