"""The page for Prometheus: the four success metrics of the federation, and what explains them.

Numbers are read when the page is asked for; nothing here counts. The success metrics are
`tektonmesh_federated_stacks`, `tektonmesh_cross_stack_message_seconds`,
`tektonmesh_shared_uses_total` and `tektonmesh_uptime_seconds`. Names and meanings are in
`families`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

from tektonmesh.api.http.families import FAMILIES
from tektonmesh.api.operations import Operations
from tektonmesh.core.counts import Histogram

CONTENT_TYPE = CONTENT_TYPE_LATEST
Shown = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | InfoMetricFamily


def exposition(operations: Operations) -> bytes:
    """The page's text."""
    registry = CollectorRegistry()
    registry.register(_Daemon(operations))
    return bytes(generate_latest(registry))


class _Daemon(Collector):
    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    def describe(self) -> list[Shown]:
        """Nothing ahead of time, so that registering does not read everything once more."""
        return []

    def collect(self) -> Iterator[Shown]:
        status = self._operations.status({})
        yield from _success(self._operations, status)
        yield from _state(self._operations, status)
        yield from _registry(self._operations, status)
        yield from _process(self._operations, status)


def _number(name: str, value: Any) -> Shown:
    family = FAMILIES[name]
    made = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    assert not family.label
    return made(f"tektonmesh_{name}", family.text, value=float(value))


def _numbers(name: str, values: Mapping[str, Any]) -> Shown:
    """One number for each value of the family's label; what is no number is left out."""
    family = FAMILIES[name]
    made = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    shown = made(f"tektonmesh_{name}", family.text, labels=[family.label])
    for key, value in values.items():
        if isinstance(value, int | float):
            shown.add_metric([key], float(value))
    return shown


def _histogram(name: str, values: Histogram) -> Shown:
    shown = HistogramMetricFamily(f"tektonmesh_{name}", FAMILIES[name].text)
    shown.add_metric([], values.cumulative(), values.sum_s)
    return shown


def _success(operations: Operations, status: dict[str, Any]) -> Iterator[Shown]:
    figures = operations.figures
    yield _numbers("federated_stacks", status["stacks"])
    yield _histogram("cross_stack_message_seconds", figures.cross_stack)
    yield _numbers("shared_uses", {"message": figures.remote} | figures.shared)
    yield _number("uptime_seconds", status["uptime_s"])


def _state(operations: Operations, status: dict[str, Any]) -> Iterator[Shown]:
    figures = operations.figures
    info = InfoMetricFamily("tektonmesh_stack", FAMILIES["stack"].text)
    info.add_metric([], {key: str(status[key]) for key in ("name", "id", "mesh", "version")})
    yield info
    yield _number("links", len(status["links"]))
    yield _numbers("cis", status["cis"])
    yield _numbers("queue", status["queues"])
    outcomes = {"local": figures.local, "remote": figures.remote} | figures.failures
    yield _numbers("messages", outcomes)
    yield _number("relayed", status["relay"]["passed"])
    yield _numbers("relay_refused", status["relay"]["refused"])


def _registry(operations: Operations, status: dict[str, Any]) -> Iterator[Shown]:
    counts, shown = operations.daemon.node.env.counts, status["registry"]
    yield _number("converged", status["converged"])
    yield _number("diverged_peers", len(status["diverged"]))
    yield _numbers("heads_in", counts.heads)
    yield _number("heads_out", shown["heads_out"])
    yield _number("bodies_in_bytes", counts.body_bytes_in)
    if counts.redundancy is not None:
        yield _number("redundancy", counts.redundancy)
    yield _histogram("apply_latency_seconds", counts.apply_latency)
    yield _number("queued_owners", shown["queued_owners"])
    yield _number("repairs", counts.repairs)
    yield _number("strikes", counts.strikes)
    yield _numbers("link_messages_in", shown["messages_in"])
    yield _numbers("link_messages_out", shown["messages_out"])


def _process(operations: Operations, status: dict[str, Any]) -> Iterator[Shown]:
    """What the shell counts. The latency buckets among its counters repeat a histogram."""
    counters = operations.daemon.counters
    yield _number("local_health", status["local_health"])
    yield _number("clock_alarm", status["clock_alarm"])
    yield _number("loop_lag_seconds", counters["loop_lag_s"])
    yield _number("loop_lag_max_seconds", counters["loop_lag_max_s"])
    yield _number("link_in_bytes", counters["link_bytes_in"])
    yield _number("link_out_bytes", counters["link_bytes_out"])
    yield _number("link_queue_bytes", counters["link_queue_bytes"])
    kept = {key: value for key, value in counters.items() if not key.startswith("message_ms")}
    kinds = {
        key.removeprefix("notices_"): value
        for key, value in kept.items()
        if key.startswith("notices_")
    }
    yield _numbers("notices", kinds)
    yield _numbers("daemon", {k: v for k, v in kept.items() if not k.startswith("notices_")})
