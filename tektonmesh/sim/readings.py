"""Replies that resume, in a world: somebody reads a long answer while hosts die and come back.

A reading asks with an idempotency key. Whatever ends it before its reply is complete (the caller's
host died or left, no way led there), it asks again with the same key, behind the bytes it has. What
a CI says is decided by the message alone; half of the CIs say at which offset they are and go on
where their stack has the reply, the others begin it anew. What must come of it is checked by
`reading_checkers`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tektonmesh.core import events as ev
from tektonmesh.core.effects import Deliver
from tektonmesh.sim.drawn import Drawn
from tektonmesh.sim.host import Host
from tektonmesh.sim.letters import may_write

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

TIMEOUT_S = 600.0
AGAIN_S = 0.5
"""A caller that was told no asks again after this."""
SIZES = (200, 5_000, 60_000, 400_000)
PIECES = 12
SAID_WITHIN_S = 12.0


def spoken(body: bytes) -> bytes:
    """What a CI says to the message of a reading."""
    return Random(body).randbytes(int(body.split()[-1]))


@dataclass(slots=True, eq=False)
class Reading:
    """One caller and what it has. `tries` counts how often it has asked."""

    number: int
    host: Host
    target: str
    body: bytes
    whole: bytes
    """What it is to get."""
    got: bytearray = field(default_factory=bytearray)
    tries: int = 0
    complete: bool = False
    told: str = ""
    """Why its last try ended."""


class Readings(Drawn):
    """Draws readings at a rate, asks again, and plays the CIs that are read."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "readings", world.options.readings)
        self.all: list[Reading] = []
        self._by_ticket: dict[int, Reading] = {}

    def of_ticket(self, ticket: int) -> Reading | None:
        """The reading whose present try this is."""
        return self._by_ticket.get(ticket)

    @property
    def open(self) -> int:
        """How many are not complete."""
        return sum(not reading.complete for reading in self.all)

    def draw(self) -> None:
        world = self._world
        host, target = self._chance.choice(world.hosts), self._chance.choice(world.hosts)
        size = self._chance.choice(SIZES)
        names = [it for it in world.workload.names_of(target) if it.startswith(("echo", "stream"))]
        if names and may_write(world, host, target):
            number = len(self.all)
            address = f"{self._chance.choice(names)}@{target.name}"
            body = b"read %d %d" % (number, size)
            self.all.append(Reading(number, host, address, body, spoken(body)))
            self._ask(self.all[-1])

    # --- the caller ------------------------------------------------------------------------------

    def _ask(self, reading: Reading) -> None:
        """Unless its host is down: then it asks when that is back."""
        host = reading.host
        if reading.complete or not host.alive or reading in self._by_ticket.values():
            return
        reading.tries += 1
        call = self._world.workload.call(host, "read", TIMEOUT_S, reading.target, reading.body)
        self._by_ticket[call.ticket] = reading
        options = {"key": f"reading {reading.number}", "offset": len(reading.got)}
        event = ev.SendMessage(
            call.ticket, reading.target, reading.body, "text/plain", "", TIMEOUT_S, True, options
        )
        self._world.inject(host, event)

    def started(self, host: Host) -> None:
        """A node runs: whoever reads there asks again, when it has its bearings."""
        for reading in self.all:
            if reading.host is host:
                self._world.at(self._world.now + AGAIN_S, self._ask, reading)

    def came(self, host: Host, ticket: int, data: bytes) -> None:
        """A part of the reply; that it was read is said a moment later."""
        reading = self._by_ticket.get(ticket)
        if reading is not None:
            reading.got += data
            self._world.soon(host, ev.ChunksTaken(ticket, len(data)))

    def ended(self, ticket: int, outcome: str) -> None:
        """That try is over: `outcome` is "answered" or why not."""
        reading = self._by_ticket.pop(ticket, None)
        if reading is None:
            return
        reading.told = outcome
        reading.complete = outcome == "answered"
        if not reading.complete:
            self._world.at(self._world.now + AGAIN_S, self._ask, reading)

    # --- the CI ----------------------------------------------------------------------------------

    def says(self, deliver: Deliver) -> list[tuple[float, ev.Event]]:
        """What a CI says to a message of a reading, and how long after it got it."""
        whole, at = spoken(deliver.body), deliver.reply_from or 0
        offsets = deliver.body.split()[1][-1] % 2 == 0
        at = at if offsets else 0
        size = max(1, -(-len(whole) // PIECES))
        pause_s = self._chance.uniform(0.0, SAID_WITHIN_S) / PIECES
        said: list[tuple[float, ev.Event]] = []
        while at + size < len(whole):
            piece = ev.ReplyChunk(deliver.delivery, whole[at : at + size], at if offsets else None)
            said.append((pause_s * (len(said) + 1), piece))
            at += size
        end = at if offsets else None
        last = ev.ReplyDone(deliver.delivery, whole[at:], "text/plain", end)
        return [*said, (pause_s * (len(said) + 1), last)]
