"""Names on the common list: stable, unambiguous, short enough."""

from __future__ import annotations

import re

import pytest

from tektonmesh.mcp.names import (
    NAME_SIZE_MAX,
    exposed_name,
    exposed_uri,
    reference,
    split_reference,
    split_uri,
)

FORM = re.compile(r"[A-Za-z0-9_-]{1,48}")


def test_a_plain_name_is_its_three_words() -> None:
    assert exposed_name("west", "numa", "read-file") == "west__numa__read-file"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b__c", "d"), ("a__b", "c", "d")),
        (("a", "b_", "c"), ("a", "b", "_c")),
        (("a.b", "c", "d"), ("a_b", "c", "d")),
        (("a", "b", "x" * 60), ("a", "b", "x" * 61)),
        (("a", "b", "é"), ("a", "b", "è")),
    ],
)
def test_different_words_have_different_names(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    assert exposed_name(*one) != exposed_name(*other)


@pytest.mark.parametrize("item", ["x" * 200, "a b", "ü", "_", "__", "\ud800", "a.b/c"])
def test_every_name_is_of_the_form_and_keeps_a_readable_head(item: str) -> None:
    name = exposed_name("west", "numa", item)
    assert FORM.fullmatch(name)
    assert name.startswith("west__numa")
    assert len(name) <= NAME_SIZE_MAX


def test_a_name_depends_on_the_words_alone() -> None:
    long = ("west.tekton.research.us", "numa", "a_rather_long_name_of_a_tool")
    assert (
        exposed_name(*long)
        == exposed_name(*long)
        == "west_tekton_research_us__numa__a_rather_" + (exposed_name(*long)[-8:])
    )


@pytest.mark.parametrize(
    "uri", ["file:///a b/c", "note://x/{id}/y?q=1#z", "weird", "mesh://a/b/c", "ü://é"]
)
def test_a_uri_comes_back_as_it_was(uri: str) -> None:
    assert split_uri(exposed_uri("west", "numa", uri)) == ("west", "numa", uri)


@pytest.mark.parametrize("uri", ["note://one", "mesh://registry", "mesh://a/b", "mesh:///b/c", ""])
def test_other_uris_are_none_of_a_ci(uri: str) -> None:
    assert split_uri(uri) is None


def test_templates_can_be_filled_in_by_the_host() -> None:
    assert exposed_uri("w", "n", "note://{id}/x") == "mesh://w/n/note%3A%2F%2F{id}%2Fx"


def test_a_reference_is_an_address_and_an_item() -> None:
    assert split_reference(reference("numa", "west", "a/b")) == ("numa@west", "a/b")
    assert [split_reference(text) for text in ("numa@west", "/x", "x/")] == [None, None, None]
