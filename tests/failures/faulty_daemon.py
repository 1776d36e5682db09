"""The daemon with faults planted in it: `faulty_daemon.py FILE [--ahead SECONDS] run ...`.

FILE holds the names of the faults of the moment, so that a test can begin and end them; while it
is empty the daemon is honest. `--ahead` sets the machine's clock, as this daemon sees it, forward
(or back). Everything else is the product.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tektonmesh.cli.main import leave_quietly, main
from tektonmesh.core import messages as msg
from tektonmesh.core.envelope import DESTINATION, KIND_AT, SOURCE, Kind, parse, read_trace
from tektonmesh.core.forwarding import Forwarding
from tektonmesh.core.lanes import Kept, Lane
from tektonmesh.core.ownlinks import OwnLinks, link_key
from tektonmesh.core.quotas import Quotas
from tektonmesh.core.types import LinkId, StackId, short_id

REGISTRY = (
    *(msg.Delta, msg.Outlines, msg.Vector, msg.Buckets, msg.Ihave, msg.Graft, msg.Prune),
    *(msg.Want, msg.WantOutlines, msg.Proof),
)
COPIES = 3
"""How often a replayed message is sent again."""

honest_on_forward = Forwarding.on_forward
honest_hand_over = Forwarding._hand_over
honest_admits = Quotas.admits
honest_show = OwnLinks._show


class Faults:
    """What the file says now."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.traces = file.with_suffix(".traces")

    def has(self, fault: str) -> bool:
        return fault in self.file.read_text().split("\n")

    def plant(self) -> None:
        def on_forward(self_: Forwarding, link: LinkId, message: msg.Forward) -> None:
            self.on_forward(self_, link, message)

        def hand_over(self_: Forwarding, kept: Kept, packed: bytes, lane: Lane) -> None:
            self.hand_over(self_, kept, packed, lane)

        def admits(self_: Quotas, link: LinkId, message: msg.Message) -> bool:
            if isinstance(message, REGISTRY) and self.has("frozen gossip"):
                return False
            return honest_admits(self_, link, message)

        def show(self_: OwnLinks, stack_id: StackId) -> None:
            self.show(self_, stack_id)

        Forwarding.on_forward = on_forward  # type: ignore[method-assign]
        Forwarding._hand_over = hand_over  # type: ignore[method-assign]
        Quotas.admits = admits  # type: ignore[method-assign]
        OwnLinks._show = show  # type: ignore[method-assign]

    # --- what comes in ---------------------------------------------------------------------------

    def on_forward(self, forwarding: Forwarding, link: LinkId, message: msg.Forward) -> None:
        data, me = message.envelope, forwarding.env.me
        self._note_trace(data, me)
        lane = forwarding._lanes.get(link)
        if data[DESTINATION] == me or lane is None:
            honest_on_forward(forwarding, link, message)
        elif self._discards(data):
            # "I have it, and so has its destination."
            if not lane.is_repeat(message.seq):
                lane.settled.append(message.seq)
                forwarding._departures.answer_within(lane, 0.0)
        else:
            honest_on_forward(forwarding, link, message)

    def _discards(self, data: bytes) -> bool:
        return self.has("discard") or (
            data[KIND_AT] == Kind.RECEIPT and self.has("discard receipts")
        )

    def _note_trace(self, data: bytes, me: bytes) -> None:
        if self.has("note traces"):
            trace = [hop.short.hex() for hop in read_trace(parse(data).trace)]
            with self.traces.open("a") as file:
                file.write(" ".join([*trace, short_id(me).hex()]) + "\n")

    # --- what goes out ---------------------------------------------------------------------------

    def hand_over(self, forwarding: Forwarding, kept: Kept, packed: bytes, lane: Lane) -> None:
        if kept.back is None:  # an own envelope
            honest_hand_over(forwarding, kept, packed, lane)
            return
        if self.has("alter source"):
            packed = changed(packed, SOURCE.start)
        if self.has("alter destination"):
            packed = changed(packed, DESTINATION.start)
        honest_hand_over(forwarding, kept, packed, lane)
        if self.has("nack"):
            # It is on its way, and its sender is told that it certainly is not.
            forwarding._release(kept.back, kept.back_seq, "refused")
        for _ in range(COPIES if self.has("replay") else 0):
            again = Kept(kept.data, forwarding.env.now, 0)
            forwarding.queued_bytes += len(again.data)
            honest_hand_over(forwarding, again, packed, lane)

    # --- what it says of its links ---------------------------------------------------------------

    def show(self, links: OwnLinks, stack_id: StackId) -> None:
        if links.get(stack_id) is None and self.has("forged edge"):
            # The link is gone and is praised as never before.
            record = {"peer": stack_id, "cost": 1, "state": "up"}
            links._owner.put(link_key(stack_id), record, urgent=True)
        else:
            honest_show(links, stack_id)


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


if __name__ == "__main__":
    given = sys.argv[1:]
    Faults(Path(given.pop(0))).plant()
    if given[0] == "--ahead":
        ahead_s, machine_s = float(given[1]), time.time
        time.time = lambda: machine_s() + ahead_s
        given = given[2:]
    leave_quietly(main(given))
