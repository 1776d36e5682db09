"""Memberlist: SWIM with gossip of its own, as in HashiCorp's library with its settings for a LAN.

After Das, Gupta and Motivala (SWIM, DSN 2002), Dadgar, Phillips and Currey (Lifeguard, 2017) and
the library's `state.go`, `queue.go` and `suspicion.go`. A record travels as a user broadcast: each
node that finds it new queues it, and every 200 ms sends what is queued to 3 random nodes, each item
4 * ceil(log10(n + 1)) times in all; what is queued also rides on probes. Every 30 s (more rarely
above 32 nodes) everything is exchanged with one random node over TCP.

Datagrams in the clear, with the library's field names. Left out: compression, the ping over TCP
when one in datagrams fails, and the stretching of timeouts by local health.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil, log, log2, log10
from typing import Any

from tektonmesh.core import events as ev
from tektonmesh.core.effects import CloseLink, Dial, Send
from tektonmesh.core.machine import Env
from tektonmesh.core.types import LinkId
from tektonmesh.sim.baselines.machine import (
    Baseline,
    Entry,
    Place,
    Records,
    Said,
    SendTo,
    packed_size,
)

GOSSIP_S, GOSSIP_NODES = 0.2, 3
RETRANSMIT_MULT = 4
GOSSIP_TO_DEAD_S = 30.0
PROBE_S, PROBE_TIMEOUT_S = 1.0, 0.5
INDIRECT = 3
SUSPICION_MULT, SUSPICION_MAX_MULT = 4, 6
CONFIRMATIONS = SUSPICION_MULT - 2
PUSH_PULL_S = 30.0
PUSH_PULL_SCALE = 32
"""Above so many nodes full exchanges become rarer."""
DATAGRAM_MAX = 1400
CRC_BYTES, COMPOUND_BYTES, PART_BYTES = 5, 2, 2
IP, PORT, VERSIONS = bytes(4), 7946, bytes(6)

ALIVE, SUSPECT, DEAD = "alive", "suspect", "dead"
RECORD = "record"


@dataclass(frozen=True, slots=True)
class Piece:
    """One broadcast: `kind` is `RECORD` or a state; `accuser` is who suspects. Of two with one
    `name`, a queue keeps the newer."""

    kind: str
    node: str
    size: int
    incarnation: int = 0
    accuser: str = ""
    records: Records = field(default_factory=dict)

    @property
    def name(self) -> tuple[str, ...]:
        return (RECORD, self.node, *self.records) if self.kind == RECORD else (self.node,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet(Said):
    """One datagram. `ask` is "ping", "ack", "indirect" or empty for gossip alone."""

    ask: str = ""
    seq: int = 0
    target: str = ""
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync(Said):
    """Everything, over TCP; `reply` asks for the same."""

    reply: bool
    entries: dict[str, Entry]
    states: dict[str, tuple[str, int]]


@dataclass(slots=True)
class Queued:
    """A piece that waits to be sent again; `number` counts what was ever queued."""

    piece: Piece
    number: int
    sent: int = 0


@dataclass(slots=True)
class Suspicion:
    """Since when a node is suspected, and by whom."""

    since: float
    accusers: dict[str, None]


class Memberlist(Baseline):
    """Of most nodes nothing is kept but the records: they are alive at incarnation 0."""

    def __init__(self, env: Env, place: Place) -> None:
        super().__init__(env, place)
        self._queue: dict[tuple[str, ...], Queued] = {}
        self._number = 0
        self._seq = 0
        self._phase = env.chance.random() * GOSSIP_S
        self._order: list[str] = []
        self._states: dict[str, tuple[str, int]] = {}
        """(state, incarnation) of those who were ever anything but alive at 0."""
        self._suspicions: dict[str, Suspicion] = {}
        self._died: dict[str, float] = {}
        self._probes: dict[int, str] = {}
        self._relays: dict[int, tuple[str, int]] = {}
        """Sequence of my ping -> who asked for it, and under which sequence."""

    def started(self) -> None:
        self.every("probe", PROBE_S, self._probe)
        over = max(0, ceil(log2(len(self.peers)) - log2(PUSH_PULL_SCALE)))
        self.every("sync", PUSH_PULL_S * (over + 1), self._push_pull)

    # --- broadcasts ------------------------------------------------------------------------------

    def wrote(self, key: str) -> None:
        self._broadcast_record(self.address, {key: self.own.records[key]})

    def _broadcast_record(self, owner: str, records: Records) -> None:
        rows = [(owner, key, *record) for key, record in records.items()]
        self._broadcast(Piece(RECORD, owner, 1 + packed_size(rows), records=records))

    def _broadcast(self, piece: Piece) -> None:
        self._number += 1
        self._queue[piece.name] = Queued(piece, self._number)
        if "gossip" not in self.env.deadlines:
            self._wait_for_gossip()

    def _wait_for_gossip(self) -> None:
        """A tick at which nothing is queued does nothing, so none is waited for then."""
        ticks = int((self.env.now - self._phase) / GOSSIP_S) + 1
        instant = max(self.env.now, self._phase + ticks * GOSSIP_S)
        self.env.deadlines.set("gossip", instant, self._gossip)

    def _gossip(self) -> None:
        for peer in self.some(GOSSIP_NODES, self._gossiped_to):
            pieces = self._take(DATAGRAM_MAX - COMPOUND_BYTES)
            if pieces:
                self._send(peer, "", 0, pieces=pieces)
        if self._queue:
            self._wait_for_gossip()

    def _gossiped_to(self, peer: str) -> bool:
        died = self._died.get(peer)
        return died is None or self.env.now - died < GOSSIP_TO_DEAD_S

    def _take(self, room: int) -> tuple[Piece, ...]:
        """The pieces for one datagram: those that were sent least, the largest and newest first."""
        limit = RETRANSMIT_MULT * ceil(log10(len(self.peers) + 1))
        taken: list[Piece] = []
        waiting = sorted(self._queue.values(), key=lambda it: (it.sent, -it.piece.size, -it.number))
        for queued in waiting:
            piece = queued.piece
            if PART_BYTES + piece.size > room:
                continue
            room -= PART_BYTES + piece.size
            taken.append(piece)
            queued.sent += 1
            if queued.sent >= limit:
                del self._queue[piece.name]
        return tuple(taken)

    def _send(
        self, peer: str, ask: str, seq: int, *, target: str = "", pieces: tuple[Piece, ...] = ()
    ) -> None:
        """One datagram; what is queued rides on one that asks or answers."""
        size = CRC_BYTES + (_ask_size(ask, self.address, target, seq) if ask else 0)
        if ask and self._queue:
            pieces = self._take(DATAGRAM_MAX - COMPOUND_BYTES - PART_BYTES - size)
            size += PART_BYTES if pieces else 0
        if pieces:
            size += COMPOUND_BYTES + sum(PART_BYTES + piece.size for piece in pieces)
        bodies = [piece for piece in pieces if piece.kind == RECORD]
        alone = not ask and len(bodies) == len(pieces)
        packet = Packet(
            size=size,
            body_size=size if alone else sum(PART_BYTES + piece.size for piece in bodies),
            bodies=tuple((it.node, max(at for at, _ in it.records.values())) for it in bodies),
            ask=ask,
            seq=seq,
            target=target,
            pieces=pieces,
        )
        self.env.emit(SendTo(peer, packet))  # type: ignore[arg-type]

    # --- what came -------------------------------------------------------------------------------

    def datagrams(self, address: str, messages: tuple[Packet, ...]) -> None:
        for packet in messages:
            if packet.ask == "ping":
                self._send(address, "ack", packet.seq)
            elif packet.ask == "indirect":
                seq = self._next_seq()
                self._relays[seq] = address, packet.seq
                self._later(("relay", seq), PROBE_S, self._relays, seq)
                self._send(packet.target, "ping", seq)
            elif packet.ask == "ack":
                self._acked(packet.seq)
            for piece in packet.pieces:
                self._heard(piece)

    def _heard(self, piece: Piece) -> None:
        if piece.kind == RECORD:
            if self.merge(piece.node, piece.records):
                self._broadcast(piece)
        elif piece.kind == ALIVE:
            self._alive(piece.node, piece.incarnation)
        elif piece.kind == SUSPECT:
            self._suspect(piece.node, piece.incarnation, piece.accuser)
        else:
            self._dead(piece.node, piece.incarnation)

    # --- probes ----------------------------------------------------------------------------------

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _later(self, key: tuple[str, int], after_s: float, held: dict[int, Any], seq: int) -> None:
        self.env.deadlines.set(key, self.env.after(after_s), lambda: _forget(held, seq))

    def _probe(self) -> None:
        """Everybody in turn, in an order that is drawn anew when all had theirs."""
        for _ in range(2 * len(self.peers)):
            if not self._order:
                self._order = _shuffled(list(self.peers), self.env.chance.randrange)
            peer = self._order.pop()
            if peer != self.address and self.state_of(peer)[0] != DEAD:
                self._probe_one(peer)
                return

    def _probe_one(self, peer: str) -> None:
        seq = self._next_seq()
        self._probes[seq] = peer
        self._send(peer, "ping", seq)
        deadlines, after = self.env.deadlines, self.env.after
        deadlines.set(("timeout", seq), after(PROBE_TIMEOUT_S), lambda: self._ask_others(seq))
        deadlines.set(("failed", seq), after(PROBE_S), lambda: self._probe_failed(seq))

    def _ask_others(self, seq: int) -> None:
        target = self._probes[seq]
        helpers = self.some(
            INDIRECT, lambda peer: peer != target and self.state_of(peer)[0] == ALIVE
        )
        for peer in helpers:
            self._send(peer, "indirect", seq, target=target)

    def _acked(self, seq: int) -> None:
        if self._probes.pop(seq, None) is not None:
            self.env.deadlines.drop(("timeout", seq))
            self.env.deadlines.drop(("failed", seq))
        relayed = self._relays.pop(seq, None)
        if relayed is not None:
            self.env.deadlines.drop(("relay", seq))
            self._send(relayed[0], "ack", relayed[1])

    def _probe_failed(self, seq: int) -> None:
        peer = self._probes.pop(seq)
        self._suspect(peer, self.state_of(peer)[1], self.address)

    # --- who is there ----------------------------------------------------------------------------

    def state_of(self, node: str) -> tuple[str, int]:
        """(state, incarnation) of a node, as this one believes."""
        return self._states.get(node, (ALIVE, 0))

    def _tell_state(self, kind: str, node: str, incarnation: int, accuser: str) -> None:
        size = 1 + packed_size(_state_row(kind, node, incarnation, accuser))
        self._broadcast(Piece(kind, node, size, incarnation, accuser))

    def _alive(self, node: str, incarnation: int) -> None:
        if node == self.address or incarnation <= self.state_of(node)[1]:
            return
        self._states[node] = ALIVE, incarnation
        self._died.pop(node, None)
        if self._suspicions.pop(node, None) is not None:
            self.env.deadlines.drop(("suspicion", node))
        self._tell_state(ALIVE, node, incarnation, "")

    def _refute(self, incarnation: int) -> None:
        mine = max(self.state_of(self.address)[1], incarnation) + 1
        self._states[self.address] = ALIVE, mine
        self._tell_state(ALIVE, self.address, mine, "")

    def _suspect(self, node: str, incarnation: int, accuser: str) -> None:
        state, known = self.state_of(node)
        if incarnation < known or state == DEAD:
            return
        if node == self.address:
            self._refute(incarnation)
            return
        suspicion = self._suspicions.get(node)
        if suspicion is None:
            suspicion = self._suspicions[node] = Suspicion(self.env.now, {})
        elif accuser in suspicion.accusers or len(suspicion.accusers) > CONFIRMATIONS:
            return
        suspicion.accusers[accuser] = None
        self._states[node] = SUSPECT, incarnation
        self._tell_state(SUSPECT, node, incarnation, accuser)
        instant = suspicion.since + self._patience_s(len(suspicion.accusers) - 1)
        self.env.deadlines.set(
            ("suspicion", node),
            max(instant, self.env.now),
            lambda: self._dead(node, incarnation),
        )

    def _patience_s(self, confirmations: int) -> float:
        """How long a suspicion lasts: the less, the more others confirmed it (Lifeguard)."""
        count = len(self.peers)
        least = SUSPICION_MULT * max(1.0, log10(count)) * PROBE_S
        if count - 2 < CONFIRMATIONS:
            return least
        most = SUSPICION_MAX_MULT * least
        part = log(confirmations + 1) / log(CONFIRMATIONS + 1)
        return max(least, most - part * (most - least))

    def _dead(self, node: str, incarnation: int) -> None:
        state, known = self.state_of(node)
        if incarnation < known or state == DEAD:
            return
        if node == self.address:
            self._refute(incarnation)
            return
        self._states[node] = DEAD, incarnation
        self._died[node] = self.env.now
        self._suspicions.pop(node, None)
        self.env.deadlines.drop(("suspicion", node))
        self._tell_state(DEAD, node, incarnation, self.address)

    # --- everything, now and then ----------------------------------------------------------------

    def _push_pull(self) -> None:
        for peer in self.some(1, lambda peer: self.state_of(peer)[0] != DEAD):
            self.env.emit(Dial(peer, None))

    def link_up(self, event: ev.LinkUp) -> None:
        if event.outbound:
            self._send_all(event.link, reply=True)

    def _send_all(self, link: LinkId, *, reply: bool) -> None:
        states = [
            {
                "Addr": IP,
                "Incarnation": self.state_of(peer)[1],
                "Meta": b"",
                "Name": peer,
                "Port": PORT,
                "State": 0,
                "Vsn": VERSIONS,
            }
            for peer in self.peers
        ]
        records = [(owner, *entry) for owner, entry in self.entries.items()]
        sync = Sync(
            size=1 + packed_size(states) + packed_size(records),
            tls=False,
            reply=reply,
            entries=dict(self.entries),
            states=dict(self._states),
        )
        self.env.emit(Send(link, (sync,)))  # type: ignore[arg-type]

    def received(self, link: LinkId, messages: tuple[Sync, ...]) -> None:
        for sync in messages:
            if sync.reply:
                self._send_all(link, reply=False)
            self._merge_all(sync)
            if not sync.reply:
                self.env.emit(CloseLink(link, "done", ""))

    def _merge_all(self, sync: Sync) -> None:
        """A death is only a suspicion when it comes this way, as in the library."""
        for node, (state, incarnation) in sync.states.items():
            if state == ALIVE:
                self._alive(node, incarnation)
            else:
                self._suspect(node, incarnation, self.address)
        for owner, entry in sync.entries.items():
            if entry.version > self.entries[owner].version:
                self.merge(owner, entry.records)


def _forget(held: dict[int, Any], seq: int) -> None:
    held.pop(seq, None)


def _shuffled(names: list[str], randrange: Callable[[int], int]) -> list[str]:
    for at in range(len(names) - 1, 0, -1):
        other = randrange(at + 1)
        names[at], names[other] = names[other], names[at]
    return names


def _state_row(kind: str, node: str, incarnation: int, accuser: str) -> dict[str, object]:
    """The fields of the library's alive, suspect and dead."""
    if kind == ALIVE:
        return {
            "Addr": IP,
            "Incarnation": incarnation,
            "Meta": b"",
            "Node": node,
            "Port": PORT,
            "Vsn": VERSIONS,
        }
    return {"From": accuser, "Incarnation": incarnation, "Node": node}


def _ask_size(ask: str, source: str, target: str, seq: int) -> int:
    """The fields of the library's ping, indirect ping and ack, and the byte of the kind."""
    if ask == "ack":
        return 1 + packed_size({"Payload": b"", "SeqNo": seq})
    row: dict[str, object] = {
        "Node": target,
        "SeqNo": seq,
        "SourceAddr": IP,
        "SourceNode": source,
        "SourcePort": PORT,
    }
    if ask == "indirect":
        row |= {"Nack": True, "Port": PORT, "Target": IP}
    return 1 + packed_size(row)
