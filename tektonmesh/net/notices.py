"""Where the notices of the core go: the log, the subscribers of `watch`, and the counters.

It decides what is counted and how much a slow subscriber may keep waiting; how a notice reads is
decided in `log`, which notices exist in the core (docs/reference/events.md).
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import trio

from tektonmesh.core.effects import Notice
from tektonmesh.net import log
from tektonmesh.net.wallclock import wall_s

_LOG = logging.getLogger("tektonmesh.mesh")

SUBSCRIBER_ITEMS_MAX = 1024
"""Per subscriber. Beyond it the oldest go: someone watching live wants what happens now."""

LATENCY_BUCKETS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 60000)

Item = dict[str, Any]


class _Subscriber:
    """One bounded queue. `_oldest` reads the same queue and throws away what is too much."""

    def __init__(self) -> None:
        self._send, self.receive = trio.open_memory_channel[Item](SUBSCRIBER_ITEMS_MAX)
        self._oldest = self.receive.clone()
        self._dropped = 0

    def put(self, item: Item) -> None:
        if self._send.statistics().current_buffer_used >= SUBSCRIBER_ITEMS_MAX:
            self._oldest.receive_nowait()
            self._dropped += 1
        if self._dropped:
            # Said in the item that could be queued, so that the reader knows of the gap.
            item = item | {"dropped": self._dropped}
            self._dropped = 0
        self._send.send_nowait(item)

    def close(self) -> None:
        self._send.close()
        self._oldest.close()
        self.receive.close()


class Notices:
    """The one place a notice passes."""

    def __init__(self) -> None:
        self._counts: dict[str, float] = {}
        self._latency = [0] * (len(LATENCY_BUCKETS_MS) + 1)
        self._latency_sum_ms = 0.0
        self._seq = 0
        self._subscribers: dict[int, _Subscriber] = {}
        self._last_subscriber = 0
        self._heeding: dict[str, list[Callable[[Item], None]]] = {}
        self.last_problem: str | None = None

    def problem(self, detail: str) -> None:
        """Remember the newest trouble for `status`, with when it was."""
        at = datetime.fromtimestamp(wall_s(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.last_problem = f"{detail} (at {at})"

    def take(self, notice: Notice) -> None:
        """Log, count and pass on one notice. Never waits."""
        self._count(notice)
        self._write(notice)
        for heed in self._heeding.get(notice.kind, ()):
            heed(notice.data)
        if self._subscribers:
            self._seq += 1
            item: Item = {"seq": self._seq, "at": round(wall_s(), 3), "kind": notice.kind}
            item |= log.plain(notice.data)
            for subscriber in self._subscribers.values():
                subscriber.put(item)

    def heed(self, kinds: Iterable[str], callback: Callable[[Item], None]) -> None:
        """Call back in the turn that gives a notice of one of these kinds, for as long as the
        daemon runs. It must neither wait nor raise."""
        for kind in kinds:
            self._heeding.setdefault(kind, []).append(callback)

    def say(self, kind: str, /, **data: Any) -> None:
        """A notice of the shell's own."""
        self.take(Notice(kind, data))

    @property
    def counters(self) -> dict[str, float]:
        """Plain numbers that only grow, for /metrics: notices by kind, and the latency of messages
        by bucket, each with all that were quicker."""
        shown = {f"notices_{kind}": count for kind, count in self._counts.items()}
        total = 0
        for bucket, count in zip(LATENCY_BUCKETS_MS, self._latency, strict=False):
            total += count
            if total:
                shown[f"message_ms_le_{bucket}"] = float(total)
        shown["message_ms_count"] = float(sum(self._latency))
        shown["message_ms_sum"] = self._latency_sum_ms
        return shown

    @contextmanager
    def subscribe(self) -> Iterator[trio.MemoryReceiveChannel[Item]]:
        """All notices from now on as `{"seq", "at", "kind", ...}`, in order. When the reader is
        too slow the oldest are dropped and the next item says how many in `dropped`."""
        subscriber = _Subscriber()
        self._last_subscriber += 1
        number = self._last_subscriber
        self._subscribers[number] = subscriber
        try:
            yield subscriber.receive
        finally:
            del self._subscribers[number]
            subscriber.close()

    def _write(self, notice: Notice) -> None:
        level = log.level_of(notice.kind)
        if level >= logging.WARNING:
            self.problem(log.sentence(notice.kind, notice.data))
        if _LOG.isEnabledFor(level):
            extra = {"notice_kind": notice.kind, "notice_values": log.plain(notice.data)}
            _LOG.log(level, "%s", log.sentence(notice.kind, notice.data), extra=extra)

    def _count(self, notice: Notice) -> None:
        self._counts[notice.kind] = self._counts.get(notice.kind, 0.0) + 1.0
        if notice.kind == "message_done":
            self._count_latency(notice.data.get("ms"))

    def _count_latency(self, ms: Any) -> None:
        if not isinstance(ms, int | float):
            return
        self._latency_sum_ms += ms
        self._latency[bisect_left(LATENCY_BUCKETS_MS, ms)] += 1
