"""The files of large bodies on the disk of one host, as `net/spool` keeps them on a real one.

What was written and not made durable is lost in a crash, as zeros: the worst that a file system
does. Acts are carried out at once; when the node hears of it is the caller's affair.
"""

from __future__ import annotations

from tektonmesh.core.effects import BodyAct
from tektonmesh.core.events import BodyDone
from tektonmesh.core.large import CHUNK_SIZE, SUM_SIZE, Large, chunks_of, root_of, sum_of


class Files:
    """Bodies by name, and the sums of those that were handed in here."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytearray] = {}
        self.sums: dict[str, bytes] = {}
        self.refuses = ""
        """While it is not empty, the code with which every act but "drop" fails."""
        self.reads = 0
        self._unsynced: dict[str, dict[int, int]] = {}
        self._handed_in = 0

    def hand_in(self, body: bytes) -> Large:
        """As a door does for a local caller."""
        self._handed_in += 1
        name = f"{self._handed_in:032x}.out"
        chunks = [body[at : at + CHUNK_SIZE] for at in range(0, len(body), CHUNK_SIZE)]
        self.bodies[name] = bytearray(body)
        self.sums[name] = b"".join(sum_of(chunk) for chunk in chunks)
        return Large(name, len(body), root_of(len(body), self.sums[name]))

    def act(self, effect: BodyAct) -> BodyDone:
        """Carry it out; what the node is to hear of it, which is nothing new of a "drop"."""
        name, data, code = effect.name, b"", self.refuses
        if effect.act == "drop":
            for kept in (self.bodies, self.sums, self._unsynced):
                kept.pop(name, None)
        elif not code and effect.act != "open" and name not in self.bodies:
            code = "store"
        elif not code:
            data = getattr(self, f"_{effect.act}")(effect)
        return BodyDone(effect.act, name, effect.offset, data, code)

    def crash(self) -> None:
        """What is not durable is lost; bodies that nobody had made durable keep their length."""
        for name, written in self._unsynced.items():
            for offset, size in written.items():
                self.bodies[name][offset : offset + size] = bytes(size)
        self._unsynced.clear()

    def _open(self, effect: BodyAct) -> bytes:
        old = self.bodies.get(effect.name)
        count = chunks_of(effect.size)
        if old is None:
            self.bodies[effect.name] = bytearray(effect.size)
            return bytes(count)
        have = []
        for at in range(count):
            chunk = bytes(old[at * CHUNK_SIZE : (at + 1) * CHUNK_SIZE])
            have.append(sum_of(chunk) == effect.data[at * SUM_SIZE : (at + 1) * SUM_SIZE])
        return bytes(have)

    def _read(self, effect: BodyAct) -> bytes:
        self.reads += 1
        offset, behind = effect.offset, effect.offset - effect.whole
        kept = self.bodies[effect.name] if behind < 0 else self.sums[effect.name]
        start = offset if behind < 0 else behind
        return bytes(kept[start : start + effect.size])

    def _write(self, effect: BodyAct) -> bytes:
        offset, size = effect.offset, len(effect.data)
        self.bodies[effect.name][offset : offset + size] = effect.data
        self._unsynced.setdefault(effect.name, {})[offset] = size
        return b""

    def _sync(self, effect: BodyAct) -> bytes:
        self._unsynced.pop(effect.name, None)
        return b""
