"""The page for Prometheus: the four success metrics of the federation, and what explains them.

Numbers are read when the page is asked for; nothing here counts. The success metrics are
`tektonmesh_federated_stacks`, `tektonmesh_cross_stack_message_seconds`,
`tektonmesh_shared_uses_total` and `tektonmesh_uptime_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from tektonmesh.api.operations import Operations

CONTENT_TYPE = CONTENT_TYPE_LATEST
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


def exposition(operations: Operations) -> bytes:
    """The page's text."""
    registry = CollectorRegistry()
    registry.register(_Daemon(operations))
    return bytes(generate_latest(registry))


class _Daemon(Collector):
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def describe(self) -> list[Family]:
        """Nothing ahead of time, so that registering does not read everything once more."""
        return []

    def collect(self) -> Iterator[Family]:
        status = self._operations.status({})
        yield from _success(self._operations, status)
        yield from _state(self._operations, status)
        yield from _messages(self._operations)
        yield from _shell(self._operations.daemon.counters)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"tektonmesh_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, Any]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"tektonmesh_{name}", text, labels=[label])
    for key, value in values.items():
        if isinstance(value, int | float):
            family.add_metric([key], float(value))
    return family


def _success(operations: Operations, status: dict[str, Any]) -> Iterator[Family]:
    figures = operations.figures
    yield _labelled(
        "federated_stacks", "Other stacks in this replica, by state.", "state", status["stacks"]
    )
    latency = HistogramMetricFamily(
        "tektonmesh_cross_stack_message_seconds",
        "Time from a message to another stack until its whole reply, for messages sent here.",
    )
    latency.add_metric([], figures.cross_stack.cumulative(), figures.cross_stack.sum_s)
    yield latency
    uses = CounterMetricFamily(
        "tektonmesh_shared_uses", "Messages answered by a CI of another stack.", labels=["kind"]
    )
    uses.add_metric(["message"], float(figures.remote))
    yield uses
    yield _gauge("uptime_seconds", "How long this daemon has been in the mesh.", status["uptime_s"])


def _state(operations: Operations, status: dict[str, Any]) -> Iterator[Family]:
    info = InfoMetricFamily("tektonmesh_stack", "This stack.")
    info.add_metric([], {key: str(status[key]) for key in ("name", "id", "mesh", "version")})
    yield info
    yield _gauge("links", "Authenticated links to peers.", len(status["links"]))
    yield _gauge("converged", "1 while all neighbours hold the same.", float(status["converged"]))
    yield _labelled("cis", "CIs in this replica.", "where", status["cis"])
    yield _labelled("queue", "What waits, in the unit of its name.", "queue", status["queues"])


def _messages(operations: Operations) -> Iterator[Family]:
    figures = operations.figures
    sent = CounterMetricFamily(
        "tektonmesh_messages", "Messages from local callers, by outcome.", labels=["outcome"]
    )
    sent.add_metric(["local"], float(figures.local))
    sent.add_metric(["remote"], float(figures.remote))
    for code, count in figures.failures.items():
        sent.add_metric([code], float(count))
    yield sent


def _shell(counters: dict[str, float]) -> Iterator[Family]:
    """The daemon's own counters; the latency buckets among them repeat the histogram above."""
    kept = {key: value for key, value in counters.items() if not key.startswith("message_ms")}
    kinds = {key: value for key, value in kept.items() if key.startswith("notices_")}
    notices = CounterMetricFamily(
        "tektonmesh_notices", "What happened, by kind of notice.", labels=["kind"]
    )
    for key, value in kinds.items():
        notices.add_metric([key.removeprefix("notices_")], value)
    yield notices
    rest = {key: value for key, value in kept.items() if key not in kinds}
    yield _labelled("daemon", "Figures of this process.", "figure", rest)
