"""What a node tells of one message: where it is, what was tried, what it waits for."""

from __future__ import annotations

from typing import Any

from tektonmesh.core import events as ev
from tektonmesh.core.envelope import Kind, parse
from tektonmesh.core.messages import Forward, HopAck, Message, Settled
from tektonmesh.core.types import short_id
from tektonmesh.core.views_message import explain_message
from tests.network import Member, Network


def diamond(**settings: Any) -> Network:
    network = Network("a", "b", "c", "d", **settings)
    network.join("a", "b", "d")
    network.join("a", "c", "d")
    network["d"].register("echo", persist=True)
    network.run(2.0)
    return network


def told(member: Member, msg_id: bytes, part: str) -> dict[str, Any]:
    member.node.env.now = member.network.now
    found = explain_message(member.node, msg_id)
    assert found is not None and found["id"] == msg_id.hex()
    return dict(found[part])


def waits(member: Member, msg_id: bytes, part: str = "origin") -> str:
    return str(told(member, msg_id, part)["waits"]["for"])


def pending_id(member: Member, ticket: int) -> bytes:
    return member.node.requests._tickets[ticket].msg_id


def kept_id(member: Member, target: str = "echo@d") -> bytes:
    """The id of a new durable message, accepted or not."""
    before = dict(member.node.durable.outbox._open)
    member.send(target, durable=True)
    return next(i for i in member.node.durable.outbox._open if i not in before)


def only_lose(network: Network, *kinds: Kind) -> None:
    def passes(_here: str, _there: str, message: Message) -> bool:
        return not (isinstance(message, Forward) and parse(message.envelope).header.kind in kinds)

    network.passes = passes


def test_nobody_knows_a_message_that_is_none() -> None:
    network = diamond()
    assert explain_message(network["a"].node, bytes(16)) is None


# --- at the origin -------------------------------------------------------------------------------


def test_a_message_that_is_with_its_ci_waits_for_the_reply() -> None:
    network = diamond()
    a, d = network["a"], network["d"]
    msg_id = pending_id(a, a.send("echo@d"))
    assert waits(a, msg_id) == "a receipt"
    network.run(0.2)
    found = told(a, msg_id, "origin")
    assert found["waits"]["for"] == "the reply" and found["waits"]["next_s"] > 0
    assert found["receipt"]["hops"][0]["stack"] == "a"
    assert (found["to"], found["stack"]["state"], found["durable"]) == ("echo@d", "up", False)
    [attempt] = found["attempts"]
    assert attempt["path"][0] == "a" and attempt["path"][-1] == "d"
    assert (attempt["fate"], attempt["avoids"]) == ("settled", [])
    assert attempt["after_ms"] > 0
    assert waits(d, msg_id, "destination") == "the answer"
    assert told(d, msg_id, "destination")["stage"] == "leased"
    d.reply(d.deliveries()[0], b"x")
    network.run(0.2)
    assert told(a, msg_id, "origin")["waits"] is None
    assert told(a, msg_id, "origin")["receipt"]["hops"]
    assert told(d, msg_id, "destination") | {"receipt": None} == {
        "from": "a", "to": None, "durable": False, "stage": "done", "receipt": None,
        "waits": None, "answer": None,
    }  # fmt: skip


def test_each_copy_shows_what_it_was_to_avoid() -> None:
    network = diamond()
    a = network["a"]
    only_lose(network, Kind.REQUEST)
    msg_id = pending_id(a, a.send("echo@d", timeout_s=20.0))
    network.run(0.6)
    first, second = told(a, msg_id, "origin")["attempts"][:2]
    assert first["avoids"] == [] and second["avoids"] == [first["path"][1]]
    assert first["path"][1] != second["path"][1]


def test_a_relay_that_is_not_known_here_shows_as_its_short_id() -> None:
    network = diamond()
    a = network["a"]
    msg_id = pending_id(a, a.send("echo@d"))
    pending = a.node.requests.find(msg_id)
    assert pending is not None
    pending.attempts.newest[0].avoid = short_id(network["b"].id) + b"nobody!!"
    assert told(a, msg_id, "origin")["attempts"][0]["avoids"] == ["b", b"nobody!!".hex()]


def test_without_a_way_it_says_that_and_why() -> None:
    network = diamond()
    a = network["a"]
    for relay in "bc":
        network.cut("a", relay)
    msg_id = pending_id(a, a.send("echo@d", timeout_s=20.0))
    found = told(a, msg_id, "origin")["waits"]
    assert found["for"] == "a way" and found["next_s"] > 0
    assert "Nobody here leads to d" in found["why"]
    kept = kept_id(a)
    network.run(0.05)
    assert waits(a, kept) == "a way"
    assert told(a, kept, "origin")["attempts"] == []


def test_behind_a_full_window_it_waits_for_its_turn() -> None:
    network = diamond(window_messages=1)
    a = network["a"]
    only_lose(network, Kind.REQUEST)
    a.send("echo@d")
    msg_id = pending_id(a, a.send("echo@d"))
    assert waits(a, msg_id) == "its turn"
    first, second = kept_id(a), kept_id(a)
    network.run(0.1)
    assert (waits(a, first), waits(a, second)) == ("a receipt", "its turn")
    assert "1 messages for d" in told(a, second, "origin")["waits"]["why"]


def test_a_durable_message_says_for_what_it_waits_on_each_step() -> None:
    network = diamond()
    a, d = network["a"], network["d"]
    a.disk_stuck = True
    msg_id = kept_id(a)
    assert waits(a, msg_id) == "the disk"
    network.write("a")
    network.run(0.3)
    assert waits(a, msg_id) == "the reply"
    found = told(a, msg_id, "origin")
    assert found["durable"] and found["copies"] == 1 and found["receipt"]["hops"]
    assert waits(d, msg_id, "destination") == "the answer"
    only_lose(network, Kind.REPLY)
    d.reply(d.deliveries()[0], b"x")
    network.run(0.2)
    assert waits(d, msg_id, "destination") == "the confirmation"
    answer = told(d, msg_id, "destination")["answer"]
    assert answer["copies"] >= 1 and answer["attempts"][0]["path"][0] == "d"
    network.passes = lambda *_: True
    network.run(12.0)
    assert told(a, msg_id, "origin")["waits"] is None
    assert told(d, msg_id, "destination")["waits"] is None
    a.node.durable.outbox.past._kept.clear()  # as after a restart
    assert told(a, msg_id, "origin")["receipt"]["hops"]
    assert told(a, msg_id, "origin")["attempts"] == []


def test_a_stack_that_has_no_room_is_named_with_its_word() -> None:
    network = diamond(inbox_per_ci=1)
    a = network["a"]
    kept_id(a)
    network.run(0.3)
    msg_id = kept_id(a)
    network.run(0.3)
    assert waits(a, msg_id) == "room"
    assert "busy" in told(a, msg_id, "origin")["waits"]["why"]


def test_a_message_to_a_ci_here_is_at_both_ends_at_once() -> None:
    network = diamond()
    d = network["d"]
    network["d"].node.env.now = network.now
    d.send("echo", durable=True)
    [msg_id] = d.node.durable.outbox._open
    network.run(0.1)
    outgoing = d.node.durable.outbox.find(msg_id)
    assert outgoing is not None
    assert waits(d, msg_id) == "the reply"
    outgoing.received = False
    assert waits(d, msg_id) == "its CI"


# --- at the destination --------------------------------------------------------------------------


def test_a_message_for_a_ci_that_is_away_says_so() -> None:
    network = diamond()
    a, d = network["a"], network["d"]
    d.register("brief")
    network.run(1.0)
    network.handle(d, ev.Detached(1))
    network.run(8.0)
    assert d.node.cis.get("brief") is None
    d.disk_stuck = True
    msg_id = kept_id(a, target="brief@d")
    network.run(0.1)
    assert waits(d, msg_id, "destination") == "the disk"
    network.write("d")
    network.run(0.1)
    assert waits(d, msg_id, "destination") == "its CI"
    found = told(d, msg_id, "destination")
    assert (found["to"], found["from"], found["stage"]) == ("brief", "a", "waiting")


def test_a_message_behind_others_of_its_ci_waits_for_its_turn() -> None:
    network = diamond()
    a, d = network["a"], network["d"]
    ids = [kept_id(a) for _ in range(17)]
    network.run(0.5)
    assert waits(d, ids[-1], "destination") == "its turn"
    assert "16 other" in told(d, ids[-1], "destination")["waits"]["why"]


# --- at a relay ----------------------------------------------------------------------------------


def test_a_relay_tells_of_what_it_has() -> None:
    network = diamond()
    a = network["a"]
    network.passes = lambda _h, there, _m: there != "d"
    msg_id = pending_id(a, a.send("echo@d", timeout_s=20.0))
    network.run(0.05)
    relay = next(
        network[name] for name in "bc" if explain_message(network[name].node, msg_id) is not None
    )
    relay.node.env.now = network.now
    found = explain_message(relay.node, msg_id)
    assert found is not None
    [shown] = found["relay"]
    assert (shown["from"], shown["to"], shown["via"]) == ("a", "d", "d")
    assert shown["waits"]["for"] == "the acknowledgement" and shown["here_ms"] > 0
    assert [hop["stack"] for hop in shown["hops"]] == ["a"]
    lane = next(lane for lane in relay.node.forwarding.lanes() if lane.kept)
    lane.on_ack(next(iter(lane.kept)))
    found = explain_message(relay.node, msg_id)
    assert found is not None and found["relay"][0]["waits"]["for"] == "the settlement"


def test_settled_messages_leave_nothing_at_a_relay() -> None:
    network = diamond()
    network["d"].echo()
    kinds: list[type] = []
    network.on_message = lambda _h, _t, m: kinds.append(type(m))
    ticket = network["a"].send("echo@d")
    network.run(1.0)
    msg_id = bytes.fromhex(network["a"].result(ticket)["id"])
    assert Settled in kinds and HopAck in kinds
    assert explain_message(network["b"].node, msg_id) is None
    assert explain_message(network["c"].node, msg_id) is None
