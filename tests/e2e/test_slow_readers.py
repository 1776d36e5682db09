"""Callers that do not read their streamed replies hold up themselves only, on real daemons."""

import time

import pytest

from tests.e2e.stacks import Mesh, wait_until

STREAMS, PER_CONNECTION = 1000, 20
REPLY_SIZE = 96 * 1024
WINDOW = 64 * 1024


@pytest.mark.failure("stalled-streams")
def test_a_thousand_stalled_streams_take_under_200_mb_and_hold_nobody_up(mesh: Mesh) -> None:
    a, m, b = mesh.chain("amb")
    b.start_echo("flood", "--flood", str(REPLY_SIZE))
    b.start_echo("echo")
    wait_until("both on a", lambda: {"flood@b", "echo@b"} <= set(a.cis()), within_s=5)
    stuck = []
    for _ in range(STREAMS // PER_CONNECTION):
        stream = a.connect()
        for call in range(PER_CONNECTION):
            asked = {"to": "flood@b", "body": "go", "stream": True, "timeout_s": 120}
            stream.say(id=call, method="send", params=asked)
        stuck.append(stream)

    def all_said() -> bool:
        queues = b.status()["queues"]
        # The kernel takes some of it from each connection, so that it may go on a little.
        held = queues["reply_bytes"] >= STREAMS * (REPLY_SIZE - WINDOW) // 8
        return held and not queues["deliveries"]

    wait_until("the CI has said all to all", all_said, within_s=100, every_s=0.3)
    memory = {stack.name: round(stack.resident_mb()) for stack in (a, m, b)}
    waits = []
    for _ in range(20):
        began = time.monotonic()
        assert a.rpc("send", to="echo@b", body="still there?")["body"] == "still there?"
        waits.append(time.monotonic() - began)
    print(f"{STREAMS} stalled streams: {memory} MB; a message beside them {max(waits):.3f} s")
    assert max(memory.values()) < 200
    assert max(waits) < 1.0

    with stuck[0] as reader:  # who reads again gets all of it
        ended, size = 0, 0
        while ended < PER_CONNECTION:
            line = reader.hear()
            size += len(line["params"]["data"]) if "method" in line else 0
            ended += "result" in line
            assert "error" not in line, line
            size += len(line["result"]["body"]) if "result" in line else 0
    assert size == PER_CONNECTION * (REPLY_SIZE + len("go"))
    for stream in stuck[1:]:
        stream.close()
    wait_until("all is forgotten", lambda: a.status()["queues"]["requests"] == 0, within_s=20)
