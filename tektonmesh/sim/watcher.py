"""What may look on while a world runs: checkers, and the gauges of the report.

A world calls only the methods that a class really overrides, so an idle watcher costs nothing.
Watchers never change a world; a checker that finds something calls `World.fail`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tektonmesh.core.effects import Answer, AnswerChunk, AnswerFailed, Deliver
from tektonmesh.core.events import Received
from tektonmesh.core.messages import Message
from tektonmesh.core.replica import Change
from tektonmesh.core.types import LinkId
from tektonmesh.sim.host import Host

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

HOOKS = (
    "started",
    "stopped",
    "changed",
    "sent",
    "received",
    "delivered",
    "answered",
    "sweep",
    "agreed",
    "settled",
    "finished",
)


@dataclass(frozen=True, slots=True)
class Violation:
    """What broke, where and when (virtual seconds)."""

    checker: str
    instant: float
    host: str
    detail: str


class Watcher:
    """Override what you need; each method is told after the fact."""

    name = "watcher"

    def __init__(self, world: World) -> None:
        self.world = world
        self.counts: dict[str, int] = {}
        """What was looked at: a world without violations says nothing if this is zero."""

    def count(self, what: str, more: int = 1) -> None:
        """Add to the figures that the report shows."""
        self.counts[what] = self.counts.get(what, 0) + more

    def fail(self, host: Host | None, detail: str) -> None:
        """Say that the world broke this checker's rule."""
        self.world.fail(self.name, host, detail)

    def started(self, host: Host) -> None:
        """A node was started on the host and had its first turn."""

    def stopped(self, host: Host) -> None:
        """The node of the host is gone (killed, frozen or left)."""

    def changed(self, host: Host, change: Change) -> None:
        """The replica of the host's node changed; called inside its turn."""

    def sent(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        """The node of the host handed messages to a link."""

    def received(self, host: Host, event: Received) -> None:
        """The node of the host is about to deal with messages from a link."""

    def delivered(self, host: Host, deliver: Deliver) -> None:
        """A message reached a CI."""

    def answered(self, host: Host, effect: Answer | AnswerFailed | AnswerChunk) -> None:
        """A command got (part of) its answer."""

    def sweep(self) -> None:
        """A while has passed (`world.SWEEP_S`)."""

    def agreed(self) -> None:
        """This is the instant after the heal at which all honest nodes hold the same."""

    def settled(self) -> None:
        """The liveness phase is over: the world is healed, quiet and has converged, or did not."""

    def finished(self) -> None:
        """Nothing more will happen."""
