"""The grammar of names, addresses and ids."""

from __future__ import annotations

import pytest

from tektonmesh.config.names import (
    check_address,
    check_id,
    check_name,
    nearest,
    normalise_name,
    numbered_name,
)
from tektonmesh.errors import LocalError


@pytest.mark.parametrize("name", ["a", "west", "west.tekton.research.us", "0-9_x", "a" * 63])
def test_a_name_of_the_grammar_is_taken_as_it_is(name: str) -> None:
    assert check_name(name, "name") == name


@pytest.mark.parametrize("name", ["", "-a", ".a", "West", "a@b", "a b", "ä", "a" * 64, "a\n"])
def test_a_name_outside_the_grammar_is_refused_with_one_that_fits(name: str) -> None:
    with pytest.raises(LocalError) as caught:
        check_name(name, "The stack name")
    assert "The stack name" in caught.value.detail
    suggested = caught.value.hint.rpartition("such as '")[2].rstrip("'.")
    assert check_name(suggested, "suggestion") == suggested


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("Anna's-MacBook.local", "anna-s-macbook"),
        ("UPPER", "upper"),
        ("...", "stack"),
        ("", "stack"),
        ("日本", "stack"),
        ("x" * 80, "x" * 63),
        ("west.example", "west.example"),
    ],
)
def test_a_host_name_is_brought_into_the_grammar(host: str, name: str) -> None:
    assert normalise_name(host) == name
    assert check_name(normalise_name(host), "name")


def test_the_second_of_a_name_is_numbered_and_still_fits() -> None:
    assert numbered_name("west", 1) == "west"
    assert numbered_name("west", 2) == "west-2"
    assert check_name(numbered_name("x" * 63, 12), "name").endswith("-12")


@pytest.mark.parametrize(
    "address", ["1.2.3.4:7700", "west.example:1", "[::1]:65535", "[fe80::1]:7"]
)
def test_an_address_of_host_and_port_is_taken_as_it_is(address: str) -> None:
    assert check_address(address, "seed") == address


@pytest.mark.parametrize(
    "address",
    ["", "west", ":7700", "[]:7700", "::1:7700", "a:b", "a:", "a:0", "a:65536", "a: 7", "a:\u0667"],
)
def test_anything_else_is_refused_as_an_address(address: str) -> None:
    with pytest.raises(LocalError):
        check_address(address, "seed")


def test_port_zero_is_for_listening_only() -> None:
    assert check_address("127.0.0.1:0", "listen", port_zero=True) == "127.0.0.1:0"


def test_an_id_loses_its_grouping_and_keeps_its_check_characters() -> None:
    grouped = "-".join(["abcd"] * 13 + ["ef"])
    assert check_id(grouped, "allow") == "abcd" * 13 + "ef"
    assert check_id("ABCD" * 13, "allow") == "abcd" * 13


@pytest.mark.parametrize("text", ["", "abcd", "a" * 53, "1" * 52, "ü" * 52])
def test_what_cannot_be_an_id_is_refused(text: str) -> None:
    with pytest.raises(LocalError):
        check_id(text, "allow")


def test_the_nearest_word_is_named_only_when_it_is_near() -> None:
    assert nearest("statu", ["status", "stacks"]) == "status"
    assert nearest("zzz", ["status", "stacks"]) is None
