"""`@frozen` promises what `@dataclass(frozen=True, slots=True)` does: each holds for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace
from typing import Any

import pytest

from tektonmesh.core.frozen import frozen

Make = Callable[[type], Any]
WAYS: list[Make] = [frozen, dataclass(frozen=True, slots=True)]


@pytest.fixture(params=WAYS, ids=["frozen", "dataclass"])
def make(request: pytest.FixtureRequest) -> Make:
    way: Make = request.param
    return way


@pytest.fixture
def point(make: Make) -> Any:
    class Point:
        x: int
        y: int = 2
        tags: list[str] = field(default_factory=list)

        def size(self) -> int:
            return self.x + self.y

    return make(Point)


@pytest.fixture
def nothing(make: Make) -> Any:
    class Nothing:
        pass

    return make(Nothing)


def test_fields_are_given_by_place_by_name_or_by_default(point: Any) -> None:
    one = point(1, y=3)
    assert (one.x, one.y, one.tags, one.size()) == (1, 3, [], 4)
    assert (point(1).y, point(1, 2, ["a"]).tags) == (2, ["a"])


def test_each_value_has_a_default_of_its_own_from_a_factory(point: Any) -> None:
    assert point(1).tags is not point(1).tags


def test_a_field_without_a_default_must_be_given_and_another_must_not(point: Any) -> None:
    with pytest.raises(TypeError, match="missing"):
        point()
    with pytest.raises(TypeError, match="unexpected"):
        point(1, z=3)


def test_values_are_equal_when_class_and_fields_are(make: Make, point: Any, nothing: Any) -> None:
    class Other:
        x: int
        y: int
        tags: list[str]

    other = make(Other)
    assert point(1) == point(1, 2, [])
    assert point(1) != point(2)
    assert point(1) != other(1, 2, [])
    assert point(1) != (1, 2, [])
    assert nothing() == nothing()
    assert nothing() != make(type("Empty", (), {}))()


def test_equal_values_have_one_hash_and_a_field_without_one_refuses(point: Any) -> None:
    assert hash(point(1, 2, ())) == hash(point(1, 2, ()))
    assert len({point(1, 2, ()), point(1, 2, ()), point(2, 2, ())}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(point(1))


def test_a_value_is_always_true(nothing: Any) -> None:
    assert nothing()


def test_a_value_shows_its_class_and_fields(point: Any, nothing: Any) -> None:
    assert repr(point(1, 2, ["a"])).endswith("Point(x=1, y=2, tags=['a'])")
    assert repr(nothing()).endswith("Nothing()")


def test_a_value_cannot_be_changed(point: Any) -> None:
    one = point(1)
    with pytest.raises(FrozenInstanceError, match="'x'"):
        one.x = 2
    with pytest.raises(FrozenInstanceError, match="'x'"):
        del one.x
    with pytest.raises((FrozenInstanceError, TypeError)):
        one.other = 2
    assert one.x == 1
    assert not hasattr(one, "__dict__")


def test_the_tools_of_dataclasses_and_patterns_work(point: Any) -> None:
    assert [one.name for one in fields(point)] == ["x", "y", "tags"]
    assert replace(point(1), x=5) == point(5)
    match point(1, 7):
        case point(x, y):
            assert (x, y) == (1, 7)
        case _:
            pytest.fail("the pattern did not match")


def test_a_class_with_work_of_its_own_after_making_is_refused() -> None:
    class Works:
        x: int

        def __post_init__(self) -> None:
            raise AssertionError("never called")

    with pytest.raises(AssertionError, match="dataclass"):
        frozen(Works)
