"""How stack ids are shown and read: base32 without padding, lower case, 52 characters.

People get groups of four with two check characters at the end, so that a mistyped id is noticed
before it is approved; programs get the plain 52 characters. Both are read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from tektonmesh.core.types import ID_SIZE, StackId
from tektonmesh.errors import LocalError

SHOWN_SIZE = 52
SUFFIX_SIZE_MIN = 4
ID_CONTEXT = b"tektonmesh-id-v1\0"


def stack_id_of(root_public: bytes) -> StackId:
    """The id that belongs to a 32-byte Ed25519 root key."""
    assert len(root_public) == 32
    return hashlib.sha256(ID_CONTEXT + root_public).digest()


def show_id(stack_id: StackId) -> str:
    """The 52 characters that programs exchange."""
    assert len(stack_id) == ID_SIZE
    return base64.b32encode(stack_id).decode().rstrip("=").lower()


def suffix_of(stack_id: StackId, rivals: Iterable[StackId] = ()) -> str:
    """What tells stacks of one name apart (`west~k7f3`): the first four characters of the id, or
    as many more as tell it from the `rivals`, since four can be ground out in seconds."""
    shown = show_id(stack_id)
    others = [show_id(rival) for rival in rivals if rival != stack_id]
    size = SUFFIX_SIZE_MIN
    while any(other[:size] == shown[:size] for other in others):
        size += 1
    return shown[:size]


def check_characters(stack_id: StackId) -> str:
    """Two characters over the whole id; 1 in 1,024 mistyped ids would still pass."""
    return base64.b32encode(hashlib.sha256(stack_id).digest())[:2].decode().lower()


def group_id(stack_id: StackId) -> str:
    """The id for people: thirteen groups of four, then the check characters."""
    shown = show_id(stack_id)
    groups = [shown[at : at + 4] for at in range(0, SHOWN_SIZE, 4)]
    return "-".join([*groups, check_characters(stack_id)])


def parse_id(text: str) -> StackId:
    """Read either form. Raises LocalError that says what is wrong with it."""
    plain = text.strip().replace("-", "").replace(" ", "").lower()
    if len(plain) not in (SHOWN_SIZE, SHOWN_SIZE + 2):
        raise LocalError(
            f"'{text}' is not a stack id: it has {len(plain)} characters and needs {SHOWN_SIZE}.",
            hint="`tektonmesh status` shows a stack's own id, `tektonmesh peers` those of others.",
        )
    try:
        stack_id = base64.b32decode(plain[:SHOWN_SIZE].upper() + "====")
    except ValueError:  # binascii.Error is one, and so is what letters outside ASCII raise
        raise LocalError(
            f"'{text}' is not a stack id: only the letters a-z and the digits 2-7 occur in one."
        ) from None
    if show_id(stack_id) != plain[:SHOWN_SIZE]:
        raise LocalError(f"'{text}' is not a stack id: its last character cannot occur there.")
    check = plain[SHOWN_SIZE:]
    if check and check != check_characters(stack_id):
        raise LocalError(f"'{text}' is mistyped: its check characters do not fit.")
    return stack_id
