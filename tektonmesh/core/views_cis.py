"""The CIs of the mesh as this node shows them: lists, search and one record.

Pure reads. Of other stacks only what their signed records say is shown; of this one every CI,
private ones as well. Who may be told what is the doors' and policy's matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from tektonmesh.core.ci import OFFLINE, UP, key_of
from tektonmesh.core.ids import show_id
from tektonmesh.core.names import NAME
from tektonmesh.core.types import StackId, StackState
from tektonmesh.errors import LocalError

if TYPE_CHECKING:
    from tektonmesh.core.node import Node

Row = dict[str, Any]
TEXT_MAX = 64
_GONE = (StackState.DEREGISTERED, StackState.LEFT)

# What a word of a search is worth by where it is found.
_EXACT, _PREFIX, _LISTED, _WITHIN = 8, 4, 4, 1


def words_of(value: Row, key: str) -> list[str]:
    """A list of words in a record; what is none is left out, since others wrote it."""
    words = value.get(key)
    return [word for word in words if isinstance(word, str)] if isinstance(words, list) else []


def text_of(value: Row, key: str) -> str:
    """A short text in a record, fit for a terminal; empty if it is none, since others wrote it."""
    text = value.get(key)
    if not isinstance(text, str):
        return ""
    return "".join(one for one in text[:TEXT_MAX] if one.isprintable())


class Filters(TypedDict, total=False):
    """What `cis` may be narrowed to; None is no filter. `stack` is a name as people write it."""

    stack: str | None
    specialty: str | None
    capability: str | None
    type_: str | None
    state: str | None
    local: bool | None


def cis(node: Node, **filters: Unpack[Filters]) -> list[Row]:
    """The CIs of this stack and of all others that are up or unreachable, by address. A remote
    CI's `state` is "unreachable" while its stack is. Words are compared without case. Raises
    DeliveryError for a `stack` that is not known or ambiguous."""
    stack = filters.get("stack")
    owners = _owners(node) if stack is None else [node.names.resolve_stack(stack)]
    rows = [row for owner in owners for row in cis_of(node, owner) if _fits(row, filters)]
    return sorted(rows, key=lambda row: (row["stack"], row["name"].lower()))


def _fits(row: Row, filters: Filters) -> bool:
    local = filters.get("local")
    return (
        (local is None or row["local"] == local)
        and _has([row["type"]], filters.get("type_"))
        and _has([row["state"]], filters.get("state"))
        and _has(row["specialties"], filters.get("specialty"))
        and _has(row["capabilities"], filters.get("capability"))
    )


def _has(words: list[str], wanted: str | None) -> bool:
    return wanted is None or wanted.lower() in [word.lower() for word in words]


def record(node: Node, address: str) -> Row:
    """One CI with what is known besides the list's shape: `description`, `stream`, the state and
    path of its stack. Raises LocalError `not_found`, and what `Names.resolve` raises."""
    stack_id, ci = node.names.resolve(address)
    found = [row for row in cis_of(node, stack_id) if key_of(row["name"]) == ci]
    if not found:
        raise LocalError(
            f"No CI is known here as '{address}'.",
            code="not_found",
            hint="`tektonmesh cis` lists those that are.",
        )
    more = _record_of(node, stack_id, ci)
    return found[0] | {
        "description": _text(more, "description"),
        "stream": more.get("stream") is True,
        "stack_id": show_id(stack_id),
        "stack_state": str(node.graph.state(stack_id)),
        "path": [node.names.label(hop) for hop in node.paths.path(stack_id)],
    }


def find(node: Node, words: list[str]) -> list[Row]:
    """CIs, and stacks as {"name", "id", "state", "score"}, in which every word occurs: best
    first. Names count most, then specialties and capabilities, then types and descriptions."""
    lower = [word.lower() for word in words if word]
    rows: list[Row] = []
    for owner in _owners(node):
        rows += [row | _found(node, owner, row, lower) for row in cis_of(node, owner)]
        rows += _found_stack(node, owner, lower)
    found = [row for row in rows if row["score"] > 0]
    return sorted(found, key=lambda row: (-row["score"], row.get("address", row["name"])))


def _found(node: Node, owner: StackId, row: Row, words: list[str]) -> Row:
    description = _text(_record_of(node, owner, key_of(row["name"])), "description")
    rest = f"{row['type']} {row['stack']} {description}"
    score = _score(words, row["name"], [*row["specialties"], *row["capabilities"]], rest)
    return {"description": description, "score": score}


def _found_stack(node: Node, owner: StackId, words: list[str]) -> list[Row]:
    state = node.graph.state(owner)
    if state in _GONE:
        return []
    label = node.names.label(owner)
    score = _score(words, label, words_of(_value(node, owner, "stack/self"), "specialties"), "")
    return [{"name": label, "id": show_id(owner), "state": str(state), "score": score}]


def _score(words: list[str], name: str, listed: list[str], rest: str) -> int:
    """The sum over the words; 0 if one of them occurs nowhere."""
    scores = [_worth(word, name.lower(), [one.lower() for one in listed], rest) for word in words]
    return sum(scores) if scores and all(scores) else 0


def _worth(word: str, name: str, listed: list[str], rest: str) -> int:
    if word == name:
        return _EXACT
    if name.startswith(word):
        return _PREFIX
    if word in listed:
        return _LISTED
    return _WITHIN if word in f"{name} {' '.join(listed)} {rest}".lower() else 0


# --- where rows come from ------------------------------------------------------------------------


def _owners(node: Node) -> list[StackId]:
    """This stack first."""
    return [node.env.me, *(owner for owner in node.replica.owners if owner != node.env.me)]


def cis_of(node: Node, owner: StackId) -> list[Row]:
    """The CIs of one stack in the shape of the list."""
    if owner == node.env.me:
        return [_row(node, owner, ci.record(), ci.state) for ci in node.cis.all()]
    state = node.graph.state(owner)
    if state in _GONE:
        return []
    rows = []
    for key, value in _records(node, owner):
        name = _text(value, "name")
        # The key decides who is meant; a record that shows another name would deceive people.
        if NAME.fullmatch(key_of(name)) is not None and key == f"ci/{key_of(name)}":
            shown = UP if value.get("state") == UP else OFFLINE
            rows.append(_row(node, owner, value, shown if state == StackState.UP else str(state)))
    return rows


def _records(node: Node, owner: StackId) -> Iterator[tuple[str, Row]]:
    """What the owner tells everybody, then what it tells this stack alone; each CI once."""
    public = node.replica.owners[owner].keys("ci")
    for key in public:
        yield key, _value(node, owner, key)
    told = dict.fromkeys(public)
    for ci, value in node.sharing.of(owner).items():
        if f"ci/{ci}" not in told:
            yield f"ci/{ci}", value


def _row(node: Node, owner: StackId, value: Row, state: str) -> Row:
    name, label = _text(value, "name"), node.names.label(owner)
    return {
        "address": f"{name}@{label}",
        "name": name,
        "stack": label,
        "type": _text(value, "type"),
        "state": state,
        "local": owner == node.env.me,
        "specialties": words_of(value, "specialties"),
        "capabilities": words_of(value, "capabilities"),
        "share": _text(value, "share"),
    }


def _record_of(node: Node, owner: StackId, ci: str) -> Row:
    """The record of a CI that is listed."""
    if owner == node.env.me:
        own = node.cis.get(ci)
        assert own is not None, "a listed CI is registered"
        return own.record()
    return _value(node, owner, f"ci/{ci}") or node.sharing.record(owner, ci) or {}


def _value(node: Node, owner: StackId, key: str) -> Row:
    held = node.replica.owners.get(owner)
    return (held.value(key) if held is not None else None) or {}


def _text(value: Row, key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""
