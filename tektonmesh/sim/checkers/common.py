"""What several checkers ask of a world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from tektonmesh.core.node import Node
from tektonmesh.core.types import StackId
from tektonmesh.sim.host import Host, Run

if TYPE_CHECKING:
    from tektonmesh.sim.world import World

LOSSY = 0.05
T = TypeVar("T")


def node_of(host: Host) -> Node:
    """The node that runs on a host."""
    assert host.node is not None
    return host.node


def honest_hosts(world: World) -> list[Host]:
    """The hosts whose node runs, tells the truth and speaks at all."""
    return [host for host in world.hosts if host.alive and world.speaks(host)]


def lossy(world: World) -> bool:
    """Whether this world's links are slower than the product's limits were chosen for."""
    return world.options.loss >= LOSSY


class Durable(Generic[T]):
    """Notes that nodes take of owners, as far as they are sure to outlive a crash.

    A note is durable once its disk's latency is over, or when the stack left in good order. What
    was noted after that, and everything if the disk was lost, is forgotten at the crash.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._notes: dict[int, dict[StackId, list[tuple[float, T]]]] = {}
        self._losses: dict[int, int] = {}

    def note(self, host: Host, owner: StackId, what: T) -> None:
        """From now on this is known of `owner` on the host; older notes stay as long as this one
        may be lost."""
        now = self._world.now
        due = now + 1.5 * self._world.options.disk_s + host.disk.slow_s
        notes = self._notes.setdefault(host.index, {}).setdefault(owner, [])
        while len(notes) > 1 and notes[1][0] <= now:
            del notes[0]
        notes.append((due, what))

    def stopped(self, host: Host) -> None:
        """The node is gone, and with it what was not durable."""
        now = self._world.now
        self._losses[host.index] = host.disk.losses
        if host.run is Run.LEFT:
            return
        for owner, notes in list(self._notes.get(host.index, {}).items()):
            kept = [it for it in notes if it[0] <= now]
            self._notes[host.index][owner] = kept
            if not kept:
                del self._notes[host.index][owner]

    def started(self, host: Host) -> dict[StackId, T]:
        """The newest note of each owner that the host must still know."""
        if host.disk.losses != self._losses.get(host.index, host.disk.losses):
            self._notes.pop(host.index, None)
        return {owner: it[-1][1] for owner, it in self._notes.get(host.index, {}).items()}

    def newest(self, host: Host, owner: StackId) -> T | None:
        """What was noted last of an owner and not lost."""
        notes = self._notes.get(host.index, {}).get(owner)
        return notes[-1][1] if notes else None

    def forget(self, host: Host, owner: StackId) -> None:
        self._notes.get(host.index, {}).pop(owner, None)
