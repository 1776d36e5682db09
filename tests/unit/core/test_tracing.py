import pytest

from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Envelope, Kind
from tektonmesh.core.messages import Forward, Message
from tests.network import Member, Network


def trace(member: Member, target: str, timeout_s: float = 5.0) -> int:
    return member.do(lambda ticket: ev.TraceRoute(ticket, target, timeout_s))


def chain(*names: str) -> Network:
    network = Network(*names)
    network.join(*names)
    return network


@pytest.mark.parametrize("target", ["@e", "echo@e"])
def test_a_trace_along_a_chain_of_five_lists_its_four_hops(target: str) -> None:
    network = chain("a", "b", "c", "d", "e")
    network["e"].register("echo")
    network.run(0.1)
    ticket = trace(network["a"], target)
    network.run(0.1)
    result = network["a"].result(ticket)
    assert result["path"] == ["a", "b", "c", "d", "e"]
    assert [(row["hop"], row["stack"]) for row in result["hops"]] == [
        (1, "b"),
        (2, "c"),
        (3, "d"),
        (4, "e"),
    ]
    assert all(row["rtt_ms"] == pytest.approx(2.0, abs=0.2) for row in result["hops"])
    assert all(row["queue_bytes"] == 0 for row in result["hops"])


def test_a_hop_with_a_queue_shows_it() -> None:
    network = chain("a", "b", "c")
    network["b"].node.forwarding.queued_bytes += 5000
    ticket = trace(network["a"], "@c")
    network.run(0.1)
    queues = [row["queue_bytes"] for row in network["a"].result(ticket)["hops"]]
    assert queues == [5000, 0]


def test_a_trace_to_this_stack_has_no_hops() -> None:
    network = chain("a", "b")
    network["a"].register("numa")
    for target in ("numa", "@a"):
        assert network["a"].result(trace(network["a"], target)) == {"hops": [], "path": ["a"]}


@pytest.mark.parametrize("target", ["nobody@b", "nobody@a", "nobody"])
def test_a_trace_to_a_ci_that_is_not_there_is_refused(target: str) -> None:
    network = chain("a", "b")
    assert network["a"].error(trace(network["a"], target))["code"] == "not_found"


def test_a_trace_to_nowhere_fails_at_once() -> None:
    network = chain("a", "b")
    assert network["a"].error(trace(network["a"], "@z"))["code"] == "not_found"
    network.cut("a", "b")
    network.run(1.0)
    assert network["a"].error(trace(network["a"], "@b"))["code"] == "unreachable"


def is_kind(message: Message, kind: Kind) -> bool:
    return isinstance(message, Forward) and message.envelope[1] == kind


@pytest.mark.parametrize("kind", [Kind.TRACE, Kind.TRACE_REPLY])
def test_a_lost_trace_is_sent_again(kind: Kind) -> None:
    network = chain("a", "b")
    lost: list[Message] = []

    def lose_one(_here: str, _there: str, message: Message) -> bool:
        if is_kind(message, kind) and not lost:
            lost.append(message)
            return False
        return True

    network.passes = lose_one
    ticket = trace(network["a"], "@b")
    network.run(1.0)
    assert network["a"].result(ticket)["path"] == ["a", "b"]


def test_a_trace_that_is_never_answered_times_out() -> None:
    network = chain("a", "b")
    network.passes = lambda _h, _t, m: not is_kind(m, Kind.TRACE_REPLY)
    ticket = trace(network["a"], "@b", 2.0)
    network.run(2.1)
    assert network["a"].error(ticket)["code"] == "timeout"


def test_a_trace_can_be_cancelled() -> None:
    network = chain("a", "b")
    first, second = trace(network["a"], "@b"), trace(network["a"], "@b")
    network.handle(network["a"], ev.CancelCommand(first))
    assert network["a"].error(first)["code"] == "cancelled"
    network.run(0.1)
    assert network["a"].result(second)["path"] == ["a", "b"]


def test_only_the_traced_stack_can_answer() -> None:
    network = chain("a", "b", "c")
    a, b = network["a"], network["b"]
    network.passes = lambda here, _t, m: here != "b" or not is_kind(m, Kind.TRACE)
    ticket = trace(a, "@c")
    network.run(0.01)
    msg_id = next(iter(a.node.requests._tracing._probes))
    sealer = b.node.deliveries.sealer
    forged = sealer.seal(
        Kind.TRACE_REPLY, a.id, {"tr": b"", "rep": b""}, reply_to=msg_id, ttl_s=5.0
    )
    handler = a.node.forwarding._handlers[Kind.TRACE_REPLY]
    handler(forged)
    true = network["c"].node.deliveries.sealer.seal(
        Kind.TRACE_REPLY, a.id, {"tr": b"", "rep": b""}, reply_to=msg_id, ttl_s=5.0
    )
    handler(Envelope(true.header, true.head, true.body[:-1]))
    assert a.answer(ticket) is None
    handler(true)
    a.effects.extend(a.node.env.take())
    assert a.result(ticket) == {"hops": [], "path": ["c"]}


def test_a_trace_from_a_stack_without_known_keys_is_not_answered() -> None:
    network = chain("a", "b")
    b = network["b"]
    b.node.replica.drop(network["a"].id)
    ticket = trace(network["a"], "@b", 1.0)
    network.run(0.02)
    assert network["a"].answer(ticket) is None


def test_a_path_longer_than_its_reports_is_shown_with_what_is_known() -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    network.passes = lambda _h, _t, m: not is_kind(m, Kind.TRACE)
    ticket = trace(a, "@b")
    msg_id = next(iter(a.node.requests._tracing._probes))
    true = b.node.deliveries.sealer.seal(
        Kind.TRACE_REPLY, a.id, {"tr": bytes(10), "rep": b""}, reply_to=msg_id, ttl_s=5.0
    )
    a.node.forwarding._handlers[Kind.TRACE_REPLY](true)
    a.effects.extend(a.node.env.take())
    [row] = a.result(ticket)["hops"]
    assert row == {"hop": 1, "stack": "b", "rtt_ms": 0.0, "queue_bytes": 0}


def test_a_trace_that_found_no_way_leaves_nothing_behind() -> None:
    network = chain("a", "b")
    a = network["a"]
    network.cut("a", "b")
    network.run(1.0)
    ticket = trace(a, "@b", 2.0)
    network.run(3.0)
    assert a.error(ticket)["code"] == "unreachable"
    assert not a.node.requests._tracing._probes
