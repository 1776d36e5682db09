"""Faults that are planted into the production code, one at a time: a named world must see each.

This is the test of the checkers. Patching the core is the purpose here; everywhere else it is not
done. `test_scenarios` shows that the same worlds are clean without the fault.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tektonmesh.core import intake
from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.dedup import Dedup
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.intake import Intake
from tektonmesh.core.leases import Leases
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.owner import Owner
from tektonmesh.core.proofs import Proofs
from tektonmesh.core.record import RecordSet
from tektonmesh.core.replica import Replica
from tektonmesh.errors import RemoteError
from tektonmesh.sim.main import run_world
from tektonmesh.sim.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
Plant = Callable[[pytest.MonkeyPatch], None]
SEEDS = (1, 2, 3)


def found_by(scenario: str) -> list[str]:
    """The checkers that some world of a scenario violates."""
    reports = [run_world(SCENARIOS[scenario].world(seed, None)) for seed in SEEDS]
    return list(dict.fromkeys(it.checker for report in reports for _, it in report.violations))


def skip_the_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intake, "signed_by", lambda *_: True)


def skip_the_root_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RecordSet, "matches", lambda *_: True)


def accept_an_equal_version(patch: pytest.MonkeyPatch) -> None:
    """The newer arrival wins where the version is the same."""
    patch.setattr(intake, "beats", lambda held, head, _signed: held.version > head.version)
    patch.setattr(intake, "_contradicts", lambda *_: False)


def accept_any_version(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(intake, "beats", lambda *_: False)


def forget_the_two_way_check(patch: pytest.MonkeyPatch) -> None:
    """What one end says of an edge is enough."""
    honest = Graph._rejoin

    def rejoin(self: Graph, owner: bytes) -> None:
        honest(self, owner)
        for one, claims in self._claims.items():
            for other, claim in claims.items():
                if owner in (one, other) and self._env.me not in (one, other):
                    self._join(one, other, claim, claim)

    patch.setattr(Graph, "_rejoin", rejoin)


def drop_the_epoch_bump(patch: pytest.MonkeyPatch) -> None:
    """A restart goes on under the epoch of before, with versions from 1."""
    honest = Owner._raise_epoch

    def raise_epoch(self: Owner, above: int) -> None:
        before = self._epoch_saved
        honest(self, above)
        if before and not above:
            self._epoch = before

    patch.setattr(Owner, "_raise_epoch", raise_epoch)


def never_expire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "_expire", lambda *_: None)


def never_repair(patch: pytest.MonkeyPatch) -> None:
    """Some news are lost on the way to the links, and nobody compares."""
    honest = Dissemination._queue

    def queue(self: Dissemination, link: int, state: Any, owner: bytes) -> None:
        if self.env.chance.random() < 0.8:
            honest(self, link, state, owner)

    patch.setattr(Dissemination, "_queue", queue)
    patch.setattr(AntiEntropy, "on_fingerprint", lambda *_: None)
    patch.setattr(AntiEntropy, "_half", lambda *_: inf)


def deliver_repeats(patch: pytest.MonkeyPatch) -> None:
    honest = Dedup.add

    def add(self: Dedup, key: Any, left_s: float) -> Any:
        self._rows.pop(key, None)
        return honest(self, key, left_s)

    patch.setattr(Dedup, "add", add)
    patch.setattr(Dedup, "get", lambda *_: None)


def lose_what_a_dead_link_held(patch: pytest.MonkeyPatch) -> None:
    """An envelope whose link dies is neither tried elsewhere nor given back, nor let go."""
    patch.setattr(Forwarding, "_try_next", lambda *_args, **_kw: None)


def blame_the_messenger(patch: pytest.MonkeyPatch) -> None:
    """What is merely old counts as a fault of who sent it."""
    honest = Intake.check

    def check(self: Intake, head: Any, delta: Any) -> Any:
        found = honest(self, head, delta)
        if found is intake.Applied.STALE:
            raise RemoteError("This is old.")
        return found

    patch.setattr(Intake, "check", check)


def forget_the_proofs(patch: pytest.MonkeyPatch) -> None:
    """Nobody is shown a proof: who saw one head only believes the owner."""
    patch.setattr(Proofs, "_spread", lambda *_: None)
    patch.setattr(Replica, "proof_for", lambda *_: None)


def never_step(patch: pytest.MonkeyPatch) -> None:
    """A machine that slept for hours slews for ten times as long."""
    patch.setattr(MeshTime, "_step", lambda *_: None)


PLANTED: list[tuple[Plant, str, str]] = [
    (skip_the_signature, "forger", "exact-bytes"),
    (skip_the_root_check, "alterer", "exact-bytes"),
    (accept_an_equal_version, "equivocator", "never-back"),
    (accept_any_version, "replayer", "never-back"),
    (forget_the_two_way_check, "freeze", "death-is-seen"),
    (drop_the_epoch_bump, "restart-all", "never-back"),
    (never_expire, "leases", "death-is-seen"),
    (never_repair, "burst", "converges"),
    (deliver_repeats, "loss", "delivered-once"),
    (lose_what_a_dead_link_held, "failover", "nothing-kept"),
    (blame_the_messenger, "replayer", "only-liars-are-struck"),
    (forget_the_proofs, "equivocator", "converges"),
    (never_step, "suspend", "no-false-end"),
]


@pytest.mark.parametrize(
    ("plant", "scenario", "checker"), PLANTED, ids=[plant.__name__ for plant, *_ in PLANTED]
)
def test_a_planted_fault_is_seen(
    monkeypatch: pytest.MonkeyPatch, plant: Plant, scenario: str, checker: str
) -> None:
    plant(monkeypatch)
    assert checker in found_by(scenario)


SET_WALK = """
from dataclasses import replace
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.replica import Replica
from tektonmesh.sim.options import draw
from tektonmesh.sim.world import World

honest = Replica.entries
def entries(self, buckets):
    found = {entry.owner: entry for entry in honest(self, buckets)}
    return [found[owner] for owner in set(found)]
Replica.entries = entries

world = World(replace(draw(11, 5), deep_trace=True, duration_s=6.0))
world.run()
print(world.trace)
"""


def test_a_walk_over_a_set_shows_under_other_hash_seeds() -> None:
    traces = [
        subprocess.run(
            [sys.executable, "-c", SET_WALK],
            capture_output=True,
            check=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            text=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    ]
    assert all(traces)
    assert len(dict.fromkeys(traces)) > 1
