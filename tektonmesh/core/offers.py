"""Large bodies at their origin: parts are given to the stack that the message is for.

What may be asked for is decided by the message: while it has no end its own destination, and no
other stack, gets each part as often as it asks. Parts are read by the shell, sealed like all else
and sent once, in the bulk class; what is lost is asked for again (`core/pulls`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tektonmesh.core.effects import BodyAct
from tektonmesh.core.envelope import Envelope, Kind
from tektonmesh.core.events import BodyDone
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.lanes import Done
from tektonmesh.core.large import CHUNK_SIZE, SIZE_MAX, Large, part_size
from tektonmesh.core.machine import Env
from tektonmesh.core.sealing import Body, Sealer, number_of
from tektonmesh.core.types import StackId
from tektonmesh.errors import DeliveryError, LocalError, RemoteError

PARTS_MAX = 256
"""In one question."""

UNSETTLED_MAX = 8 << 20
"""Bytes that are being read for one stack or on their way to it; what it asks for beyond them it
asks for again."""

PART_WITHIN_S = 60.0

Place = tuple[str, int]
"""(name of the file, offset)."""


class Offers:
    """What one node gives of its large bodies."""

    def __init__(self, env: Env, sealer: Sealer, forwarding: Forwarding) -> None:
        self.env = env
        self.find: Callable[[StackId, bytes], Large | None] = lambda _stack, _msg_id: None
        """The body of a message that is for that stack and has no end yet."""
        self.broken: Callable[[bytes], None] = lambda _msg_id: None
        """Told of a message whose body cannot be read any more."""
        self._sealer = sealer
        self._forwarding = forwarding
        self._reading: dict[Place, tuple[StackId, bytes, int]] = {}
        self._unsettled: dict[StackId, int] = {}
        forwarding.receive(Kind.PULL, self._on_pull)

    def __len__(self) -> int:
        """How many parts are being read."""
        return len(self._reading)

    def _on_pull(self, envelope: Envelope) -> str:
        header = envelope.header
        try:
            body = self._sealer.open(envelope)
        except LocalError:
            return ""  # sealed to an old prekey; it asks again
        except RemoteError as error:
            self._sealer.refusals.note(header.source, error.detail)
            return ""
        large = self.find(header.source, header.reply_to)
        if large is None:
            self._say(header.source, header.reply_to, {"gone": True})
            return ""
        wanted, part = body.get("at"), number_of(body, "n", CHUNK_SIZE)
        for offset in wanted[:PARTS_MAX] if isinstance(wanted, list) else ():
            if isinstance(offset, int) and 0 <= offset < SIZE_MAX:
                size = part_size(large.size, offset, part)
                self._read((header.source, header.reply_to), large, offset, size)
        return ""

    def _read(self, asker: tuple[StackId, bytes], large: Large, offset: int, size: int) -> None:
        stack, place = asker[0], (large.name, offset)
        full = self._unsettled.get(stack, 0) + size > UNSETTLED_MAX
        if not size or full or place in self._reading:
            return
        self._reading[place] = (*asker, size)
        self._unsettled[stack] = self._unsettled.get(stack, 0) + size
        self.env.emit(BodyAct("read", large.name, offset, size, whole=large.size))

    def on_done(self, event: BodyDone) -> None:
        """A part was read, or could not be."""
        asked = self._reading.pop((event.name, event.offset), None)
        if asked is None:
            return
        stack, msg_id, size = asked
        found = self.find(stack, msg_id) is not None
        part = {"off": event.offset, "data": event.data}
        done = partial(self._settled, stack, size)
        if not (found and not event.code and self._say(stack, msg_id, part, done)):
            done("")
        if found and event.code:
            self.broken(msg_id)

    def _say(self, stack: StackId, msg_id: bytes, body: Body, done: Done | None = None) -> bool:
        """Send once; whether `done` will be told of its end."""
        try:
            envelope = self._sealer.seal(
                Kind.PART, stack, body, reply_to=msg_id, ttl_s=PART_WITHIN_S
            )
        except DeliveryError:
            return False
        return self._forwarding.send(envelope, done)

    def _settled(self, stack: StackId, size: int, _code: str) -> None:
        """A part is not on its way any more, however that ended."""
        self._unsettled[stack] -= size
        assert self._unsettled[stack] >= 0, "a part ends once"
        if not self._unsettled[stack]:
            del self._unsettled[stack]
