"""Links that break, freeze, flap and starve under load (docs/design/forwarding.md)."""

from __future__ import annotations

import random
import time

import pytest

from tests.e2e.stacks import pause, wait_until
from tests.failures.late_ci import LateCi, streamed
from tests.failures.shape import Diamond, Flow, shown

RATE = 200.0


@pytest.mark.failure("rst-of-the-next-hop", "freeze-of-the-next-hop")
@pytest.mark.parametrize(("how", "more_ms"), [("cut", 150.0), ("freeze", 2500.0)])
def test_the_next_hop_breaks_under_200_messages_a_second(
    diamond: Diamond, how: str, more_ms: float
) -> None:
    next_hop_breaks(diamond, how, more_ms)


def next_hop_breaks(diamond: Diamond, how: str, more_ms: float) -> None:
    """Nothing is lost, nothing is doubled, and p99 grows by no more than is promised."""
    flow = Flow(diamond.a, "keeper@d", RATE, 4.0)
    flow.at(400)
    for wire in diamond.wires_of(diamond.used()):
        getattr(wire, how)()
    assert flow.finish() == {"ok": flow.total}
    before_ms, after_ms = flow.p99_ms(0, 400), flow.p99_ms(400)
    longest_ms = round(max(flow.latencies_s.values()) * 1000.0)
    shown(entry=how, n=flow.total, p99_ms=[before_ms, after_ms], longest_ms=longest_ms)
    handed = diamond.handed_out()
    assert [handed.get(body) for body in flow.bodies()] == [1] * flow.total
    assert after_ms <= before_ms + more_ms


@pytest.mark.failure("link-flapping-at-1-hz")
def test_a_link_that_flaps_once_a_second_loses_and_doubles_nothing(diamond: Diamond) -> None:
    flow = Flow(diamond.a, "keeper@d", 100.0, 5.0)
    wire = diamond.wires["a", diamond.used()]
    for second in range(5):
        flow.at(100 * second + 50)
        wire.cut()
        flow.at(100 * second + 100)
        wire.heal()
    assert flow.finish() == {"ok": flow.total}
    shown(entry="flapping", n=flow.total, p99_ms=flow.p99_ms())
    handed = diamond.handed_out()
    assert [handed.get(body) for body in flow.bodies()] == [1] * flow.total
    assert flow.p99_ms() <= 1000.0


@pytest.mark.failure("stream-cut")
def test_a_stream_that_is_cut_at_20_offsets_while_a_relay_restarts_has_identical_bytes(
    diamond: Diamond,
) -> None:
    chance = random.Random(2)
    whole = "".join(f"{number:05}" + "x" * 1019 for number in range(400))
    cuts = sorted(chance.sample(range(1, 400), 20))
    restarted = diamond.relays[diamond.used()]
    with diamond.d.connect() as connection, diamond.a.connect() as caller:
        late = LateCi(connection, "cut")
        wait_until("cut@d on a", lambda: "cut@d" in diamond.a.cis(), within_s=5)
        asked = {"to": "cut@d", "body": "", "stream": True, "timeout_s": 60}
        caller.say(id=1, method="send", params=asked)
        late.take(1)
        number = late.asked[0]["id"]
        for at in range(400):
            part = {"id": number, "data": whole[1024 * at : 1024 * (at + 1)]}
            late.stream.say(method="reply.chunk", params=part)
            if at in cuts:
                wire = chance.choice(list(diamond.wires.values()))
                wire.cut()
                pause(0.05)
                wire.heal()
            if at == cuts[10]:
                restarted.kill()
                restarted.spawn()
            pause(0.005)
        late.stream.say(id=number, result={"body": "end"})
        said = streamed(caller)
    restarted.wait_ready()
    shown(entry="stream cut", bytes=len(said), cuts=len(cuts))
    assert said == whole + "end"


@pytest.mark.failure("both-ends-over-window")
def test_two_ends_that_send_more_than_their_windows_at_once_do_not_wait_for_one_another(
    diamond: Diamond,
) -> None:
    """Links of 8 MB/s, bodies of 60 kB both ways, their answers as large."""
    here, there = diamond.a.start_echo("echo"), diamond.d.start_echo("echo")
    wait_until("both known", lambda: "echo@d" in diamond.a.cis(), within_s=5)
    wait_until("both known", lambda: "echo@a" in diamond.d.cis(), within_s=5)
    for wire in diamond.wires.values():
        wire.bytes_per_s = 8e6
    began = time.monotonic()
    body, count = "x" * 60_000, 120
    callers = [(diamond.a, "echo@d"), (diamond.d, "echo@a")]
    streams = [stack.connect() for stack, _target in callers]
    for number in range(count):
        for stream, (_stack, target) in zip(streams, callers, strict=True):
            params = {"to": target, "body": body, "timeout_s": 30}
            stream.say(id=number, method="send", params=params)
    for stream in streams:
        with stream:
            answers = [stream.hear() for _ in range(count)]
        assert all(answer["result"]["body"] == body for answer in answers)
    shown(entry="over window", bytes_each_way=2 * count * 60_000, s=time.monotonic() - began)
    for process in (here, there):
        process.kill()
