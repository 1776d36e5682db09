"""Handing messages out to local CIs: the deliveries that are open.

A delivery is open from the moment a message is handed out until the CI answers, its time is over
or nobody waits any more. This module decides whether a CI may be given a message and when its time
is up; whoever asked (a local caller, or another stack) hears of it through a `Replier`. How the
message gets to the CI's program is the shell's.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from tektonmesh.core.ci import CALL_TYPE, Ci, key_of
from tektonmesh.core.effects import CancelDelivery, Deliver
from tektonmesh.core.large import Large
from tektonmesh.core.machine import Env
from tektonmesh.core.wheel import Waiting, Wheel
from tektonmesh.errors import CODES, DeliveryError, LocalError, MeshError


class Parcel(NamedTuple):
    """A message for a CI. `sender` is an address for people, `left_s` the time it has, `depth` how
    many calls led to it if it is one."""

    msg_id: bytes
    sender: str
    body: bytes
    content_type: str
    left_s: float
    attempt: int = 0
    depth: int = 0
    large: Large | None = None
    reply_from: int | None = None


class Delivery(Waiting):
    """One message in the hands of one CI."""

    __slots__ = ("ci", "deadline", "depth", "msg_id", "name", "number", "replier")

    def __init__(self, number: int, ci: Ci, parcel: Parcel, deadline: float, replier: Replier):
        super().__init__()
        self.number = number
        self.ci = ci.key
        self.name = ci.name
        self.msg_id = parcel.msg_id
        self.depth = parcel.depth
        self.deadline = deadline
        self.replier = replier


class Replier(Protocol):
    """The one who asked. After `done` or `failed` it hears nothing more, unless they raised.

    All raise LocalError for what cannot be packed, `chunk` and `done` DeliveryError `busy` while
    too much of the reply has not left yet."""

    __slots__ = ()

    def at(self, offset: int) -> None:
        """What the CI says next is at this offset of its reply; of use where replies resume."""
        return

    def chunk(self, data: bytes) -> None: ...

    def done(self, body: bytes, content_type: str) -> None: ...

    def failed(self, code: str, detail: str) -> None: ...

    def lost(self, detail: str) -> None:
        """The CI ended, or broke off, before it had answered."""
        self.failed("ci_failed", detail)


class Handouts:
    """Hands out messages and routes what the CIs answer."""

    def __init__(self, env: Env) -> None:
        self.env = env
        self._open: dict[int, Delivery] = {}
        self._per_ci: dict[str, int] = {}
        self._calls: dict[bytes, Delivery] = {}
        """Those that are calls of MCP, by their id."""
        self._last = 0
        self.closed = False
        """This stack is about to leave: CIs finish what they have and get nothing new."""
        self._wheel: Wheel[Delivery] = Wheel(env, "deliveries", self._expire)

    def __len__(self) -> int:
        return len(self._open)

    def in_hand(self, ci: Ci) -> int:
        """How many messages a CI has open."""
        return self._per_ci.get(ci.key, 0)

    def led_to(self, within: bytes, sender: str) -> tuple[str, int]:
        """Who makes a call or sends a message, and how many calls led to it. `within` is the id of
        the call that it is made for, as the CI was told it, which so shows who it is. Of a CI that
        does not say, everything may be for the longest chain that it has in hand."""
        call = self._calls.get(within)
        if call is not None and key_of(sender) in ("", call.ci):
            return call.name, call.depth + 1
        own = [one.depth + 1 for one in self._calls.values() if one.ci == key_of(sender)]
        return sender, max(own, default=0)

    def hand_out(self, ci: Ci, parcel: Parcel, replier: Replier) -> int:
        """Give `parcel` to `ci`; the number of the delivery.

        Raises DeliveryError `ci_offline`, or `busy` while it has `inbox_per_ci_max` open.
        """
        if self.closed:
            raise DeliveryError("The stack of the CI is leaving the mesh.", code="leaving")
        if not ci.takes(parcel.content_type):
            raise DeliveryError(f"'{ci.name}' takes no messages at present.", code="ci_offline")
        if self._per_ci.get(ci.key, 0) >= self.env.settings.inbox_per_ci_max:
            raise DeliveryError(f"'{ci.name}' has too many messages open.", code="busy")
        assert parcel.left_s > 0, "a message that is too late is not handed out"
        self._last += 1
        deadline = self.env.after(parcel.left_s)
        assert self._last not in self._open
        delivery = Delivery(self._last, ci, parcel, deadline, replier)
        self._open[self._last] = delivery
        if parcel.content_type == CALL_TYPE:
            self._calls.setdefault(parcel.msg_id, delivery)
        self._per_ci[ci.key] = self._per_ci.get(ci.key, 0) + 1
        self._wheel.arm(delivery, deadline)
        self.env.emit(
            Deliver(
                delivery=delivery.number,
                ci=ci.name,
                how=ci.delivery_how(),
                msg_id=parcel.msg_id,
                sender=parcel.sender,
                body=parcel.body,
                content_type=parcel.content_type,
                deadline_s=parcel.left_s,
                attempt=parcel.attempt,
                depth=parcel.depth,
                large=parcel.large,
                reply_from=parcel.reply_from,
            )
        )
        return delivery.number

    def chunk(self, number: int, data: bytes, offset: int | None = None) -> None:
        delivery = self._open.get(number)
        if delivery is None:
            return
        try:
            if offset is not None:
                delivery.replier.at(offset)
            delivery.replier.chunk(data)
        except MeshError as error:
            code = _said_by_ci(error)
            self.withdraw(number, code)
            delivery.replier.failed(code, error.detail)

    def done(self, number: int, body: bytes, content_type: str, offset: int | None = None) -> None:
        delivery = self._close(number)
        if delivery is None:
            return
        try:
            if offset is not None:
                delivery.replier.at(offset)
            delivery.replier.done(body, content_type)
        except MeshError as error:
            delivery.replier.failed(_said_by_ci(error), error.detail)

    def failed(self, number: int, code: str, detail: str, *, lost: bool = False) -> None:
        delivery = self._close(number)
        if delivery is None:
            return
        if lost:
            delivery.replier.lost(detail)
            return
        try:
            delivery.replier.failed(code if code in CODES else "ci_failed", detail)
        except LocalError:
            delivery.replier.failed("ci_failed", "The CI's own words cannot be sent on.")

    def withdraw(self, number: int, reason: str) -> None:
        """Nobody waits any more: the CI is told, the replier is not."""
        if self._close(number) is not None:
            self.env.emit(CancelDelivery(number, reason))

    def fail_all(self, code: str, detail: str) -> None:
        """Withdraw everything and tell those who wait."""
        for number, delivery in list(self._open.items()):
            self.withdraw(number, code)
            delivery.replier.failed(code, detail)

    def _expire(self, delivery: Delivery) -> None:
        self.withdraw(delivery.number, "timeout")
        delivery.replier.failed("timeout", "The CI did not answer in time.")

    def _close(self, number: int) -> Delivery | None:
        delivery = self._open.pop(number, None)
        if delivery is None:
            return None
        self._wheel.disarm(delivery)
        if self._calls.get(delivery.msg_id) is delivery:
            del self._calls[delivery.msg_id]
        left = self._per_ci[delivery.ci] - 1
        assert left >= 0
        if left:
            self._per_ci[delivery.ci] = left
        else:
            del self._per_ci[delivery.ci]
        return delivery


def _said_by_ci(error: MeshError) -> str:
    """The code of a delivery that failed because of what its CI answered: what cannot be packed is
    the CI's failure, whatever it would be of a caller."""
    return "ci_failed" if error.code.name == "bad_request" else error.code.name
