"""Whether the arguments of a call fit the schema that was published, before a server gets them.

JSON Schema 2020-12. References to elsewhere are never fetched, and regular expressions are not run:
a pattern of a server and a text of a stranger can together hold a process for hours, and the server
looks at its own patterns anyway.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

KEPT_MAX = 512
_UNRUN = ("pattern", "patternProperties", "propertyNames", "format")


class Arguments:
    """Compiled schemas, each kept with what it was made of: they are known by identity, since
    reading one to find it would cost more than the check."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[int, tuple[dict[str, Any], Any]] = OrderedDict()

    def problem(self, schema: dict[str, Any], arguments: Any) -> str:
        """What does not fit, in a sentence for people and models; empty if all does. A schema that
        cannot be used refuses nothing."""
        validator = self._validator(schema)
        if validator is None:
            return ""
        try:
            found = next(iter(validator.iter_errors(arguments)), None)
        except Exception:
            # Whatever a strange schema makes the library do is no reason to refuse the caller.
            return ""
        if found is None:
            return ""
        where = "/".join(str(step) for step in found.absolute_path)
        return f"The arguments do not fit: {where + ': ' if where else ''}{found.message[:300]}"

    def _validator(self, schema: dict[str, Any]) -> Any:
        key = id(schema)
        if key in self._compiled:
            self._compiled.move_to_end(key)
            return self._compiled[key][1]
        made = _compile(schema)
        self._compiled[key] = (schema, made)
        if len(self._compiled) > KEPT_MAX:
            self._compiled.popitem(last=False)
        return made


def _compile(schema: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    plain = _without_patterns(schema)
    try:
        Draft202012Validator.check_schema(plain)
    except (SchemaError, RecursionError):
        return None
    return Draft202012Validator(plain, registry=_closed_registry())


def _closed_registry() -> Any:
    """References lead to what the schema itself holds, and nowhere else."""
    from referencing import Registry
    from referencing.exceptions import NoSuchResource

    def refuse(uri: str) -> Any:
        raise NoSuchResource(uri)

    return Registry(retrieve=refuse)  # type: ignore[call-arg]


def _without_patterns(value: Any) -> Any:
    """The schema without what runs regular expressions; names of properties stay untouched."""
    if isinstance(value, list):
        return [_without_patterns(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, inner in value.items():
        if key in ("properties", "$defs", "definitions", "dependentSchemas"):
            named = inner.items() if isinstance(inner, dict) else ()
            kept[key] = {name: _without_patterns(one) for name, one in named}
        elif key in ("enum", "const", "default", "examples"):
            kept[key] = inner
        elif key not in _UNRUN:
            kept[key] = _without_patterns(inner)
    return kept
