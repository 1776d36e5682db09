"""The kept inputs under tests/vectors/fuzz/<parser>: few and small, each there for a reason.

An input is kept because it takes a path through the parser that no other kept input takes, or
because it once broke something (`found-*.bin`; those are never dropped).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from scripts.fuzzing.parser import Parser

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "vectors" / "fuzz"
KEPT_MAX = 64
KEPT_SIZE_MAX = 512
ALL_SIZE_MAX = 200 * 1024
_PACKAGE = str(Path(__file__).resolve().parents[2] / "tektonmesh")

Step = tuple[str, int, int]
"""A file, a line of it, and the line that came before in the same call."""


def kept(name: str) -> list[bytes]:
    """The kept inputs of a parser."""
    return [path.read_bytes() for path in sorted((FOLDER / name).glob("*.bin"))]


def keep(parser: Parser, inputs: Iterable[bytes]) -> int:
    """Choose anew which of `inputs` to keep: those that take a path of their own, small ones
    first. Returns how many there are now."""
    folder = FOLDER / parser.name
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("path-*.bin"):
        old.unlink()
    known: set[Step] = set()
    for seed in parser.seeds():
        known |= steps(parser, seed)
    left = KEPT_MAX - len(list(folder.glob("*.bin")))
    for data in sorted(set(inputs), key=lambda one: (len(one), one)):
        fresh = steps(parser, data) - known if left and len(data) <= KEPT_SIZE_MAX else set()
        if fresh:
            known |= fresh
            left -= 1
            name = hashlib.sha256(data).hexdigest()[:12]
            (folder / f"path-{name}.bin").write_bytes(data)
    return len(list(folder.glob("*.bin")))


def steps(parser: Parser, data: bytes) -> set[Step]:
    """The steps from line to line that the package takes over one input."""
    taken: set[Step] = set()
    last: dict[FrameType, int] = {}

    def on_line(frame: FrameType, event: str, _arg: Any) -> Any:
        if event == "line":
            line = frame.f_lineno
            taken.add((frame.f_code.co_filename, last.get(frame, 0), line))
            last[frame] = line
        return on_line

    def on_call(frame: FrameType, _event: str, _arg: Any) -> Any:
        return on_line if frame.f_code.co_filename.startswith(_PACKAGE) else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        parser.check(data)
    except Exception:
        pass  # It is a finding, and kept as such; its path counts all the same.
    finally:
        sys.settrace(before)
    return taken
