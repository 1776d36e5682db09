"""The face of the simulator: `run` for the verb `sim`, `run_worlds` for the tests.

It decides which worlds are run, spreads them over processes, shows progress and prints what came
out. This is the one module of `sim` that knows of processes and of the terminal.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from tektonmesh.errors import LocalError
from tektonmesh.sim.checkers import REGISTRY_CHECKERS, TOUCHED_CHECKERS
from tektonmesh.sim.deaths import Deaths
from tektonmesh.sim.message_checkers import MESSAGE_CHECKERS
from tektonmesh.sim.options import Options, draw
from tektonmesh.sim.report import Gauges, Report
from tektonmesh.sim.scenarios import SCENARIOS
from tektonmesh.sim.world import World

RANDOM = "random"
"""The scenario that is drawn from the seed as a whole."""
DEFAULT = "writer"
CHUNK = 4
"""Worlds that a worker process takes at a time."""

Progress = Callable[[int, int, Report], None]
"""Told (done, of how many, the sum so far) after each world."""


def run_world(options: Options) -> Report:
    """One world under all checkers; large ones under those that look at touched owners only."""
    checkers = TOUCHED_CHECKERS if options.warm else (*REGISTRY_CHECKERS, *MESSAGE_CHECKERS)
    world = World(options, [*checkers, Deaths, Gauges])
    if options.warm:
        # Nothing in a world is garbage for long, and looking for it takes as long as the world.
        gc.freeze()
        gc.disable()
    try:
        world.run()
    finally:
        gc.enable()
    deaths, gauges = world.watchers[-2:]
    assert isinstance(gauges, Gauges) and isinstance(deaths, Deaths)
    gauges.report.reset_seen_ms = deaths.reset_ms
    gauges.report.silent_seen_ms = deaths.silent_ms
    return gauges.report


def run_worlds(worlds: Sequence[Options], workers: int, progress: Progress) -> Report:
    """Many worlds in `workers` processes; the sum does not depend on how many these are."""
    total = Report()
    if workers <= 1 or len(worlds) <= 1:
        _collect(map(run_world, worlds), len(worlds), total, progress)
    else:
        with multiprocessing.Pool(workers) as pool:
            _collect(pool.imap(run_world, worlds, CHUNK), len(worlds), total, progress)
    return total


def _collect(reports: Iterable[Report], count: int, total: Report, progress: Progress) -> None:
    for done, report in enumerate(reports, 1):
        total.add(report)
        progress(done, count, total)


def plan(asked: dict[str, Any]) -> list[Options]:
    """The worlds that were asked for. Raises LocalError for an unknown scenario."""
    name = asked.get("scenario") or DEFAULT
    first, nodes = asked.get("rng_seed") or 1, asked.get("nodes")
    seeds = range(first, first + (asked.get("worlds") or 1))
    duration_s = asked["hours"] * 3600.0 if asked.get("hours") else None
    if name == RANDOM:
        drawn = [draw(seed, nodes) for seed in seeds]
        worlds = [replace(it, duration_s=duration_s or it.duration_s) for it in drawn]
    elif name in SCENARIOS:
        worlds = [SCENARIOS[name].world(seed, nodes, duration_s) for seed in seeds]
    else:
        raise LocalError(
            f"There is no scenario '{name}'.", hint="`tektonmesh sim --list` shows them."
        )
    return worlds


def replay_command(asked: dict[str, Any], rng_seed: int) -> str:
    """The one command that runs a world again."""
    words = ["tektonmesh sim --scenario", asked.get("scenario") or DEFAULT]
    for option in ("nodes", "hours"):
        if asked.get(option):
            words += [f"--{option}", str(asked[option])]
    return " ".join([*words, "--rng-seed", str(rng_seed)])


def run(asked: dict[str, Any]) -> int:
    """The verb `sim`: keys nodes, scenario, worlds, rng_seed, hours, listing, json; all may be
    missing or None. Returns 0, or 1 if a world violated an invariant. Raises LocalError."""
    if asked.get("listing"):
        _list(bool(asked.get("json")))
        return 0
    worlds = plan(asked)
    report = run_worlds(worlds, min(multiprocessing.cpu_count(), len(worlds)), show_progress)
    shown = report.as_dict()
    for violation in shown["violations"]:
        violation["replay"] = replay_command(asked, violation["rng_seed"])
    if asked.get("json"):
        print(json.dumps(shown))
    else:
        _print(shown)
    return 1 if shown["violations"] else 0


def _list(as_json: bool) -> None:
    rows = [(it.name, it.about + " (long)" * it.long) for it in SCENARIOS.values()]
    rows.append((RANDOM, "everything drawn from the seed"))
    for name, about in rows:
        print(json.dumps({"name": name, "about": about}) if as_json else f"{name:22} {about}")


def _print(shown: dict[str, Any]) -> None:
    for name, value in shown.items():
        if isinstance(value, dict):
            print(name)
            for part, count in value.items():
                print(f"  {part:32} {count}")
        elif name != "violations":
            print(f"{name:24} {'-' if value is None else value}")
    print(f"{'violations':24} {len(shown['violations'])}")
    for it in shown["violations"]:
        print(f"{it['checker']} at {it['at_s']} s on {it['host']}: {it['detail']}", file=sys.stderr)
        print(f"  replay: {it['replay']}", file=sys.stderr)


def show_progress(done: int, count: int, total: Report) -> None:
    """One line that grows on a terminal; elsewhere a line for every tenth of the work."""
    line = f"{done} of {count} worlds, {len(total.violations)} violations"
    if sys.stderr.isatty():
        print(f"\r{line}", end="\n" if done == count else "", file=sys.stderr, flush=True)
    elif count > 1 and (done * 10 // count) != ((done - 1) * 10 // count):
        print(line, file=sys.stderr, flush=True)
