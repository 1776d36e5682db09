"""How stack ids are shown and read."""

import pytest

from tektonmesh.core.ids import (
    check_characters,
    group_id,
    parse_id,
    show_id,
    stack_id_of,
    suffix_of,
)
from tektonmesh.errors import LocalError

SAMPLE = stack_id_of(bytes(range(32)))


def test_an_id_is_the_hash_of_a_prefix_and_the_root_key() -> None:
    assert show_id(SAMPLE) == show_id(stack_id_of(bytes(range(32))))
    assert stack_id_of(bytes(32)) != SAMPLE
    assert len(show_id(SAMPLE)) == 52


def test_both_forms_are_read_back() -> None:
    assert parse_id(show_id(SAMPLE)) == SAMPLE
    assert parse_id(group_id(SAMPLE)) == SAMPLE
    assert parse_id(f"  {show_id(SAMPLE).upper()} ") == SAMPLE


def test_the_grouped_form_ends_with_the_check_characters() -> None:
    assert group_id(SAMPLE).split("-")[-1] == check_characters(SAMPLE)
    assert group_id(SAMPLE).startswith(suffix_of(SAMPLE))


def test_a_wrong_length_is_named() -> None:
    with pytest.raises(LocalError, match="has 3 characters"):
        parse_id("abc")


@pytest.mark.parametrize("foreign", ["1", "é", "\ud800", "\x00", "８"], ids=ascii)
def test_a_foreign_character_is_named(foreign: str) -> None:
    with pytest.raises(LocalError, match="only the letters"):
        parse_id(foreign + show_id(SAMPLE)[1:])


def test_a_last_character_with_stray_bits_is_refused() -> None:
    with pytest.raises(LocalError, match="last character"):
        parse_id(show_id(bytes(32))[:-1] + "b")


def test_a_mistyped_character_is_noticed_by_the_check() -> None:
    shown = group_id(SAMPLE)
    other = "a" if shown[0] != "a" else "b"
    with pytest.raises(LocalError, match="mistyped"):
        parse_id(other + shown[1:])
