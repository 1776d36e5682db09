"""The grammar of names and addresses as people write them, and the nearest word to a mistyped one.

Stack and mesh names are labels, not authority, but they are printed, stored and compared
everywhere, so one grammar holds for all doors: `[a-z0-9][a-z0-9._-]{0,62}`. `@` never occurs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tektonmesh.errors import LocalError

NAME_SIZE_MAX = 63
PORT_MAX = 65_535
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_REFUSED = re.compile(r"[^a-z0-9._-]+")
_ID = re.compile(r"[a-z2-7]{52}([a-z2-7]{2})?")


def check_name(name: str, what: str) -> str:
    """`name` itself when it fits the grammar. Raises LocalError that names `what` it was for."""
    if _NAME.fullmatch(name):
        return name
    raise LocalError(
        f"{what} '{name}' is not a valid name.",
        hint=f"Use at most {NAME_SIZE_MAX} of a-z, 0-9, '.', '_' and '-', and begin with a letter"
        f" or digit, such as '{normalise_name(name)}'.",
    )


def normalise_name(name: str) -> str:
    """Any text brought into the grammar; used for host names, which nobody chose for us."""
    plain = name.strip().lower().removesuffix(".local")
    plain = _REFUSED.sub("-", plain).strip("._-")[:NAME_SIZE_MAX].rstrip("._-")
    return plain or "stack"


def numbered_name(name: str, number: int) -> str:
    """`name` for the first, `name-2` for the second ..., cut so that it stays in the grammar."""
    if number <= 1:
        return name
    tail = f"-{number}"
    return name[: NAME_SIZE_MAX - len(tail)].rstrip("._-") + tail


def check_address(address: str, what: str, *, port_zero: bool = False) -> str:
    """`address` itself when it reads HOST:PORT or [IPV6]:PORT. Raises LocalError otherwise."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host.strip("[]") or (":" in host and not bracketed) or " " in address:
        raise LocalError(
            f"{what} '{address}' is not HOST:PORT.",
            hint="Write it like 192.168.1.5:7700, west.example:7700 or [::1]:7700.",
        )
    digits = port.isascii() and port.isdigit() and len(port) <= 5
    if not digits or not (0 if port_zero else 1) <= int(port) <= PORT_MAX:
        raise LocalError(
            f"{what} '{address}' has the port '{port}'.", hint="A port is a number up to 65535."
        )
    return address


def check_id(text: str, what: str) -> str:
    """A stack id without its grouping, with or without its two check characters (whoever uses it
    reads it with `core.ids.parse_id`, which verifies them)."""
    plain = text.strip().replace("-", "").replace(" ", "").lower()
    if _ID.fullmatch(plain):
        return plain
    raise LocalError(
        f"{what} '{text}' is not a stack id.",
        hint="An id has 52 characters; `tektonmesh status` on that stack shows it.",
    )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like `word`, if any is like it at all."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.55)
    return found[0] if found else None
