"""What forwarding is held to when its parts fail (docs/design/forwarding.md), each by its name.

Real nodes over in-memory links under one virtual clock, so every figure is exact and repeatable.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.envelope import DESTINATION, KIND_AT, Kind, parse, read_trace
from tektonmesh.core.messages import Delta, Forward, HopAck, Message, Released, Settled
from tests.network import Member, Network

KIB = 1024


def answers(a: Member, tickets: list[int]) -> list[str]:
    """What each ticket got so far: "ok", a code, or "" for nothing."""
    said = {
        e.ticket: "ok" if isinstance(e, fx.Answer) else e.error["code"]
        for e in a.effects
        if isinstance(e, (fx.Answer, fx.AnswerFailed))
    }
    return [said.get(ticket, "") for ticket in tickets]


def latencies_ms(a: Member, tickets: list[int]) -> list[float]:
    wanted = dict.fromkeys(tickets)
    return sorted(e.result["ms"] for e in a.of(fx.Answer) if e.ticket in wanted)


def doubled(member: Member) -> int:
    """Messages that a CI was handed more than once."""
    ids = [delivery.msg_id for delivery in member.deliveries()]
    return len(ids) - len(set(ids))


def gauges(*members: Member) -> dict[str, int]:
    """Everything that must be empty when nothing is under way."""
    total: dict[str, int] = {}
    for member in members:
        node = member.node
        row = {
            "pending": node.requests.pending,
            "deliveries": node.deliveries.open,
            "kept": node.forwarding.queued_bytes,
            "readers": node.deliveries.kept_for_readers,
            "credit": node.requests._credits.reserved,
            "posts": len(node.deliveries.posts),
        }
        for key, value in row.items():
            total[key] = total.get(key, 0) + value
    return total


def diamond(**settings: Any) -> Network:
    """a - {b, c} - d; a CI `echo` at d."""
    network = Network("a", "b", "c", "d", **settings)
    network.join("a", "b", "d")
    network.join("a", "c", "d")
    network["d"].register("echo")
    network["d"].echo()
    network.run(2.0)
    return network


def used_relay(network: Network) -> str:
    ticket = network["a"].send("echo@d")
    network.run(0.2)
    return str(network["a"].result(ticket)["path"][1])


def flow(network: Network, seconds: float, at: Callable[[int], None]) -> list[int]:
    """200 messages a second from a to d; `at(n)` runs before the n-th."""
    tickets = []
    for n in range(int(200 * seconds)):
        at(n)
        tickets.append(network["a"].send("echo@d", b"%d" % n, timeout_s=20.0))
        network.run(0.005)
    network.run(20.0)
    return tickets


# --- the next hop dies ---------------------------------------------------------------------------


@pytest.mark.failure("rst-of-the-next-hop")
def test_rst_of_the_active_next_hop_under_200_messages_a_second() -> None:
    network = diamond()
    relay = used_relay(network)
    tickets = flow(network, 3.0, lambda n: network.kill(relay) if n == 300 else None)
    assert set(answers(network["a"], tickets)) == {"ok"}
    assert doubled(network["d"]) == 0
    ms = latencies_ms(network["a"], tickets)
    assert ms[int(len(ms) * 0.99)] <= 4.0 + 150.0


@pytest.mark.failure("freeze-of-the-next-hop")
def test_silent_freeze_of_the_active_next_hop_under_200_messages_a_second() -> None:
    network = diamond()
    relay = used_relay(network)

    def freeze(n: int) -> None:
        if n == 300:
            network.passes = lambda here, there, _m: relay not in (here, there)

    tickets = flow(network, 3.0, freeze)
    assert set(answers(network["a"], tickets)) == {"ok"}
    assert doubled(network["d"]) == 0
    ms = latencies_ms(network["a"], tickets)
    assert ms[int(len(ms) * 0.99)] <= 4.0 + 2500.0


@pytest.mark.failure("links-die-at-once")
def test_12_percent_of_links_die_at_once() -> None:
    chance = random.Random(4)
    names = [f"n{n}" for n in range(20)]
    network = Network(*names)
    edges = [(names[n], names[(n + 1) % 20]) for n in range(20)]
    edges += [tuple(chance.sample(names, 2)) for _ in range(22)]  # type: ignore[misc]
    edges = list(dict.fromkeys(tuple(sorted(edge)) for edge in edges))  # type: ignore[misc]
    for one, other in edges:
        network._join(one, other)
    for name in names:
        network[name].register("echo")
        network[name].echo()
    network.run(5.0)
    dead = chance.sample(edges, round(0.12 * len(edges)))
    network.passes = lambda here, there, _m: tuple(sorted((here, there))) not in dead
    pairs = [chance.sample(names, 2) for _ in range(200)]
    tickets = [(one, network[one].send(f"echo@{two}", timeout_s=30.0)) for one, two in pairs]
    network.run(5.0)
    within = [answers(network[name], [ticket])[0] for name, ticket in tickets]
    assert within.count("ok") == len(tickets), f"{within.count('ok')} of {len(tickets)} in 5 s"
    assert sum(doubled(network[name]) for name in names) == 0


@pytest.mark.failure("micro-loop")
def test_frozen_gossip_makes_a_micro_loop_and_no_stack_is_twice_in_a_trace() -> None:
    """b and c each believe that the other leads to d."""
    network = Network("a", "b", "c", "d")
    network.join("a", "b", "c")
    network.join("b", "d")
    network.join("c", "d")
    network["d"].register("echo")
    network["d"].echo()
    network.run(2.0)
    traces: list[list[bytes]] = []

    def look(_here: str, there: str, message: Message) -> None:
        if isinstance(message, Forward):
            trace = read_trace(parse(message.envelope).trace)
            traces.append([hop.short for hop in trace] + [network[there].id[:8]])

    network.passes = lambda _h, _t, m: not isinstance(m, Delta)
    network.cut("b", "d")
    network.cut("c", "d")
    network.on_message = look
    tickets = [network["a"].send("echo@d", timeout_s=8.0) for _ in range(20)]
    network.run(10.0)
    assert traces and all(len(set(trace)) == len(trace) for trace in traces)
    assert set(answers(network["a"], tickets)) == {"unreachable"}
    assert len(traces) < 20 * 32


# --- relays that lie -----------------------------------------------------------------------------


@pytest.mark.failure("relay-discards")
def test_a_relay_that_acknowledges_and_discards_is_gone_round() -> None:
    network = diamond()
    liar = used_relay(network)
    a = network["a"]

    def both(here: str, there: str, message: Message) -> bool:
        if (here, there) == ("a", liar) and isinstance(message, Forward):
            link = link_between(network, "a", liar)
            lie = (HopAck(message.seq), Settled((message.seq,)))
            network._post("a", ev.Received(link, lie), 0.001)
            return False
        return True

    network.passes = both
    tickets = [a.send("echo@d", timeout_s=10.0) for _ in range(50)]
    network.run(10.0)
    assert set(answers(a, tickets)) == {"ok"}
    assert doubled(network["d"]) == 0


def link_between(network: Network, here: str, there: str) -> int:
    """The link of `here` to `there`."""
    links = network[here].node.neighbours.links.values()
    return next(n.link for n in links if n.stack_id == network[there].id)


@pytest.mark.parametrize("lie", ["forged nack", "altered destination", "replay"])
@pytest.mark.failure("relay-lies")
def test_a_lying_relay(lie: str) -> None:
    """It can be gone round; it cannot make a second delivery, a false answer or a false failure."""
    network = diamond()
    liar = used_relay(network)
    a, d = network["a"], network["d"]
    seen: list[bytes] = []

    def passes(here: str, there: str, message: Message) -> bool:
        if here == "a" and there == liar and isinstance(message, Forward):
            link = link_between(network, "a", liar)
            if lie == "forged nack":
                network._post(
                    "a", ev.Received(link, (Released(message.seq, "refused", ()),)), 0.001
                )
        if here == liar and there == "d" and isinstance(message, Forward):
            to = link_between(network, "d", liar)
            if lie == "altered destination":
                data = bytearray(message.envelope)
                data[DESTINATION.start - 1] ^= 1  # another source: d must not open it
                network._post("d", ev.Received(to, (Forward(message.seq, bytes(data)),)), 0.001)
                return False
            if lie == "replay":
                seen.append(message.envelope)
                for n in range(3):
                    again = Forward(message.seq + 4 * (n + 1000), message.envelope)
                    network._post("d", ev.Received(to, (again,)), 0.1 * n)
        return True

    network.passes = passes
    tickets = [a.send("echo@d", b"%d" % n, timeout_s=15.0) for n in range(20)]
    network.run(15.0)
    assert set(answers(a, tickets)) == {"ok"}
    assert [a.result(t)["body"] for t in tickets] == [b"%d" % n for n in range(20)]
    assert doubled(d) == 0


# --- much at once --------------------------------------------------------------------------------


@pytest.mark.failure("both-ends-over-window")
def test_both_ends_over_window_at_once() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    for name in "ab":
        network[name].register("echo")
        network[name].echo()
    network.run(2.0)
    body = bytes(60_000)
    asked = {"a": [], "b": []}  # type: dict[str, list[int]]
    for _ in range(100):
        for name, other in (("a", "b"), ("b", "a")):
            asked[name].append(network[name].send(f"echo@{other}", body, timeout_s=30.0))
    network.run(30.0)
    for name in "ab":
        assert set(answers(network[name], asked[name])) == {"ok"}
    assert not any(gauges(network["a"], network["b"]).values())


@pytest.mark.failure("slow-reader-beside-flows")
def test_a_reader_of_1_kib_a_second_beside_100_flows() -> None:
    network = Network("a", "m", "b")
    network.join("a", "m", "b")
    network["b"].register("poet")
    network.run(2.0)
    a, b = network["a"], network["b"]

    def p99(slow_reader: bool) -> float:
        tickets: list[int] = []
        a.reads = False
        slow = a.send("poet@b", stream=True, timeout_s=60.0) if slow_reader else 0
        network.run(0.1)
        first = b.deliveries()[-1] if slow_reader else None
        for _ in range(20):
            if first is not None:
                b.chunk(first, bytes(20 * KIB))
                network.handle(a, ev.ChunksTaken(slow, 51))
            for _ in range(100):
                tickets.append(a.send("poet@b", b"x", timeout_s=20.0))
            network.run(0.05)
            for delivery in b.deliveries()[-100:]:
                b.reply(delivery, b"y")
        network.run(1.0)
        assert set(answers(a, tickets)) == {"ok"}
        ms = latencies_ms(a, tickets)
        return ms[int(len(ms) * 0.99)]

    alone, beside = p99(False), p99(True)
    assert beside <= 1.1 * alone


@pytest.mark.failure("stream-cut")
def test_a_stream_cut_at_20_offsets_with_a_relay_restarted_has_identical_bytes() -> None:
    network = diamond()
    a, d = network["a"], network["d"]
    d.on_deliver = None
    ticket = a.send("echo@d", stream=True, timeout_s=600.0)
    network.run(0.2)
    whole = random.Random(1).randbytes(400 * KIB)
    chance = random.Random(2)
    cuts = sorted(chance.sample(range(1, 400), 20))
    for n in range(400):
        d.chunk(d.deliveries()[0], whole[n * KIB : (n + 1) * KIB])
        if n in cuts:
            relay = chance.choice("bc")
            if n == cuts[10]:
                network.kill(relay)
                network.add(relay)
                network.join("a", relay, "d")
            else:
                one = chance.choice("ad")
                network.cut(one, relay)
                network.run(chance.random())
                network._join(one, relay)
        network.run(0.01)
    d.reply(d.deliveries()[0], b"")
    network.run(30.0)
    assert b"".join(a.streamed(ticket)) + a.result(ticket)["body"] == whole
    assert not any(gauges(a, d).values())


@pytest.mark.parametrize("phase", ["before it left", "on its way", "at the CI", "while it streams"])
@pytest.mark.failure("cancel-in-each-phase")
def test_cancel_in_each_phase_brings_every_gauge_back_to_0(phase: str) -> None:
    network = diamond()
    a, d = network["a"], network["d"]
    d.on_deliver = None
    if phase == "before it left":
        network.cut("a", "b")
        network.cut("a", "c")
    ticket = a.send("echo@d", bytes(KIB), stream=True, timeout_s=60.0)
    network.run({"before it left": 0.1, "on its way": 0.0015}.get(phase, 0.2))
    if phase == "while it streams":
        for _ in range(200):
            d.chunk(d.deliveries()[0], bytes(KIB))
        network.run(0.2)
    network.handle(a, ev.CancelCommand(ticket))
    network.run(12.0)
    assert a.error(ticket)["code"] == "cancelled"
    members = [network[name] for name in "abcd"]
    assert not any(gauges(*members).values()), gauges(*members)
    if phase in ("at the CI", "while it streams"):
        assert len(d.of(fx.CancelDelivery)) == 1


@pytest.mark.failure("link-flapping-at-1-hz")
def test_a_link_flapping_at_1_hz() -> None:
    network = Network("a", "b")
    network.join("a", "b")
    network["b"].register("echo")
    network["b"].echo()
    network.run(2.0)
    a = network["a"]
    tickets = []
    for _ in range(10):
        network.cut("a", "b")
        tickets += [a.send("echo@b", timeout_s=20.0) for _ in range(20)]
        network.run(0.5)
        network._join("a", "b")
        tickets += [a.send("echo@b", timeout_s=20.0) for _ in range(20)]
        network.run(0.5)
    network.run(20.0)
    assert set(answers(a, tickets)) == {"ok"}
    assert doubled(network["b"]) == 0


@pytest.mark.failure("receipts-lost")
def test_all_receipts_lost_for_30_seconds() -> None:
    network = diamond()
    d = network["d"]
    d.on_deliver = None
    a = network["a"]
    network.passes = lambda _h, _t, m: (
        not (isinstance(m, Forward) and m.envelope[KIND_AT] == Kind.RECEIPT)
    )
    tickets = [a.send("echo@d", timeout_s=60.0) for _ in range(20)]
    network.run(30.0)
    assert len(d.deliveries()) == 20
    network.passes = lambda *_: True
    for delivery in d.deliveries():
        d.reply(delivery, b"done")
    network.run(1.0)
    assert set(answers(a, tickets)) == {"ok"} and doubled(d) == 0


@pytest.mark.failure("quota-in-mid-stream")
def test_a_quota_of_messages_exceeded_in_mid_stream_leaves_the_stream_alone() -> None:
    network = Network("a", "b", source_rate_per_s=2.0)
    network.join("a", "b")
    network["b"].register("poet")
    network.run(2.0)
    a, b = network["a"], network["b"]
    ticket = a.send("poet@b", stream=True, timeout_s=60.0)
    network.run(0.2)
    others = []
    for n in range(100):
        b.chunk(b.deliveries()[0], bytes([n]) * KIB)
        others.append(a.send("poet@b", timeout_s=1.0))
        network.run(0.01)
    b.reply(b.deliveries()[0], b"")
    network.run(5.0)
    assert b"".join(a.streamed(ticket)) == b"".join(bytes([n]) * KIB for n in range(100))
    assert "busy" in answers(a, others)
