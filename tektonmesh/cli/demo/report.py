"""How the demonstration is told: progress while it works, one line or object a step, a table.

On a terminal the line of the running step stands without its verdict until there is one;
elsewhere there are plain lines. With `--json` stdout has one object per step and nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

from tektonmesh.cli.demo.steps import Step
from tektonmesh.cli.render import aligned, colour_wanted, emit_json, safe_text

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


class Report:
    """Takes each step as it begins and ends."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._stream = sys.stderr if as_json else sys.stdout
        self._done: list[dict[str, Any]] = []

    def begin(self, step: Step, number: int, count: int) -> None:
        """Say what is being done now."""
        print(f"[{number}/{count}] {step.says} ... ", end="", file=self._stream, flush=True)

    def end(self, step: Step, seconds: float, measured: dict[str, Any], *, ok: bool) -> None:
        """Say how it went. `measured` has `detail` when the step failed."""
        shown = {"step": step.name, "ok": ok, "ms": round(seconds * 1000, 1), **measured}
        self._done.append(shown)
        print(f"{self._mark(ok)} ({seconds:.2f} s)", file=self._stream, flush=True)
        if not ok:
            print(f"      {safe_text(str(measured['detail']))}", file=self._stream, flush=True)
        if self._json:
            emit_json(shown)

    def _mark(self, ok: bool) -> str:
        word = "ok" if ok else "failed"
        if not colour_wanted(self._stream):
            return word
        return f"{_GREEN if ok else _RED}{word}{_PLAIN}"

    def close(self, seconds: float) -> None:
        """The table of everything that was measured, and the verdict."""
        failed = [shown["step"] for shown in self._done if not shown["ok"]]
        verdict = f"step {failed[0]} failed" if failed else "every step did what it says"
        if not self._json:
            print()
            for line in aligned([["step", "took", "measured", ""], *self._rows()]):
                print(line)
            print()
        print(f"{len(self._done)} steps in {seconds:.1f} s: {verdict}.", file=self._stream)

    def _rows(self) -> list[list[str]]:
        rows: list[list[str]] = []
        for shown in self._done:
            lead = [shown["step"], f"{shown['ms']:.0f} ms"]
            for key, value in shown.items():
                if key not in ("step", "ok", "ms"):
                    rows.append([*lead, key.replace("_", " "), _text(value)])
                    lead = ["", ""]
        return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        arrow = " > " if all(len(str(item)) == 1 for item in value) else ", "
        return safe_text(arrow.join(str(item) for item in value))
    return safe_text(str(value))
