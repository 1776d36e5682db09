"""What must come of replies that resume (docs/design/forwarding.md): byte for byte what the CI
said, whoever died meanwhile, and an end."""

from __future__ import annotations

from tektonmesh.core.effects import Answer, AnswerChunk, AnswerFailed
from tektonmesh.sim.host import Host
from tektonmesh.sim.watcher import Watcher


class ReadingsAreWhole(Watcher):
    """No reader misses a byte or gets one twice, and once the world is healed each has all."""

    name = "readings-are-whole"

    def answered(self, host: Host, effect: Answer | AnswerFailed | AnswerChunk) -> None:
        reading = self.world.workload.readings.of_ticket(effect.ticket)
        if reading is None or isinstance(effect, AnswerFailed):
            return
        data = effect.data if isinstance(effect, AnswerChunk) else effect.result["body"]
        whole, at = reading.whole, len(reading.got)
        if whole[at : at + len(data)] != data:
            self.fail(host, f"reading {reading.number} gets other bytes from {at} on")
        elif isinstance(effect, Answer) and at + len(data) != len(whole):
            self.fail(host, f"reading {reading.number} ends at {at} of {len(whole)} bytes")

    def settled(self) -> None:
        """The world is healed: all have got there."""
        for reading in self.world.workload.readings.all:
            if reading.complete:
                self.count("readings_whole")
                self.count("readings_resumed", int(reading.tries > 1))
            elif reading.host.node is not None:
                at, tries = len(reading.got), reading.tries
                self.fail(
                    reading.host,
                    f"reading {reading.number} of {reading.target} is at {at} after {tries} tries:"
                    f" {reading.told}",
                )
