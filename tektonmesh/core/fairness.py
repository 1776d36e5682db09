"""Whose envelope is next on a link that cannot take all: deficit round robin.

Within a class each flow (source and destination) has a queue of its own and the flows take turns by
bytes (Shreedhar and Varghese 1995), so one stack that sends much delays its own messages and not
those of a hundred others. Among the classes the shares are those of the link's own queue. What may
go now, and how much, is decided in `lanes`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

CLASSES = 4

QUANTUM = 4096
"""Bytes that a flow gains each round: a few messages, or a 64th of the largest."""

SHARES = (1 << 30, 4, 2, 1)
"""Envelopes' worth of rounds that each class may have before the next has its turn. Nothing
starves; control goes first and whole."""

Item = TypeVar("Item")


class _Flow(Generic[Item]):
    __slots__ = ("deficit", "items")

    def __init__(self) -> None:
        self.deficit = QUANTUM
        self.items: deque[tuple[int, Item]] = deque()


class FairQueue(Generic[Item]):
    """Items by class and flow: `count` of them, of `size` bytes."""

    def __init__(self) -> None:
        self.size = 0
        self.count = 0
        self._classes: tuple[OrderedDict[bytes, _Flow[Item]], ...] = tuple(
            OrderedDict() for _ in range(CLASSES)
        )
        self._used = [0] * CLASSES

    def push(self, send_class: int, flow: bytes, size: int, item: Item) -> None:
        """Queue `item` behind the others of its flow."""
        flows = self._classes[send_class]
        found = flows.get(flow)
        if found is None:
            found = flows[flow] = _Flow()
        found.items.append((size, item))
        self.size += size
        self.count += 1

    def pop(self) -> tuple[int, Item]:
        """The next item and its size; there must be one."""
        assert self.count, "nothing waits"
        send_class = self._turn()
        flows = self._classes[send_class]
        while True:
            name, flow = next(iter(flows.items()))
            if flow.items[0][0] <= flow.deficit:
                break
            flow.deficit += QUANTUM
            flows.move_to_end(name)
        size, item = flow.items.popleft()
        flow.deficit -= size
        if not flow.items:
            del flows[name]  # a flow that has nothing to send saves nothing up
        self.size -= size
        self.count -= 1
        assert self.size >= 0
        return size, item

    def drain(self) -> list[Item]:
        """Everything, flow by flow; nothing waits afterwards."""
        found = [
            item for flows in self._classes for flow in flows.values() for _, item in flow.items
        ]
        for flows in self._classes:
            flows.clear()
        self.size = self.count = 0
        return found

    def _turn(self) -> int:
        """The class that is next."""
        waiting = [number for number in range(CLASSES) if self._classes[number]]
        for number in waiting:
            if self._used[number] < SHARES[number]:
                self._used[number] += 1
                return number
        self._used = [0] * CLASSES
        self._used[waiting[0]] = 1
        return waiting[0]
