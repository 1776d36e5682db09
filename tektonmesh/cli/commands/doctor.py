"""`tektonmesh doctor`: what is wrong with this set-up, and what to do."""

from __future__ import annotations

from dataclasses import asdict

from tektonmesh.cli.common import Where, verb
from tektonmesh.cli.render import colour_wanted, emit_json, safe_text

_COLOURS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


@verb(example="tektonmesh doctor")
def command(where: Where) -> int:
    """Check set-up, permissions, clock, ports, disk and the running daemon.

    Each line is ok, warn or fail and says what to do. The exit code is 1 when a check fails.
    """
    from tektonmesh.cli.doctor import examine

    failed = False
    for finding in examine(where):
        failed = failed or finding.level == "fail"
        if where.json:
            emit_json(asdict(finding))
            continue
        mark = f"{finding.level:<4}"
        if colour_wanted():
            mark = f"{_COLOURS[finding.level]}{mark}\x1b[0m"
        advice = f" -> {finding.advice}" if finding.advice else ""
        print(mark, f"{finding.check:<9}", safe_text(f"{finding.detail}{advice}"), flush=True)
    return 1 if failed else 0
