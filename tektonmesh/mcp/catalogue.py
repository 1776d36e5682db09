"""What one CI offers, as a blob: canonical, compressed, bounded, and cleaned of what deceives.

It decides what a catalogue is in bytes (RFC 8785 JSON under zlib), which items are well-formed
enough to be listed, and what of a text is shown. An item that does not fit costs itself and not the
list. Where blobs come from and who may see them is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tektonmesh.errors import LocalError, RemoteError

BLOB_SIZE_MAX = 1 << 20
ITEM_SIZE_MAX = 64 << 10
PLAIN_SIZE_MAX = 8 << 20
"""Of the JSON inside: what zlib makes of a hostile blob of 1 MiB could be a gigabyte."""
ITEMS_MAX = 5000
NAME_SIZE_MAX = 256
TEXT_SIZE_MAX = 4096
"""Characters of one description. A guess: the longest of the reference servers has 1,600."""
DEPTH_MAX = 64

KINDS = ("tools", "resources", "templates", "prompts")
KEY_OF = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}
"""What an item of each kind is known by."""

Item = dict[str, Any]
Warn = Callable[[str], None]

_DECEIVING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Control characters, zero-width and bidirectional ones, variation selectors and the tag characters
that spell hidden text (Unicode TR 36). Tabs and line ends stay."""

_PINNED = ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "icons")
"""What a definition's hash covers: all that a model reads or that decides what a call may do."""


@dataclass(frozen=True)
class Catalogue:
    """The items of one CI by kind, each as its server sent it but for cleaned texts; `info` is
    {"server", "capabilities", "era", "instructions"}."""

    info: Item = field(default_factory=dict)
    tools: tuple[Item, ...] = ()
    resources: tuple[Item, ...] = ()
    templates: tuple[Item, ...] = ()
    prompts: tuple[Item, ...] = ()

    def items(self, kind: str) -> tuple[Item, ...]:
        found: tuple[Item, ...] = getattr(self, kind)
        return found

    def find(self, kind: str, key: str) -> Item | None:
        """The item of that name or URI."""
        return self._index.get((kind, key))

    def hash_of(self, kind: str, key: str) -> str:
        """The definition hash of the item of that name; empty if there is none."""
        item = self.find(kind, key)
        if item is None:
            return ""
        if (kind, key) not in self._hashes:
            self._hashes[kind, key] = definition_hash(item)
        return self._hashes[kind, key]

    @cached_property
    def _index(self) -> dict[tuple[str, str], Item]:
        return {(kind, item[KEY_OF[kind]]): item for kind in KINDS for item in self.items(kind)}

    @cached_property
    def _hashes(self) -> dict[tuple[str, str], str]:
        return {}

    def counts(self) -> dict[str, int]:
        return {kind: len(self.items(kind)) for kind in KINDS}


def make(info: Mapping[str, Any], lists: Mapping[str, list[Any]], warn: Warn) -> Catalogue:
    """A catalogue of what a server listed. Items that are malformed, too large, double or over the
    number are left out, each with a word to `warn`."""
    kept: dict[str, tuple[Item, ...]] = {}
    for kind in KINDS:
        items: dict[str, Item] = {}
        for given in lists.get(kind, []):
            problem = fault_of(kind, given)
            if not problem and given[KEY_OF[kind]] in items:
                problem = "is listed twice"
            if not problem and len(items) >= ITEMS_MAX:
                warn(f"More than {ITEMS_MAX} {kind}; the rest is left out.")
                break
            if problem:
                warn(f"{_shown(kind, given)} {problem}; it is left out.")
            else:
                items[given[KEY_OF[kind]]] = cleaned(given)
        kept[kind] = tuple(items[key] for key in sorted(items))
    return Catalogue(cleaned(dict(info)), **kept)


def fault_of(kind: str, item: Any) -> str:
    """What is wrong with one item, to stand after its name; empty if it may be listed."""
    if not isinstance(item, dict):
        return "is no object"
    key = item.get(KEY_OF[kind])
    if not isinstance(key, str) or not key or len(key) > NAME_SIZE_MAX * 8:
        return f"has no '{KEY_OF[kind]}'"
    if KEY_OF[kind] == "name" and (len(key) > NAME_SIZE_MAX or _DECEIVING.search(key)):
        return "has a name that cannot be shown"
    for word in ("name", "title", "description"):
        if item.get(word) is not None and not isinstance(item[word], str):
            return f"has a '{word}' that is no text"
    if kind == "tools":
        schema = item.get("inputSchema")
        if not isinstance(schema, dict) or schema.get("type") != "object":
            return "has no input schema for an object"
        if not isinstance(item.get("outputSchema", {}), dict):
            return "has an output schema that is no object"
        if not isinstance(item.get("annotations") or {}, dict):
            return "has annotations that are no object"
    if kind == "prompts" and not _are_arguments(item.get("arguments")):
        return "has malformed arguments"
    if kind in ("resources", "templates") and not isinstance(item.get("name"), str):
        return "has no 'name'"
    if depth_of(item) > DEPTH_MAX:
        return "is nested too deeply"
    try:
        size = len(json.dumps(item, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, UnicodeEncodeError, RecursionError):
        return "holds what JSON cannot say"
    return f"has {size} bytes" if size > ITEM_SIZE_MAX else ""


def _are_arguments(value: Any) -> bool:
    return value is None or (
        isinstance(value, list)
        and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in value)
    )


def _shown(kind: str, item: Any) -> str:
    name = item.get(KEY_OF[kind]) if isinstance(item, dict) else None
    shown = clean_text(name)[:80] if isinstance(name, str) else "?"
    return f"One of the {kind} ('{shown}')"


def depth_of(value: Any) -> int:
    """How deeply lists and objects are nested, counted without recursion."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        found, depth = waiting.pop()
        if isinstance(found, dict | list):
            deepest = max(deepest, depth)
            if depth > DEPTH_MAX:
                return depth
            inner = found.values() if isinstance(found, dict) else found
            waiting += [(one, depth + 1) for one in inner]
    return deepest


# --- texts ---------------------------------------------------------------------------------------


def clean_text(text: str) -> str:
    """A text without characters that hide or turn what people and models read, capped."""
    plain = _DECEIVING.sub("", text)
    return plain if len(plain) <= TEXT_SIZE_MAX else plain[: TEXT_SIZE_MAX - 1] + "…"


def cleaned(value: Any) -> Any:
    """The same with every `title` and `description` cleaned, at any depth."""
    if isinstance(value, list):
        return [cleaned(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: clean_text(inner)
        if key in ("title", "description", "instructions") and isinstance(inner, str)
        else cleaned(inner)
        for key, inner in value.items()
    }


def definition_hash(item: Mapping[str, Any]) -> str:
    """The hash that is pinned: a change of it blocks the tool until somebody approves."""
    told = {word: item[word] for word in _PINNED if item.get(word) is not None}
    return hashlib.blake2b(canonical(told), digest_size=16).hexdigest()


def digest_of(item: Mapping[str, Any]) -> bytes:
    """Stands for all of an item: a change of it is a change of what is offered."""
    return hashlib.blake2b(canonical(item), digest_size=16).digest()


# --- bytes ---------------------------------------------------------------------------------------


def canonical(value: Any) -> bytes:
    """RFC 8785 (JCS). Raises LocalError for what has no canonical form."""
    import rfc8785

    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise LocalError(f"This has no canonical JSON: {error}.", code="bad_request") from None


def pack(catalogue: Catalogue) -> bytes:
    """The blob. Raises LocalError (`too_large`) over 1 MiB."""
    lists = {kind: list(catalogue.items(kind)) for kind in KINDS}
    plain = canonical({"info": catalogue.info, **lists})
    # zlib's default level; the bytes are hashed, so the level is a part of the format.
    data = zlib.compress(plain, 6)
    if len(data) > BLOB_SIZE_MAX or len(plain) > PLAIN_SIZE_MAX:
        raise LocalError("What this server offers is over 1 MiB.", code="too_large")
    return data


def unpack(data: bytes, warn: Warn) -> Catalogue:
    """A catalogue from another stack's blob: judged and cleaned anew, since its owner may not
    have. Raises RemoteError if it is no catalogue at all."""
    try:
        inflate = zlib.decompressobj()
        plain = inflate.decompress(data, PLAIN_SIZE_MAX)
        if inflate.unconsumed_tail:
            raise RemoteError("A catalogue is over 8 MiB when unpacked.")
        value = json.loads(plain, parse_constant=_no_constant)
    except (zlib.error, ValueError, RecursionError):
        raise RemoteError("A catalogue cannot be read.") from None
    lists = isinstance(value, dict) and all(isinstance(value.get(k, []), list) for k in KINDS)
    if not lists or not isinstance(value.get("info", {}), dict):
        raise RemoteError("A catalogue is not of the form of one.")
    return make(value.get("info", {}), {kind: value.get(kind, []) for kind in KINDS}, warn)


def _no_constant(name: str) -> Any:
    raise ValueError(name)
