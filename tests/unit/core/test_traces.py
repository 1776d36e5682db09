import pytest

from tektonmesh.core import traces as tr
from tektonmesh.core.envelope import ENTRIES_MAX, trace_entry
from tektonmesh.core.types import StackId, short_id
from tests.network import Network


class Counted(dict[StackId, object]):
    """Owners that count how often they are gone through."""

    looks = 0

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.looks += 1
        return super().__iter__()


def test_a_trace_is_shown_in_labels_and_what_is_not_known_as_its_short_id() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    a, b = network["a"], network["b"]
    trace = trace_entry(short_id(a.id), 3) + trace_entry(b"stranger", 4)
    traces = a.node.deliveries.traces
    assert traces.path(trace, b.id) == ["a", b"stranger".hex(), "b"]
    assert traces.stacks(trace) == [a.id, None]
    assert traces.hops(trace) == [
        {"stack": "a", "dwell_ms": 3},
        {"stack": b"stranger".hex(), "dwell_ms": 4},
    ]


def test_a_trace_that_another_stack_made_endless_costs_one_look_at_the_replica() -> None:
    a = Network("a")["a"]
    traces, replica = a.node.deliveries.traces, a.node.replica
    replica.owners = owners = Counted(replica.owners)  # type: ignore[assignment]
    trace = b"".join(trace_entry(n.to_bytes(8), 0) for n in range(10_000))
    assert len(traces.path(trace, a.id)) == ENTRIES_MAX + 1
    assert owners.looks == 1
    assert len(traces.hops(trace)) == len(traces.stacks(trace)) == ENTRIES_MAX


def test_only_stacks_that_were_in_a_trace_are_remembered_and_not_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tr, "KNOWN_MAX", 0)
    network = Network("a", "b", "c")
    network.join("a", "b", "c")
    a, b, c = network["a"], network["b"], network["c"]
    traces, replica = a.node.deliveries.traces, a.node.replica
    replica.owners = owners = Counted(replica.owners)  # type: ignore[assignment]
    for stack in (b, b, c, c, b):
        assert traces.stacks(trace_entry(short_id(stack.id), 1)) == [stack.id]
    assert owners.looks == 3
