"""When what is queued on the lanes leaves: together, at the end of the turn, or a little later.

A write of its own costs both ends as much as an envelope's, so answers wait a moment for something
to ride with. What is queued is decided in `forwarding` and `lanes`.
"""

from __future__ import annotations

from math import inf

from tektonmesh.core.effects import Send
from tektonmesh.core.grants import Grants
from tektonmesh.core.lanes import ANSWERS_WAITING_MAX, HEARD_BYTES_MAX, Lane
from tektonmesh.core.machine import Env
from tektonmesh.core.types import LinkId


class Departures:
    """The lanes of one node that have something to send."""

    def __init__(self, env: Env, grants: Grants) -> None:
        self.env = env
        self._grants = grants
        self._dirty: dict[LinkId, Lane] = {}

    def forget(self, lane: Lane) -> None:
        """The link is gone."""
        self._dirty.pop(lane.link, None)
        self.env.deadlines.drop(("answers", lane.link))

    def touch(self, lane: Lane) -> None:
        """Something is queued on this lane that leaves at the end of the turn at the latest."""
        if not lane.up or lane.link in self._dirty:
            return
        if not self._dirty:
            self.env.deadlines.set("forwarding", self.env.now, self.flush)
        self._dirty[lane.link] = lane

    def answer_within(self, lane: Lane, delay_s: float) -> None:
        """An answer is queued on this lane. Alone it waits for an envelope to ride with; but not
        when many wait, or when the other end may not send on before it hears."""
        if not lane.up or lane.link in self._dirty:
            return
        if len(lane.settled) >= ANSWERS_WAITING_MAX or lane.heard_bytes >= HEARD_BYTES_MAX:
            self.touch(lane)
            return
        due = self.env.now + delay_s
        if due < lane.answer_at:
            lane.answer_at = due
            self.env.deadlines.set(("answers", lane.link), due, lambda: self._send(lane))

    def flush(self) -> None:
        """Send what is queued on all lanes."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        self.env.deadlines.drop("forwarding")
        for lane in dirty.values():
            self._send(lane)

    def _send(self, lane: Lane) -> None:
        if lane.answer_at < inf:
            lane.answer_at = inf
            self.env.deadlines.drop(("answers", lane.link))
        messages = lane.take()
        credit = self._grants.more(lane)
        if credit is not None:
            messages = (credit, *messages)
        if messages:
            self.env.emit(Send(lane.link, messages))
