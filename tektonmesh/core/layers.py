"""A mapping over a base that it shares with others and never changes.

Ten thousand nodes that hold nearly the same ten thousand owners fit into one process only if they
share them. What a node puts or deletes is kept in a layer of its own. A value of the base must
never be changed in place: whoever wants to change it puts a changed copy first. A daemon is alone
in its process and uses plain dicts.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
A = TypeVar("A")
B = TypeVar("B")


class Layered(MutableMapping[K, V]):
    """Reads fall through to `base`; writes stay here. Iterates over the base's keys first, in
    their order, then over new ones in the order they came."""

    __slots__ = ("_added", "_base", "_gone", "_own")

    def __init__(self, base: MutableMapping[K, V]) -> None:
        self._base = base
        self._own: dict[K, V] = {}
        self._gone: dict[K, None] = {}
        self._added = 0

    def __getitem__(self, key: K) -> V:
        own = self._own
        if key in own:
            return own[key]
        if key in self._gone:
            raise KeyError(key)
        return self._base[key]

    def get(self, key: K, default: V | None = None) -> V | None:  # type: ignore[override]
        own = self._own
        if key in own:
            return own[key]
        return default if key in self._gone else self._base.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._own or (key in self._base and key not in self._gone)

    def __setitem__(self, key: K, value: V) -> None:
        if key not in self._own and key not in self._base:
            self._added += 1
        elif key in self._gone:
            del self._gone[key]
        self._own[key] = value

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._own.pop(key, None)
        if key in self._base:
            self._gone[key] = None
        else:
            self._added -= 1

    def __iter__(self) -> Iterator[K]:
        for key in self._base:
            if key not in self._gone:
                yield key
        for key in self._own:
            if key not in self._base:
                yield key

    def __len__(self) -> int:
        return len(self._base) - len(self._gone) + self._added

    def own(self, key: K) -> bool:
        """Whether the value under `key` is this layer's, and so may be changed in place."""
        return key in self._own


def layer(base: MutableMapping[K, V] | None) -> MutableMapping[K, V]:
    """An empty mapping of one's own, or a layer over what `base` holds."""
    return {} if base is None else Layered(base)


def keep(mapping: MutableMapping[K, V], key: K, value: V | None) -> None:
    """Put `value` under `key`, or with None nothing. What is there already is left alone, so that
    a layer holds what differs and no more."""
    if value is None:
        mapping.pop(key, None)
    elif mapping.get(key) != value:
        mapping[key] = value


def own_list(mapping: MutableMapping[K, list[A]], key: K) -> list[A]:
    """The list under `key`, to be changed in place, as `own_dict` does it for a dict."""
    held = mapping.get(key)
    if held is None:
        held = mapping[key] = []
    elif isinstance(mapping, Layered) and not mapping.own(key):
        held = mapping[key] = list(held)
    return held


def own_dict(mapping: MutableMapping[K, dict[A, B]], key: K) -> dict[A, B]:
    """The dict under `key`, to be changed in place: an empty one if there was none, a copy if it
    is the base's."""
    held = mapping.get(key)
    if held is None:
        held = mapping[key] = {}
    elif isinstance(mapping, Layered) and not mapping.own(key):
        held = mapping[key] = dict(held)
    return held
