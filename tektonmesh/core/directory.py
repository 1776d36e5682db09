"""Which CIs of the mesh answer to which word: an index over the records of other stacks.

Selectors are resolved for every message, so the records of ten thousand CIs must not be read each
time. The index is made when the first selector is used; from then on an owner whose CIs changed is
read anew before the next search. Records are a stranger's input: what makes no sense in them is
passed over. The CIs of this stack are looked at directly, private ones as well, since only callers
of this stack ask here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tektonmesh.core.ci import UP, Ci, key_of
from tektonmesh.core.cis import Cis
from tektonmesh.core.names import NAME
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.selectors import CAPABILITY, CI, SPECIALTY, TEAM, Selector
from tektonmesh.core.types import StackId

WORDS_OF = {SPECIALTY: "specialties", CAPABILITY: "capabilities", TEAM: "teams"}
"""Where the words of a selector stand in a record."""


class Listed(NamedTuple):
    """A CI that fits a selector: its stack, its name in lower case, whether it takes messages by
    its own stack's word."""

    stack: StackId
    ci: str
    is_up: bool


class Directory:
    """Finds CIs by selector."""

    def __init__(self, me: StackId, replica: Replica, cis: Cis) -> None:
        self._me = me
        self._replica = replica
        self._cis = cis
        self._index: dict[Selector, dict[tuple[StackId, str], None]] = {}
        self._of_owner: dict[StackId, list[tuple[Selector, str]]] = {}
        self._stale: dict[StackId, None] | None = None
        """Owners to be read before the next search; None while nobody has searched."""

    def find(self, selector: Selector) -> list[Listed]:
        """Every CI that fits, those of this stack first; others may be offline or out of reach."""
        self._refresh()
        found = [
            Listed(self._me, ci.key, ci.state == UP)
            for ci in self._cis.all()
            if selector in selectors_of(_record(ci))
        ]
        for stack, name in self._index.get(selector, ()):
            value = self._replica.owners[stack].value(f"ci/{name}") or {}
            found.append(Listed(stack, name, value.get("state") == UP))
        return found

    def on_change(self, change: Change) -> None:
        """Follow an owner's news."""
        if self._stale is None or change.kind == "refresh" or change.owner == self._me:
            return
        whole = change.kind != "content"
        if whole or any(key.startswith("ci/") for key in change.keys):
            self._stale[change.owner] = None

    def _refresh(self) -> None:
        if self._stale is None:
            self._stale = {owner: None for owner in self._replica.owners if owner != self._me}
        stale, self._stale = self._stale, {}
        for owner in stale:
            self._drop(owner)
            if self._replica.live(owner):
                self._read(owner)

    def _read(self, owner: StackId) -> None:
        held = self._replica.owners[owner]
        entries: list[tuple[Selector, str]] = []
        for key in held.keys("ci"):
            name = key.removeprefix("ci/")
            value = held.value(key)
            if value is None or NAME.fullmatch(name) is None or _key_in(value) != name:
                continue
            entries += [(selector, name) for selector in selectors_of(value)]
        self._of_owner[owner] = entries
        for selector, name in entries:
            self._index.setdefault(selector, {})[owner, name] = None

    def _drop(self, owner: StackId) -> None:
        for selector, name in self._of_owner.pop(owner, ()):
            fitting = self._index[selector]
            fitting.pop((owner, name), None)
            if not fitting:
                del self._index[selector]


def selectors_of(value: dict[str, Any]) -> list[Selector]:
    """Every selector that a record answers to, each once."""
    name = value.get("name")
    found = [Selector(CI, key_of(name))] if isinstance(name, str) else []
    for kind, field in WORDS_OF.items():
        words = value.get(field)
        if isinstance(words, list):
            found += [Selector(kind, word.lower()) for word in words if isinstance(word, str)]
    return list(dict.fromkeys(found))


def _record(ci: Ci) -> dict[str, Any]:
    return {"name": ci.name} | {field: ci.spec[field] for field in WORDS_OF.values()}


def _key_in(value: dict[str, Any]) -> str:
    name = value.get("name")
    return key_of(name) if isinstance(name, str) else ""
