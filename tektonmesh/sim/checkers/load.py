"""What must hold of the load: bounded in every flood, quiet without writes, names before bodies."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from tektonmesh.core.events import Received
from tektonmesh.core.held import Held
from tektonmesh.core.messages import Buckets, Forward, Message, Vector, Want
from tektonmesh.core.node import Node
from tektonmesh.core.quotas import OWNER_BURST, OWNER_PER_S
from tektonmesh.core.record import RECORDS_MAX, SET_SIZE_MAX
from tektonmesh.core.replica import Change
from tektonmesh.core.types import LinkId, StackId, Version
from tektonmesh.sim.checkers.common import honest_hosts, node_of
from tektonmesh.sim.host import Host
from tektonmesh.sim.watcher import Watcher
from tektonmesh.wire.codec import encode_message

if TYPE_CHECKING:
    from tektonmesh.sim.world import World


WINDOW_S = 10.0
COLLECTIONS = (dict, list, deque, bytearray)
THINGS = (Enum, tuple, Held)


class Bounded(Watcher):
    """9: queues and memory stay within their quotas, whatever arrives."""

    name = "bounded"
    queue_max = 5_000
    kept_max = 5_000
    """Things in any one collection of a node, beside what belongs to an owner it holds."""
    per_owner_max = 8

    def __init__(self, world: World) -> None:
        super().__init__(world)
        floods = world.options.hostile or any(it.kind == "garble" for it in world.options.faults)
        # Looking costs as much as a virtual second; a long world is looked at a hundred times.
        self._look_s = max(10.0 if floods else 20.0, world.options.duration_s / 100.0)
        self._next_look = self._look_s
        self._taken: dict[tuple[int, int, StackId], tuple[float, int]] = {}

    def changed(self, host: Host, change: Change) -> None:
        held = node_of(host).replica.owners.get(change.owner)
        if held is None:
            return
        if change.kind in ("content", "refresh") and change.owner != host.stack_id:
            self._count_taken(host, change.owner)
        if len(held.records) > RECORDS_MAX or held.record_set.size > SET_SIZE_MAX:
            self.fail(host, f"holds {len(held.records)} records of one owner")

    def sweep(self) -> None:
        world = self.world
        if world.network.longest_queue > self.queue_max:
            self.fail(None, f"{world.network.longest_queue} messages waited for one link")
        if world.now < self._next_look:
            return
        self._next_look = world.now + self._look_s
        for host in honest_hosts(world):
            self._measure(host, node_of(host))

    def _count_taken(self, host: Host, owner: StackId) -> None:
        """An owner that changes without end is heard so often and no more."""
        key = (host.index, host.incarnation, owner)
        since, taken = self._taken.get(key, (self.world.now, 0))
        if self.world.now - since > WINDOW_S:
            since, taken = self.world.now, 0
        self._taken[key] = (since, taken + 1)
        if taken > OWNER_BURST + OWNER_PER_S * WINDOW_S:
            self.fail(host, f"took {taken} heads of one owner within {WINDOW_S:.0f} s")

    def _measure(self, host: Host, node: Node) -> None:
        most = self.kept_max + self.per_owner_max * len(node.replica.owners)
        for name, size in collections_of(node):
            if size > most:
                self.fail(host, f"keeps {size} things in {name}")
        if node.forwarding.queued_bytes > node.env.settings.relay_queue_bytes:
            self.fail(host, f"queues {node.forwarding.queued_bytes} bytes of messages")


def collections_of(node: Node) -> Iterator[tuple[str, int]]:
    """Every collection that a machine of a node holds itself, in its parts, or for each link."""
    machines = {name: part for name, part in vars(node).items() if _is_part(part)}
    seen = dict.fromkeys([id(part) for part in machines.values()])
    for name, machine in machines.items():
        yield from _sizes(name, machine, seen, 2)


def _sizes(name: str, holder: Any, seen: dict[int, None], depth: int) -> Iterator[tuple[str, int]]:
    for field, value in _fields(holder):
        shown = f"{name}.{field}"
        if isinstance(value, COLLECTIONS):
            yield shown, len(value)
        parts = value.values() if isinstance(value, dict) else (value,)
        if depth and _is_part(next(iter(parts), None)):
            for part in parts:
                if id(part) not in seen and _is_part(part):
                    yield from _sizes(shown, part, seen, depth - 1)


def _fields(holder: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(holder, "__dict__"):
        yield from vars(holder).items()
    else:
        for name in type(holder).__slots__:
            yield name, getattr(holder, name, None)


def _is_part(value: Any) -> bool:
    """Whether a value is an object of the core that keeps things, not one that is a thing."""
    return _keeps(value.__class__)


@cache
def _keeps(kind: type) -> bool:
    return kind.__module__.startswith("tektonmesh.core") and not issubclass(kind, THINGS)


class Quiet(Watcher):
    """11: without writes there is nothing on the links but keepalives, fingerprints, refreshes,
    and now and then a link's cost."""

    name = "quiet"
    cost_news_max = 3
    """Changes per host for costs that settle."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._watching = False
        self._loud: tuple[type, ...] = (Vector, Buckets, Forward)
        if not any(name.startswith("refresh") for name, _value in world.options.settings):
            # Short leases are half over before a refresh has crossed a few links.
            self._loud += (Want,)
        self._news: dict[tuple[StackId, Version], None] = {}

    def settled(self) -> None:
        # Where packets are lost, links are too, now and then, and new ones compare at once. A liar
        # never rests, nor does a stack whose clock is so wrong that nobody takes what it signs.
        world = self.world
        running = [host for host in world.hosts if host.node is not None]
        useless = any(not (node_of(it).owner.fenced or world.speaks(it)) for it in running)
        self._watching = not (world.options.loss or world.options.hostile or useless)

    def sent(self, host: Host, link: LinkId, messages: tuple[Message, ...]) -> None:
        for message in messages if self._watching else ():
            if isinstance(message, self._loud):
                self.fail(host, f"sent a {type(message).__name__} in a quiet world")

    def changed(self, host: Host, change: Change) -> None:
        if not self._watching or change.kind not in ("new", "content"):
            return
        others = [key for key in change.keys if not key.startswith("link/")]
        if others or change.kind == "new" or not change.keys:
            self.fail(host, f"learned {change.kind} {others} in a quiet world")
        head = node_of(host).replica.owners[change.owner].head
        self._news[(change.owner, head.version)] = None

    def finished(self) -> None:
        if len(self._news) > self.cost_news_max * len(self.world.hosts):
            self.fail(None, f"{len(self._news)} changes in a quiet world")


class NamesFirst(Watcher):
    """13: the names of all stacks are usable before a twentieth of the bytes have arrived at a
    host that joins with an empty disk. Watched where owners have many records."""

    name = "names-first"
    part_max = 0.05

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._joining: dict[int, int] = {}
        """Host -> bytes that arrived since it began with nothing."""
        self._named: dict[int, int] = {}
        """Host -> what had arrived when the last name could be used."""
        self._active = bool(world.options.records)
        self._losses: dict[int, int] = {}

    def started(self, host: Host) -> None:
        lost = host.disk.losses > self._losses.get(host.index, 0)
        self._losses[host.index] = host.disk.losses
        if self._active and lost and self.world.honest(host):
            self._joining[host.index] = 0

    def received(self, host: Host, event: Received) -> None:
        if host.index in self._joining:
            size = sum(len(encode_message(message)) for message in event.messages)
            self._joining[host.index] += size

    def changed(self, host: Host, change: Change) -> None:
        if host.index in self._joining and host.index not in self._named:
            node = node_of(host)
            others = honest_hosts(self.world)
            if all(node.names.label(it.stack_id) == it.name for it in others):
                self._named[host.index] = self._joining[host.index]

    def agreed(self) -> None:
        for index, total in self._joining.items():
            host = self.world.hosts[index]
            named = self._named.get(index, total)
            self.count("joins_measured")
            self.count("join_bytes", total)
            self.count("join_bytes_until_named", named)
            if named > self.part_max * total:
                self.fail(host, f"got {named} of {total} bytes until all names were usable")
