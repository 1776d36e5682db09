"""Runs one parser over many inputs in a process of its own: `python -m scripts.fuzzing.engine`.

`--how guided` is libFuzzer by way of Atheris: inputs that reach something new in the instrumented
package are kept in the corpus and changed further. `--how blind` needs nothing installed: it
changes seeds, kept inputs and those of the corpus at random, without instrumentation, which is five
times as fast. `--how heavy` does the same to the largest inputs, so that their time is the parser's
own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from scripts.fuzzing.guard import Guard, bounded_space

POOL_MAX = 2000
LIBFUZZER_PART, SEED_PART = 0.4, 0.3
SLOW_UNIT_S = 20
"""After this long libFuzzer takes an input for endless and says so; nothing else could."""


def run_blind(guard: Guard, options: argparse.Namespace) -> None:
    """Seeds and kept inputs first, then changed ones; an accepted one may be changed further."""
    rng = Random(options.seed)
    pool = _start(guard)
    corpus = sorted(options.corpus.glob("*")) if options.corpus.is_dir() else []
    pool += [path.read_bytes() for path in rng.sample(corpus, min(len(corpus), POOL_MAX // 2))]
    mutator = _mutator(guard, rng)
    while guard.inputs < options.inputs:
        data = mutator.mutate(rng.choice(pool), pool)
        accepted = guard.accepted
        guard.feed(data)
        if guard.accepted > accepted and rng.random() < 0.05:
            if len(pool) < POOL_MAX:
                pool.append(data)
            else:
                pool[rng.randrange(POOL_MAX)] = data


def run_heavy(guard: Guard, options: argparse.Namespace) -> None:
    """The heavy inputs, then those with a few changes in them."""
    heavy = guard.parser.heavy()
    for data in heavy:
        guard.feed(data)
    rng = Random(options.seed)
    mutator = _mutator(guard, rng, size_max=2 << 20)
    while heavy and guard.inputs < options.inputs:
        guard.feed(mutator.mutate(rng.choice(heavy), heavy))


def run_guided(guard: Guard, options: argparse.Namespace) -> None:
    """Hand over to libFuzzer, which ends the process when it is done."""
    import atheris

    rng = Random(options.seed)
    mutator = _mutator(guard, rng)
    pool = _start(guard)
    options.corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(pool):
        (options.corpus / f"seed-{number:04}").write_bytes(data)

    def mutate(data: bytes, size_max: int, _seed: int) -> bytes:
        way = rng.random()
        if way < LIBFUZZER_PART:
            return bytes(atheris.Mutate(data, size_max))
        # The corpus is mostly of inputs that were refused in some new way; seeds lead back to those
        # that are accepted.
        start = data if way < 1 - SEED_PART else rng.choice(pool)
        return mutator.mutate(start, pool)[:size_max]

    flags = {
        "runs": options.inputs - guard.inputs,
        "seed": options.seed + 1,  # 0 would be chance
        "max_len": guard.parser.size_max,
        "max_total_time": options.seconds,
        "timeout": SLOW_UNIT_S,
        "report_slow_units": 1000,
        "print_final_stats": 1,
        "artifact_prefix": f"{options.findings}/",
    }
    words = [sys.argv[0], *(f"-{key}={value}" for key, value in flags.items())]
    atheris.Setup([*words, str(options.corpus)], guard.feed, custom_mutator=mutate)
    atheris.Fuzz()


def _start(guard: Guard) -> list[bytes]:
    """The seeds and kept inputs, each checked once."""
    from scripts.fuzzing.vectors import kept

    pool = [*guard.parser.seeds(), *kept(guard.parser.name)]
    for data in pool:
        guard.feed(data)
    return pool


def _mutator(guard: Guard, rng: Random, *, size_max: int = 0) -> Any:
    from scripts.fuzzing.mutate import Mutator

    parser = guard.parser
    size_max = size_max or parser.size_max
    return Mutator(rng, packed=parser.packed, text=parser.text, size_max=size_max)


HOW: dict[str, Callable[[Guard, argparse.Namespace], None]] = {
    "guided": run_guided,
    "blind": run_blind,
    "heavy": run_heavy,
}


def _imported(name: str, how: str) -> Any:
    """The parser; for a guided run the package is instrumented while it is imported."""
    if how == "guided":
        import atheris

        with atheris.instrument_imports(include=["tektonmesh"], enable_loader_override=False):
            from scripts.fuzzing.parsers import PARSERS
    else:
        from scripts.fuzzing.parsers import PARSERS
    return PARSERS[name]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.fuzzing.engine", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--how", choices=HOW, required=True)
    parser.add_argument("--inputs", type=int, required=True)
    parser.add_argument("--seconds", type=int, default=0, help="for a guided run; 0 is no limit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    options = parser.parse_args()
    tested = _imported(options.name, options.how)
    tested.seeds()
    from tektonmesh.net.memory import calm_collector

    calm_collector()  # as a daemon has it
    guard = Guard(tested, options.findings)
    guard.write_figures_to(options.figures)
    with bounded_space():
        HOW[options.how](guard, options)
        guard.check_memory(b"")
        guard.flush()


if __name__ == "__main__":
    main()
