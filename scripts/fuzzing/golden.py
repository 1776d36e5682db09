"""The golden bytes of the wire: one line for each kind of message, frame and signed document.

A line is written once, when its kind is new, and never again: from then on the code must read those
bytes as that value and write that value as those bytes. One file for each version of the protocol.
`./scripts/fuzz --golden` adds the lines that are missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from scripts.fuzzing import material, parsers_link, parsers_signed
from scripts.fuzzing.seeds import messages
from tektonmesh.core.messages import Forward
from tektonmesh.wire.codec import KIND, encode_message
from tektonmesh.wire.frames import cut
from tektonmesh.wire.handshake import Role
from tektonmesh.wire.limits import PROTOCOL_MAX

FILE = Path(__file__).resolve().parents[2] / "tests" / "vectors" / f"wire-{PROTOCOL_MAX}.json"
SHOWN_MAX = 1024
"""A value whose text is longer is shown by its beginning."""

Line = dict[str, str]


def _headers_of_three_frames() -> bytes:
    frames = cut(KIND[Forward], 2, bytes(40_000))
    return b"".join(frame[:16] for frame in frames)


DOCUMENTS: dict[str, Callable[[], bytes]] = {
    "hello": lambda: parsers_link.first_of(Role.CLIENT),
    "welcome": lambda: parsers_link.first_of(Role.SERVER),
    "accept": lambda: parsers_link.accept_seeds()[0],
    "refused": lambda: parsers_link.refused_seeds()[0],
    "frame-headers": _headers_of_three_frames,
    "keydoc": lambda: material.host(material.CLIENT).keydoc.doc,
    "head": lambda: material.head().encode(material.CODEC),
    "voucher": material.voucher,
    "proof": lambda: material.proof(1),
    "envelope": lambda: parsers_signed.envelope_seeds()[1],
    "sealed": lambda: parsers_signed.sealed_body(b"a body"),
}
"""What is no message, by the name of its parser."""


def held() -> list[Line]:
    """The lines of the file."""
    return list(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.exists() else []


def written_today() -> list[Line]:
    """The lines as this code would write them."""
    made = []
    for kind, number in KIND.items():
        message = messages(kind)[0]
        shown = f"{number} {message!r}"[:SHOWN_MAX]
        made.append({"name": kind.__name__, "value": shown, "hex": encode_message(message).hex()})
    return made + [{"name": name, "hex": write().hex()} for name, write in DOCUMENTS.items()]


def add_missing() -> int:
    """Write the lines that the file lacks; how many there were."""
    old = held()
    names = [line["name"] for line in old]
    fresh = [line for line in written_today() if line["name"] not in names]
    rows = ",\n".join(json.dumps(line) for line in [*old, *fresh])
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
    return len(fresh)
