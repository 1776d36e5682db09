"""Many daemons, and relays whose gossip is frozen (docs/design/forwarding.md)."""

from __future__ import annotations

import random
import time

import pytest

from tests.e2e.stacks import Mesh, Stack, free_ports, wait_until
from tests.failures.chaos import Wire
from tests.failures.shape import Diamond, Flow, Idle, shown

STACKS, CHORDS = 8, 9
RATE = 50.0


@pytest.mark.failure("micro-loop")
def test_frozen_gossip_makes_a_micro_loop_and_no_stack_is_twice_in_a_trace(
    diamond: Diamond,
) -> None:
    """b and c each believe that the other leads to d."""
    for name in diamond.faults:
        diamond.plant(name, "frozen gossip", "note traces")
    for relay in diamond.relays:
        diamond.wires[relay, "d"].cut()
    a = diamond.a
    wait_until("only a and b, c are linked", lambda: not lost_d(diamond), within_s=10)
    assert "d" in a.up(), "a has not heard of it"
    with a.connect() as stream:
        for number in range(20):
            params = {"to": "keeper@d", "body": f"loop {number}", "timeout_s": 8}
            stream.say(id=number, method="send", params=params)
        codes = [stream.hear()["error"]["data"]["code"] for _ in range(20)]
    assert codes == ["unreachable"] * 20
    files = [file.with_suffix(".traces") for file in diamond.faults.values()]
    traces = [
        line.split() for file in files if file.exists() for line in file.read_text().splitlines()
    ]
    assert any(len(trace) > 2 for trace in traces), "there was a loop to be made"
    assert all(len(dict.fromkeys(trace)) == len(trace) for trace in traces)
    shown(entry="micro-loop", messages=20, hops=len(traces))
    assert len(traces) < 20 * 32


def lost_d(diamond: Diamond) -> list[str]:
    """The relays that still have a link to d."""
    found = []
    for name, relay in diamond.relays.items():
        links = relay.status()["links"]
        found += [name for link in links if link["stack"] == "d"]
    return found


class Ring:
    """A ring of stacks with chords; every link passes a wire, every stack has an echo CI."""

    def __init__(self, mesh: Mesh, stacks: int, chords: int, rng_seed: int) -> None:
        self.chance = random.Random(rng_seed)
        self.names = [f"n{number:02}" for number in range(stacks)]
        ports = dict(zip(self.names, free_ports(stacks), strict=True))
        edges = dict.fromkeys(
            (one, self.names[(at + 1) % stacks]) for at, one in enumerate(self.names)
        )
        while len(edges) < stacks + chords:
            one, other = self.chance.sample(self.names, 2)
            if (other, one) not in edges:
                edges[one, other] = None
        self.wires = {edge: Wire(ports[edge[1]]) for edge in edges}
        self.stacks: dict[str, Stack] = {}
        for name in self.names:
            words = [*mesh.by_secret(), "--seeds-only", "--listen", f"127.0.0.1:{ports[name]}"]
            for (one, _other), wire in self.wires.items():
                words += ["--seed", wire.seed] if one == name else []
            self.stacks[name] = mesh.add(name, *words)
            self.stacks[name].spawn()
        for stack in self.stacks.values():
            stack.wait_ready(60)
            stack.start_echo("echo")
        mesh.wait_all_see(list(self.stacks.values()), within_s=60)
        for stack in self.stacks.values():
            known = lambda s=stack: len(s.cis()) == stacks  # noqa: E731
            wait_until(f"all CIs on {stack.name}", known, within_s=20)
        links = lambda: sum(len(s.status()["links"]) for s in self.stacks.values())  # noqa: E731
        wait_until("all links", lambda: links() == 2 * len(edges), within_s=20)

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()


def links_die_at_once(ring: Ring, rate: float, seconds: float, how: str) -> None:
    """One flow from each stack to another one, while 12 % of the links fail."""
    names = ring.names
    pairs = [(one, names[(at + len(names) // 2) % len(names)]) for at, one in enumerate(names)]
    flows = [Flow(ring.stacks[one], f"echo@{two}", rate, seconds) for one, two in pairs]
    flows[0].at(int(rate * seconds / 4))
    dead = ring.chance.sample(list(ring.wires), max(1, round(0.12 * len(ring.wires))))
    began = time.monotonic()
    for edge in dead:
        getattr(ring.wires[edge], how)()
    outcomes = [flow.finish() for flow in flows]
    waits = sorted(wait for flow in flows for wait in flow.latencies_s.values())
    late = sum(wait > 5.0 for wait in waits)
    shown(
        entry="links die",
        how=how,
        stacks=len(names),
        links=len(ring.wires),
        dead=len(dead),
        n=len(waits),
        later_than_5_s=late,
        p99_ms=round(waits[int(0.99 * len(waits))] * 1000),
        longest_ms=round(waits[-1] * 1000),
        s=round(time.monotonic() - began, 1),
    )
    assert outcomes == [{"ok": flow.total} for flow in flows]
    assert late <= len(waits) // 10_000
    for stack in ring.stacks.values():
        wait_until(f"{stack.name} idle", lambda s=stack: Idle(s), within_s=20)


@pytest.mark.failure("links-die-at-once")
def test_12_percent_of_links_freeze_at_once_and_all_arrives_within_5_seconds(mesh: Mesh) -> None:
    ring = Ring(mesh, STACKS, CHORDS, rng_seed=4)
    try:
        links_die_at_once(ring, RATE, 4.0, "freeze")
    finally:
        ring.close()
