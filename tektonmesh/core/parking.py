"""Parking: a relay that consented keeps a durable message on its disk for a stack that is away.

Then the origin may be gone as well when the destination returns. Three parts, one at each stack:

- the origin picks a stack that parks (`park` in its record) when nothing leads to the destination
  for a while, and hands it the message, sealed for the destination (PARK: `in`, `left`);
- the parker writes it down within its bounds, says so (a RECEIPT with `pk`), and carries it to the
  destination (PARK again, sealed by itself) until that says that it has it, or its time is over;
- the destination opens both seals, takes what is inside as if the origin had sent it, and tells
  the parker once that is durable.

The origin goes on answering for its message: whichever copy comes first is the one that counts,
since the destination knows (origin, msg_id). Only stacks of one's own mesh secret may park.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from tektonmesh.core.commits import Row
from tektonmesh.core.courier import Courier, Freight
from tektonmesh.core.ends import Ends, Span
from tektonmesh.core.envelope import Envelope, Flags, Kind, parse
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.machine import Env
from tektonmesh.core.meshtime import MeshTime
from tektonmesh.core.outbox import NEWS
from tektonmesh.core.outgoing import OVERHEAD, PARKED, Outgoing
from tektonmesh.core.rows import drop_row, pack_row, read_rows
from tektonmesh.core.sealing import Body, Copy, Sealer, bytes_of, number_of
from tektonmesh.core.types import ID_SIZE, Saved, StackId
from tektonmesh.core.wheel import Waiting, Wheel
from tektonmesh.errors import DeliveryError, LocalError, RemoteError

if TYPE_CHECKING:
    from tektonmesh.core.durable import Durable

TABLE, WISHES = "parked", "maypark"
PARK_AFTER_S = 2.0
"""Nothing leads to the destination for so long before a parker is looked for: a dropped link is
redialled by then."""
LOOK_AGAIN_S = 10.0
"""While there is no parker, or it has not said that it has the message."""
NEXT_AFTER_S = 1.0
"""After one that has no room."""
PARKERS_FOR_S = 5.0
"""How long a list of parkers is good; making it looks at every stack."""
PARKERS_MAX = 8
"""The nearest few are tried in turn."""
ORIGIN_PART = 4
"""One origin may have this part of what a parker keeps."""
SEAL_ROOM = 1024
"""What the second seal and header add at most."""

Key = tuple[StackId, bytes]
"""(origin, msg_id)."""


class _Parcel(Freight):
    """A sealed message `inner` inside another, that travels under an id of its own."""

    __slots__ = ("inner", "park_id", "parking")

    def __init__(self, parking: Parking, to: StackId, inner: bytes) -> None:
        super().__init__(to)
        self.parking = parking
        self.inner = inner
        self.park_id = parking.sealer.new_id()

    @property
    def kind(self) -> Kind:
        return Kind.PARK

    @property
    def msg_id(self) -> bytes:
        return self.park_id

    @property
    def size(self) -> int:
        return len(self.inner) + OVERHEAD

    def body(self, now: float) -> Body:
        return {"in": self.inner, "left": int(self.ttl_s(now) * 1000.0)}


class _Handed(_Parcel):
    """A message on its way to a parker."""

    __slots__ = ("item",)

    def __init__(self, parking: Parking, item: Outgoing, parker: StackId, inner: bytes) -> None:
        super().__init__(parking, parker, inner)
        self.item = item

    def ttl_s(self, now: float) -> float:
        return self.item.ttl_s(now)

    def impossible(self, code: str, detail: str) -> None:
        self.parking.gave_up(self)


class Parked(_Parcel):
    """A message that this stack keeps for another; its row's `body` never changes."""

    __slots__ = ("durable", "key", "span")

    def __init__(self, parking: Parking, key: Key, destination: StackId, inner: bytes) -> None:
        super().__init__(parking, destination, inner)
        self.key = key
        self.span = Span(parking.env, 0, 0.0)
        self.durable = False

    @property
    def row_key(self) -> bytes:
        return b"".join(self.key)

    def ttl_s(self, now: float) -> float:
        return self.span.left_s(self.parking.env, self.parking.clock)

    def impossible(self, code: str, detail: str) -> None:
        self.parking.let_go(self)


class _Watched(Waiting):
    """A message of ours that may be parked."""

    __slots__ = ("handed", "item", "parked", "tried")

    def __init__(self, item: Outgoing) -> None:
        super().__init__()
        self.item = item
        self.parked = False
        self.handed: _Handed | None = None
        self.tried: list[StackId] = []


class Parking:
    """All three parts of one node."""

    def __init__(
        self, env: Env, clock: MeshTime, *, forwarding: Forwarding, courier: Courier
    ) -> None:
        self.env = env
        self.clock = clock
        self.near: Callable[[], list[StackId]] = list
        """Stacks that park and can be reached, the nearest first; told by `node`."""
        self._forwarding = forwarding
        self._courier = courier
        self._watched: dict[bytes, _Watched] = {}
        self._handed: dict[bytes, _Watched] = {}
        self._parked: dict[bytes, Parked] = {}
        self._by_id: dict[bytes, Parked] = {}
        self._bytes = 0
        self._per_origin: dict[StackId, int] = {}
        self._wishes: list[bytes] = []
        self._parkers: list[StackId] = []
        self._parkers_until = env.now
        self._wheel: Wheel[_Watched] = Wheel(env, "parking", self._look, slot_s=0.1)
        self._ends = Ends(env, clock, "parked", self._span_of, self._expire)
        forwarding.receive(Kind.PARK, self.on_park)

    def wire(self, durable: Durable, sealer: Sealer, is_own: Callable[[StackId], bool]) -> None:
        """Whose part this is."""
        self.sealer = sealer
        self._is_own = is_own
        self._commits = durable.commits
        self._outbox = durable.outbox
        self._say = durable.say_parked
        self._arrive = durable.arrive
        self._ask_reseal = durable.ask_reseal

    def __len__(self) -> int:
        """How many messages of others are kept here."""
        return len(self._parked)

    def with_id(self, msg_id: bytes) -> list[Parked]:
        """For people: the messages of others that are kept here under this id."""
        return [parked for parked in self._parked.values() if parked.key[1] == msg_id]

    @property
    def held_bytes(self) -> int:
        return self._bytes

    # --- at the origin ---------------------------------------------------------------------------

    def watch(self, item: Outgoing) -> None:
        """A message of ours that may be parked was handed in. A large body may not."""
        if item.letter.large is not None or item.msg_id in self._watched:
            return
        self.env.save(WISHES, item.msg_id, b"")
        self._watch(item)

    def _watch(self, item: Outgoing) -> None:
        watched = self._watched[item.msg_id] = _Watched(item)
        self._wheel.arm(watched, self.env.after(PARK_AFTER_S))

    def _look(self, watched: _Watched) -> None:
        item = watched.item
        if not self.is_open(item) or item.received or watched.parked:
            self._forget(watched)
            return
        if watched.handed is not None:
            self._courier.drop(watched.handed)  # it did not answer
            self._close_handed(watched)
        if self._courier.is_blocked(item.stack):
            self._hand_over(watched)
        self._wheel.arm(watched, self.env.after(LOOK_AGAIN_S))

    def is_open(self, item: Outgoing) -> bool:
        return self._outbox.find(item.msg_id) is item

    def _hand_over(self, watched: _Watched) -> None:
        item, parkers = watched.item, self._near_parkers()
        untried = [stack for stack in parkers if stack not in watched.tried] or parkers
        chosen = next((stack for stack in untried if stack != item.stack), None)
        inner = self._sealed(item) if chosen is not None else b""
        if chosen is None or not inner:
            return
        watched.tried = [*(t for t in watched.tried if t != chosen), chosen][-PARKERS_MAX:]
        if len(watched.tried) >= len(parkers):
            watched.tried = [chosen]
        watched.handed = _Handed(self, item, chosen, inner)
        self._handed[watched.handed.park_id] = watched
        self._courier.carry(watched.handed)

    def _sealed(self, item: Outgoing) -> bytes:
        """The message as its destination will open it; empty if it cannot be sealed or is too
        large to be sealed again."""
        settings, now = self.env.settings, self.env.now
        try:
            inner = self.sealer.seal(
                Kind.REQUEST,
                item.stack,
                item.body(now),
                ttl_s=item.ttl_s(now),
                copy=Copy(item.msg_id, flags=Flags.DURABLE | Flags.MAY_PARK),
            )
        except (DeliveryError, LocalError):
            return b""
        packed = inner.pack(settings.hop_limit, settings.tries_limit)
        return packed if len(packed) <= settings.body_size_max - SEAL_ROOM else b""

    def _near_parkers(self) -> list[StackId]:
        if self.env.now >= self._parkers_until:
            self._parkers_until = self.env.after(PARKERS_FOR_S)
            self._parkers = self.near()[:PARKERS_MAX]
        return self._parkers

    def gave_up(self, handed: _Handed) -> None:
        """It cannot be handed over."""
        watched = self._handed.get(handed.park_id)
        if watched is not None:
            self._close_handed(watched)

    def _close_handed(self, watched: _Watched) -> None:
        assert watched.handed is not None
        del self._handed[watched.handed.park_id]
        watched.handed = None

    def _forget(self, watched: _Watched) -> None:
        self._wheel.disarm(watched)
        if watched.handed is not None:
            self._courier.drop(watched.handed)
            self._close_handed(watched)
        del self._watched[watched.item.msg_id]
        self.env.save(WISHES, watched.item.msg_id, None)

    def on_answer(self, source: StackId, reply_to: bytes, *, has_it: bool) -> None:
        """The sealed word of a parker, or of a destination, about a PARK of ours."""
        watched, parked = self._handed.get(reply_to), self._by_id.get(reply_to)
        if watched is not None and watched.handed is not None and watched.handed.stack == source:
            self._courier.arrived(watched.handed)
            self._close_handed(watched)
            if not has_it:
                self._wheel.arm(watched, self.env.after(NEXT_AFTER_S))
                return
            watched.parked = True
            if self.is_open(watched.item):
                self._note(watched.item)
            self._forget(watched)
        elif parked is not None and parked.stack == source and has_it:
            self._courier.arrived(parked)
            self.let_go(parked)

    def _note(self, item: Outgoing) -> None:
        """Another stack keeps it as well."""
        self._outbox.note(item, PARKED)
        self.env.save(NEWS, item.msg_id, pack_row(self.env, item.transitions[1:]))

    # --- at the parker ---------------------------------------------------------------------------

    def load(self, saved: Saved) -> None:
        """Take back what the disk kept."""
        self._wishes = sorted(key for table, key in saved if table == WISHES)
        for row_key, words, inner in read_rows(self.env, saved, TABLE):
            sound = len(words) == 3 and len(row_key) == ID_SIZE + 16
            if not sound or not isinstance(words[0], bytes) or len(words[0]) != ID_SIZE:
                drop_row(self.env, TABLE, row_key)
                continue
            destination, end_ms, ttl_ms = words
            parked = Parked(self, (row_key[:ID_SIZE], row_key[ID_SIZE:]), destination, inner)
            parked.span = Span(self.env, end_ms, ttl_ms / 1000.0, again=True)
            parked.durable = True
            self._insert(parked)

    def start(self) -> None:
        """Carry on with what was parked before, or is to be."""
        wishes, self._wishes = self._wishes, []
        for msg_id in wishes:
            item = self._outbox.find(msg_id)
            if item is None:
                self.env.save(WISHES, msg_id, None)
            else:
                self._watch(item)
        for parked in list(self._parked.values()):
            self._courier.carry(parked, again=True)

    def on_park(self, envelope: Envelope) -> str:
        """A message inside another envelope: for us, or to be kept for somebody else."""
        source, outer_id = envelope.header.source, envelope.header.msg_id
        try:
            body = self.sealer.open(envelope)
            inner = parse(bytes_of(body, "in"))
        except LocalError:
            return ""  # sealed to an old prekey; the next copy is sealed to the published one
        except RemoteError as error:
            self.sealer.refusals.note(source, error.detail)
            return ""
        left_ms = number_of(body, "left", int(self.env.settings.durable_ttl_max_s * 1000.0))
        if inner.header.destination == self.env.me:
            self._unpack(source, outer_id, inner, left_ms)
        elif left_ms:
            self._keep(envelope, inner, bytes_of(body, "in"), left_ms)
        return ""

    def _keep(self, outer: Envelope, inner: Envelope, packed: bytes, left_ms: int) -> None:
        source, outer_id = outer.header.source, outer.header.msg_id
        key = inner.header.source, inner.header.msg_id
        known = self._parked.get(b"".join(key))
        if known is not None:
            if known.durable and key[0] == source:
                self._say(Kind.RECEIPT, source, outer_id, {})
            return
        if not self._may_keep(source, inner, len(packed) + OVERHEAD):
            self._say(Kind.NACK, source, outer_id, {"code": "busy", "out": "released"})
            return
        parked = Parked(self, key, inner.header.destination, packed)
        ttl_s = left_ms / 1000.0
        parked.span = Span(self.env, self.clock.now_ms() + left_ms, ttl_s)
        self._insert(parked)
        words = [parked.stack, parked.span.end_ms, left_ms]
        row: Row = (TABLE, parked.row_key, pack_row(self.env, words, packed))
        then = partial(self._kept, parked, source, outer_id)
        self._commits.save((row,), then, partial(self._not_kept, parked))

    def _may_keep(self, source: StackId, inner: Envelope, size: int) -> bool:
        """Whether this stack consented, to this origin, and has room for it."""
        limit = self.env.settings.park_bytes
        flagged = inner.header.flags & Flags.MAY_PARK and inner.header.kind == Kind.REQUEST
        own = inner.header.source == source and self._is_own(source)
        if not (limit and flagged and own) or self._commits.refusing:
            return False
        of_origin = self._per_origin.get(source, 0) + size
        return self._bytes + size <= limit and of_origin <= limit // ORIGIN_PART

    def _kept(self, parked: Parked, source: StackId, outer_id: bytes) -> None:
        if self._parked.get(parked.row_key) is parked:
            parked.durable = True
            self._say(Kind.RECEIPT, source, outer_id, {})
            self._courier.carry(parked)

    def _not_kept(self, parked: Parked) -> None:
        if self._parked.get(parked.row_key) is parked:
            self._remove(parked)

    def let_go(self, parked: Parked) -> None:
        """Its destination has it, or it is worth nothing any more."""
        if self._parked.get(parked.row_key) is parked:
            self._courier.drop(parked)
            self._remove(parked)
            self.env.save(TABLE, parked.row_key, None)

    def _insert(self, parked: Parked) -> None:
        assert parked.row_key not in self._parked, "a message is parked once"
        self._parked[parked.row_key] = self._by_id[parked.park_id] = parked
        origin = parked.key[0]
        self._bytes += parked.size
        self._per_origin[origin] = self._per_origin.get(origin, 0) + parked.size
        self._ends.add(parked.row_key, parked.span, len(self._parked))

    def _remove(self, parked: Parked) -> None:
        del self._parked[parked.row_key], self._by_id[parked.park_id]
        origin = parked.key[0]
        self._bytes -= parked.size
        self._per_origin[origin] -= parked.size
        assert self._bytes >= 0 and self._per_origin[origin] >= 0, "a message is let go once"
        if not self._per_origin[origin]:
            del self._per_origin[origin]

    def _span_of(self, row_key: bytes) -> Span | None:
        parked = self._parked.get(row_key)
        return parked.span if parked is not None else None

    def _expire(self, row_key: bytes) -> None:
        self.let_go(self._parked[row_key])

    # --- at the destination ----------------------------------------------------------------------

    def _unpack(self, parker: StackId, outer_id: bytes, inner: Envelope, left_ms: int) -> None:
        """What a parker brings; the inner seal proves who wrote it. Its `left` is as of the
        sealing, the parker's counts on."""
        header = inner.header
        try:
            body = self.sealer.open(inner)
        except LocalError:
            self._ask_reseal(header.source, header.msg_id)
            return
        except RemoteError as error:
            self.sealer.refusals.note(parker, error.detail)
            return
        if body.get("du") is True and header.kind == Kind.REQUEST:
            left = min(number_of(body, "left", 1 << 40), left_ms)
            if self._arrive(inner, body | {"left": left}):
                self._say(Kind.RECEIPT, parker, outer_id, {})
