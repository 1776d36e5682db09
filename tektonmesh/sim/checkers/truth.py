"""What must hold of records and versions: each node shows what the owners said, and the same.

Each class checks one sentence of section 8 of the registry's design, named in its docstring. All
of them look at the one owner that changed; all pairs are compared once, at the end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tektonmesh.core.events import Received
from tektonmesh.core.head import hash_head
from tektonmesh.core.record import kind_of
from tektonmesh.core.replica import Change, Held
from tektonmesh.core.types import SCOPE_OF_KIND, ContentVersion, Scope, StackId, Version
from tektonmesh.sim.checkers.common import Durable, honest_hosts, node_of
from tektonmesh.sim.host import Host
from tektonmesh.sim.watcher import Watcher

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

KEPT_S = 1200.0
"""No head that was signed longer ago is fresh anywhere."""
PROOF_S = 10.0
"""So long after somebody has caught a stack all are to know."""


class ExactBytes(Watcher):
    """1 and 7: what a node shows of X at a version is byte for byte what X had then."""

    name = "exact-bytes"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._history: dict[StackId, dict[Version, tuple[float, dict[str, bytes]]]] = {
            host.stack_id: {} for host in world.hosts if world.honest(host)
        }

    def received(self, host: Host, event: Received) -> None:
        end = host.links.get(event.link)
        if end is not None and not self.world.honest(end.peer.host) and self.world.honest(host):
            self.count("messages_from_liars", len(event.messages))

    def changed(self, host: Host, change: Change) -> None:
        history = self._history.get(change.owner)
        held = node_of(host).replica.owners.get(change.owner)
        if history is None or held is None or held.expired or not self.world.honest(host):
            return
        self.count("heads_compared")
        version = held.head.version
        if change.owner == host.stack_id:
            self._publish(host, history, held)
        elif version not in history:
            self.fail(host, f"shows {self._name(change.owner)} at {version}: never published")
        elif held.records != _told(held, history[version][1]):
            self.fail(host, f"shows other records of {self._name(change.owner)} at {version}")

    def _publish(
        self, host: Host, history: dict[Version, tuple[float, dict[str, bytes]]], held: Held
    ) -> None:
        """The copy is our own: a core that changes records in place must not change it too."""
        known = history.get(held.head.version)
        if known is not None:
            if known[1] != held.records:
                self.fail(host, f"published {held.head.version} twice with other records")
            return
        now = self.world.now
        newest = next(reversed(history.values()))[1] if history else {}
        copy = newest if newest == held.records else dict(held.records)
        history[held.head.version] = (now, copy)
        while next(iter(history.values()))[0] < now - KEPT_S:
            del history[next(iter(history))]

    def _name(self, owner: StackId) -> str:
        host = self.world.host_of(owner)
        return host.name if host is not None else "a stranger"


class NeverBack(Watcher):
    """2: versions never go back on a node while it runs, nor over a crash below what was durable;
    those of its own, never at all. Of two heads at one version the one with the smaller hash
    stays."""

    name = "never-back"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen: dict[tuple[int, int, StackId], tuple[Version, int]] = {}
        self._own: dict[int, tuple[Version, int]] = {}
        """Host -> its newest version, and how often its disk had been lost by then."""
        self._durable: Durable[Version] = Durable(world)

    def changed(self, host: Host, change: Change) -> None:
        held = node_of(host).replica.owners.get(change.owner)
        if change.kind == "forgotten":
            self._durable.forget(host, change.owner)
        if held is None or not self.world.honest(host):
            return
        version = held.head.version
        rank = version, -int.from_bytes(hash_head(held.signed.head))
        key = (host.index, host.incarnation, change.owner)
        if rank < self._seen.get(key, rank):
            self.fail(host, f"went back from {self._seen[key][0]} to {version}")
        self._seen[key] = rank
        if change.owner == host.stack_id:
            self._check_own(host, version)
        else:
            self._durable.note(host, change.owner, version)

    def _check_own(self, host: Host, version: Version) -> None:
        """With the disk lost and the clock set back nothing is left that could know better, until
        a peer says so."""
        losses = host.disk.losses
        before, had_lost = self._own.get(host.index, (version, losses))
        set_back = host.wall(self.world.now) * 1000.0 < before.epoch
        if version < before and not (set_back and losses > had_lost):
            self.fail(host, f"published {version} after {before}")
        self._own[host.index] = (version, losses)

    def stopped(self, host: Host) -> None:
        self._durable.stopped(host)

    def started(self, host: Host) -> None:
        owners = node_of(host).replica.owners if self.world.honest(host) else {}
        for owner, version in self._durable.started(host).items():
            held = owners.get(owner)
            if self.world.honest(host) and (held is None or held.version < version):
                now = None if held is None else held.version
                self.fail(host, f"knew {version} before its restart, and {now} after it")


class Converges(Watcher):
    """3 and 12: once writes stop and all is healed, everyone holds the same within two repair
    periods, record for record, whatever the order in which it arrived."""

    name = "converges"

    def agreed(self) -> None:
        for owner in self.world.hosts[: self.world.options.nodes]:
            if self.world.honest(owner):
                self._compare(honest_hosts(self.world), owner)

    def settled(self) -> None:
        if self.world.converged_after is None:
            difference = self._difference(honest_hosts(self.world))
            settle_s = self.world.options.settle_s
            self.fail(None, f"not converged {settle_s} s after the heal: {difference}")

    def _compare(self, hosts: list[Host], owner: Host) -> None:
        """One content version is one set of records, on whatever way it came."""
        stores: dict[ContentVersion, dict[str, bytes]] = {}
        for host in hosts:
            held = node_of(host).replica.owners.get(owner.stack_id)
            if held is None or not held.whole:
                continue
            if stores.setdefault(held.head.content_version, held.records) != held.records:
                self.fail(host, f"holds other records of {owner.name} at one version")

    def _difference(self, hosts: list[Host]) -> str:
        parts: list[str] = []
        for host in hosts:
            node = node_of(host)
            row = [f"{host.name}:"]
            for other in self.world.hosts:
                held = node.replica.owners.get(other.stack_id)
                version = "-" if held is None else f"{held.head.content_ver}"
                expired = "x" if held is not None and held.expired else ""
                state = node.graph.state(other.stack_id).value[0]
                row.append(f"{other.name}={version}{expired}{state}")
            parts.append(" ".join(row))
        return " | ".join(parts)


class OneTruth(Watcher):
    """8: of heads at one version all honest nodes pick the same, also where the owner said two
    things at once, and hold the same proof of that."""

    name = "one-truth"

    def agreed(self) -> None:
        for owner in self.world.hosts[: self.world.options.nodes]:
            picked: dict[Version, bytes] = {}
            proven: dict[Version, bytes] = {}
            for host in honest_hosts(self.world):
                held = node_of(host).replica.owners.get(owner.stack_id)
                if held is None or held.expired:
                    continue
                if picked.setdefault(held.head.version, held.signed.head) != held.signed.head:
                    self.fail(host, f"picked another head of {owner.name} than others")
                if proven.setdefault(held.head.version, held.proof_digest) != held.proof_digest:
                    self.fail(host, f"holds another proof against {owner.name} than others")


class FalseWordsAreKnown(Watcher):
    """8: where an owner said two things at once, every honest node knows it in the end, not only
    those where both arrived."""

    name = "false-words-known"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._caught: dict[tuple[StackId, bytes], float] = {}
        """(owner, digest of a proof) -> when somebody held it first."""

    def changed(self, host: Host, change: Change) -> None:
        held = node_of(host).replica.owners.get(change.owner)
        if held is not None and held.equivocated:
            self._caught.setdefault((change.owner, held.proof_digest), self.world.now)

    def _is_told(self, held: Held) -> bool:
        """Whether its proof has had the time to travel: liars answer proofs with a new epoch, and
        contradict themselves again, also a moment before the world is looked at."""
        caught = self._caught.get((held.head.stack_id, held.proof_digest), 0.0)
        return self.world.now - caught > PROOF_S

    def settled(self) -> None:
        for owner in self.world.hosts[: self.world.options.nodes]:
            knowing: list[str] = []
            trusting: list[Host] = []
            for host in honest_hosts(self.world):
                held = node_of(host).replica.owners.get(owner.stack_id)
                if held is None or held.expired:
                    continue
                if not held.equivocated:
                    trusting.append(host)
                elif self._is_told(held):
                    knowing.append(host.name)
            if knowing and trusting:
                self.fail(trusting[0], f"trusts {owner.name}; it was caught by {knowing}")
            if knowing:
                self.count("equivocators_known")


class OnlyLiarsAreStruck(Watcher):
    """10: an honest node is never held to account for what others wrote; only for what a garbling
    network put into its mouth."""

    name = "only-liars-are-struck"

    def sweep(self) -> None:
        running = honest_hosts(self.world)
        garbled = self.world.faults.garbler.struck
        for host in running:
            strikes = node_of(host).trust.strikes
            for other in running if len(strikes) else ():
                if strikes.count(other.stack_id) > garbled.get((host.index, other.index), 0):
                    self.fail(host, f"struck {other.name}, which is honest")


def _told(held: Held, records: dict[str, bytes]) -> dict[str, bytes]:
    """What of an owner's records should be held: of an outlined one those of its topology."""
    if not held.outlined:
        return records
    kinds = SCOPE_OF_KIND
    return {k: v for k, v in records.items() if kinds.get(kind_of(k)) == Scope.TOPOLOGY}
