"""What must hold of the registry in every world: the invariants of docs/design/simulator.md."""

from __future__ import annotations

from tektonmesh.sim.checkers.common import honest_hosts, lossy, node_of
from tektonmesh.sim.checkers.load import Bounded, NamesFirst, Quiet
from tektonmesh.sim.checkers.presence import DeathIsSeen, NoFalseEnd, NoResurrection
from tektonmesh.sim.checkers.truth import (
    Converges,
    ExactBytes,
    FalseWordsAreKnown,
    NeverBack,
    OneTruth,
    OnlyLiarsAreStruck,
)
from tektonmesh.sim.checkers.words import NobodyIsAccused, OneSpeaks, OnlyFresh
from tektonmesh.sim.watcher import Watcher

__all__ = ["REGISTRY_CHECKERS", "TOUCHED_CHECKERS", "honest_hosts", "lossy", "node_of"]

TOUCHED_CHECKERS: tuple[type[Watcher], ...] = (ExactBytes, DeathIsSeen, Bounded)
"""Those that look at what changes and at nothing else, for worlds of thousands of nodes. That such
a world converges is seen by its fingerprints."""

REGISTRY_CHECKERS: tuple[type[Watcher], ...] = (
    ExactBytes,
    NeverBack,
    Converges,
    OneTruth,
    FalseWordsAreKnown,
    OnlyLiarsAreStruck,
    NoResurrection,
    OnlyFresh,
    NoFalseEnd,
    NobodyIsAccused,
    OneSpeaks,
    DeathIsSeen,
    Bounded,
    Quiet,
    NamesFirst,
)
