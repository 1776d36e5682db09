"""Turns of flows and classes."""

from collections import Counter

from tektonmesh.core.fairness import FairQueue


def filled(*rows: tuple[int, bytes, int, int]) -> FairQueue[bytes]:
    """`(class, flow, size, how many)`; the items are the flows' names."""
    queue: FairQueue[bytes] = FairQueue()
    for send_class, flow, size, count in rows:
        for _ in range(count):
            queue.push(send_class, flow, size, flow)
    return queue


def test_a_flow_keeps_its_order() -> None:
    queue: FairQueue[int] = FairQueue()
    for n in range(20):
        queue.push(2, b"a", 1000 + n, n)
    assert [queue.pop()[1] for _ in range(20)] == list(range(20))
    assert queue.count == queue.size == 0


def test_flows_share_by_bytes_and_not_by_messages() -> None:
    queue = filled((2, b"large", 60_000, 50), (2, b"small", 1000, 2000))
    sent: Counter[bytes] = Counter()
    while sum(sent.values()) < 1_000_000:
        size, flow = queue.pop()
        sent[flow] += size
    assert abs(sent[b"large"] - sent[b"small"]) <= 64_000


def test_a_newcomer_waits_one_round_behind_a_hundred_flows() -> None:
    flows = [(2, b"flow%d" % n, 1000, 50) for n in range(100)]
    queue = filled(*flows)
    for _ in range(500):
        queue.pop()
    queue.push(2, b"new", 1000, b"new")
    waited = 0
    while queue.pop()[1] != b"new":
        waited += 1
    assert waited <= 100 * 4


def test_a_lower_class_goes_first_and_a_higher_one_does_not_starve() -> None:
    queue = filled((1, b"tokens", 100, 70), (2, b"plain", 100, 70), (3, b"bulk", 100, 70))
    first = Counter(queue.pop()[1] for _ in range(70))
    assert first == {b"tokens": 40, b"plain": 20, b"bulk": 10}


def test_control_goes_first_and_whole() -> None:
    queue = filled((3, b"bulk", 100, 5), (0, b"control", 100, 50))
    assert [queue.pop()[1] for _ in range(50)] == [b"control"] * 50


def test_a_flow_that_went_silent_has_saved_nothing_up() -> None:
    queue = filled((2, b"a", 100, 1))
    queue.pop()
    for name in (b"a", b"b"):
        for _ in range(100):
            queue.push(2, name, 1000, name)
    first = Counter(queue.pop()[1] for _ in range(40))
    assert abs(first[b"a"] - first[b"b"]) <= 4


def test_everything_can_be_taken_out() -> None:
    queue = filled((1, b"a", 10, 3), (2, b"b", 10, 2))
    assert queue.drain() == [b"a"] * 3 + [b"b"] * 2
    assert queue.count == queue.size == 0
