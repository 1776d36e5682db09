"""How tools, prompts and resources of other CIs are called where everything is on one list.

An exposed name is always `stack__ci__tool`, also while only one CI has such a tool: a prefix that
came and went would rename tools under a model that has learnt them. Names are found by table and
never taken apart. A name depends on nothing but the three words, so it is the same after a restart
and in whichever order stacks appear.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, unquote

NAME_SIZE_MAX = 48
"""Hosts put a prefix of their own before it; 64 characters is what models take."""
HASH_SIZE = 8
SCHEME = "mesh://"
_OTHER = re.compile(r"[^A-Za-z0-9_-]")


def exposed_name(stack: str, ci: str, item: str) -> str:
    """The name on the common list: at most 48 of `A-Z a-z 0-9 _ -`. One that had to be changed
    (too long, or with other letters) ends in 8 characters of a hash, so that no two meet."""
    plain = "__".join((stack, ci, item))
    clean = _OTHER.sub("_", plain)
    unambiguous = plain.count("__") == 2 and "___" not in plain
    if clean == plain and len(plain) <= NAME_SIZE_MAX and unambiguous:
        return plain
    spelt = "\0".join((stack, ci, item)).encode("utf-8", "replace")
    mark = hashlib.blake2b(spelt, digest_size=5).hexdigest()[:HASH_SIZE]
    head = clean[: NAME_SIZE_MAX - HASH_SIZE - 1].rstrip("_-")
    return f"{head}_{mark}"


def reference(ci: str, stack: str, item: str) -> str:
    """The canonical reference, as people write it: `ci@stack/item`."""
    return f"{ci}@{stack}/{item}"


def split_reference(text: str) -> tuple[str, str] | None:
    """`ci@stack/item` (or `ci/item` of this stack) as (address, item); None for anything else."""
    address, slash, item = text.partition("/")
    return (address, item) if slash and address and item else None


def exposed_uri(stack: str, ci: str, uri: str) -> str:
    """The URI of a resource on the common list. Braces of templates stay as they are, since hosts
    fill them in; what they fill in is quoted as it stands."""
    return f"{SCHEME}{stack}/{ci}/{quote(uri, safe='{}*+,')}"


def split_uri(uri: str) -> tuple[str, str, str] | None:
    """(stack, ci, original URI) of an exposed one; None if it is none."""
    if not uri.startswith(SCHEME):
        return None
    parts = uri[len(SCHEME) :].split("/", 2)
    if len(parts) != 3 or not all(parts):
        return None
    stack, ci, quoted = parts
    return stack, ci, unquote(quoted)
