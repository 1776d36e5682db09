"""A relay that consented keeps a message for a stack that is away, on real daemons."""

from __future__ import annotations

import time

from tests.e2e.keeper_ci import lines_of
from tests.e2e.stacks import Mesh, wait_until
from tests.e2e.test_durable import on_fixed_port, state_of


def test_a_parked_message_arrives_though_its_origin_is_gone_when_its_destination_returns(
    mesh: Mesh,
) -> None:
    a = on_fixed_port(mesh.private("a").start())
    m = mesh.private("m", a)
    m.home.mkdir(mode=0o700)
    (m.home / "tektonmesh.toml").write_text("park_bytes = 1000000\n")
    on_fixed_port(m.start())
    b = on_fixed_port(mesh.private("b", m).start())
    mesh.wait_all_see([a, m, b])
    kept = b.start_keeper("keeper")
    wait_until("keeper@b on a", lambda: "keeper@b" in a.cis(), within_s=5)
    b.kill()
    wait_until("b away", lambda: a.stacks()["b"]["state"] == "unreachable", within_s=10)
    sent = a.cli("send", "keeper@b", "while", "you", "were", "out", "--no-wait", "--may-park")
    msg_id = sent.out.strip()
    parked = lambda: state_of(a, msg_id) == "parked"  # noqa: E731
    wait_until("parked", parked, within_s=15)
    assert m.status()["queues"]["parked"] == 1
    assert "Passes here from a to b, by m." in m.cli("explain", msg_id).out
    a.kill()
    m.kill()
    m.start()  # what it keeps is on its disk
    assert m.status()["queues"]["parked"] == 1
    b.start()
    back = time.monotonic()
    wait_until("handed out", lambda: lines_of(kept), within_s=20)
    print(f"handed out {time.monotonic() - back:.1f} s after the return")
    assert [line["body"] for line in lines_of(kept)] == ["while you were out"]
    wait_until("let go", lambda: not m.status()["queues"]["parked"], within_s=20)
    a.start()
    wait_until("answered", lambda: state_of(a, msg_id) == "answered", within_s=30)
    assert len(lines_of(kept)) == 1
