"""One daemon as a value: `handle(event, now)` returns everything that should happen next.

The node composes the machines and routes events and messages to them; every decision is theirs.
It owns no clock, no socket, no disk and no global randomness (docs/design/architecture.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tektonmesh.core import events as ev
from tektonmesh.core import messages as msg
from tektonmesh.core.antientropy import AntiEntropy
from tektonmesh.core.cis import Cis
from tektonmesh.core.deliveries import Deliveries
from tektonmesh.core.dialling import Dialling
from tektonmesh.core.dissemination import Dissemination
from tektonmesh.core.effects import Answer, AnswerFailed, CloseLink, Effect
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.names import Names
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.owner import Owner
from tektonmesh.core.paths import Paths
from tektonmesh.core.replica import Change, Replica
from tektonmesh.core.requests import Requests
from tektonmesh.core.sightings import Sightings
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
from tektonmesh.errors import MeshError, RemoteError


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
    ) -> None:
        env = Env(identity, settings, crypto=crypto, codec=codec, chance=chance, now=now)
        self.env = env
        self.clock = MeshTime(env, saved, wall_s)
        self.trust = Trust(env, saved, self.clock)
        self.replica = Replica(env, self.trust, self.clock, saved)
        self.owner = Owner(env, self.replica, self.clock, saved)
        self.dissemination = Dissemination(env, self.replica)
        self.antientropy = AntiEntropy(env, self.replica, self.dissemination)
        self.neighbours = Neighbours(env, self.owner, self.clock, self.antientropy)
        self.graph = Graph(env, self.replica, self.neighbours)
        self.paths = Paths(env, self.graph, self.neighbours)
        self.names = Names(env, self.replica, saved)
        self.sightings = Sightings(env, self.replica, self.names)
        self.dialling = Dialling(env, self.replica, self.neighbours, self.trust, saved)
        self.cis = Cis(env, self.owner, saved)
        self.forwarding = Forwarding(env, self.replica, self.paths, self.neighbours)
        self.deliveries = Deliveries(env, self.replica, self.names, self.cis, self.forwarding)
        self.requests = Requests(
            env, self.replica, self.names, self.graph, self.forwarding, self.deliveries
        )
        self.started = now
        self._events: dict[type, Callable[[Any], None]] = self._event_table()
        self._messages: dict[type, Callable[[LinkId, Any], None]] = self._message_table()
        self.replica.watch(self._replica_changed)
        self.graph.watch(self._graph_changed)

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
            ev.Stalled: lambda event: self.neighbours.stalled(event.seconds),
            ev.Saved: lambda event: self.owner.saved(event.ticket),
            ev.LinkUp: self._link_up,
            ev.LinkDown: self._link_down,
            ev.Received: self._received,
            ev.DialFailed: self.dialling.on_failed,
            ev.PeerRefused: self.trust.on_refused,
            ev.PeerSeen: self.dialling.on_seen,
            ev.RegisterCi: self._command(self.cis.register),
            ev.HeartbeatCi: self._command(self.cis.heartbeat),
            ev.DeregisterCi: self._command(self.cis.deregister),
            ev.Detached: self.cis.detached,
            ev.CiHealth: self.cis.health,
            ev.SendMessage: self._command(self.requests.send),
            ev.CancelCommand: lambda event: self.requests.cancel(event.ticket),
            ev.TraceRoute: self._command(self.requests.trace),
            ev.AdmitPeer: self._command(self._admit),
            ev.EvictPeer: self._command(self._evict),
            ev.Leave: self._command(self._leave),
            ev.ReplyChunk: self.deliveries.reply_chunk,
            ev.ReplyDone: self.deliveries.reply_done,
            ev.ReplyFailed: self.deliveries.reply_failed,
        }

    def _message_table(self) -> dict[type, Callable[[LinkId, Any], None]]:
        return {
            msg.Ping: self.neighbours.on_ping,
            msg.Pong: self.neighbours.on_pong,
            msg.Probe: self.neighbours.on_probe,
            msg.ProbeAnswer: self.neighbours.on_probe_answer,
            msg.Bye: self.neighbours.on_bye,
            msg.Vouch: self.trust.on_vouch,
            msg.Delta: self.dissemination.on_delta,
            msg.Want: self.dissemination.on_want,
            msg.Vector: self.antientropy.on_vector,
            msg.Buckets: self.antientropy.on_buckets,
            msg.Refuses: self.antientropy.on_refuses,
            msg.Forward: self.forwarding.on_forward,
            msg.HopAck: self.forwarding.on_hop_ack,
            msg.Settled: self.forwarding.on_settled,
            msg.Released: self.forwarding.on_released,
        }

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

    # --- links -----------------------------------------------------------------------------------

    def _link_up(self, event: ev.LinkUp) -> None:
        taken = self.neighbours.link_up(event)
        # Also for a second link that was closed again: it tells who lives at that address.
        self.dialling.on_link_up(event)
        if not taken:
            return
        self.clock.link_up(event.link, event.stack_id)
        self.trust.link_up(event)
        self.dissemination.link_up(event.link, event.stack_id)
        self.antientropy.link_up(event.link, event.stack_id)
        self.forwarding.link_up(event.link)

    def _link_down(self, event: ev.LinkDown) -> None:
        if not self.neighbours.link_down(event):
            return
        self.forwarding.link_down(event.link)
        self.antientropy.link_down(event.link)
        self.dissemination.link_down(event.link)
        self.clock.drop_link(event.link)
        self.trust.link_down(event.link)
        self.dialling.on_link_down(event)

    def _received(self, event: ev.Received) -> None:
        link = event.link
        if not self.neighbours.heard(link):
            return
        table = self._messages
        for message in event.messages:
            try:
                table[type(message)](link, message)
            except RemoteError as error:
                self.env.notice("link_error", link=link, detail=error.detail)
                self.env.emit(CloseLink(link, error.code.name, error.detail))
                return
        self.forwarding.end_of_batch(link)

    # --- commands that touch several machines ----------------------------------------------------

    def _admit(self, event: ev.AdmitPeer) -> dict[str, Any]:
        result = self.trust.admit(event.stack_id)
        self.dialling.retry_now(event.stack_id)
        return result

    def _evict(self, event: ev.EvictPeer) -> dict[str, Any]:
        result = self.trust.evict(event.stack_id)
        self.neighbours.close(event.stack_id, "evicted", "This stack was evicted.")
        self.replica.drop(event.stack_id)
        self.antientropy.evicted()
        return result

    def _leave(self, event: ev.Leave) -> None:
        self.dialling.stop()
        self.requests.leaving()
        self.owner.leave(event.ticket)

    # --- what machines tell one another ----------------------------------------------------------

    def _replica_changed(self, change: Change) -> None:
        self.dissemination.on_change(change)
        self.antientropy.on_change(change)
        self.graph.on_change(change)
        self.names.on_change(change)
        self.sightings.on_change(change)
        self.dialling.on_change(change)
        self.requests.on_change(change)

    def _graph_changed(self) -> None:
        self.forwarding.graph_changed()
        self.requests.graph_changed()
