"""A mapping over a base that is never changed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tektonmesh.core.layers import Layered, keep, layer, own_dict, own_list

KEYS = st.integers(0, 7)
DEEDS = st.lists(st.tuples(st.sampled_from(["put", "del", "pop"]), KEYS, st.integers(1, 9)))


def carry_out(deeds: list[tuple[str, int, int]], mapping: Any) -> None:
    for deed, key, value in deeds:
        if deed == "put":
            mapping[key] = value
        elif deed == "pop":
            mapping.pop(key, None)
        elif key in mapping:
            del mapping[key]


def test_what_is_not_here_is_the_bases() -> None:
    mapping = Layered({"a": 1, "b": 2})
    assert mapping["a"] == mapping.get("a") == 1
    assert "a" in mapping and "z" not in mapping
    assert mapping.get("z") is None and mapping.get("z", 7) == 7
    with pytest.raises(KeyError):
        mapping["z"]


def test_what_is_put_here_covers_the_base_and_leaves_it_alone() -> None:
    base = {"a": 1}
    mapping = Layered(base)
    mapping["a"], mapping["b"] = 5, 6
    assert dict(mapping) == {"a": 5, "b": 6} and len(mapping) == 2
    assert base == {"a": 1}


def test_what_is_deleted_here_is_still_in_the_base() -> None:
    base = {"a": 1, "b": 2}
    mapping = Layered(base)
    del mapping["a"]
    assert "a" not in mapping and mapping.get("a", 9) == 9 and len(mapping) == 1
    with pytest.raises(KeyError):
        mapping["a"]
    with pytest.raises(KeyError):
        del mapping["a"]
    mapping["a"] = 3
    assert mapping["a"] == 3 and len(mapping) == 2
    assert base == {"a": 1, "b": 2}


def test_the_bases_keys_come_first_then_new_ones_as_they_came() -> None:
    mapping = Layered({"b": 1, "a": 2})
    mapping["z"] = mapping["c"] = mapping["a"] = 0
    assert list(mapping) == ["b", "a", "z", "c"]


def test_only_what_was_put_here_may_be_changed_in_place() -> None:
    mapping = Layered({"a": [1]})
    assert not mapping.own("a") and not mapping.own("z")
    mapping["a"] = [2]
    assert mapping.own("a")


@given(first=DEEDS, second=DEEDS, third=DEEDS)
def test_layers_over_layers_are_as_one_dict(
    first: list[tuple[str, int, int]],
    second: list[tuple[str, int, int]],
    third: list[tuple[str, int, int]],
) -> None:
    plain: dict[int, int] = {}
    mapping: Any = layer(None)
    for deeds in (first, second, third):
        base, before = mapping, dict(mapping)
        mapping = layer(base)
        carry_out(deeds, mapping)
        carry_out(deeds, plain)
        assert dict(mapping) == plain
        assert len(mapping) == len(plain) == len(list(mapping))
        assert all((key in mapping) == (key in plain) for key in range(8))
        assert dict(base) == before


def test_without_a_base_it_is_a_plain_dict() -> None:
    assert type(layer(None)) is dict


def test_keeping_what_is_there_already_puts_nothing_into_the_layer() -> None:
    mapping = Layered({"a": (1, 2)})
    keep(mapping, "a", (1, 2))
    assert not mapping.own("a")
    keep(mapping, "a", (3, 4))
    assert mapping["a"] == (3, 4)
    keep(mapping, "a", None)
    keep(mapping, "a", None)
    assert "a" not in mapping


def test_a_dict_to_be_changed_is_new_or_here_or_a_copy_of_the_bases() -> None:
    base = {"a": {1: 2}}
    mapping = Layered(base)
    own_dict(mapping, "a")[3] = 4
    own_dict(mapping, "a")[5] = 6
    own_dict(mapping, "b")[7] = 8
    assert dict(mapping) == {"a": {1: 2, 3: 4, 5: 6}, "b": {7: 8}}
    assert base == {"a": {1: 2}}
    assert own_dict(base, "a") is base["a"]


def test_a_list_to_be_changed_is_new_or_here_or_a_copy_of_the_bases() -> None:
    base = {"a": [1]}
    mapping = Layered(base)
    own_list(mapping, "a").append(2)
    own_list(mapping, "a").append(3)
    own_list(mapping, "b").append(4)
    assert dict(mapping) == {"a": [1, 2, 3], "b": [4]}
    assert base == {"a": [1]}
    assert own_list(base, "a") is base["a"]
