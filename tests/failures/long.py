"""The runs of `./scripts/failures`: as the tests of this folder, longer and larger."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.stacks import Mesh, a_mesh
from tests.failures.shape import Diamond, shown
from tests.failures.test_links import next_hop_breaks
from tests.failures.test_many import Ring, links_die_at_once
from tests.failures.test_relays import all_receipts_lost

TIMES = 10
LOST_S = 30.0
STACKS, CHORDS = 16, 24
MESSAGES = 10_000
RATE = 25.0
"""Of each stack, so that two cores carry it."""


@contextmanager
def in_a_folder() -> Iterator[Mesh]:
    with tempfile.TemporaryDirectory() as folder, a_mesh(Path(folder)) as mesh:
        yield mesh


def next_hop() -> None:
    with in_a_folder() as mesh:
        diamond = Diamond(mesh)
        for how, more_ms in (("cut", 150.0), ("freeze", 2500.0)):
            for _ in range(TIMES):
                next_hop_breaks(diamond, how, more_ms)
                diamond.heal()
        diamond.close()


def receipts() -> None:
    with in_a_folder() as mesh:
        diamond = Diamond(mesh)
        all_receipts_lost(diamond, LOST_S)
        diamond.close()


def links() -> None:
    for how in ("freeze", "cut"):
        with in_a_folder() as mesh:
            ring = Ring(mesh, STACKS, CHORDS, rng_seed=4)
            links_die_at_once(ring, RATE, MESSAGES / STACKS / RATE, how)
            ring.close()


RUNS: dict[str, Callable[[], None]] = {"next-hop": next_hop, "receipts": receipts, "links": links}


def main() -> int:
    parser = argparse.ArgumentParser(prog="failures", description=__doc__)
    parser.add_argument("entry", nargs="*", help=f"{', '.join(RUNS)}; all by default")
    chosen = parser.parse_args().entry or list(RUNS)
    unknown = [name for name in chosen if name not in RUNS]
    if unknown:
        parser.error(f"there is no run {unknown[0]!r}; there are {', '.join(RUNS)}")
    failed = 0
    for name in chosen:
        shown(run=name, load=os.getloadavg()[0])
        try:
            RUNS[name]()
        except AssertionError as error:
            failed += 1
            shown(run=name, broken=str(error).split("\n", 1)[0])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
