import pytest

from tektonmesh.core.wheel import Waiting, Wheel
from tests.support import advance, make_env


class Thing(Waiting):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Bench:
    """A wheel with a record of what woke at which instant."""

    def __init__(self) -> None:
        self.env = make_env()
        self.woke: list[tuple[str, float]] = []
        self.wheel: Wheel[Thing] = Wheel(self.env, "bench", self._due)

    def _due(self, thing: Thing) -> None:
        self.woke.append((thing.name, self.env.now))


def test_an_item_wakes_once_within_a_slot_after_its_instant() -> None:
    bench = Bench()
    bench.wheel.arm(Thing("a"), 1000.5)
    advance(bench.env, 5.0)
    [(name, instant)] = bench.woke
    assert name == "a"
    assert 1000.5 <= instant <= 1000.5 + 0.011


@pytest.mark.parametrize("n", range(40))
def test_an_item_never_wakes_early_whatever_the_rounding(n: int) -> None:
    bench = Bench()
    instant = 1000.0 + n * 0.01
    bench.wheel.arm(Thing("a"), instant)
    advance(bench.env, 5.0)
    assert bench.woke[0][1] >= instant


def test_items_wake_in_the_order_of_their_instants() -> None:
    bench = Bench()
    for name, at in (("late", 1002.0), ("early", 1001.0), ("middle", 1001.5)):
        bench.wheel.arm(Thing(name), at)
    advance(bench.env, 5.0)
    assert [name for name, _ in bench.woke] == ["early", "middle", "late"]


def test_items_of_one_slot_share_one_deadline() -> None:
    bench = Bench()
    for n in range(100):
        bench.wheel.arm(Thing(str(n)), 1001.0)
    assert len(bench.env.deadlines) == 1
    advance(bench.env, 2.0)
    assert len(bench.woke) == 100


def test_a_moved_item_wakes_once_at_its_last_instant() -> None:
    bench = Bench()
    thing = Thing("a")
    for instant in (1005.0, 1001.0, 1003.0):
        bench.wheel.arm(thing, instant)
    advance(bench.env, 10.0)
    assert len(bench.woke) == 1
    assert bench.woke[0][1] == pytest.approx(1003.01)


def test_a_disarmed_item_never_wakes_and_can_be_armed_again() -> None:
    bench = Bench()
    thing = Thing("a")
    bench.wheel.arm(thing, 1001.0)
    bench.wheel.disarm(thing)
    advance(bench.env, 5.0)
    assert bench.woke == []
    bench.wheel.arm(thing, 1006.0)
    advance(bench.env, 5.0)
    assert len(bench.woke) == 1


def test_an_instant_in_the_past_wakes_in_the_next_turn() -> None:
    bench = Bench()
    bench.wheel.arm(Thing("a"), 900.0)
    advance(bench.env, 0.0)
    assert [name for name, _ in bench.woke] == ["a"]


def test_nothing_is_due_once_all_that_waited_is_disarmed() -> None:
    bench = Bench()
    things = [Thing(str(n)) for n in range(30)]
    for n, thing in enumerate(things):
        bench.wheel.arm(thing, 1001.0 + n / 20)
    for thing in things[:-1]:
        bench.wheel.disarm(thing)
    assert bench.env.deadlines.earliest() >= things[-1].wake
    bench.wheel.disarm(things[-1])
    assert len(bench.env.deadlines) == 0


def test_what_wakes_first_can_disarm_the_others_of_its_slot() -> None:
    bench = Bench()
    things = [Thing(str(n)) for n in range(3)]

    def due(thing: Thing) -> None:
        bench.woke.append((thing.name, bench.env.now))
        bench.wheel.disarm(things[1])

    bench.wheel = Wheel(bench.env, "bench", due)
    for thing in things:
        bench.wheel.arm(thing, 1001.0)
    advance(bench.env, 2.0)
    assert [name for name, _ in bench.woke] == ["0", "2"]
