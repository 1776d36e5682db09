"""What names a large body, and how it is cut."""

from __future__ import annotations

import pytest

from tektonmesh.core.large import (
    CHUNK_SIZE,
    Large,
    chunks_of,
    large_of,
    name_at,
    part_size,
    root_of,
    sum_of,
    sums_size,
    words_of,
)

SIZE = 3 * CHUNK_SIZE + 100


def test_all_chunks_but_the_last_are_full() -> None:
    assert chunks_of(SIZE) == 4 and chunks_of(3 * CHUNK_SIZE) == 3
    assert [part_size(SIZE, at * CHUNK_SIZE) for at in range(4)] == [*[CHUNK_SIZE] * 3, 100]


def test_the_sums_lie_behind_the_body_and_are_cut_likewise() -> None:
    assert part_size(SIZE, SIZE) == sums_size(SIZE) == 4 * 32
    long = CHUNK_SIZE * 3000
    assert sums_size(long) == 96_000
    assert part_size(long, long) == CHUNK_SIZE
    assert part_size(long, long + CHUNK_SIZE) == 96_000 - CHUNK_SIZE


def test_a_part_may_be_a_quarter_of_a_chunk() -> None:
    quarter = CHUNK_SIZE // 4
    assert part_size(SIZE, 5 * quarter, quarter) == quarter
    assert part_size(SIZE, 3 * CHUNK_SIZE, quarter) == 100
    assert part_size(SIZE, quarter, CHUNK_SIZE) == 0
    assert part_size(SIZE, 0, 0) == part_size(SIZE, 0, 1000) == 0


@pytest.mark.parametrize("offset", [-1, 1, CHUNK_SIZE + 1, SIZE + 1, SIZE + CHUNK_SIZE])
def test_no_part_begins_elsewhere(offset: int) -> None:
    assert part_size(SIZE, offset) == 0


def test_the_root_depends_on_the_size_and_on_every_sum() -> None:
    sums = sum_of(b"a") + sum_of(b"b")
    roots = {root_of(2, sums), root_of(3, sums), root_of(2, sums[::-1])}
    assert len(roots) == 3


def test_a_name_is_the_same_after_a_restart_and_tells_nothing() -> None:
    name = name_at(b"s" * 32, b"m" * 16)
    assert name == name_at(b"s" * 32, b"m" * 16) != name_at(b"s" * 32, b"n" * 16)
    assert (b"m" * 16).hex() not in name and name.endswith(".in")


def test_a_row_gives_back_what_was_put_in() -> None:
    large = Large("name.out", 5, b"r" * 32)
    assert large_of(words_of(large)) == large
    assert words_of(None) == [] and large_of([]) is None


@pytest.mark.parametrize("words", [[1, 2, 3], ["name", "5", b"r"], ["name", 5]])
def test_words_that_nobody_wrote_are_no_body(words: list[object]) -> None:
    assert large_of(words) is None
