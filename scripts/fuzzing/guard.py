"""Runs a parser on one input after another and notices whatever breaks a promise.

Three promises are kept watch over: nothing leaves a check, one input costs at most 100 ms of
processor time, and memory stays bounded. Time is that of this process, so a busy machine does not
count; an input that seems slow is given to the parser alone three times, and the least counts.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any

from scripts.fuzzing.parser import Parser

INPUT_MS_MAX = 100.0
AGAIN = 3
FLUSH_EVERY = 1000
FINDINGS_MAX = 20
"""Of one kind each; a parser with that many is broken enough."""
RESIDENT_GROWTH_MIB = 64
"""More than at the start. The fuzzer's own corpus and the objects of the largest message come to
25 MiB; what grows further is kept by a parser that should not keep it."""
SPACE_GROWTH_MIB = 128
"""Address space on top of that at the start. Reading the largest message takes a tenth of it; a
parser that wants more gets a MemoryError, which is a finding."""
MIB = 1 << 20


class Guard:
    """The watch over one parser in one process. `folder` takes the findings."""

    def __init__(self, parser: Parser, folder: Path) -> None:
        self.parser = parser
        self.inputs = self.accepted = 0
        self.slowest_ms = 0.0
        self.findings: dict[str, str] = {}
        self._folder = folder
        self._resident_at_start = peak_resident_mib()
        self._figures_file: Path | None = None

    def write_figures_to(self, path: Path) -> None:
        """Keep the figures there, current to `FLUSH_EVERY` inputs: the coverage-guided engine ends
        the process without a word."""
        self._figures_file = path

    def feed(self, data: bytes) -> None:
        """Check one input."""
        self.inputs += 1
        began = process_time()
        try:
            self.accepted += self.parser.check(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            self._find(where(error), data, traceback.format_exc())
            return
        spent_ms = (process_time() - began) * 1e3
        if spent_ms > self.slowest_ms:
            self._measure_again(data, spent_ms)
        if not self.inputs % FLUSH_EVERY:
            self.check_memory(data)
            self.flush()

    def _measure_again(self, data: bytes, spent_ms: float) -> None:
        for _ in range(AGAIN):
            began = process_time()
            try:
                self.parser.parse(data)
            except Exception:
                pass  # A refusal takes its time as well as a value does.
            spent_ms = min(spent_ms, (process_time() - began) * 1e3)
        self.slowest_ms = max(self.slowest_ms, spent_ms)
        if spent_ms > INPUT_MS_MAX:
            self._find("slow", data, f"One input took {spent_ms:.0f} ms of processor time.\n")

    def check_memory(self, data: bytes) -> None:
        """Note if this process has grown too much; `data` is the last input."""
        grown = peak_resident_mib() - self._resident_at_start
        if grown > RESIDENT_GROWTH_MIB:
            self._find("memory", data, f"Resident memory grew by {grown:.0f} MiB.\n")

    def _find(self, kind: str, data: bytes, story: str) -> None:
        if kind in self.findings or len(self.findings) >= FINDINGS_MAX:
            return
        self.findings[kind] = story
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(kind.encode()).hexdigest()[:12]
        (self._folder / f"{name}.bin").write_bytes(data)
        (self._folder / f"{name}.txt").write_text(f"{kind}\n{story}", encoding="utf-8")

    def figures(self) -> dict[str, Any]:
        """What was measured so far."""
        return {
            "parser": self.parser.name,
            "inputs": self.inputs,
            "accepted": self.accepted,
            "slowest_ms": round(self.slowest_ms, 3),
            "peak_mib": round(peak_resident_mib(), 1),
            "grown_mib": round(peak_resident_mib() - self._resident_at_start, 1),
            "findings": sorted(self.findings),
        }

    def flush(self) -> None:
        """Write the figures to their file, if there is one."""
        if self._figures_file is not None:
            self._figures_file.write_text(json.dumps(self.figures()), encoding="utf-8")


def where(error: BaseException) -> str:
    """A name for what went wrong: the error's type and the innermost line; inputs that fail in one
    place are one finding."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{type(error).__name__} at {Path(frames[-1].filename).name}:{frames[-1].lineno}"


def peak_resident_mib() -> float:
    """The most memory this program ever had resident. The kernel's other count of it begins with
    what the process that started it had."""
    status = Path("/proc/self/status")
    if status.exists():
        text = status.read_text(encoding="utf-8")
        return int(text.partition("VmHWM:")[2].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


@contextmanager
def bounded_space() -> Iterator[None]:
    """Within the block no more address space than `SPACE_GROWTH_MIB` can be had on top. Only Linux
    tells how much there is and keeps to such a limit."""
    status = Path("/proc/self/statm")
    if not status.exists():
        yield
        return
    pages = int(status.read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + SPACE_GROWTH_MIB * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
