"""What is left to the garbage collector of a daemon."""

import gc
from collections.abc import Iterator

import pytest

from tektonmesh.net.memory import YOUNG_MAX, calm_collector


@pytest.fixture
def collector() -> Iterator[None]:
    """Puts the collector of this process back as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_exists_at_the_start_is_not_looked_at_again() -> None:
    calm_collector()
    assert gc.get_freeze_count() > 1000
    assert len(gc.get_objects()) < 1000
    assert gc.get_threshold()[0] == YOUNG_MAX


@pytest.mark.usefixtures("collector")
def test_cycles_that_come_later_are_still_freed() -> None:
    calm_collector()
    freed: list[int] = []

    class Thing:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            freed.append(1)

    for _ in range(2 * YOUNG_MAX):
        Thing()
    assert freed
