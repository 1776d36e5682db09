"""Checking an audit log: the first entry that is not what it was, or where the log was cut.

Everything is read from the files, with the stack's id and the operational keys that its documents
name; no daemon is needed. What no chain can show by itself (the whole log replaced by an older copy
of itself) is shown by a witness: the newest end that other stacks have seen in this stack's record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tektonmesh.core.types import StackId
from tektonmesh.net.auditlog import (
    CONTEXT,
    End,
    files_of,
    genesis,
    link_hash,
    read_line,
    signed_part,
)
from tektonmesh.wire.keys import verify


@dataclass(slots=True)
class Finding:
    """What a check found. `bad` is the number of the first bad entry (0 for none), `why` a
    sentence; `begins` is the first entry that is there, `signed` the last one that a checkpoint
    covers."""

    entries: int = 0
    begins: int = 1
    signed: int = 0
    bad: int = 0
    why: str = ""
    end: End = field(default_factory=lambda: End(0, b""))

    @property
    def good(self) -> bool:
        return not self.why


def entries_of(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every line of a log, oldest first."""
    for path in files_of(folder):
        with path.open("rb") as file:
            for line in file:
                yield path, line


def last_entries(folder: Path, count: int) -> list[dict[str, Any]]:
    """The newest entries, oldest of them first."""
    found: deque[dict[str, Any]] = deque(maxlen=count)
    for _path, line in entries_of(folder):
        read = read_line(line)
        if read is not None:
            found.append(read[2])
    return list(found)


def check_log(
    folder: Path, stack_id: StackId, op_keys: Sequence[bytes], known: Sequence[End] = ()
) -> Finding:
    """Check the whole chain. `known` are ends that somebody remembers (the database, witnesses):
    each must be in the log with that very hash."""
    check = _Check(genesis(stack_id), op_keys, {end.number: end.hash for end in known})
    for path, line in entries_of(folder):
        if not check.take(path.name, line):
            break
    return check.finish()


class _Check:
    """One walk along the chain."""

    def __init__(self, start: bytes, op_keys: Sequence[bytes], known: dict[int, bytes]) -> None:
        self.found = Finding()
        self._before = End(0, start)
        self._keys = op_keys
        self._known = known
        self._begun = False

    def take(self, name: str, line: bytes) -> bool:
        """Whether the walk may go on after this line."""
        read = read_line(line)
        if read is None:
            return self._bad(self._before.number + 1, f"A line of {name} cannot be read.")
        told, text, entry = read
        number = entry["n"]
        if not self._begun and number > 1:
            # The oldest files were dropped by rotation: what is there is checked from its second
            # line on, and the checkpoints sign it.
            self._begun = True
            self.found.begins = number
            self._before = End(number, told)
            self.found.entries += 1
            return True
        self._begun = True
        if number != self._before.number + 1:
            return self._bad(
                self._before.number + 1,
                f"Entry {self._before.number + 1} is missing: {number} follows.",
            )
        if link_hash(self._before.hash, text) != told:
            return self._bad(number, f"Entry {number} is not what was written, or another before.")
        if entry.get("kind") == "checkpoint" and not self._is_signed(entry):
            return self._bad(number, f"Checkpoint {number} is not signed by this stack.")
        if entry.get("kind") == "checkpoint":
            self.found.signed = self._before.number
        elif number - self.found.signed > UNSIGNED_MAX:
            return self._bad(number, f"No checkpoint signs the entries before {number}.")
        self._before = End(number, told)
        self.found.entries += 1
        remembered = self._known.get(number)
        if remembered is not None and remembered != told:
            return self._bad(number, f"Entry {number} is not the one that others have witnessed.")
        return True

    def _is_signed(self, entry: dict[str, Any]) -> bool:
        try:
            op, sig = bytes.fromhex(entry["op"]), bytes.fromhex(entry["sig"])
        except (KeyError, TypeError, ValueError):
            return False
        return op in self._keys and verify(op, CONTEXT, signed_part(self._before), sig)

    def _bad(self, number: int, why: str) -> bool:
        self.found.bad, self.found.why = number, why
        return False

    def finish(self) -> Finding:
        last = max(self._known, default=0)
        self.found.end = self._before
        if self.found.good and last > self._before.number:
            self._bad(
                self._before.number + 1,
                f"The log is cut: it ends at entry {self._before.number},"
                f" and entry {last} has been written.",
            )
        return self.found


UNSIGNED_MAX = 2 * 256
"""Entries that may follow one another without a checkpoint: twice what a daemon leaves between two.
Without this limit, a log re-chained without a single checkpoint would pass."""
