"""The list of failures and the tests are held against each other."""

from __future__ import annotations

from pathlib import Path

from tests import marks

WITH_DAEMONS = ("failures/", "e2e/")
ENTRIES = marks.entries(Path(__file__).parent / "list.toml")


def test_every_failure_of_the_list_has_a_test_that_names_it() -> None:
    listed = {name for group in ENTRIES.values() for name in group}
    assert sorted(listed ^ marks.named("failure").keys()) == []


def test_what_is_said_to_be_shown_on_daemons_is_and_nothing_else() -> None:
    shown = {
        entry
        for entry, tests in marks.named("failure").items()
        if any(test.startswith(WITH_DAEMONS) for test in tests)
    }
    assert sorted(shown ^ ENTRIES["daemons"].keys()) == []


def test_every_entry_says_in_a_sentence_what_fails_and_what_comes_of_it() -> None:
    for group in ENTRIES.values():
        for name, text in group.items():
            assert ": " in text and text.endswith("."), name
