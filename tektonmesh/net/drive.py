"""Feeds reality to the node: one event at a time, its effects carried out before the next.

The drive owns the node and is the only module that reads Trio's clock for it. It decides the
order of turns, the one timer, and what a fault inside the core means: the daemon stops, because
half a node is worse than none. How each effect touches the world is its owner's affair (`hands`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import trio

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.node import Node
from tektonmesh.net.rounds import Rounds
from tektonmesh.net.wallclock import wall_s
from tektonmesh.net.watchdog import Pulse

_LOG = logging.getLogger(__name__)

Hands = Mapping[type, Callable[[Any], None]]
"""For each effect class, what carries it out. Must not wait; may call `Drive.inject`."""

STALL_SAID_S = 1.0

_SHOWN_FIELDS = ("ticket", "link", "delivery", "ci", "connection", "code", "seconds", "source")


class Drive:
    """The loop between the node and the world.

    `make_node(now)` makes the node at the instant it is given; `hands` are asked after that.
    """

    def __init__(self, make_node: Callable[[float], Node]) -> None:
        now = trio.current_time()
        self.node = make_node(now)
        self.pulse = Pulse(now)
        self.rounds = Rounds()
        self.failure: BaseException | None = None
        self.failed = trio.Event()
        self.turns = 0
        self._hands: Hands = {}
        self._queue: deque[ev.Event] = deque()
        self._busy = False
        self._closed = False
        self._sleeper: trio.CancelScope | None = None

    def start(self, hands: Hands) -> None:
        """The node's first turn."""
        self._hands = hands
        self._busy = True
        with self.rounds:
            try:
                self._carry_out(self.node.start(trio.current_time()))
            except Exception as error:
                self._fail(None, error)
        self._busy = False
        self._work()

    def close(self) -> None:
        """From now on events fall on deaf ears: the world is being taken down."""
        self._closed = True
        self._queue.clear()

    def inject(self, event: ev.Event) -> None:
        """Deal fully with one event: when this returns, its effects have been carried out. Called
        from inside an effect, the event waits for its turn instead."""
        if self._closed:
            return
        self._queue.append(event)
        if not self._busy:
            self._work()

    def beat(self) -> None:
        """The watchdog's beat: tells the node of a stall or a suspend that nothing else showed."""
        stalled_s = self.pulse.missed(trio.current_time())
        suspended_s = self.pulse.beat(trio.current_time())
        if stalled_s + suspended_s > 0:
            self.inject(ev.Stalled(stalled_s + suspended_s, suspended_s))
        if suspended_s > 0:
            self.inject(ev.WallClock(wall_s()))

    async def keep_time(self) -> None:
        """Sleep until the node's deadline, tick, for ever. `inject` moves the alarm earlier."""
        while True:
            with trio.CancelScope(deadline=self.node.deadline) as self._sleeper:
                await trio.sleep_forever()
            if trio.current_time() >= self.node.deadline:
                self.inject(ev.Tick())

    # --- turns -----------------------------------------------------------------------------------

    def _work(self) -> None:
        self._busy = True
        try:
            with self.rounds:
                while self._queue:
                    self._turn(self._queue.popleft())
        finally:
            self._busy = False
        sleeper = self._sleeper
        if sleeper is not None and not self._closed:
            deadline = self.node.deadline
            if deadline < sleeper.deadline:
                sleeper.deadline = deadline

    def _turn(self, event: ev.Event) -> None:
        self.turns += 1
        now = trio.current_time()
        missed_s = self.pulse.missed(now)
        if missed_s > 0:
            # What piled up while we did not run must not be judged before the pause is known.
            if missed_s >= STALL_SAID_S:
                _LOG.warning("this process did not run for %.1f s", missed_s)
            self._handle(ev.Stalled(missed_s), now)
            if self._closed:
                return
        self._handle(event, now)

    def _handle(self, event: ev.Event, now: float) -> None:
        try:
            self._carry_out(self.node.handle(event, now))
        except Exception as error:
            self._fail(event, error)

    def _carry_out(self, effects: list[fx.Effect]) -> None:
        hands = self._hands
        for effect in effects:
            hands[type(effect)](effect)

    def _fail(self, event: ev.Event | None, error: Exception) -> None:
        _LOG.critical("fault in the core at %s", describe(event), exc_info=error)
        self.failure = error
        self.failed.set()
        self.close()


def describe(event: ev.Event | None) -> str:
    """An event for the log: its class and the fields that can hold no message body."""
    if event is None:
        return "start"
    fields = [f"{name}={getattr(event, name)!r}" for name in _SHOWN_FIELDS if hasattr(event, name)]
    if isinstance(event, ev.Received):
        fields.append("messages=" + ",".join(type(item).__name__ for item in event.messages))
    return f"{type(event).__name__}({', '.join(fields)})"
