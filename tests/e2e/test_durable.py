"""Messages that outlive daemons: accepted means delivered once, through kill -9 of everything."""

import json

import pytest

from tests.e2e.keeper_ci import lines_of
from tests.e2e.kill_cycles import ZERO, Cycles
from tests.e2e.stacks import Mesh, Stack, wait_until


def on_fixed_port(stack: Stack) -> Stack:
    """Let a restart listen where others know it."""
    stack.run_arguments = tuple(
        word if word != "127.0.0.1:0" else f"127.0.0.1:{stack.port}" for word in stack.run_arguments
    )
    return stack


def state_of(stack: Stack, msg_id: str) -> str:
    return str(stack.rpc("message", id=msg_id)["state"])


@pytest.mark.hostile("killed-after-accepted")
def test_a_message_for_an_offline_stack_survives_kill_9_of_its_origin_and_arrives_once(
    mesh: Mesh,
) -> None:
    a, b, c = (on_fixed_port(stack) for stack in mesh.chain("abc"))
    c.start_keeper("keeper")
    wait_until("keeper@c on a", lambda: "keeper@c" in a.cis(), within_s=5)
    c.kill()
    wait_until("c away", lambda: a.stacks()["c"]["state"] == "unreachable", within_s=10)
    sent = a.cli("send", "--no-wait", "keeper@c", "hello from before")
    assert sent.code == 0, sent
    msg_id = sent.out.split()[-1]
    a.kill()
    b.kill()
    a.start()
    assert state_of(a, msg_id) == "accepted"
    b.start()
    c.start()
    kept = c.start_keeper("keeper")
    wait_until("answered", lambda: state_of(a, msg_id) == "answered", within_s=15)
    assert [line["id"] for line in lines_of(kept)] == [msg_id]
    shown = json.loads(a.cli("message", msg_id, "--json").out)
    assert [step["state"] for step in shown["transitions"]][-1] == "answered"
    assert shown["body"] == "kept hello from before"


def test_kill_9_of_origin_relay_and_destination_under_load_loses_and_doubles_nothing(
    mesh: Mesh,
) -> None:
    cycles = Cycles(mesh, rng_seed=1, rate=100.0)
    cycles.run(24)
    found = cycles.settle()
    print(found)
    assert found["accepted"] > 200
    assert {name: found[name] for name in ZERO} == dict.fromkeys(ZERO, 0)
