"""Who makes a call, as its stack vouches for it, and how many calls led to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tektonmesh.core import effects as fx
from tektonmesh.core import events as ev
from tektonmesh.core.assertions import CHAIN_MAX
from tektonmesh.core.ci import CALL_TYPE
from tektonmesh.core.copies import Copies
from tektonmesh.core.policy import Act
from tests.network import Member, Network

SERVER = {"how": {"kind": "none"}, "persist": True, "mcp": {"http": {"url": "http://[::1]/"}}}
BODY = json.dumps({"method": "tools/call", "params": {}}).encode()


def chain(*names: str) -> Network:
    """Stacks in a row, each with the CI `tool`, that has an MCP server."""
    network = Network(*names)
    network.join(*names)
    for name in names:
        network[name].register("tool", **SERVER)
    network.settle()
    return network


def call(member: Member, target: str, sender: str = "", **options: Any) -> int:
    ticket = member.do(
        lambda t: ev.SendMessage(t, target, BODY, CALL_TYPE, sender, 60.0, True, options)
    )
    member.network.settle()
    return ticket


def audited(member: Member, side: str) -> list[dict[str, Any]]:
    return [one.data for one in member.of(fx.Audit) if one.data.get("side") == side]


def test_a_call_names_its_ci_and_is_in_both_logs_under_one_id() -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    a.register("numa")
    call(a, "tool@b", "numa", id=b"i" * 16, act="tool.call:echo")
    (here,) = audited(a, "caller")
    (there,) = audited(b, "owner")
    assert here["ref"] == there["ref"] == (b"i" * 16).hex()
    assert (here["verb"], there["verb"]) == ("tool.call:echo", "discover")
    assert here["caller"] == there["caller"] == "numa"
    assert [(it.sender, it.depth) for it in b.deliveries()] == [("numa@a", 0)]


def test_a_call_that_is_made_for_another_is_one_deeper_at_every_stack() -> None:
    network = chain("a", "b", "c")
    a, b, c = (network[name] for name in "abc")
    call(a, "tool@b")
    within = b.deliveries()[0].msg_id
    call(b, "tool@c", within=within)
    assert [(it.sender, it.depth) for it in c.deliveries()] == [("tool@b", 1)]
    assert audited(c, "owner")[-1]["depth"] == audited(b, "caller")[-1]["depth"] == 1
    b.reply(b.deliveries()[0], b"done")
    network.settle()
    call(b, "tool@c", within=within)
    assert [(it.sender, it.depth) for it in c.deliveries()][1:] == [("b", 0)]


def test_a_ci_that_does_not_say_for_what_it_calls_is_in_the_longest_chain_it_serves() -> None:
    network = chain("a", "b", "c")
    a, b, c = (network[name] for name in "abc")
    b.register("numa")
    call(a, "tool@b")
    call(b, "tool@b", within=b.deliveries()[0].msg_id)
    call(b, "tool@c", "tool")
    call(b, "tool@c", "numa")
    call(b, "tool@c", "numa", within=b.deliveries()[0].msg_id)
    assert [(it.sender, it.depth) for it in b.deliveries()] == [("a", 0), ("tool@b", 1)]
    assert [(it.sender, it.depth) for it in c.deliveries()] == [
        ("tool@b", 2),
        ("numa@b", 0),
        ("numa@b", 0),
    ]


def test_an_id_that_is_used_twice_stands_for_the_first_call() -> None:
    network = chain("a", "b", "c")
    a, b, c = (network[name] for name in "abc")
    b.register("other", **SERVER)
    call(a, "tool@b", id=b"i" * 16)
    call(c, "other@b", id=b"i" * 16)
    call(b, "tool@c", within=b"i" * 16)
    assert c.deliveries()[-1].sender == "tool@b"
    second, first = b.deliveries()[1], b.deliveries()[0]
    b.reply(second, b"done")
    call(b, "tool@c", within=b"i" * 16)
    assert c.deliveries()[-1].sender == "tool@b"
    b.reply(first, b"done")
    call(b, "tool@c", within=b"i" * 16)
    assert c.deliveries()[-1].sender == "b"


def test_a_caveat_about_the_chain_holds_at_the_owner() -> None:
    network = chain("b", "c")
    b, c = network["b"], network["c"]
    terms = {"stack_id": b.id, "mode": "partial", "shared_cis": []}
    c.do(lambda ticket: ev.Govern(ticket, "terms", terms))
    grant = {"stack_id": b.id, "verb": "tool.call:*", "depth_max": 0}
    c.do(lambda ticket: ev.Govern(ticket, "grant", grant))
    assert c.node.rights.check(b.id, Act("tool.call:x", "tool")).allowed
    assert c.node.rights.check(b.id, Act("tool.call:x", "tool", depth=1)).code == "refused"


def test_chains_are_not_endless() -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    call(a, "tool@b")
    depths = []
    for number in range(CHAIN_MAX + 1):
        here, there = (b, "tool@a") if number % 2 == 0 else (a, "tool@b")
        ticket = call(here, there, within=here.deliveries()[-1].msg_id)
        depths.append((a if here is b else b).deliveries()[-1].depth)
    assert depths[:CHAIN_MAX] == [1, 2, 3, 4]
    assert here.error(ticket)["code"] == "refused"


def test_a_liar_about_the_length_of_a_chain_is_refused_by_the_owner(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    monkeypatch.setattr("tektonmesh.core.assertions.CHAIN_MAX", 999)
    a.node.deliveries.handouts.led_to = lambda _within, sender: (sender, 9)  # type: ignore
    ticket = call(a, "tool@b")
    assert b.deliveries()[0].depth == 9
    monkeypatch.setattr("tektonmesh.core.assertions.CHAIN_MAX", CHAIN_MAX)
    monkeypatch.setattr(a.node.deliveries.assertions, "sign", signed_anyway(a))
    ticket = call(a, "tool@b")
    assert a.error(ticket)["code"] == "refused"
    assert len(b.deliveries()) == 1


def signed_anyway(member: Member) -> Any:
    """What a changed daemon could do: sign a chain that is too long."""
    made = member.node.deliveries.assertions

    def sign(question: Any, body: bytes, depth: int) -> bytes:
        places = (member.id, question.stack, question.msg_id)
        text = made._text(places, question.ci, question.sender, body, depth)
        return member.keys.sign(b"tektonmesh-call-v1\0", text)

    return sign


@pytest.mark.parametrize(
    "change",
    [
        {"sg": b""},
        {"sg": bytes(64)},
        {"from": "other"},
        {"dp": 1},
        {"to": "tool2"},
        {"body": BODY + b" "},
    ],
)
def test_a_call_that_its_stack_did_not_sign_so_is_refused(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    whole = Copies._body
    monkeypatch.setattr(Copies, "_body", lambda self, pending: whole(self, pending) | change)
    ticket = call(a, "tool@b")
    assert a.error(ticket)["code"] == "refused"
    assert "signed" in a.error(ticket)["detail"]
    assert not b.deliveries()


def test_messages_that_are_no_calls_are_not_signed() -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    b.register("numa")
    network.settle()
    b.echo()
    ticket = a.send("numa@b")
    network.settle()
    assert a.result(ticket)["body"] == b"hello"


def test_a_call_is_not_durable_at_either_end(monkeypatch: pytest.MonkeyPatch) -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    ticket = call(a, "tool@b", durable=True)
    assert a.error(ticket)["code"] == "bad_request"
    monkeypatch.setattr("tektonmesh.core.requests.check_lasting", lambda _content_type: None)
    ticket = call(a, "tool@b", key="k")
    network.run(1.0)
    assert a.error(ticket)["code"] == "bad_request"
    assert not b.deliveries()


def test_a_durable_message_is_in_both_logs_under_its_id() -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    b.register("numa")
    network.settle()
    b.echo()
    ticket = a.send("numa@b", durable=True, sender="tool")
    network.run(1.0)
    (here,), (there,) = audited(a, "caller"), audited(b, "owner")
    assert here["ref"] == there["ref"] == a.result(ticket)["id"]
    assert here["caller"] == there["caller"] == "tool"


def test_a_durable_message_that_may_not_be_sent_is_not_accepted() -> None:
    network = chain("a", "b")
    a, b = network["a"], network["b"]
    b.register("numa")
    network.settle()
    params = {"stack_id": b.id, "imports": ["other"]}
    a.do(lambda ticket: ev.Govern(ticket, "terms", params))
    ticket = a.send("numa@b", durable=True)
    assert a.error(ticket)["code"] == "refused"
    assert len(a.node.durable.outbox) == 0
    assert audited(a, "caller")[-1]["ref"]
