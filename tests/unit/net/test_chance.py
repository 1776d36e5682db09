"""The system's randomness in pages."""

import pytest

from tektonmesh.net.chance import PAGE_SIZE, SystemChance


def test_no_byte_is_handed_out_twice() -> None:
    chance = SystemChance()
    drawn = [chance.randbytes(16) for _ in range(PAGE_SIZE // 16 + 10)]
    assert len(set(drawn)) == len(drawn)
    assert all(len(taken) == 16 for taken in drawn)


def test_more_than_a_page_can_be_drawn_at_once() -> None:
    chance = SystemChance()
    chance.randbytes(1)
    assert len(chance.randbytes(PAGE_SIZE + 7)) == PAGE_SIZE + 7
    assert len(chance.randbytes(5)) == 5


def test_random_is_evenly_below_one() -> None:
    chance = SystemChance()
    drawn = [chance.random() for _ in range(5000)]
    assert all(0.0 <= value < 1.0 for value in drawn)
    assert 0.45 < sum(drawn) / len(drawn) < 0.55  # 12 standard errors either way


@pytest.mark.parametrize("stop", [1, 2, 3, 255, 256, 257, 10**12])
def test_randrange_stays_in_range_and_reaches_its_ends(stop: int) -> None:
    chance = SystemChance()
    drawn = [chance.randrange(stop) for _ in range(400 if stop <= 3 else 50)]
    assert all(0 <= value < stop for value in drawn)
    if stop <= 3:
        assert sorted(set(drawn)) == list(range(stop))
