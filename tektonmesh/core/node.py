"""One daemon as a value: `handle(event, now)` returns everything that should happen next.

The node composes the machines and routes events and messages to them; every decision is theirs.
It owns no clock, no socket, no disk and no global randomness (docs/design/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tektonmesh.core import events as ev
from tektonmesh.core import messages as msg
from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.blobs import Blobs
from tektonmesh.core.choosing import Choosing
from tektonmesh.core.chronicle import Chronicle
from tektonmesh.core.cis import Cis
from tektonmesh.core.counts import UNCOUNTED
from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.dialling import Dialling
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.divergence import Divergence
from tektonmesh.core.draining import Draining
from tektonmesh.core.durable import Durable
from tektonmesh.core.effects import Answer, AnswerFailed, CloseLink, Effect
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.invites import Invites
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.names import Names
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.offences import Offences
from tektonmesh.core.owner import Owner
from tektonmesh.core.parkers import near_parkers
from tektonmesh.core.paths import Paths
from tektonmesh.core.proofs import Proofs
from tektonmesh.core.quotas import Quotas
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.requests import Requests
from tektonmesh.core.rights import Rights
from tektonmesh.core.sharing import Sharing
from tektonmesh.core.sightings import Sightings
from tektonmesh.core.spreading import Spreading
from tektonmesh.core.trust import Trust, Verdict
from tektonmesh.core.types import (
    Chance,
    Codec,
    Crypto,
    Identity,
    LinkId,
    NodeSettings,
    Saved,
    SignedKeyDoc,
    StackId,
)
from tektonmesh.core.witness import Witness
from tektonmesh.errors import MeshError, NoveltyError, RemoteError


class Node:
    """The machines of one stack, wired together."""

    def __init__(
        self,
        identity: Identity,
        settings: NodeSettings,
        *,
        crypto: Crypto,
        codec: Codec,
        chance: Chance,
        saved: Saved,
        now: float,
        wall_s: float,
        base: Node | None = None,
    ) -> None:
        """With a `base`, a node that holds what this one is to hold, the two share it; the base
        must not be handled any more (docs/design/simulator.md)."""
        self.env = Env(identity, settings, crypto=crypto, codec=codec, chance=chance, now=now)
        if base is not None:
            self.env.heads = base.env.heads
        self._make_registry(saved, wall_s, base)
        self._make_messages(saved)
        self.trust.key_epoch_of = self.replica.key_epoch_of
        self.trust.introduces = self.rights.is_introducer
        self.dissemination.rtt_s = self.neighbours.rtt_s
        self.dissemination.relays.role_of = self.rights.role_of
        self.started = now
        self._events: dict[type, Callable[[Any], None]] = self._event_table()
        self._messages: dict[type, Callable[[LinkId, Any], None]] = self._message_table()
        self.replica.watch(self._replica_changed)
        self.graph.watch(self._graph_changed)

    def _make_registry(self, saved: Saved, wall_s: float, base: Node | None) -> None:
        """Who is there, what they say, and who is linked with whom."""
        env = self.env
        self.clock = MeshTime(env, saved, wall_s)
        self.trust = Trust(env, saved, self.clock)
        replica = None if base is None else base.replica
        self.replica: Replica = Replica(env, self.trust, self.clock, saved, replica)
        self.owner = Owner(env, self.replica, self.clock, saved)
        self.dissemination = Dissemination(env, self.replica)
        self.antientropy = AntiEntropy(env, self.replica, self.dissemination)
        self.proofs = Proofs(env, self.replica)
        self.quotas = Quotas(env, self.replica)
        self.neighbours = Neighbours(env, self.owner, self.clock, self.antientropy)
        graph = None if base is None else base.graph
        self.graph: Graph = Graph(env, self.replica, self.neighbours, graph)
        self.dissemination.skeleton.topology = self.graph
        self.divergence = Divergence(env, self.replica, self.antientropy)
        self.chronicle = Chronicle(env, self.replica, self.neighbours)
        self.paths = Paths(env, self.graph, self.neighbours)
        names = None if base is None else base.names
        self.names: Names = Names(env, self.replica, saved, names)
        seen = None if base is None else base.sightings
        self.sightings: Sightings = Sightings(env, self.replica, self.names, seen)
        self.dialling = Dialling(env, self.replica, self.neighbours, self.trust, saved)
        self.blobs = Blobs(env, self.replica, self.neighbours, saved)
        self.offences = Offences(env, self.trust, self.neighbours)

    def _make_messages(self, saved: Saved) -> None:
        """The CIs, who may do what, and what is sent."""
        env = self.env
        self.cis = Cis(env, self.owner, saved)
        self.rights = Rights(
            env, self.trust, self.clock, replica=self.replica, cis=self.cis, saved=saved
        )
        self.invites = Invites(env, self.trust, self.rights, self.clock, saved)
        self.forwarding = Forwarding(env, self.replica, self.paths, self.neighbours)
        self.forwarding.relaying.is_own = self.rights.is_own
        self.deliveries = Deliveries(
            env, self.replica, self.names, self.cis, self.rights, self.forwarding
        )
        self.requests = Requests(
            env, self.replica, self.names, self.graph, self.forwarding, self.deliveries
        )
        self.durable = Durable(
            env, self.clock, self.cis, self.graph, self.forwarding, self.deliveries
        )
        self.durable.parking.near = partial(near_parkers, env, self.replica, self.paths)
        self.durable.load(saved)
        self.sharing = Sharing(
            env, self.replica, self.cis, self.rights, self.deliveries, self.forwarding
        )
        self.sharing.load(saved, self.graph.reachable)
        self.witness = Witness(env, self.replica, self.deliveries, self.forwarding, saved)
        self.requests.with_durable(self.durable)
        self.requests.shared = self.sharing.record
        self.requests.at_fault = self.offences.afar
        self.choosing = Choosing(
            env,
            replica=self.replica,
            ways=(self.graph, self.paths),
            cis=self.cis,
            deliveries=self.deliveries,
            requests=self.requests,
        )
        self.draining = Draining(env, self._holdings(), lambda: self.forwarding.relayed)

    # --- the whole face --------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The instant of the earliest deadline; infinity when nothing is due."""
        return self.env.deadlines.earliest()

    def start(self, now: float) -> list[Effect]:
        """The first turn: raise the epoch, publish the own records, dial."""
        self.env.now = now
        self.owner.start()  # before the CIs: they get what room its records leave
        self.cis.start()
        self.dialling.start()
        self.antientropy.start()
        self.blobs.start()
        self.durable.start()
        return self.env.take()

    def resume(self, now: float, links: Sequence[tuple[ev.LinkUp, float]]) -> list[Effect]:
        """The first turn of a node that takes up where it was: its own head, signed by this very
        instance, is in the replica of its base, and these links are up, each with its round trip
        in seconds, to peers that hold the same."""
        self.env.now = now
        self.owner.resume(self.replica.owners[self.env.me])
        self.cis.start()
        self.antientropy.resume()
        for event, rtt_s in links:
            self.dialling.on_link_up(event)
            self.neighbours.resume_link(event, rtt_s)
            self._introduce(event, agreed=True)
        self.dialling.resume()
        return self.env.take()

    def handle(self, event: ev.Event, now: float) -> list[Effect]:
        """Deal fully with one event. Raises nothing for anything a peer or a caller can do."""
        assert now >= self.env.now, "time never goes back inside a node"
        self.env.now = now
        self._events[type(event)](event)
        self.env.deadlines.run_due(now)
        return self.env.take()

    def judge(
        self, stack_id: StackId, name: str, keydoc: SignedKeyDoc, proved_secret: bool
    ) -> Verdict:
        """Whether a peer that is shaking hands is admitted; asked by the shell, changes nothing."""
        return self.trust.judge(stack_id, name, keydoc, proved_secret)

    # --- routing of events -----------------------------------------------------------------------

    def _event_table(self) -> dict[type, Callable[[Any], None]]:
        return {
            ev.Tick: lambda _event: None,
            ev.WallClock: lambda event: self.clock.on_wall(event.wall_s),
            ev.Stalled: self._stalled,
            ev.Saved: self._saved,
            ev.StoreTrouble: lambda event: self.durable.commits.trouble(event.refusing),
            ev.LinkUp: self._link_up,
            ev.LinkDown: self._link_down,
            ev.Received: self._received,
            ev.DialFailed: self.dialling.on_failed,
            ev.PeerRefused: self._peer_refused,
            ev.PeerSeen: self.dialling.on_seen,
            ev.RegisterCi: self._command(self.cis.register),
            ev.HeartbeatCi: self._command(self.cis.heartbeat),
            ev.DeregisterCi: self._command(self.cis.deregister),
            ev.Detached: self.cis.detached,
            ev.CiHealth: self.cis.health,
            ev.SetCatalogue: self._command(self.cis.set_catalogue),
            ev.SendMessage: self._command(self.choosing.send),
            ev.ChunksTaken: self.requests.chunks_taken,
            ev.CancelCommand: self._cancel,
            ev.TraceRoute: self._command(self.requests.trace),
            ev.PutBlob: self._command(self.blobs.put),
            ev.GetBlob: self._command(self.blobs.get),
            ev.AdmitPeer: self._command(self._admit),
            ev.EvictPeer: self._command(self._evict),
            ev.Govern: self._command(self._govern),
            ev.TakeKeys: self._command(self.owner.take_keys),
            ev.AskWitnesses: self._command(self.witness.ask),
            ev.AuditState: self._audit_state,
            ev.Drain: self._command(self._drain),
            ev.Leave: self._command(self._leave),
            ev.ReplyChunk: self.deliveries.reply_chunk,
            ev.ReplyDone: self.deliveries.reply_done,
            ev.ReplyFailed: self.deliveries.reply_failed,
            ev.BodyDone: self.durable.on_body_done,
        }

    def _message_table(self) -> dict[type, Callable[[LinkId, Any], None]]:
        acts: dict[type, Callable[[LinkId, Any], None]] = {
            msg.Ping: self._ping,
            msg.Pong: self.neighbours.on_pong,
            msg.Probe: self.neighbours.on_probe,
            msg.ProbeAnswer: self.neighbours.on_probe_answer,
            msg.Bye: self.neighbours.on_bye,
            msg.Vouch: self.trust.on_vouch,
            msg.Delta: self.dissemination.on_delta,
            msg.Want: self.dissemination.on_want,
            msg.WantOutlines: self.antientropy.on_want_outlines,
            msg.Outlines: self.antientropy.outliner.on_outlines,
            msg.RelayOutlines: self.dissemination.relays.on_outlines,
            msg.Vector: self._vector,
            msg.Buckets: self.antientropy.on_buckets,
            msg.Refuses: self._refuses,
            msg.Ihave: self.dissemination.on_ihave,
            msg.Graft: self.dissemination.on_graft,
            msg.Prune: self.dissemination.on_prune,
            msg.Proof: self.proofs.on_proof,
            msg.Forward: self.forwarding.on_forward,
            msg.HopAck: self.forwarding.on_hop_ack,
            msg.LinkCredit: self.forwarding.on_link_credit,
            msg.Settled: self.forwarding.on_settled,
            msg.Released: self.forwarding.on_released,
            msg.Spread: Spreading(self.forwarding).on_spread,
            msg.Fetch: self.blobs.on_fetch,
            msg.Piece: self.blobs.on_piece,
            msg.Lacking: self.blobs.on_lacking,
        }
        return {
            kind: act if kind in UNCOUNTED else self._counted(kind, act)
            for kind, act in acts.items()
        }

    def _counted(
        self, kind: type, act: Callable[[LinkId, Any], None]
    ) -> Callable[[LinkId, Any], None]:
        def run(link: LinkId, message: Any) -> None:
            self.env.counts.count_received(kind)
            act(link, message)

        return run

    def _command(self, act: Callable[[Any], dict[str, Any] | None]) -> Callable[[Any], None]:
        """A command that returns a dict is answered with it, one that raises is answered with the
        error, and one that returns None answers later by itself."""

        def run(event: Any) -> None:
            try:
                result = act(event)
            except MeshError as error:
                self.env.emit(AnswerFailed(event.ticket, error.as_dict()))
            else:
                if result is not None:
                    self.env.emit(Answer(event.ticket, result))

        return run

    def _saved(self, event: ev.Saved) -> None:
        self.owner.saved(event.ticket)
        self.durable.commits.saved(event.ticket)

    def _stalled(self, event: ev.Stalled) -> None:
        if event.suspended > 0.0:
            self.clock.suspended(event.suspended)
        self.neighbours.stalled(event.seconds)

    # --- links -----------------------------------------------------------------------------------

    def _link_up(self, event: ev.LinkUp) -> None:
        if self.offences.refuse(event.link, event.stack_id):
            return
        if event.invite and not self.invites.redeem(event):
            self.env.emit(CloseLink(event.link, "not_admitted", "The invite is used up."))
            return
        self.invites.joined(event.stack_id)
        taken = self.neighbours.link_up(event)
        # Also for a second link that was closed again: it tells who lives at that address.
        self.dialling.on_link_up(event)
        if taken:
            self._introduce(event)

    def _introduce(self, event: ev.LinkUp, *, agreed: bool = False) -> None:
        """Tell every machine of a link that is in use. `agreed` says that its peer is known to
        hold what we hold."""
        self.quotas.link_up(event.link, event.stack_id)
        self.clock.link_up(event.link, event.stack_id)
        self.trust.link_up(event)
        self.dissemination.link_up(event.link, event.stack_id)
        self.antientropy.link_up(event.link, event.stack_id, agreed=agreed)
        self.divergence.link_up(event.link, event.stack_id)
        self.chronicle.link_up(event.link, event.stack_id)
        self.proofs.link_up(event.link)
        self.forwarding.link_up(event.link)
        self.blobs.link_up(event.link)

    def _peer_refused(self, event: ev.PeerRefused) -> None:
        self.trust.on_refused(event)
        self.invites.refused(event)

    def _link_down(self, event: ev.LinkDown) -> None:
        neighbour = self.neighbours.links.get(event.link)
        if not self.neighbours.link_down(event):
            return
        self.forwarding.link_down(event.link)
        self.blobs.link_down(event.link)
        self.antientropy.link_down(event.link)
        self.divergence.link_down(event.link)
        self.chronicle.link_down(event.link, event.reason)
        self.proofs.link_down(event.link)
        self.dissemination.link_down(event.link)
        self.quotas.link_down(event.link)
        self.clock.drop_link(event.link)
        self.trust.link_down(event.link)
        self.dialling.on_link_down(event)
        if event.fault and neighbour is not None:
            self.offences.strike(neighbour.stack_id, event.reason)

    def _received(self, event: ev.Received) -> None:
        link = event.link
        if not self.neighbours.heard(link):
            return
        table = self._messages
        for message in event.messages:
            try:
                if self.quotas.admits(link, message):
                    table[type(message)](link, message)
            except NoveltyError as error:
                self.offences.pass_over(link, error)
            except RemoteError as error:
                self.offences.on_link(link, error)
                return
        self.forwarding.end_of_batch(link)

    # --- messages that touch several machines ----------------------------------------------------

    def _ping(self, link: LinkId, message: msg.Ping) -> None:
        self.neighbours.on_ping(link, message)
        if message.fingerprint:
            self.divergence.on_print(link, message.fingerprint)

    def _vector(self, link: LinkId, message: msg.Vector) -> None:
        self.antientropy.on_vector(link, message)
        self.divergence.on_vector(link, message)

    def _refuses(self, link: LinkId, message: msg.Refuses) -> None:
        self.antientropy.on_refuses(link, message)
        self.divergence.on_refuses(link, message)

    # --- commands that touch several machines ----------------------------------------------------

    def _admit(self, event: ev.AdmitPeer) -> dict[str, Any]:
        result = self.trust.admit(event.stack_id)
        self.antientropy.unproven.believe(event.stack_id)
        self.dialling.retry_now(event.stack_id)
        return result

    def _audit_state(self, event: ev.AuditState) -> None:
        self.owner.audit_end = (event.number, event.hash)
        self.rights.closed = event.closed

    def _govern(self, event: ev.Govern) -> dict[str, Any]:
        machine = self.invites if event.act in ("invite", "uninvite", "join") else self.rights
        return machine.govern(event)

    def _evict(self, event: ev.EvictPeer) -> dict[str, Any]:
        result = self.trust.evict(event.stack_id)
        self.rights.forget(event.stack_id)
        self.neighbours.close(event.stack_id, "evicted", "This stack was evicted.")
        self.replica.drop(event.stack_id)
        self.antientropy.left_out()
        return result

    def _cancel(self, event: ev.CancelCommand) -> None:
        if not (self.blobs.cancel(event.ticket) or self.choosing.cancel(event.ticket)):
            self.requests.cancel(event.ticket)

    def _holdings(self) -> dict[str, Callable[[], int]]:
        """What a stack that is to stop finishes first."""
        return {
            "requests": lambda: self.requests.pending,
            "deliveries": lambda: self.deliveries.open,
            "forwarding_bytes": lambda: self.forwarding.queued_bytes,
        }

    def _drain(self, event: ev.Drain) -> None:
        self.requests.draining()
        self.durable.draining()
        self.owner.drain()
        ticket = event.ticket
        self.draining.begin(
            event.within_s, lambda held: self.env.emit(Answer(ticket, {"held": held}))
        )

    def _leave(self, event: ev.Leave) -> None:
        self.dialling.stop()
        self.requests.leaving()
        self.durable.leaving()
        self.blobs.leaving()
        self.owner.leave(event.ticket)

    # --- what machines tell one another ----------------------------------------------------------

    def _replica_changed(self, change: Change) -> None:
        if change.kind in ("new", "content") and change.owner != self.env.me:
            self.trust.old_links.keys_changed(self.replica.owners[change.owner].keydoc)
        self.quotas.on_change(change)
        self.dissemination.on_change(change)
        self.antientropy.on_change(change)
        self.proofs.on_change(change)
        self.graph.on_change(change)
        self.names.on_change(change)
        self.sightings.on_change(change)
        self.dialling.on_change(change)
        self.requests.on_change(change)
        self.durable.on_change(change)
        self.sharing.on_change(change)
        self.witness.on_change(change)
        self.choosing.on_change(change)
        self.blobs.on_change(change, change.link)
        self.chronicle.on_change(change)

    def _graph_changed(self) -> None:
        self.forwarding.graph_changed()
        self.requests.graph_changed()
        self.durable.graph_changed()
