from __future__ import annotations

import hashlib

import pytest

from tektonmesh.core import record
from tektonmesh.core.record import EMPTY_ROOT, RecordSet, differing, is_key, leaf
from tektonmesh.errors import RemoteError

BOTH = RecordSet().changed(
    [(0, "stack/self", b"s"), (1, "ci/numa", b"n"), (1, "ci/apollo", b"a")], []
)


@pytest.mark.parametrize("key", ["ci/numa", "addr/0", "x-1/~!", "a/" + "b" * 126, "ci/a/b"])
def test_a_key_is_kind_and_name(key: str) -> None:
    assert is_key(key)


@pytest.mark.parametrize(
    "key",
    ["", "ci", "ci/", "/numa", "CI/numa", "ci/nu ma", "ci/ñ", "ci/a\n", "1/a", "a/" + "b" * 127],
)
def test_other_keys_are_refused(key: str) -> None:
    assert not is_key(key)
    with pytest.raises(RemoteError, match="key"):
        RecordSet().changed([(1, key, b"")], [])


def test_a_leaf_is_the_hash_of_length_key_and_value() -> None:
    data = b"\x00\x07ci/numavalue"
    assert leaf("ci/numa", b"value") == hashlib.blake2b(data, digest_size=32).digest()


def test_a_root_is_the_hash_of_its_scope_s_leaves_by_key() -> None:
    leaves = leaf("ci/apollo", b"a") + leaf("ci/numa", b"n")
    assert BOTH.roots() == {
        0: hashlib.blake2b(leaf("stack/self", b"s"), digest_size=32).digest(),
        1: hashlib.blake2b(leaves, digest_size=32).digest(),
    }


def test_the_order_of_changes_does_not_change_the_roots() -> None:
    other = RecordSet().changed([(1, "ci/apollo", b"old"), (1, "ci/gone", b"")], [])
    other = other.changed([(1, "ci/numa", b"n"), (1, "ci/apollo", b"a")], [(1, "ci/gone")])
    other = other.changed([(0, "stack/self", b"s")], [])
    assert other.roots() == BOTH.roots()
    assert other.size == BOTH.size


def test_a_change_leaves_the_set_before_it_as_it_was() -> None:
    before = dict(BOTH.records), BOTH.roots(), BOTH.size
    changed = BOTH.changed([(1, "ci/numa", b"new")], [(1, "ci/apollo")])
    assert (dict(BOTH.records), BOTH.roots(), BOTH.size) == before
    assert changed.records == {"stack/self": b"s", "ci/numa": b"new"}


def test_deleting_what_is_not_there_changes_nothing() -> None:
    same = BOTH.changed([], [(1, "ci/nobody"), (0, "ci/numa")])
    assert same.records == BOTH.records


def test_a_record_of_an_unknown_kind_keeps_the_scope_it_came_with() -> None:
    held = RecordSet().changed([(7, "mood/today", b"m")], [])
    assert held.scope_of("mood/today") == 7
    assert held.roots()[7] != EMPTY_ROOT
    moved = held.changed([(8, "mood/today", b"m")], [(7, "mood/today")])
    assert moved.scope_of("mood/today") == 8


@pytest.mark.parametrize(
    ("put", "why"),
    [
        ((0, "ci/numa", b""), "scope"),
        ((16, "mood/today", b""), "scope"),
        ((-1, "mood/today", b""), "scope"),
        ((1, "ci/big", bytes(2049)), "size"),
    ],
)
def test_a_record_that_breaks_a_rule_is_refused(put: tuple[int, str, bytes], why: str) -> None:
    with pytest.raises(RemoteError, match=why):
        RecordSet().changed([put], [])


def test_a_record_cannot_be_in_two_scopes() -> None:
    with pytest.raises(RemoteError, match="two scopes"):
        RecordSet().changed([(7, "mood/today", b""), (8, "mood/today", b"")], [])


@pytest.mark.hostile("over-quota")
def test_the_quotas_of_an_owner_hold() -> None:
    many = [(1, f"ci/{n}", b"") for n in range(record.RECORDS_MAX)]
    full = RecordSet().changed(many, [])
    assert full.changed([(1, "ci/0", b"x")], []).records["ci/0"] == b"x"
    with pytest.raises(RemoteError, match="quota"):
        full.changed([(1, "ci/more", b"")], [])
    large = [(1, f"ci/{n}", bytes(2048)) for n in range(520)]
    with pytest.raises(RemoteError, match="quota"):
        RecordSet().changed(large, [])


def test_only_the_roots_of_these_records_match() -> None:
    roots = BOTH.roots()
    assert BOTH.matches(roots)
    assert not BOTH.matches(roots | {1: bytes(32)})
    assert not BOTH.matches({0: roots[0]})
    assert not BOTH.matches(roots | {5: bytes(32)})


def test_an_empty_scope_may_be_named_or_not() -> None:
    assert RecordSet().matches({})
    assert BOTH.matches(BOTH.roots() | {5: EMPTY_ROOT})


def test_the_root_of_a_restricted_scope_is_not_compared() -> None:
    assert BOTH.matches(BOTH.roots() | {16: bytes(32)})


def test_records_are_told_sorted() -> None:
    assert BOTH.puts() == (
        (0, "stack/self", b"s"),
        (1, "ci/apollo", b"a"),
        (1, "ci/numa", b"n"),
    )
    assert BOTH.puts(["ci/numa"]) == ((1, "ci/numa", b"n"),)


def test_what_differs_between_two_sets() -> None:
    other = BOTH.changed([(1, "ci/numa", b"x"), (1, "ci/zeno", b"")], [(1, "ci/apollo")])
    assert differing(BOTH, other) == ("ci/apollo", "ci/numa", "ci/zeno")
    assert differing(BOTH, BOTH.changed([(1, "ci/numa", b"n")], [])) == ()
