"""Envelopes hop by hop: who gets one next, who still answers for it, and when to try elsewhere.

Each hop keeps what it passed on until the next one says that the destination has it (`Settled`)
or that it leads nowhere (`Released`); then it tries its next best candidate, depth first, within
the envelope's budget of hops and tries. A link that does not acknowledge in time is passed over
for that envelope; a link that goes down hands everything unsettled to others at once. Nothing is
lost silently as long as the origin retries end to end, which is `requests`' and `posts`' part;
that a body arrives twice is prevented at the destination. A relay reads the clear header and
rewrites the mutable part, nothing else (docs/design/forwarding.md).
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from tektonmesh.core.departures import Departures
from tektonmesh.core.envelope import (
    CLASS_AT,
    DESTINATION,
    ENTRIES_MAX,
    ENTRY_SIZE,
    FLOW,
    KEY,
    KIND_AT,
    MUTABLE_AT,
    RELAY_SIZE_MAX,
    SOURCE,
    START_SIZE_MAX,
    TRACE_AT,
    TTL,
    VERSION,
    Envelope,
    Kind,
    Mutable,
    is_control,
    is_labelled_control,
    pack_mutable,
    parse,
    pass_on,
    read_mutable,
    report,
    shorts_of,
    trace_entry,
    unpack_mutable,
)
from tektonmesh.core.grants import Grants
from tektonmesh.core.ids import show_id
from tektonmesh.core.lanes import CLASS_MASK, Done, Kept, Lane
from tektonmesh.core.machine import Env
from tektonmesh.core.messages import Forward, HopAck, LinkCredit, Released, Settled
from tektonmesh.core.neighbours import Neighbours
from tektonmesh.core.paths import Paths
from tektonmesh.core.relaying import Relaying, spent
from tektonmesh.core.releases import is_certain
from tektonmesh.core.replica import Replica
from tektonmesh.core.routes import Routes
from tektonmesh.core.types import SHORT_ID_SIZE, LinkId, StackId, short_id
from tektonmesh.errors import LocalError, RemoteError

TRACE = int(Kind.TRACE)
REQUEST = int(Kind.REQUEST)

Handler = Callable[[Envelope], str]
"""Takes an envelope that is at its destination; returns "" or the code to release it with."""

ROUND_TRIP_MAX_S = 1.25
FULL = "full"
"""The destination itself has no room; it goes back to the origin, which waits."""


class Forwarding:
    """The envelopes of one node between its links."""

    def __init__(self, env: Env, replica: Replica, paths: Paths, neighbours: Neighbours) -> None:
        self.env = env
        self.queued_bytes = 0
        self.relayed = 0
        self.relaying = Relaying(env, replica, neighbours)
        self._paths = paths
        self._neighbours = neighbours
        self._short = short_id(env.me)
        self._entry_now = trace_entry(self._short, 0)
        self._handlers: dict[int, Handler] = {}
        self._lanes: dict[LinkId, Lane] = {}
        grants = Grants(self._lanes, lambda: self.queued_bytes)
        self._departures = Departures(env, grants)
        self._routes = Routes(env.me, paths, self._lanes)
        self._seen, self._seen_before = dict[bytes, None](), dict[bytes, None]()
        self._seen_until = env.after(env.settings.hop_keep_s)

    # --- own envelopes ---------------------------------------------------------------------------

    def receive(self, kind: Kind, handler: Handler) -> None:
        """Hand arriving envelopes of `kind` to `handler`, which raises nothing."""
        self._handlers[kind] = handler

    def send(self, envelope: Envelope, done: Done | None = None) -> bool:
        """Start an own envelope on its way. False if nobody leads to its destination now; else
        `done` is told once: "settled", or the code it came back with ("lost" if nobody knows).

        Raises LocalError `too_large` for one that could outgrow a link's limit on its way."""
        settings = self.env.settings
        data = envelope.pack(settings.hop_limit, settings.tries_limit)
        if len(data) - len(envelope.avoid) > START_SIZE_MAX:
            detail = "The message is too large with all that goes with it."
            raise LocalError(detail, code="too_large")
        kept = Kept(data, self.env.now, settings.tries_limit, done=done)
        mutable = read_mutable(data)
        lane = self._routes.choose(kept, mutable)
        if lane is None:
            return False
        self.queued_bytes += len(data)
        self._launch(kept, mutable, lane)
        return True

    def round_trip_s(self, destination: StackId) -> float:
        """What the best path to a stack takes both ways; 0 while there is none. A link that flaps
        or drains is dear and not slow: whoever waits for eight of them would wait for minutes."""
        return min((self._paths.cost(destination) or 0) / 1000.0, ROUND_TRIP_MAX_S)

    def path(self, destination: StackId, avoid: bytes = b"") -> list[StackId]:
        """The way of an own envelope as seen here, both ends included; empty if there is none."""
        return self._routes.path(destination, avoid)

    def detour(self, destination: StackId, avoid: bytes) -> bytes:
        """What the next copy should avoid when nothing was heard of the last, which had `avoid`."""
        return self._routes.detour(destination, avoid)

    def lanes(self) -> list[Lane]:
        """For people: every lane with what it keeps."""
        return list(self._lanes.values())

    # --- links -----------------------------------------------------------------------------------

    def link_up(self, link: LinkId) -> None:
        neighbour = self._neighbours.links.get(link)
        if neighbour is not None:
            assert link not in self._lanes, "a link comes up once"
            self._lanes[link] = Lane(link, neighbour.stack_id)
            self._routes.clear()

    def link_down(self, link: LinkId) -> None:
        """Everything unsettled on this link is tried elsewhere at once."""
        lane = self._lanes.pop(link, None)
        if lane is None:
            return
        lane.up = False
        self._routes.clear()
        self._departures.forget(lane)
        self.env.deadlines.drop(("lane", link))
        for kept in list(lane.kept.values()):
            kept.certain = False
            self._try_next(kept)
        for kept in lane.drain():
            self._try_next(kept)

    def graph_changed(self) -> None:
        """Forget the remembered routes."""
        self._routes.clear()
        self.relaying.graph_changed()

    def end_of_batch(self, link: LinkId) -> None:
        """One read is dealt with: send what it caused."""
        lane = self._lanes.get(link)
        if lane is not None:
            rtt_s = self._rtt_s(lane)
            lane.transit_ms = int(rtt_s * 500)
            lane.note_rtt(rtt_s)
            if lane.heard_bytes:
                self._departures.answer_within(lane, self.env.settings.ack_delay_s)
        settings = self.env.settings
        if self.env.now >= self._seen_until or len(self._seen) >= settings.dedup_max:
            self._seen_before, self._seen = self._seen, {}
            self._seen_until = self.env.after(settings.hop_keep_s)
        self._departures.flush()

    # --- messages --------------------------------------------------------------------------------

    def on_forward(self, link: LinkId, message: Forward) -> None:
        """Raises RemoteError for a broken frame, and for more than the link may bring. What calls
        itself control and is not goes back, or credit and quotas would bind nobody."""
        lane = self._lanes.get(link)
        if lane is None:
            return
        seq, data = message.seq, message.envelope
        control = is_control(data)
        if not control:
            if lane.received >= lane.granted:
                raise RemoteError("More envelopes came on the link than credit was given for.")
            lane.received += len(data)
        if lane.is_repeat(seq):
            return
        poses = not control and is_labelled_control(data)
        if not poses and self._relay_smoothly(lane, seq, data):
            return
        mutable = self._read(data)
        if data[0] != VERSION:
            self._release(lane, seq, "version")
        elif poses:
            self._release(lane, seq, "refused")
        elif data[DESTINATION] == self.env.me:
            self._arrive(lane, seq, data)
        else:
            self._relay(lane, seq, data, mutable)

    def on_hop_ack(self, link: LinkId, message: HopAck) -> None:
        lane = self._lanes.get(link)
        if lane is not None:
            lane.on_ack(message.seq)
            self._spoke(lane)

    def on_link_credit(self, link: LinkId, message: LinkCredit) -> None:
        lane = self._lanes.get(link)
        if lane is not None:
            lane.on_credit(message.limit)
            self._pump(lane)

    def on_settled(self, link: LinkId, message: Settled) -> None:
        lane = self._lanes.get(link)
        if lane is None:
            return
        lane.have_left(message.seqs)
        for seq in message.seqs:
            kept = lane.kept.pop(seq, None)
            if kept is not None:
                self._settle(kept)
        self._spoke(lane)

    def on_released(self, link: LinkId, message: Released) -> None:
        lane = self._lanes.get(link)
        kept = lane.kept.pop(message.seq, None) if lane is not None else None
        if lane is None or kept is None:
            return
        lane.has_left(message.seq)
        self._spoke(lane)
        if not is_certain(message.code):
            kept.certain = False
        if message.code == FULL:
            self._give_up(kept, FULL)  # all other ways lead to the same door
            return
        visited = [short for short in message.visited if len(short) == SHORT_ID_SIZE]
        kept.tries -= len(visited)
        kept.note_tried(lane.short + b"".join(visited))
        self._try_next(kept, message.code)

    # --- arriving and relaying -------------------------------------------------------------------

    def _arrive(self, lane: Lane, seq: int, data: bytes) -> None:
        """The destination has it: settled from here on, unless it has no room for it."""
        envelope = parse(data)
        handler = self._handlers.get(envelope.header.kind)
        code = ""
        if handler is None:
            self.env.notice("envelope_ignored", envelope_kind=envelope.header.kind)
        else:
            code = handler(envelope)
        if code:
            self._release(lane, seq, code)
            return
        lane.settled.append(seq)
        lane.heard_bytes += len(data)
        settings = self.env.settings
        awaited = data[KIND_AT] == REQUEST
        self._departures.answer_within(
            lane, settings.answer_delay_s if awaited else settings.ack_delay_s
        )

    def _relay_smoothly(self, lane: Lane, seq: int, data: bytes) -> bool:
        """Relay an envelope with no past to heed, of a flow that passed before; False if it is
        anything else, and nothing is done then.

        This is `_relay` for nearly all of a busy relay's work, at half its cost: one look at each
        byte of the mutable part, and no call that could be saved.
        """
        onward = self._routes.flows.get(data[FLOW])
        settings, size = self.env.settings, len(data)
        if onward is None or size < TRACE_AT or data[0] != VERSION:
            return False
        hops_left, tries_left, age_ms, n_trace, n_avoid = unpack_mutable(data)
        trace_end = TRACE_AT + ENTRY_SIZE * n_trace
        trace, key = data[TRACE_AT:trace_end], data[KEY]
        age_ms += lane.transit_ms
        if (
            n_avoid
            or data[KIND_AT] == TRACE
            or trace_end > size
            or not 0 < hops_left <= settings.hop_limit
            or not 0 < tries_left <= settings.tries_limit
            or n_trace >= ENTRIES_MAX
            or size > RELAY_SIZE_MAX
            or onward.short in trace
            or self._short in trace
            or key in self._seen
            or key in self._seen_before
            or age_ms >= int.from_bytes(data[TTL])
            or self.queued_bytes + size > settings.relay_queue_bytes
            or not self.relaying.affords(data)
        ):
            return False
        kept = Kept(data, self.env.now, tries_left - 1, back=lane, back_seq=seq)
        kept.transit_ms = lane.transit_ms
        self._note_relayed(lane, seq, data)
        mutable = pack_mutable(hops_left - 1, tries_left - 1, age_ms, n_trace + 1, 0)
        head, rest = data[:MUTABLE_AT], data[trace_end:]
        packed = b"".join((head, mutable, trace, self._entry_now, rest))
        self._hand_over(kept, packed, onward)
        return True

    def _relay(self, lane: Lane, seq: int, data: bytes, mutable: Mutable) -> None:
        transit_ms = lane.transit_ms
        code = self._refusal(data, mutable, transit_ms)
        if code:
            self.relaying.refuse(code, data[SOURCE])
            self._release(lane, seq, code)
            return
        settings = self.env.settings
        tries = min(mutable.tries_left, settings.tries_limit)
        kept = Kept(data, self.env.now, tries, back=lane, back_seq=seq)
        kept.transit_ms = transit_ms
        chosen = self._routes.choose(kept, mutable)
        if chosen is None:
            self._release(lane, seq, "no_path")
            return
        self._note_relayed(lane, seq, data)
        self._launch(kept, mutable, chosen)

    def _read(self, data: bytes) -> Mutable:
        """The mutable part of a packed envelope, with no more hops than this stack allows, each
        time that it is sent. Raises RemoteError if the frame is broken."""
        mutable, limit = read_mutable(data), self.env.settings.hop_limit
        return mutable._replace(hops_left=limit) if mutable.hops_left > limit else mutable

    def _note_relayed(self, lane: Lane, seq: int, data: bytes) -> None:
        lane.owe_ack(seq)
        lane.heard_bytes += len(data)  # acknowledged after the batch
        self._seen[data[KEY]] = None
        self.relayed += 1
        self.queued_bytes += len(data)

    def _refusal(self, data: bytes, mutable: Mutable, transit_ms: int) -> str:
        """Why this envelope may not pass here; empty if it may."""
        code = spent(data, mutable, transit_ms)
        if code:
            return code
        if self._short in data[TRACE_AT : mutable.trace_end] or self._was_here(data[KEY]):
            return "duplicate"
        if self.queued_bytes + len(data) > self.env.settings.relay_queue_bytes:
            return "busy"
        if not self._routes.knows(data) and not self.relaying.consents(data):
            return "refused"
        return "" if self.relaying.affords(data) else "quota"

    def _was_here(self, key: bytes) -> bool:
        """Whether this (attempt, msg_id, source) was relayed of late. Two generations of
        `hop_keep_s` each, as long as an upstream hop may still send it another way."""
        return key in self._seen or key in self._seen_before

    def _release(self, lane: Lane, seq: int, code: str, visited: tuple[bytes, ...] = ()) -> None:
        lane.release(seq, code, visited)
        self._departures.touch(lane)

    # --- what is kept ----------------------------------------------------------------------------

    def _let_go(self, kept: Kept) -> None:
        self.queued_bytes -= len(kept.data)
        assert self.queued_bytes >= 0, "an envelope is let go once"

    def _settle(self, kept: Kept) -> None:
        self._let_go(kept)
        if kept.back is not None:
            kept.back.settled.append(kept.back_seq)
            self._departures.answer_within(kept.back, self.env.settings.answer_delay_s)
        elif kept.done is not None:
            kept.done("settled")

    def _try_next(self, kept: Kept, code: str = "no_path") -> None:
        """Depth first: the next best candidate, or back to where it came from."""
        mutable = self._read(kept.data)
        lane = self._routes.choose(kept, mutable) if kept.tries > 0 else None
        if lane is not None:
            self._launch(kept, mutable, lane)
        else:
            self._give_up(kept, code)

    def _give_up(self, kept: Kept, code: str) -> None:
        """Nobody is left to try here: back to where it came from."""
        self._let_go(kept)
        if not kept.certain:
            code = "lost"
        if kept.back is not None:
            self._release(kept.back, kept.back_seq, code, tuple(shorts_of(kept.tried)))
        elif kept.done is not None:
            kept.done(code)

    def _launch(self, kept: Kept, mutable: Mutable, lane: Lane) -> None:
        now, data = self.env.now, kept.data
        dwell_ms = int((now - kept.since) * 1000)
        kept.tries -= 1
        packed = pass_on(
            data,
            mutable,
            tries_left=max(kept.tries, 0),
            age_ms=mutable.age_ms + dwell_ms + kept.transit_ms,
            entry=trace_entry(self._short, dwell_ms) if dwell_ms else self._entry_now,
            avoid=kept.others_tried() if kept.tried else b"",
        )
        if data[KIND_AT] == TRACE:
            packed += report(self.queued_bytes - len(data), self._rtt_s(lane))
        self._hand_over(kept, packed, lane)

    def _hand_over(self, kept: Kept, packed: bytes, lane: Lane) -> None:
        if lane.forward(kept, packed, packed[CLASS_AT] & CLASS_MASK, self.env.now):
            self._departures.touch(lane)
        if not lane.timed:
            self._time(lane, self.env.now + self._hop_timeout_s(lane))

    # --- time ------------------------------------------------------------------------------------

    def _rtt_s(self, lane: Lane) -> float:
        neighbour = self._neighbours.links.get(lane.link)
        return neighbour.rtt_s if neighbour is not None else 0.0

    def _hop_timeout_s(self, lane: Lane) -> float:
        settings = self.env.settings
        return min(max(4.0 * self._rtt_s(lane), settings.hop_ack_min_s), settings.hop_ack_max_s)

    def _time(self, lane: Lane, instant: float) -> None:
        """One deadline per link; envelopes of a link grow old in the order they were sent."""
        lane.timed = True
        self.env.deadlines.set(("lane", lane.link), instant, lambda: self._check(lane))

    def _check(self, lane: Lane) -> None:
        now = self.env.now
        timeout_s, keep_s = self._hop_timeout_s(lane), self.env.settings.hop_keep_s
        while (late := lane.oldest_unacked()) and late[1].sent_at + timeout_s <= now:
            lane.unacked.popleft()
            lane.has_left(late[0])
            self._hop_is_silent(lane, *late)
        while (old := lane.oldest_kept()) and old[1].sent_at + keep_s <= now:
            del lane.kept[old[0]]
            self._forget(old[1])
        if lane.starved_at + timeout_s <= now:
            lane.starved_at = inf
            self._is_silent(lane)
        self._pump(lane)
        late, old = lane.oldest_unacked(), lane.oldest_kept()
        kept_s = old[1].sent_at + keep_s if old else inf
        # While something is kept, what is sent from now on has no timer of its own.
        late_s = (late[1].sent_at if late else now if old else inf) + timeout_s
        next_s = min(kept_s, late_s, lane.starved_at + timeout_s)
        lane.timed = next_s < inf
        if lane.timed:
            self._time(lane, next_s)

    def _hop_is_silent(self, lane: Lane, seq: int, kept: Kept) -> None:
        """No acknowledgement in time: another way if there is one. If there is none it stays
        where it is, since a slow link is better than none."""
        if not lane.silent:
            self._is_silent(lane)
        tried = kept.tried
        kept.note_tried(lane.short)
        mutable = self._read(kept.data)
        other = self._routes.search(kept, mutable) if kept.tries > 0 else None
        if other is None:
            kept.tried = tried
            return
        del lane.kept[seq]
        kept.certain = False
        self._launch(kept, mutable, other)

    def _is_silent(self, lane: Lane) -> None:
        """It acknowledges nothing, or gives no credit: what waits for it goes another way."""
        if not lane.silent:
            lane.silent = True
            self._routes.clear()
            self.env.notice("hop_silent", link=lane.link, stack=show_id(lane.stack_id))
        for waiting in lane.drain():
            self._try_next(waiting)

    def _forget(self, kept: Kept) -> None:
        """Nobody said what became of it. The end-to-end retry deals with that."""
        self._let_go(kept)
        if kept.done is not None:
            kept.done("lost")

    def _spoke(self, lane: Lane) -> None:
        if lane.silent:
            lane.silent = False
            self._routes.clear()
        if lane.waiting.count:
            self._pump(lane)

    def _pump(self, lane: Lane) -> None:
        """What waited for its turn on this lane and may leave now."""
        moved = lane.pump(self.env.now)
        if moved:
            self._departures.touch(lane)
        if not lane.timed and (moved or lane.waiting.count):
            self._time(lane, self.env.now + self._hop_timeout_s(lane))
