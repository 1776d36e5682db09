"""Scuttlebutt: digests of everything, then what the other lacks (van Renesse, Dumitriu, Gough and
Thomas, "Efficient reconciliation and flow control for anti-entropy protocols", LADIS 2008).

Each second a node exchanges digests with 3 random nodes in three datagrams, as chitchat does: Syn
(my digest), SynAck (my digest, and what you lack), Ack (what you lack). A digest has the heartbeat
and the version of every node, so it grows with the mesh. A node whose heartbeat stands still for
10 s is taken for dead, in the place of the phi accrual detector that chitchat has.
"""

from __future__ import annotations

from dataclasses import dataclass

from tektonmesh.core.machine import Env
from tektonmesh.sim.baselines.machine import (
    Baseline,
    Place,
    Records,
    Said,
    SendTo,
    packed_size,
)

INTERVAL_S = 1.0
PARTNERS = 3
DEAD_AFTER_S = 10.0

Delta = tuple[tuple[str, Records], ...]
"""What somebody lacks: (owner, records)."""


@dataclass(frozen=True, slots=True)
class Digest:
    """What a node holds: by owner its heartbeat and its version."""

    beats: dict[str, int]
    versions: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange(Said):
    """Syn has a digest, SynAck both, Ack a delta."""

    digest: Digest | None
    delta: Delta | None


class Scuttlebutt(Baseline):
    """Talks in datagrams only."""

    def __init__(self, env: Env, place: Place) -> None:
        super().__init__(env, place)
        self._names_size = packed_size(place.peers)
        self._beats = dict.fromkeys(place.peers, 0)
        self._versions = {owner: entry.version for owner, entry in self.entries.items()}
        self._heard = dict.fromkeys(place.peers, env.now)

    def started(self) -> None:
        self.every("gossip", INTERVAL_S, self._gossip)

    def wrote(self, key: str) -> None:
        self._versions[self.address] = self.own.version

    def _gossip(self) -> None:
        self._beats[self.address] += 1
        for peer in self.some(PARTNERS, self._alive):
            self._say(peer, self._digest(), None)

    def _alive(self, peer: str) -> bool:
        return self._heard[peer] >= self.env.now - DEAD_AFTER_S

    def _digest(self) -> Digest:
        return Digest(dict(self._beats), dict(self._versions))

    def _say(self, peer: str, digest: Digest | None, delta: Delta | None) -> None:
        size = 0
        if digest is not None:
            columns = [list(digest.beats.values()), list(digest.versions.values())]
            size = self._names_size + packed_size(columns)
        body_size = packed_size(delta) if delta else 0
        bodies = tuple(
            (owner, max(version for version, _value in records.values()))
            for owner, records in delta or ()
        )
        message = Exchange(
            size=size + body_size, body_size=body_size, bodies=bodies, digest=digest, delta=delta
        )
        self.env.emit(SendTo(peer, message))  # type: ignore[arg-type]

    def datagrams(self, address: str, messages: tuple[Exchange, ...]) -> None:
        for message in messages:
            for owner, records in message.delta or ():
                if self.merge(owner, records):
                    self._versions[owner] = self.entries[owner].version
            if message.digest is None:
                continue
            self._hear(message.digest)
            delta = self._lacking(message.digest)
            if message.delta is None:
                self._say(address, self._digest(), delta)
            elif delta:
                self._say(address, None, delta)

    def _hear(self, digest: Digest) -> None:
        beats = self._beats
        for owner, beat in digest.beats.items():
            if beat > beats[owner]:
                beats[owner] = beat
                self._heard[owner] = self.env.now

    def _lacking(self, digest: Digest) -> Delta:
        """What the sender of a digest does not hold yet; most digests are equal."""
        if digest.versions == self._versions:
            return ()
        return tuple(
            (
                owner,
                {
                    key: record
                    for key, record in self.entries[owner].records.items()
                    if record[0] > version
                },
            )
            for owner, version in digest.versions.items()
            if version < self._versions[owner]
        )
