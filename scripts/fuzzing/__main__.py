"""`./scripts/fuzz [PARSER...] [--inputs N] [--json]`: fuzzes every parser of strangers' bytes.

Inputs are spread over the parsers by their shares. Each run is a process of its own, a few minutes
long; what was learnt (the corpus) stays in .cache/fuzzing for the next. Exits 1 if anything was
found: the input and its story lie beside the corpus then.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.fuzzing.golden import FILE, add_missing
from scripts.fuzzing.parser import Parser
from scripts.fuzzing.parsers import PARSERS
from scripts.fuzzing.table import as_markdown
from scripts.fuzzing.vectors import keep

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache" / "fuzzing"
RUN_S = 240
RUN_INPUTS = 1_000_000
HEAVY_PART = 1000
HEAVY_MAX = 300
"""One input in a thousand is heavy, and no more than this many of a parser."""
GUIDED_PART = 5
"""One input in five is guided by coverage; the others are changed from what these found."""


@dataclass
class Sum:
    """What all runs of one parser came to."""

    parser: str
    inputs: int = 0
    accepted: int = 0
    heavy: int = 0
    guided: int = 0
    seconds: float = 0.0
    edges: int | None = None
    features: int | None = None
    slowest_ms: float = 0.0
    slowest_guided_ms: float = 0.0
    slowest_heavy_ms: float = 0.0
    peak_mib: float = 0.0
    grown_mib: float = 0.0
    findings: list[str] = field(default_factory=list)

    def add(self, figures: dict[str, Any], how: str) -> None:
        self.inputs += figures["inputs"]
        self.accepted += figures["accepted"]
        if how == "guided":
            self.guided += figures["inputs"]
            self.slowest_guided_ms = max(self.slowest_guided_ms, figures["slowest_ms"])
        elif how == "heavy":
            self.heavy += figures["inputs"]
            self.slowest_heavy_ms = max(self.slowest_heavy_ms, figures["slowest_ms"])
        else:
            self.slowest_ms = max(self.slowest_ms, figures["slowest_ms"])
        self.peak_mib = max(self.peak_mib, figures["peak_mib"])
        self.grown_mib = max(self.grown_mib, figures["grown_mib"])
        self.findings += [one for one in figures["findings"] if one not in self.findings]


class Runs:
    """All runs of one parser."""

    def __init__(self, parser: Parser, inputs: int, *, guided: bool, seed: int) -> None:
        self.parser = parser
        self.folder = WORK / parser.name
        self.findings = self.folder / "findings"
        self._guided = guided
        self._wanted = inputs
        self._seed = seed
        self.sum = Sum(parser.name)

    def run(self) -> Sum:
        """Heavy inputs, guided ones, then blind ones until all are used up. Ends early when a run
        makes no progress or its process dies."""
        self.findings.mkdir(parents=True, exist_ok=True)
        heavy = min(HEAVY_MAX, self._wanted // HEAVY_PART)
        if heavy and self.parser.heavy is not list:
            self._run_once("heavy", heavy)
        guided = self.sum.inputs + self._wanted // GUIDED_PART if self._guided else 0
        self._run_until(guided, "guided")
        self._run_until(self._wanted, "blind")
        return self.sum

    def _run_until(self, inputs: int, how: str) -> None:
        while self.sum.inputs < inputs:
            before = self.sum.inputs
            whole = self._run_once(how, min(RUN_INPUTS, inputs - before))
            self._seed += 1
            if not whole or self.sum.inputs == before:
                break

    def _run_once(self, how: str, inputs: int) -> bool:
        """One process; whether it ended well."""
        figures_file, log_file = self.folder / f"{how}.json", self.folder / f"{how}.log"
        figures_file.unlink(missing_ok=True)
        words = [self.parser.name, "--how", how, "--inputs", str(inputs), "--seed", str(self._seed)]
        words += ["--seconds", str(RUN_S), "--corpus", str(self.folder / "corpus")]
        words += ["--findings", str(self.findings), "--figures", str(figures_file)]
        began = time.monotonic()
        with log_file.open("wb") as log:
            command = [sys.executable, "-m", "scripts.fuzzing.engine", *words]
            code = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, check=False).returncode
        self.sum.seconds += time.monotonic() - began
        if figures_file.exists():
            self.sum.add(json.loads(figures_file.read_text(encoding="utf-8")), how)
        self._read_log(log_file)
        if code:
            self.sum.findings.append(f"the {how} run ended with {code}, see {log_file.name}")
        return code == 0

    def _read_log(self, path: Path) -> None:
        """libFuzzer's last word on what was reached: `cov: EDGES ft: FEATURES`."""
        text = path.read_text(encoding="utf-8", errors="replace")
        words = text.rpartition(" cov: ")[2].split() if " cov: " in text else []
        if len(words) > 2 and words[1] == "ft:":
            self.sum.edges = max(self.sum.edges or 0, int(words[0]))
            self.sum.features = max(self.sum.features or 0, int(words[2]))

    def keep(self) -> int:
        """Choose the inputs under tests/vectors anew from this corpus."""
        corpus = self.folder / "corpus"
        return keep(self.parser, (path.read_bytes() for path in corpus.iterdir()))


def line_of(row: Sum) -> str:
    """One parser for people who watch."""
    found = f"  FOUND {'; '.join(row.findings)}" if row.findings else ""
    edges = "" if row.edges is None else f" {row.edges:>5} edges"
    speed = row.inputs / max(row.seconds, 0.001)
    return f"{row.parser:22} {row.inputs:>10,} inputs {speed:>7,.0f}/s{edges}{found}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="./scripts/fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="PARSER", help=", ".join(PARSERS))
    parser.add_argument("--inputs", type=int, default=100_000, help="in all (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="parsers at a time")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--json", action="store_true", help="one JSON object per parser")
    parser.add_argument("--keep", action="store_true", help="renew the inputs in tests/vectors")
    parser.add_argument("--table", metavar="FILE", help="a table of lines that --json printed")
    parser.add_argument("--golden", action="store_true", help="write golden bytes that are missing")
    options = parser.parse_args()
    if options.golden:
        print(f"fuzz: {add_missing()} lines are new in {FILE.relative_to(ROOT)}")
        return 0
    if options.table:
        lines = Path(options.table).read_text(encoding="utf-8").splitlines()
        print(as_markdown([json.loads(line) for line in lines]))
        return 0
    unknown = [name for name in options.names if name not in PARSERS]
    if unknown:
        parser.error(f"no parser {unknown[0]!r}; there are {', '.join(PARSERS)}")
    return run_all(options)


def run_all(options: argparse.Namespace) -> int:
    """Run the named parsers, all by default."""
    guided = importlib.util.find_spec("atheris") is not None
    if not guided:
        print("fuzz: without Atheris, so inputs are changed blindly", file=sys.stderr)
    chosen = [PARSERS[name] for name in options.names] or list(PARSERS.values())
    shares = sum(one.share for one in chosen)
    runs = [
        Runs(one, round(options.inputs * one.share / shares), guided=guided, seed=options.seed)
        for one in chosen
    ]
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        rows = []
        for one, row in zip(runs, pool.map(Runs.run, runs), strict=True):
            rows.append(row)
            print(json.dumps(vars(row)) if options.json else line_of(row), flush=True)
            if options.keep and guided:
                print(f"fuzz: {one.keep()} inputs of {row.parser} are kept", file=sys.stderr)
    found = [row.parser for row in rows if row.findings]
    for name in found:
        print(f"fuzz: see {WORK.relative_to(ROOT) / name / 'findings'}", file=sys.stderr)
    if not options.json:
        print(f"{sum(row.inputs for row in rows):,} inputs in all")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
