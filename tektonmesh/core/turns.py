"""Whose turn it is at each CI of this stack: durable messages wait in order and are lent out.

A CI has a few at a time, each on a lease. One that answers ends it; one that ends, or lets the
lease run out, gets the message again with its `attempt` raised, and after `deliveries_max` such
losses it is a dead letter. A CI that is away or full loses nothing: its messages wait. What becomes
of a message after that is `inbox`'.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Protocol

from tektonmesh.core.cis import Cis
from tektonmesh.core.handouts import Handouts, Parcel, Replier
from tektonmesh.core.incoming import Incoming, Stage
from tektonmesh.core.machine import Env
from tektonmesh.core.outcomes import COLLECT_MAX
from tektonmesh.core.policy import PRIVATE
from tektonmesh.core.rows import pack_row
from tektonmesh.core.saying import Saying
from tektonmesh.errors import DeliveryError

LEASES_PER_CI = 16
"""In the hands of one CI at a time; the lease of the last one runs while it works on the others.
A guess."""
PAUSE_FIRST_S, PAUSE_MAX_S = 0.2, 10.0
"""After a CI lost a message, or had no room, it is given nothing for so long."""
NOT_TAKEN = ("ci_offline", "busy", "leaving")
"""Failures after which the CI has not begun with the message."""

TABLE = "lease"


class Owner(Protocol):
    """Who keeps the messages (`inbox`)."""

    def left_s(self, item: Incoming) -> float: ...

    def parcel(self, item: Incoming, left_s: float) -> Parcel: ...

    def answered(self, item: Incoming, body: bytes, content_type: str) -> None: ...

    def failed(self, item: Incoming, code: str, detail: str) -> None: ...

    def dead(self, item: Incoming, detail: str) -> None: ...


class _Queue:
    """The messages of one CI."""

    __slots__ = ("leased", "pause_s", "waiting")

    def __init__(self) -> None:
        self.waiting: OrderedDict[Incoming, None] = OrderedDict()
        self.leased: dict[Incoming, None] = {}
        self.pause_s = 0.0


class Turns:
    """The queues of all CIs of one node."""

    def __init__(self, env: Env, cis: Cis, handouts: Handouts, owner: Owner) -> None:
        self.env = env
        self._cis = cis
        self._handouts = handouts
        self._owner = owner
        self._queues: dict[str, _Queue] = {}
        self._stopped = False

    def waiting(self, key: str) -> int:
        """How many messages one CI has, in its hands or not."""
        queue = self._queues.get(key)
        return len(queue.waiting) + len(queue.leased) if queue is not None else 0

    def add(self, item: Incoming) -> None:
        """It waits for its turn."""
        assert item.note is not None, "a message that waits is whole"
        item.stage = Stage.WAITING
        queue = self._queues.setdefault(item.note.ci, _Queue())
        queue.waiting[item] = None
        if not self._is_paused(item.note.ci):
            self._lend(item.note.ci, queue)

    def drop(self, item: Incoming) -> None:
        """Its time is over, or nobody wants it any more."""
        assert item.note is not None, "a message that waits is whole"
        queue = self._queues.get(item.note.ci)
        if queue is None:
            return
        queue.waiting.pop(item, None)
        if queue.leased.pop(item, 0) is None:
            self._handouts.withdraw(item.number, "cancelled")
        self._next(item.note.ci, queue)

    def ready(self, key: str) -> None:
        """The CI is there, or takes messages again: after whatever it is told in this turn."""
        queue = self._queues.get(key)
        if queue is not None:
            queue.pause_s = 0.0
            self._wait(key, queue, 0.0)

    def stop(self) -> None:
        """Hand out no more: the node is leaving."""
        self._stopped = True

    # --- lending ---------------------------------------------------------------------------------

    def _is_paused(self, key: str) -> bool:
        return ("turn", key) in self.env.deadlines

    def _wait(self, key: str, queue: _Queue, pause_s: float) -> None:
        act = partial(self._lend, key, queue)
        self.env.deadlines.set(("turn", key), self.env.after(pause_s), act)

    def _pause(self, key: str, queue: _Queue) -> None:
        queue.pause_s = min(max(2.0 * queue.pause_s, PAUSE_FIRST_S), PAUSE_MAX_S)
        self._wait(key, queue, queue.pause_s)

    def _lend(self, key: str, queue: _Queue) -> None:
        while queue.waiting and len(queue.leased) < LEASES_PER_CI and not self._stopped:
            item = next(iter(queue.waiting))
            if self._is_hidden(key, item):
                queue.waiting.pop(item)
                self._owner.failed(item, "not_found", f"There is no CI '{key}' on this stack.")
                continue
            try:
                self._hand_out(key, queue, item)
            except DeliveryError as error:
                if error.code.name == "busy":
                    self._pause(key, queue)
                return  # who is away says when it is back

    def _is_hidden(self, key: str, item: Incoming) -> bool:
        """Whether the CI came back as a private one, which is none for other stacks: the message
        was let in while it was away and had no policy of its own."""
        ci = self._cis.get(key)
        return ci is not None and ci.share == PRIVATE and item.key[0] != self.env.me

    def _hand_out(self, key: str, queue: _Queue, item: Incoming) -> None:
        """Raises DeliveryError if the CI takes nothing now."""
        ci = self._cis.get(key)
        if ci is None:
            raise DeliveryError("The CI is not here.", code="ci_offline")
        left_s = min(self._owner.left_s(item), self.env.settings.delivery_lease_s)
        lease = (Lease if item.saying is None else LiveLease)(self, key, queue, item)
        item.number = self._handouts.hand_out(ci, self._owner.parcel(item, left_s), lease)
        if item.saying is not None:
            item.saying.begin(item.number)
        del queue.waiting[item]
        queue.leased[item] = None
        item.stage = Stage.LEASED
        # Not waited for: if it is lost, the CI may be told of a first attempt twice.
        row = pack_row(self.env, [item.attempt + 1, item.losses])
        self.env.save(TABLE, item.row_key, row)

    def _next(self, key: str, queue: _Queue) -> None:
        if not (queue.waiting or queue.leased):
            if self._queues.get(key) is queue:
                del self._queues[key]
                self.env.deadlines.drop(("turn", key))
        elif not self._is_paused(key):
            self._lend(key, queue)

    # --- what the CI does ------------------------------------------------------------------------

    def done(self, lease: Lease, body: bytes, content_type: str) -> None:
        if not self._ends(lease):
            return
        lease.queue.pause_s = 0.0
        self._owner.answered(lease.item, body, content_type)
        self._next(lease.key, lease.queue)

    def failed(self, lease: Lease, code: str, detail: str) -> None:
        if not self._ends(lease):
            return
        if code in NOT_TAKEN:
            self._back(lease)
            return
        self._owner.failed(lease.item, code, detail)
        self._next(lease.key, lease.queue)

    def broken(self, lease: Lease, code: str, detail: str) -> None:
        """What it said cannot go on, here or in another try."""
        if self._ends(lease):
            self._owner.failed(lease.item, code, detail)
            self._next(lease.key, lease.queue)

    def lost(self, lease: Lease, detail: str) -> None:
        """The CI ended, or had the message too long."""
        if not self._ends(lease):
            return
        lease.item.attempt += 1
        lease.item.losses += 1
        if lease.item.losses < self.env.settings.deliveries_max:
            self._back(lease)
            return
        self._owner.dead(lease.item, detail)
        self._next(lease.key, lease.queue)

    def _ends(self, lease: Lease) -> bool:
        return lease.queue.leased.pop(lease.item, 0) is None

    def _back(self, lease: Lease) -> None:
        """It is the first in the row again."""
        lease.item.stage = Stage.WAITING
        lease.queue.waiting[lease.item] = None
        lease.queue.waiting.move_to_end(lease.item, last=False)
        self._pause(lease.key, lease.queue)


class Lease(Replier):
    """One message in the hands of its CI; what it says is collected."""

    __slots__ = ("_parts", "_size", "_turns", "item", "key", "queue")

    def __init__(self, turns: Turns, key: str, queue: _Queue, item: Incoming) -> None:
        self._turns = turns
        self.key = key
        self.queue = queue
        self.item = item
        self._parts: list[bytes] = []
        self._size = 0

    def chunk(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > COLLECT_MAX:
            raise DeliveryError("The reply is too large to be collected.", code="too_large")
        self._parts.append(data)

    def done(self, body: bytes, content_type: str) -> None:
        if self._size + len(body) > COLLECT_MAX:
            self.failed("too_large", "The reply is too large to be collected.")
            return
        self._turns.done(self, b"".join([*self._parts, body]), content_type)

    def failed(self, code: str, detail: str) -> None:
        if code == "timeout":
            self.lost(detail)
        else:
            self._turns.failed(self, code, detail)

    def lost(self, detail: str) -> None:
        self._turns.lost(self, detail)


class LiveLease(Lease):
    """As `Lease`, of a reply that leaves as it is said (`core/saying`)."""

    __slots__ = ()

    @property
    def _saying(self) -> Saying:
        assert self.item.saying is not None, "a stream has what is said of it"
        return self.item.saying

    def at(self, offset: int) -> None:
        self._saying.go_to(offset)

    def chunk(self, data: bytes) -> None:
        self._saying.say(data)

    def done(self, body: bytes, content_type: str) -> None:
        self._saying.say(body)
        self._saying.check_end()
        self._saying.finish(partial(self._turns.done, self, b"", content_type))

    def failed(self, code: str, detail: str) -> None:
        if code == "busy" and self._saying.end:
            self._turns.broken(self, code, detail)
        else:
            super().failed(code, detail)
