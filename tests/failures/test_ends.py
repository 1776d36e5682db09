"""What the two ends of a message do to it: cancels, and clocks that are wrong."""

from __future__ import annotations

import pytest

from tests.e2e.stacks import Connection, Mesh, pause, wait_until
from tests.failures.late_ci import LateCi, streamed
from tests.failures.shape import Diamond, Idle, make_faulty, shown

PHASES = ("before it left", "on its way", "at the CI", "while it streams")
HOUR_S = 3600.0


@pytest.mark.failure("cancel-in-each-phase")
@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_each_phase_brings_every_gauge_back_to_0(diamond: Diamond, phase: str) -> None:
    with diamond.d.connect() as connection, diamond.a.connect() as caller:
        name = f"late{PHASES.index(phase)}"
        late = LateCi(connection, name)
        wait_until("the CI on a", lambda: f"{name}@d" in diamond.a.cis(), within_s=5)
        begin(diamond, phase)
        asked = {"to": f"{name}@d", "body": "x" * 1000, "stream": True, "timeout_s": 60}
        caller.say(id=1, method="send", params=asked)
        if phase == "on its way":
            pause(0.2)
        elif phase != "before it left":
            late.take(1)
        if phase == "while it streams":
            number = late.asked[0]["id"]
            for _ in range(200):
                part = {"id": number, "data": "x" * 1000}
                late.stream.say(method="reply.chunk", params=part)
            assert caller.hear()["method"]
        caller.say(id=2, method="cancel", params={"id": 1})
        assert code_of(caller) == "cancelled"
        for wire in diamond.wires.values():
            wire.heal()
        if phase in ("at the CI", "while it streams"):
            assert late.hear("message.cancel")["params"]["id"] == late.asked[0]["id"]
        for stack in diamond.stacks:
            wait_until(f"{stack.name} idle", lambda s=stack: Idle(s), within_s=15)


def begin(diamond: Diamond, phase: str) -> None:
    if phase == "before it left":
        for relay in diamond.relays:
            diamond.wires["a", relay].cut()
    elif phase == "on its way":
        for relay in diamond.relays:
            diamond.wires["d", relay].delay_s = 0.5


def code_of(caller: Connection) -> str:
    """The code with which call 1 ends."""
    while True:
        line = caller.hear()
        if line.get("id") == 1:
            return str(line["error"]["data"]["code"])


@pytest.mark.failure("clocks-an-hour-wrong")
def test_clocks_that_are_an_hour_wrong_expire_and_refuse_nothing(mesh: Mesh) -> None:
    """Two whose clocks are right, as mesh time needs them, between one ahead and one behind."""
    right = [mesh.private("a").start()]
    right.append(mesh.private("c", right[0]).start())
    wrong = [mesh.private(name, *right) for name in ("ahead", "behind")]
    for stack, ahead_s in zip(wrong, (HOUR_S, -HOUR_S), strict=True):
        make_faulty(stack, "--ahead", str(ahead_s))
        stack.start()
    mesh.wait_all_see([*right, *wrong])
    for stack in wrong:
        stack.start_echo("echo")
    waits = []
    for here, there in ((0, 1), (1, 0)):
        stack, target = wrong[here], f"echo@{wrong[there].name}"
        wait_until(target, lambda s=stack, t=target: t in s.cis(), within_s=10)
        reply = stack.rpc("send", to=target, body="now", timeout_s=2)
        assert reply["body"] == "now"
        waits.append(reply["ms"])
        kept = stack.rpc("send", to=target, body="kept", durable=True, ttl_s=5)["id"]
        state = lambda s=stack, i=kept: s.rpc("message", id=i)["state"]  # noqa: E731
        wait_until("answered", lambda of=state: of() == "answered", within_s=4)
    shown(entry="clocks", ms=waits)
    assert max(waits) < 1000.0


@pytest.mark.failure("quota-in-mid-stream")
def test_a_stream_that_goes_over_a_relays_quota_arrives_whole_if_late(mesh: Mesh) -> None:
    """The only relay passes on 40 messages a second of each origin; the stream has more pieces."""
    a = mesh.private("a").start()
    m = mesh.private("m", a)
    m.home.mkdir(mode=0o700)
    (m.home / "tektonmesh.toml").write_text("relay_per_s = 40\n")
    m.start()
    b = mesh.private("b", m).start()
    mesh.wait_all_see([a, m, b])
    b.start_echo("echo")
    with b.connect() as connection, a.connect() as caller, a.connect() as others:
        late = LateCi(connection, "late")
        wait_until("both on a", lambda: {"late@b", "echo@b"} <= set(a.cis()), within_s=5)
        caller.say(id=1, method="send", params={"to": "late@b", "body": "", "stream": True})
        late.take(1)
        number = late.asked[0]["id"]
        parts = [f"{part:04} " + "x" * 4000 for part in range(400)]
        for part in parts:
            late.stream.say(method="reply.chunk", params={"id": number, "data": part})
        for count in range(400):
            params = {"to": "echo@b", "body": "x", "timeout_s": 3}
            others.say(id=count, method="send", params=params)
        late.stream.say(id=number, result={"body": "end"})
        answers = [others.hear() for _ in range(400)]
        codes = {a["error"]["data"]["code"] if "error" in a else "ok" for a in answers}
        assert "busy" in codes and codes <= {"busy", "ok", "timeout"}
        assert streamed(caller) == "".join(parts) + "end"
    relay = m.status()["relay"]
    shown(entry="quota in mid-stream", relay=relay)
    assert relay["refused"]["quota"] == sum(relay["over_quota"].values()) > 0
    assert "over their quota: " in m.cli("status").out
