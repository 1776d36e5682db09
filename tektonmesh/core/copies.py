"""Copies of one message: when it is sent, sent again, asked about, or given up.

A copy is repeated, with its attempt raised, while the destination has not said by a sealed receipt
or reply that it has it: after a pause, avoiding the inside of the way that the last copy took, and
at once when that way breaks or a way opens. Once the destination has it, only the reply is asked
for. The destination hands out the first copy only, so none of this needs to be certain. Who waits
for the answer is `requests`' matter; hops are `forwarding`'s.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, Protocol

from tektonmesh.core.attempts import Attempt, Past
from tektonmesh.core.envelope import Kind
from tektonmesh.core.forwarding import FULL, Forwarding
from tektonmesh.core.graph import Graph
from tektonmesh.core.machine import Env
from tektonmesh.core.pending import Pending
from tektonmesh.core.releases import is_certain
from tektonmesh.core.sealing import Copy, Sealer
from tektonmesh.core.types import StackId
from tektonmesh.core.wheel import Wheel
from tektonmesh.errors import DeliveryError, LocalError

ROUTE_GRACE_S = 2.0
"""How long a message waits for a way to a stack that lives; a dropped link is redialled by then."""

REPLY_GRACE_S = 10.0
"""The same while the destination already has it and only the reply is missing."""

PAUSE_MAX_S = 10.0
POLL_S = 5.0
"""Between receipt and reply the origin asks this often, ever more rarely, whether the reply was
lost. The destination answers only if there is something to answer."""
POLL_MAX_S = 30.0

BACK_S = 0.05
"""A copy that came back is not on its way: the next one need not wait as long as an answer may
take, which on slow links is longer than the grace. It is made after 0.2 s, the third after 0.8 s,
and the next would be too late."""

GAP_S = 0.1
"""A missing piece of a reply is asked for after this, when those overtaking it arrived first."""


class Waiters(Protocol):
    """Those who wait for the answers (`requests`)."""

    def find(self, msg_id: bytes) -> Pending | None: ...

    def accepted(self, pending: Pending) -> None: ...

    def received(self, pending: Pending) -> None: ...

    def set_aside(self, pending: Pending) -> None: ...

    def fail(self, pending: Pending, code: str, detail: str) -> None: ...


class Copies:
    """Sends what is pending until its fate is known."""

    def __init__(
        self, env: Env, waiters: Waiters, graph: Graph, forwarding: Forwarding, sealer: Sealer
    ) -> None:
        self.env = env
        self._waiters = waiters
        self._graph = graph
        self._forwarding = forwarding
        self._sealer = sealer
        self.past = Past()
        self._paths: dict[StackId, tuple[StackId, ...]] = {}
        self._wheel: Wheel[Pending] = Wheel(env, "requests", self._due)

    def hold(self, pending: Pending) -> None:
        """It waits for its turn in the window, at most until its deadline."""
        self._wheel.arm(pending, pending.deadline)

    def drop(self, pending: Pending) -> None:
        """It is over."""
        self._wheel.disarm(pending)
        pending.attempts.trace = pending.reply_trace or pending.attempts.trace
        self.past.keep(pending.msg_id, pending.attempts)

    def begin(self, pending: Pending) -> None:
        """Its turn in the window has come."""
        assert pending.attempt == 0 and pending.window.is_open(pending)
        round_trip_s = self._forwarding.round_trip_s(pending.question.stack)
        pending.pause_s = max(self.env.settings.receipt_wait_s, 8.0 * round_trip_s)
        self._copy(pending)
        self._plan(pending)

    # --- sending ---------------------------------------------------------------------------------

    def _copy(self, pending: Pending, avoid: bytes = b"") -> None:
        """Send one copy; if nobody can take it, wait for a way."""
        try:
            envelope = self._sealer.seal(
                Kind.REQUEST,
                pending.question.stack,
                self._body(pending),
                ttl_s=pending.deadline - self.env.now,
                copy=Copy(pending.msg_id, pending.attempt, avoid, pending.shared),
            )
            attempt = Attempt(self.env.now, (), avoid)
            sent = self._forwarding.send(envelope, partial(self._came_back, pending, attempt))
        except DeliveryError:
            self._no_way(pending)
            return
        except LocalError as error:  # it cannot be packed or is too large, and never will be less
            self._waiters.fail(pending, error.code.name, error.detail)
            return
        if sent:
            pending.attempt += 1
            pending.flying += 1
            pending.route_until = None
            pending.path = attempt.path = self._path(pending.question.stack, avoid)
            pending.attempts.add(attempt)
        elif avoid:
            self._copy(pending)
        else:
            self._no_way(pending)

    def _body(self, pending: Pending) -> dict[str, Any]:
        question = pending.question
        body: dict[str, Any] = {
            "to": question.ci,
            "from": question.sender,
            "left": max(1, int((pending.deadline - self.env.now) * 1000)),
        }
        if pending.shared is None:
            body |= {"ct": pending.content_type, "body": pending.body}
        if question.live:
            body["st"] = True
        if pending.grant is not None:
            body["cr"] = pending.grant.limit
        if pending.one_way:
            body["nr"] = True
        if pending.signature:
            body |= {"dp": pending.depth, "sg": pending.signature}
        return body

    def _no_way(self, pending: Pending) -> None:
        if pending.route_until is None:
            grace_s = REPLY_GRACE_S if pending.received else ROUTE_GRACE_S
            pending.route_until = self.env.after(grace_s)

    def _path(self, stack: StackId, avoid: bytes) -> tuple[StackId, ...]:
        if avoid:
            return tuple(self._forwarding.path(stack, avoid))
        path = self._paths.get(stack)
        if path is None:
            path = self._paths[stack] = tuple(self._forwarding.path(stack))
        return path

    def forget_paths(self) -> None:
        """The graph has changed."""
        self._paths.clear()

    # --- what becomes of a copy ------------------------------------------------------------------

    def _came_back(self, pending: Pending, attempt: Attempt, code: str) -> None:
        """The hop-by-hop fate of one copy. "settled" is a relay's word and enough for one-way
        messages only; for others the destination's receipt or reply counts."""
        attempt.ended(code, self.env.now)
        if self._waiters.find(pending.msg_id) is not pending:
            return
        if code == "settled":
            if pending.one_way:
                self._waiters.accepted(pending)
            return
        pending.flying -= 1
        assert pending.flying >= 0, "each copy comes back once"
        pending.doubt = pending.doubt or not is_certain(code)
        pending.busy = code in ("busy", "quota", FULL)
        if code == FULL:
            self._waiters.set_aside(pending)
        if pending.received or code == FULL:
            return
        if attempt.avoid:
            pending.avoid = b""
            self._copy(pending)  # rather the old way again than none
            self._arm(pending)
        elif not pending.flying:
            self._no_way(pending)
            soon_s = min(pending.pause_s, BACK_S * 4.0 ** min(pending.attempt, 8))
            pending.act_at = self.env.after(self.env.jitter(soon_s))
            self._arm(pending)

    def has_receipt(self, pending: Pending, path: tuple[StackId, ...]) -> None:
        """The destination has it, by its own word; `path` is the way it took, if known."""
        pending.path = path or pending.path
        pending.route_until = None
        if not pending.received:
            pending.received = True
            pending.pause_s = POLL_S
            self._plan(pending)
            self._waiters.received(pending)

    def has_gap(self, pending: Pending) -> None:
        """Later parts of the reply are here and earlier ones are not."""
        soon = self.env.after(GAP_S)
        if pending.act_at > soon:
            pending.pause_s = GAP_S
            pending.act_at = soon
            self._arm(pending)

    def reseal(self, pending: Pending) -> None:
        """The destination could not open it and has named its newest prekey."""
        if not pending.resealed:
            pending.resealed = True
            self._copy(pending)
            self._plan(pending)

    def review(self, pending: Pending) -> None:
        """The graph has changed: act at once if the way broke, or if one was missing."""
        if pending.route_until is not None or not self._is_whole(pending.path):
            pending.path = ()
            self._again(pending)

    def _is_whole(self, path: tuple[StackId, ...]) -> bool:
        return all(there in self._graph.edges(here) for here, there in pairwise(path))

    # --- time ------------------------------------------------------------------------------------

    def _plan(self, pending: Pending) -> None:
        """Act again after the pause, which grows each time."""
        pending.act_at = self.env.after(self.env.jitter(pending.pause_s))
        pause_max_s = POLL_MAX_S if pending.received else PAUSE_MAX_S
        pending.pause_s = min(2.0 * pending.pause_s, pause_max_s)
        self._arm(pending)

    def _arm(self, pending: Pending) -> None:
        if self._waiters.find(pending.msg_id) is not pending:
            return  # it ended while a copy was made
        wake = min(pending.act_at, pending.deadline)
        if pending.route_until is not None:
            wake = min(wake, pending.route_until)
        self._wheel.arm(pending, wake)

    def _due(self, pending: Pending) -> None:
        now = self.env.now
        if now >= pending.deadline:
            self._too_late(pending)
        elif pending.route_until is not None and now >= pending.route_until:
            if pending.busy:
                self._waiters.fail(pending, "busy", "The stacks on the way have no room.")
            else:
                self._waiters.fail(pending, "unreachable", "No path leads to the stack.")
        elif now >= pending.act_at:
            self._again(pending)
        else:
            self._arm(pending)

    def _too_late(self, pending: Pending) -> None:
        """Its time is over. That all of its copies were turned away says more than that nothing
        came."""
        if pending.busy and not (pending.flying or pending.received):
            detail = "Neither the stacks on its way nor its CI had room before the deadline."
            self._waiters.fail(pending, "busy", detail)
        else:
            self._waiters.fail(pending, "timeout", "No answer came before the deadline.")

    def _again(self, pending: Pending) -> None:
        pending.avoid = self._forwarding.detour(pending.question.stack, pending.avoid)
        if pending.received:
            self._ask_for_rest(pending)
        else:
            self._copy(pending, pending.avoid)
        self._plan(pending)

    def _ask_for_rest(self, pending: Pending) -> None:
        stack = pending.question.stack
        body = {"off": pending.stream.next}
        if pending.grant is not None:
            body["cr"] = pending.grant.limit
        left_s = pending.deadline - self.env.now
        try:
            copy = Copy(self._sealer.new_id(), avoid=pending.avoid)
            envelope = self._sealer.seal(
                Kind.RESEND, stack, body, reply_to=pending.msg_id, ttl_s=left_s, copy=copy
            )
        except DeliveryError:
            return
        if self._forwarding.send(envelope):
            pending.route_until = None
        else:
            self._no_way(pending)
