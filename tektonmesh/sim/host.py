"""One machine of a world: its keys, disk and clocks, and the node that runs on it, if one does.

A host outlives its nodes: `incarnation` counts the starts, and whatever was scheduled for an
earlier one is not for the next. It decides nothing; the world moves it from state to state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tektonmesh.core.effects import Dial
from tektonmesh.core.events import Event
from tektonmesh.core.node import Node
from tektonmesh.core.types import LinkId, StackId
from tektonmesh.sim.disk import Disk
from tektonmesh.sim.keyring import HostKeys

if TYPE_CHECKING:
    from tektonmesh.sim.network import End

WALL_START_S = 1_800_000_000.0
"""The wall time at virtual instant 0: some day in 2027."""


class Run(StrEnum):
    """What a host is doing."""

    OFF = "off"
    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    FROZEN = "frozen"
    LEFT = "left"


@dataclass(slots=True, eq=False)
class Host:
    """`clock_base` makes the monotonic clocks of two hosts incomparable, as they are. A clone has
    the keys and the place of the host number `role`; everybody else has its own."""

    index: int
    keys: HostKeys
    address: str
    clock_base: float
    skew_s: float = 0.0
    role: int = -1
    upgrades: int = 0
    """By how much the minor version of its program is higher than ours."""
    disk: Disk = field(default_factory=Disk)
    run: Run = Run.OFF
    node: Node | None = None
    incarnation: int = 0
    started: float = 0.0
    """When the node that runs now was started."""
    changed: float = 0.0
    """When `run` changed last."""
    paused_at: float = 0.0
    backlog: list[Event] = field(default_factory=list)
    links: dict[LinkId, End] = field(default_factory=dict)
    dials: dict[int, Dial] = field(default_factory=dict)
    next_link: int = 0
    tick_at: float = -1.0
    """The instant a tick is scheduled for; -1 when none is."""

    def __post_init__(self) -> None:
        if self.role < 0:
            self.role = self.index

    @property
    def stack_id(self) -> StackId:
        return self.keys.stack_id

    @property
    def name(self) -> str:
        return self.keys.name

    @property
    def alive(self) -> bool:
        """Whether a node runs here and is being served."""
        return self.run is Run.RUNNING

    def mono(self, instant: float) -> float:
        """This host's monotonic clock at a virtual instant."""
        return self.clock_base + instant

    def wall(self, instant: float) -> float:
        """This host's wall clock at a virtual instant."""
        return WALL_START_S + instant + self.skew_s

    def new_link(self) -> LinkId:
        """A link id that was never used on this host."""
        self.next_link += 1
        return self.next_link
