"""Spreading the proofs of equivocation: every link is told once of each.

Whoever finds an owner out, or is shown the proof, tells all its other links; whom that misses is
found by comparing fingerprints (`core/antientropy`). What is a proof, and which of several counts,
is for `core/equivocation`; what becomes of the owner, for `core/replica`.
"""

from __future__ import annotations

from tektonmesh.core.effects import Send
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Proof
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.types import LinkId, StackId

PAUSE_S = 1.0
"""Proofs go out at most this often, one for each owner: a key can sign many smaller and smaller
proofs against itself, and nobody shall pass on each. A guess."""

_SPREAD = ("proofs", "spread")


class Proofs:
    """What is to be told, and the links it goes to."""

    def __init__(self, env: Env, replica: Replica) -> None:
        self._env = env
        self._replica = replica
        self._links: dict[LinkId, None] = {}
        self._news: dict[StackId, LinkId | None] = {}
        self._from: LinkId | None = None
        self._rests_until = 0.0

    def link_up(self, link: LinkId) -> None:
        """New proofs go to this link from now on; old ones show in the vectors."""
        assert link not in self._links, "a link comes up once"
        self._links[link] = None

    def link_down(self, link: LinkId) -> None:
        self._links.pop(link, None)

    def on_proof(self, link: LinkId, proof: Proof) -> None:
        """A peer proves something. Raises RemoteError if it does not."""
        self._from = link
        try:
            self._replica.take_proof(proof)
        finally:
            self._from = None

    def on_change(self, change: Change) -> None:
        """Tell the others of a new proof at the end of this turn, or of the pause."""
        if change.kind == "flagged":
            self._news[change.owner] = self._from
            instant = max(self._env.now, self._rests_until)
            self._env.deadlines.set_earlier(_SPREAD, instant, self._spread)

    def _spread(self) -> None:
        news, self._news = self._news, {}
        self._rests_until = self._env.after(PAUSE_S)
        owners = self._replica.owners
        known = [(owners[owner].proof, source) for owner, source in news.items() if owner in owners]
        for link in self._links:
            told = [it.proof for it, source in known if it is not None and source != link]
            if told:
                self._env.emit(Send(link, tuple(told)))
