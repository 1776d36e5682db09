"""Relays that lie, against real daemons (docs/design/forwarding.md). In worlds: tests/hostile."""

from __future__ import annotations

import time

import pytest

from tests.e2e.stacks import wait_until
from tests.failures.late_ci import LateCi
from tests.failures.shape import Diamond, Flow, shown

LOST_S = 3.0
"""./scripts/failures has 30 s."""


@pytest.mark.failure("relay-discards")
def test_a_relay_that_acknowledges_and_discards_is_gone_round(diamond: Diamond) -> None:
    liar = diamond.used()
    diamond.plant(liar, "discard")
    flow = Flow(diamond.a, "keeper@d", 100.0, 2.0)
    assert flow.finish() == {"ok": flow.total}
    shown(entry="discards", n=flow.total, p99_ms=flow.p99_ms())
    handed = diamond.handed_out()
    assert [handed.get(body) for body in flow.bodies()] == [1] * flow.total


@pytest.mark.failure("relay-lies")
@pytest.mark.parametrize("lie", ["nack", "alter source", "alter destination", "replay"])
def test_a_relay_that_lies_causes_no_second_delivery_and_no_false_answer(
    diamond: Diamond, lie: str
) -> None:
    diamond.plant(diamond.used(), lie)
    flow = Flow(diamond.a, "keeper@d", 100.0, 1.0)
    assert flow.finish() == {"ok": flow.total}
    shown(entry=lie, n=flow.total, p99_ms=flow.p99_ms())
    handed = diamond.handed_out()
    assert [handed.get(body) for body in flow.bodies()] == [1] * flow.total


@pytest.mark.failure("relay-lies")
def test_an_edge_that_one_end_makes_up_attracts_nothing(diamond: Diamond) -> None:
    """A relay that lost its link to `d` goes on praising it."""
    diamond.plant("b", "forged edge")
    diamond.wires["b", "d"].cut()
    lost = lambda: "d" not in [k["stack"] for k in diamond.b.status()["links"]]  # noqa: E731
    wait_until("the link is gone", lost, within_s=10)

    def claims() -> list[dict[str, object]]:
        links = diamond.a.rpc("explain", name="d")["links"]
        return [row for row in links if row["stack"] == "b" and row["peer"]]

    def praised() -> bool:
        return [(row["peer"]["cost"], row["counts"]) for row in claims()] == [(1, False)]

    wait_until("a knows what b says, and that d does not", praised, within_s=10)
    for _ in range(20):
        path = diamond.a.rpc("send", to="keeper@d", body="x")["path"]
        assert path[-2:] == ["c", "d"], "the only edges to d that both ends sign"


@pytest.mark.failure("receipts-lost")
def test_all_receipts_are_lost_for_a_while(diamond: Diamond) -> None:
    """Of messages whose CI is slow and of durable ones, whose answers are confirmed by receipts."""
    all_receipts_lost(diamond, LOST_S)


def all_receipts_lost(diamond: Diamond, lost_s: float) -> None:
    until = time.monotonic() + lost_s
    with diamond.d.connect() as connection, diamond.a.connect() as caller:
        late = LateCi(connection, "late")
        wait_until("late@d on a", lambda: "late@d" in diamond.a.cis(), within_s=5)
        for relay in diamond.relays:
            diamond.plant(relay, "discard receipts")
        for number in range(20):
            params = {"to": "late@d", "body": f"m{number}", "timeout_s": 60}
            caller.say(id=number, method="send", params=params)
        flow = Flow(diamond.a, "keeper@d", 20.0, lost_s, durable=True)
        late.take(20)
        assert flow.finish() == {"ok": flow.total}
        wait_until("the time is over", lambda: time.monotonic() > until, within_s=lost_s + 5)
        assert diamond.d.status()["queues"]["answers"], "nothing was confirmed meanwhile"
        for relay in diamond.relays:
            diamond.plant(relay)
        late.answer_all()
        answers = [caller.hear() for _ in range(20)]
        assert all(answer["result"]["body"] == "done" for answer in answers)
        again = diamond.d.rpc("status")["queues"]["deliveries"]
        assert len({line["params"]["id"] for line in late.asked}) == 20 and not again
    healed = time.monotonic()
    diamond.settle()
    shown(
        entry="receipts", lost_s=lost_s, n=20 + flow.total, idle_after_s=time.monotonic() - healed
    )
    handed = diamond.handed_out()
    assert [handed.get(body) for body in flow.bodies()] == [1] * flow.total


def test_explain_shows_what_a_relay_that_discards_did_to_a_message(diamond: Diamond) -> None:
    for relay in diamond.relays:
        diamond.plant(relay, "discard")
    kept = diamond.a.rpc("send", to="keeper@d", body="explain me", durable=True)["id"]
    tried = lambda: len(diamond.a.rpc("explain", id=kept)["origin"]["attempts"]) > 1  # noqa: E731
    wait_until("two copies", tried, within_s=10)
    said = diamond.a.cli("explain", kept).out
    assert "It waits for a receipt. A copy left and d has not said that it has it." in said
    first, second = diamond.a.rpc("explain", id=kept)["origin"]["attempts"][:2]
    assert first["fate"] == "settled" and second["avoids"] == [first["path"][1]]
    for relay in diamond.relays:
        diamond.plant(relay)
    ended = lambda: diamond.a.rpc("explain", id=kept)["state"] == "answered"  # noqa: E731
    wait_until("answered", ended, within_s=15)
    (found,) = diamond.a.cli("explain", kept, "--json").lines()
    assert found["origin"]["receipt"]["hops"][0]["stack"] == "a"
    assert "Here it is done with" in diamond.d.cli("explain", kept).out
